"""Recipes by name, file or place on the Hub: `uvmerge recipe list`, `uvmerge recipe show`, and `run`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..hub.recipes import of_strangers, recipe_file
from ..output.places import Reference
from ..recipe.bundled import bundled, bundled_file
from ..recipe.file import as_text
from ..recipe.recipe import Recipe
from ..text import inert, table, two_lines
from .again import recipe_of_manifest

# Files in a repository of the Hub that hold a recipe; the second is the manifest of an output.
_USUAL_FILES = ("recipe.yaml", "uvmerge.json")
_FILE_ENDINGS = (".yaml", ".yml", ".json")


class Recipes(dict[str, str]):
    """What `recipe_list` returns: for each name what the recipe does."""

    def __str__(self) -> str:
        return table(("recipe", "what it does"), list(self.items()))


class RecipeContent(dict[str, Any]):
    """What `recipe_show` returns: the recipe as plain data, which shows itself as YAML."""

    def __repr__(self) -> str:
        about = f"keys {', '.join(self)}; print() gives the YAML"
        return two_lines("RecipeContent", str(self.get("name", "a recipe")), about)

    def __str__(self) -> str:
        return "\n".join(map(inert, as_text(self).splitlines()))


def recipe_list() -> Recipes:
    """The recipes that come with uvmerge, by name, with what each does."""
    return Recipes({name: Recipe.load(path).name or "" for name, path in bundled().items()})


def recipe_show(recipe: Reference) -> RecipeContent:
    """A recipe as plain data, checked as `run` checks it; it is not run.

    Args:
        recipe: a YAML file, the name of a bundled recipe, or `org/name/file@revision` on the Hub.

    Raises:
        UvmergeError: the recipe cannot be had or read.
    """
    return RecipeContent(loaded(recipe, {}).as_data())


def loaded(reference: Reference, given: Mapping[str, Any]) -> Recipe:
    """The recipe in a file: what is on this disk first, then a bundled recipe, then the Hub's.

    Args:
        given: references by parameter that replace those of the recipe.
    """
    file = _local_file(reference)
    if file is not None:
        return recipe_of_manifest(file, given) or Recipe.load(file)
    file = recipe_file(str(reference), _USUAL_FILES)
    if file is None:
        return Recipe.load(Path(reference))
    recipe = recipe_of_manifest(file, given) or Recipe.load(file)
    return of_strangers(recipe, str(reference), given)


def _local_file(reference: Reference) -> Path | None:
    """The file of a recipe that need not be asked for at the Hub."""
    path = Path(reference)
    try:
        path = path.expanduser()
        if path.exists() or isinstance(reference, Path):
            return path
    except (OSError, RuntimeError, ValueError):  # no path that a file system can hold
        return path
    if "/" not in reference:
        return bundled_file(reference)
    is_of_hub = reference.count("/") > 1 or not reference.endswith(_FILE_ENDINGS)
    return None if is_of_hub else path
