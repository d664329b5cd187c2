"""The recipes that come with uvmerge, each under the name of its file."""

from __future__ import annotations

from pathlib import Path

from ..errors import RecipeError
from ..operations.options import did_you_mean
from ..text import brief
from .advice import advice


def bundled() -> dict[str, Path]:
    """The files of the bundled recipes by name: those that the study advises first, the others sorted."""
    folder = Path(__file__).resolve().parent / "recipes"
    found = {path.stem: path for path in sorted(folder.glob("*.yaml"))}
    first = {name: found[name] for name in advice().recipes if name in found}
    return first | found


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
