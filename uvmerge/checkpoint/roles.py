"""The roles that checkpoints play in a run: how they are called, and whose layout the output has.

A role is the name of an operation's parameter: `base`, `finetuned`, or with a number where the
parameter takes several: `models[0]`, `models[1]`. Users name checkpoints by the parameter alone
(`models: [a, b]` in a recipe); all other code names them by role.
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
    """Values named by parameter, by role: `{"models": [a, b]}` has `models[0]` and `models[1]`."""
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


def number_of(role: str) -> int:
    """The number of a role among those of its parameter: 1 of `models[1]`, and 0 of `base`."""
    return int(role.partition("[")[2].removesuffix("]") or 0)


def spelled(role: str) -> str:
    """A role as messages spell it: `fine-tuned` for `finetuned`, every other role as it is."""
    return "fine-tuned" if role == FINETUNED else role
