"""Operations tried out on outlines, which know a shape and nothing else: what would be computed?"""

from __future__ import annotations

from typing import NoReturn

from ..checkpoint.anatomy import Place
from ..errors import UsageError, UvmergeError
from ..recipe.recipe import RecipeStep
from ..spectral import Edited, Factors, Log, Matrix, Term, leading_count


class NeedsValues(Exception):
    """An operation asked an outline for numbers: it will have to be computed."""


class Outline:
    """An operand that knows its shape alone, and notes ranks in its log (see `spectral.Matrix`)."""

    def __init__(self, name: str, shape: tuple[int, ...], log: Log) -> None:
        self.name, self.shape, self.log = name, shape, log

    def rank(
        self, top: float | None = None, rank: int | None = None, energy: float | None = None
    ) -> int:
        if energy is not None:
            raise NeedsValues
        k = leading_count(min(self.shape), top=top, rank=rank)
        self.log.rank(k)
        return k

    @property
    def tensor(self) -> NoReturn:
        raise NeedsValues

    def top(self, k: int) -> Factors:
        raise NeedsValues

    tail = top

    def values(self) -> NoReturn:
        raise NeedsValues

    def plus(self, *terms: Term) -> NoReturn:
        raise NeedsValues

    def __sub__(self, other: Matrix) -> Outline:
        return Outline(f"{self.name} - {other.name}", self.shape, self.log)


def try_out(step: RecipeStep, base: Outline, current: Outline, place: Place) -> Edited:
    """What the operation returns for outlines: one of them, or None where it must compute."""
    extra = {"place": place} if step.operation.wants_place else {}
    try:
        return step.operation.function(base, current, **step.options, **extra)
    except NeedsValues:
        return None  # type: ignore[return-value]
    except UvmergeError:
        raise
    except Exception as error:
        raise UsageError(
            step.operation.command, f"failed on {current.name}: {type(error).__name__}: {error}",
            "UVMERGE_DEBUG=1 shows where.",
        ) from error  # fmt: skip
