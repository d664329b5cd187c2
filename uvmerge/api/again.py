"""The manifest of an output as a recipe: `uvmerge run OUT/uvmerge.json OUT2` makes it again."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..checkpoint.bounded import MANIFEST_BYTES, read_json
from ..checkpoint.roles import name_of
from ..errors import InputRefused
from ..output import manifest
from ..recipe.recipe import Recipe


def recipe_of_manifest(path: Path, given: Mapping[str, Any]) -> Recipe | None:
    """The recipe in a manifest; None where the file is none.

    Args:
        given: the references by parameter that the caller names.

    Raises:
        InputRefused: the manifest was changed, or an input was a folder and is not named again: a
            manifest holds no path.
    """
    if path.suffix != ".json" or not path.is_file():
        return None
    content = read_json(path, MANIFEST_BYTES)
    if not {"recipe", "inputs"} <= content.keys():
        return None
    manifest.refuse_changed(path, content)
    inputs = content["inputs"] if isinstance(content["inputs"], dict) else {}
    folders: dict[str, str] = {}
    for role, identity in inputs.items():
        name, at_hub = name_of(role), isinstance(identity, dict) and identity.get("commit")
        if not at_hub and not given.get(name):
            label = identity.get("reference") if isinstance(identity, dict) else role
            folders.setdefault(name, f"{name} was the folder '{label}'")
    if folders:
        whose = "path" if len(folders) == 1 else "paths"
        raise InputRefused(
            path,
            f"{' and '.join(folders.values())}, whose {whose} a manifest does not hold",
            f"Name {'it' if len(folders) == 1 else 'them'}:"
            f" {' '.join(f'--{name} PATH' for name in folders)}.",
        )
    return Recipe.from_data(content["recipe"])
