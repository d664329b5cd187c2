"""What is pushed beside the files of an output: the manifest with its lock, and the recipe.

The lock holds the sha256 of every file of the output and of every input file that decides it, and whether
someone else can make the output again. It is a part of the manifest, whose other keys stay.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..checkpoint.roles import by_name, name_of
from ..recipe.file import as_text
from ..recipe.mixture import Mixture
from ..recipe.recipe import Recipe
from .manifest import bytes_identity, sealed, to_bytes

LOCK, RECIPE = "lock", "uvmerge.yaml"


@dataclass(frozen=True)
class Origin:
    """Where an input is on the Hub.

    Attributes:
        sha256: by file of the input that decides the output.
    """

    repo: str
    commit: str
    sha256: Mapping[str, str]


def reasons(content: Mapping[str, Any], origins: Mapping[str, Origin]) -> list[str]:
    """Why nobody else can make an output again; empty where it can be made."""
    missing = [role for role in content["inputs"] if role not in origins]
    return [f"not reproducible: {role.upper()} has no Hub id" for role in missing]


def with_origins(content: Mapping[str, Any], origins: Mapping[str, Origin]) -> dict[str, Any]:
    """A manifest whose inputs are named by their Hub ids and commits, where these are known."""
    found = copy.deepcopy(dict(content))
    before = {role: _reference(each) for role, each in found["inputs"].items()}
    for role, origin in origins.items():
        found["inputs"][role] |= {"reference": origin.repo, "commit": origin.commit}
        found["samples"].pop(role, None)
    references = {role: _reference(each) for role, each in found["inputs"].items()}
    if mixture := mixture_of(found):
        names = {before[role]: reference for role, reference in references.items()}
        renamed = mixture.with_models(lambda model: names.get(model, model))
        found["recipe"]["mixture"] = renamed.as_data()
        return found
    found["recipe"] = Recipe.from_data(found["recipe"]).with_references(by_name(references))
    return found


def mixture_of(content: Mapping[str, Any]) -> Mixture | None:
    """The mixture of experts that an output is, from its manifest; None where it is none."""
    found = content["recipe"].get("mixture")
    return Mixture.parse(as_text(found)) if isinstance(found, dict) else None


def told(content: Mapping[str, Any]) -> str:
    """What was done, in a few words."""
    mixture = mixture_of(content)
    return "a mixture of experts" if mixture else str(Recipe.from_data(content["recipe"]))


def is_merge(content: Mapping[str, Any]) -> bool:
    """Whether the output was made by an operation that takes several models."""
    if mixture_of(content):
        return True
    steps = Recipe.from_data(content["recipe"]).steps
    return any(step.operation.takes_several for step in steps)


def _reference(identity: Mapping[str, Any]) -> str:
    commit = identity["commit"]
    return f"{identity['reference']}@{commit}" if commit else str(identity["reference"])


def recipe_text(content: Mapping[str, Any], missing: list[str]) -> bytes:
    """The recipe of a manifest as a file; inputs without a Hub id are left out, with the reason.

    Of a mixture of experts it is the file for `uvmerge moe`.

    Args:
        content: a manifest as `with_origins` returns it.
        missing: what `reasons` returned.
    """
    notes = "".join(f"# {line}\n" for line in missing)
    if mixture := mixture_of(content):
        return f"{notes}{as_text(mixture.as_data())}".encode()
    local = {name_of(role) for role, each in content["inputs"].items() if not each["commit"]}
    names_models = Recipe.from_data(content["recipe"]).merge is not None  # everywhere in it
    recipe = {
        key: value for key, value in content["recipe"].items() if names_models or key not in local
    }
    return f"{notes}{as_text(recipe)}".encode()


def manifest_bytes(
    content: Mapping[str, Any],
    origins: Mapping[str, Origin],
    sha256: Mapping[str, str],
    made: Mapping[str, bytes],
) -> bytes:
    """`uvmerge.json` as it is pushed.

    Args:
        content: a manifest as `with_origins` returns it.
        sha256: of every other file that is pushed.
        made: the files of these that the push itself made.
    """
    files = dict(content["files"]) | {name: bytes_identity(each) for name, each in made.items()}
    inputs = {
        role: {"repo": each.repo, "commit": each.commit, "files": dict(sorted(each.sha256.items()))}
        for role, each in origins.items()
    }
    lock = {
        "files": dict(sorted(sha256.items())),
        "inputs": inputs,
        "not_reproducible": reasons(content, origins),
    }
    return to_bytes(sealed({**content, "files": dict(sorted(files.items())), LOCK: lock}))
