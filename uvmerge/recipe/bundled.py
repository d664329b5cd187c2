"""The recipes that come with uvmerge, each under the name of its file."""

from __future__ import annotations

from pathlib import Path

from ..errors import RecipeError
from ..operations.options import did_you_mean
from ..text import brief


def bundled() -> dict[str, Path]:
    """The files of the bundled recipes by name, sorted."""
    folder = Path(__file__).resolve().parent / "recipes"
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def bundled_file(name: str) -> Path:
    """The file of the bundled recipe called `name`; `.yaml` may stand after the name."""
    known = bundled()
    word = name.removesuffix(".yaml")
    if word not in known:
        raise RecipeError(
            brief(name),
            "there is no such recipe file, and no bundled recipe of this name",
            f"{did_you_mean(word, known)} `uvmerge run --list` shows the bundled recipes.",
        )
    return known[word]
