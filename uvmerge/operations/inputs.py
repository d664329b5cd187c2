"""Positional parameters of operations, and how many checkpoints each of them takes."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

from ..checkpoint.roles import name_of
from ..spectral import Matrix, Operand, Whole

Function = TypeVar("Function", bound=Callable[..., Any])


def for_models(fewest: int, most: int | None = None) -> Callable[[Function], Function]:
    """Declare how many checkpoints `*models` stands for; None: any number from `fewest` on."""

    def declare(operation: Function) -> Function:
        operation.model_counts = fewest, most  # type: ignore[attr-defined]
        return operation

    return declare


def starts_from_base(*, unless: str) -> Callable[[Function], Function]:
    """Declare that the result is the base and a small edit, unless the option `unless` is given."""

    def declare(operation: Function) -> Function:
        operation.starts_from_base = lambda options: not options.get(unless)  # type: ignore[attr-defined]
        return operation

    return declare


@dataclass(frozen=True)
class Input:
    """A positional parameter of an operation, which takes one checkpoint or several.

    Attributes:
        name: name of the parameter.
        kind: `Matrix`, `Operand` or `Whole`: what the parameter receives of each checkpoint.
        several: whether the parameter takes several checkpoints, like `*models`.
        fewest, most: how many checkpoints it takes; None for any number from `fewest` on.
    """

    name: str
    kind: type
    several: bool
    fewest: int = 1
    most: int | None = 1

    @property
    def metavar(self) -> str:
        """The parameter in a usage line: `BASE`, `MODEL...`, `MODEL MODEL [MODEL]`."""
        name = self.name.upper()
        if not self.several:
            return name
        one = name.removesuffix("S")
        if self.most is None:
            return " ".join([*[one] * (self.fewest - 1), f"{one}..."])
        return " ".join([*[one] * self.fewest, *[f"[{one}]"] * (self.most - self.fewest)])

    def fits(self, roles: Collection[str]) -> bool:
        """Whether as many roles are the parameter's as it takes."""
        count = sum(name_of(role) == self.name for role in roles)
        return self.fewest <= count and (self.most is None or count <= self.most)


def read_inputs(function: Callable[..., Any], signature: inspect.Signature) -> Iterator[Input]:
    """The positional parameters that a signature declares.

    Raises:
        TypeError: one of them lacks its kind, or is neither an operand nor an option.
    """
    for name, parameter in signature.parameters.items():
        if parameter.kind is parameter.KEYWORD_ONLY:
            continue
        several = parameter.kind is parameter.VAR_POSITIONAL
        if parameter.kind is parameter.VAR_KEYWORD or parameter.default is not parameter.empty:
            raise TypeError(f"{name} is neither an operand nor an option: put * before the options")
        if parameter.annotation not in (Matrix, Operand, Whole):
            raise TypeError(
                f"operand {name} lacks its kind: annotate it with Matrix, Operand or Whole"
            )
        counts = getattr(function, "model_counts", (1, None)) if several else (1, 1)
        yield Input(name, parameter.annotation, several, *counts)
