"""What operations asked of their matrices, for each step of a chain: ranks and decompositions."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from .operand import Factors, Spectrum


class Decomposition(NamedTuple):
    """One decomposition that an operation asked for.

    Attributes:
        step: the step of the recipe that asked, counted from 0.
        operand: the matrix: `base`, `finetuned`, their difference `delta`, or `result of step 0`.
        k: where the singular values were cut, after the k-th; None where all of them were wanted.
        gap: (σ_k − σ_{k+1})/σ_k at this cut; None where nothing is cut off.
        method: the rung of the ladder in `precision.py` that gave the result.
        missed: an estimate of the error of U S Vh in ‖·‖_F, where the rung leaves one.
    """

    step: int
    operand: str
    k: int | None
    gap: float | None
    method: str
    missed: float


@dataclass
class Log:
    """Collects what operations ask of all matrices that hold this log.

    Attributes:
        wholly: set by the caller of the operations: whether matrices correct all their leading
            vectors, where the rung `corrected` gives these, or only those next to the cut.
        step: the step of the recipe that runs, set by the caller of the operations.
        ranks: per step, the first answer of `Matrix.rank` that is not 0, or else 0. An operation that
            asks for a head and a tail asks for the head first, so that the head's rank is noted.
        decompositions: in the order in which they were asked for.
    """

    wholly: bool = True
    step: int = 0
    ranks: dict[int, int] = field(default_factory=dict)
    decompositions: list[Decomposition] = field(default_factory=list)

    def begin(self) -> None:
        """Forget everything, before another chain begins."""
        self.step = 0
        self.ranks.clear()
        self.decompositions.clear()

    def rank(self, k: int) -> None:
        """Note an answer of `Matrix.rank`."""
        self.ranks[self.step] = self.ranks.get(self.step) or k

    def decomposition(self, operand: str, k: int | None, found: Factors | Spectrum) -> None:
        """Note a decomposition that the present step asked for, cut after the k-th value."""
        self.decompositions.append(
            Decomposition(self.step, operand, k, found.gap, found.method, found.missed)
        )

    @property
    def result(self) -> str:
        """What later steps call the result of the present step, which is one of their operands."""
        return f"result of step {self.step}"


def difference(left: str, right: str) -> str:
    """The name of the difference of two operands."""
    return "delta" if (left, right) == ("finetuned", "base") else f"{left} minus {right}"
