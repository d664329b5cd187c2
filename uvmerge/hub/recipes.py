"""Recipes that lie on the Hub: a small file at a commit, which names models of the Hub and operations.

A reference to a recipe is `org/name/file@revision`, or `org/name` for its `recipe.yaml`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..checkpoint.bounded import MANIFEST_BYTES
from ..errors import InputRefused, RecipeError, UvmergeError
from ..recipe.file import LIMIT_BYTES
from ..recipe.recipe import Recipe
from ..text import brief, size
from . import listing as listings
from .failures import refusal
from .references import Model, model_named
from .remote import fetch_beside

_HUB_FILE = re.compile(r"(?:hf://)?(\w[\w.-]*/\w[\w.-]*)((?:/\w[\w.-]*)*)(?:@([\w./-]+))?")


def recipe_file(reference: str, usual: Sequence[str]) -> Path | None:
    """Download a recipe from a repository of models; None where no file of the Hub can be meant.

    Args:
        reference: `org/name/file@revision`, or `org/name` for the first of `usual` that is there.

    Raises:
        InputRefused: the Hub cannot be reached, has no such file, or the file is too large for a
            recipe.
    """
    match = _HUB_FILE.fullmatch(reference)
    if not match or ".." in reference:
        return None
    repo, file, revision = match.groups()
    names = [file[1:]] if file else list(usual)
    try:
        listing = listings.current(Model(repo, revision))
        name = next((each for each in names if each in listing.files), None)
        if name is None:
            what = f"{repo} on the Hub has no {' or '.join(names)}"
            raise InputRefused(reference, what, f"Write `{repo}/FILE`.")
        most = MANIFEST_BYTES if name.endswith(".json") else LIMIT_BYTES
        if listing.files[name].size > most:
            what = f"is larger than a recipe, which has at most {size(most)}"
            raise InputRefused(reference, what, "Name a recipe, which is a small YAML file.")
        return fetch_beside(listing, name)
    except UvmergeError:
        raise
    except Exception as error:  # what is raised depends on huggingface_hub's HTTP client
        raise refusal(error, reference, repo, revision, "file") from None


def of_strangers(recipe: Recipe, source: str, given: Mapping[str, Any]) -> Recipe:
    """A recipe from the Hub, whose models are those of the Hub whatever folders are here.

    Args:
        source: the recipe's name in messages.
        given: references by parameter that replace those of the recipe.

    Raises:
        RecipeError: the recipe names a path or an address.
    """
    found: dict[str, str | tuple[str, ...]] = {}
    for name, value in recipe.references.items():
        texts = (value,) if isinstance(value, str) else value
        if not given.get(name):
            texts = tuple(of_hub(name, text, source) for text in texts)
        found[name] = texts[0] if isinstance(value, str) else texts
    return replace(recipe, references=found)


def of_hub(name: str, text: str, source: str) -> str:
    """The reference to a model in a recipe of strangers, which must be a model of the Hub.

    Args:
        name: the key of the recipe that has it.
        source: the recipe's name in messages.

    Raises:
        RecipeError: it names a path or an address.
    """
    parts = text.split("+")  # a model, and perhaps an adapter of it
    if len(parts) > 2 or not all(map(model_named, parts)):
        what = f"{name} is '{brief(text)}': a recipe from the Hub names models of the Hub alone"
        raise RecipeError(source, what, f"Name it yourself: --{name}.")
    return "+".join(f"hf://{part.removeprefix('hf://')}" for part in parts)
