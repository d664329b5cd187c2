"""What operations asked of their matrices: ranks and decompositions, step by step of a chain."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple


class Decomposition(NamedTuple):
    """One decomposition that an operation asked for.

    Attributes:
        step: the step of the recipe that asked, counted from 0.
        operand: the matrix: `base`, `finetuned`, their difference `delta`, or `result of step 0`.
        k: where the singular values were cut, after the k-th; None where all of them were wanted.
        gap: (σ_k − σ_{k+1})/σ_k at this cut; None where nothing is cut off.
        method: the rung of the ladder in `precision.py` that gave the result.
    """

    step: int
    operand: str
    k: int | None
    gap: float | None
    method: str


@dataclass
class Log:
    """Collects what is asked of all matrices that hold it.

    Attributes:
        step: the step of the recipe that runs; whoever calls the operations sets it.
        ranks: per step the k that `rank` gave first, or the first that is not 0: of a head and a
            tail, the head's.
        decompositions: in the order in which they were asked for.
    """

    step: int = 0
    ranks: dict[int, int] = field(default_factory=dict)
    decompositions: list[Decomposition] = field(default_factory=list)

    def begin(self) -> None:
        """Forget everything: another chain begins."""
        self.step = 0
        self.ranks.clear()
        self.decompositions.clear()

    def rank(self, k: int) -> None:
        """Note an answer of `rank`."""
        self.ranks[self.step] = self.ranks.get(self.step) or k

    def decomposition(self, operand: str, k: int | None, gap: float | None, method: str) -> None:
        """Note a decomposition that the present step asked for."""
        self.decompositions.append(Decomposition(self.step, operand, k, gap, method))

    @property
    def result(self) -> str:
        """The name, as an operand of later steps, of what the present step makes."""
        return f"result of step {self.step}"


def difference(left: str, right: str) -> str:
    """The name of the difference of two operands."""
    return "delta" if (left, right) == ("finetuned", "base") else f"{left} minus {right}"
