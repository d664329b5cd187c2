"""The roles that checkpoints play in a run: how they are called, and whose layout the output has.

A role is the name of an operation's parameter: `base`, `finetuned`, or with a number where the
parameter takes several: `models[0]`, `models[1]`. People name them with the parameter alone
(`models: [a, b]` in a recipe); everything behind works by role.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TypeVar

BASE, FINETUNED = "base", "finetuned"

T = TypeVar("T")


def mirrored(roles: Iterable[str]) -> str:
    """The role of the checkpoint that the output mirrors: its names, files, dtypes and side files.

    That is the fine-tuned checkpoint; of a merge, which has none, the base, else the first model.
    """
    roles = list(roles)
    return next(role for role in (FINETUNED, BASE, *roles) if role in roles)


def by_role(named: Mapping[str, T | Sequence[T]]) -> dict[str, T]:
    """What is listed under the names of parameters, by role: `{"models": [a, b]}` has two."""
    found: dict[str, T] = {}
    for name, value in named.items():
        if isinstance(value, (list, tuple)):
            found.update({f"{name}[{i}]": each for i, each in enumerate(value)})
        else:
            found[name] = value  # type: ignore[assignment]
    return found


def by_name(roles: Mapping[str, T]) -> dict[str, T | list[T]]:
    """The inverse of `by_role`."""
    found: dict[str, T | list[T]] = {}
    for role, value in roles.items():
        name = name_of(role)
        if name == role:
            found[name] = value
        else:
            several = found.setdefault(name, [])
            assert isinstance(several, list)
            several.append(value)
    return found


def name_of(role: str) -> str:
    """The parameter that a role belongs to: `models` of `models[1]`."""
    return role.partition("[")[0]


def spelled(role: str) -> str:
    """A role as a message names it: `fine-tuned` with its hyphen, every other as it is."""
    return "fine-tuned" if role == FINETUNED else role
