"""Files of recipes and spaces: what they hold as text, and how they are read, never more than a limit."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from ..errors import RecipeError
from ..text import expanded

LIMIT_BYTES = 256 * 1024


class _Dumper(yaml.SafeDumper):
    """Writes a list that stands in several places in full each time, without an alias."""

    def ignore_aliases(self, data: Any) -> bool:
        """Whether no alias may stand for `data`."""
        return True


def as_text(data: Mapping[str, Any]) -> str:
    """The content of a recipe file as its text."""
    try:
        return yaml.dump(dict(data), Dumper=_Dumper, sort_keys=False)
    except (yaml.YAMLError, RecursionError, ValueError):
        raise RecipeError(
            "recipe", "holds a value that a file cannot", "Write texts, numbers and lists."
        ) from None


def read_recipe(path: str | Path, usage: str) -> tuple[bytes, str]:
    """The content of the recipe file at `path`, and its name for messages.

    Args:
        usage: the command that takes such a file.
    """
    path = expanded(path)
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "there is no such recipe file"
        raise RecipeError(path, what, f"Name a YAML file: `{usage}`.")
    with path.open("rb") as file:
        raw = file.read(LIMIT_BYTES + 1)
    if len(raw) > LIMIT_BYTES:
        what = f"is larger than {LIMIT_BYTES // 1024} KiB"
        raise RecipeError(path.name, what, "Name a recipe, which is a small YAML file.")
    return raw, path.name
