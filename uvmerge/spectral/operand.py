"""What an operation may ask of its positional parameters.

Two classes implement these protocols: `spectral.dense.DenseMatrix` holds numbers, and
`plan.Outline` holds only a shape, which lets the plan find out what an operation would do.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, TypeAlias

if TYPE_CHECKING:
    from torch import Tensor

    Edited: TypeAlias = Tensor | "Operand"
    Factors: TypeAlias = tuple[Tensor, Tensor, Tensor]
    Term: TypeAlias = tuple[Tensor, Tensor]
else:  # the names exist without torch, so that signatures can be read
    Edited = Factors = Term = object


class Operand(Protocol):
    """Values of a tensor of any shape, in pieces of any size: an operation on operands works
    element by element. It returns a new tensor, or one of its operands untouched."""

    name: str
    shape: tuple[int, ...]

    @property
    def tensor(self) -> Tensor:
        """The values, in the dtype of the precision policy; never modify them in place."""
        ...


class Matrix(Operand, Protocol):
    """A matrix W (out, in) = (m, n) with r = min(m, n), which decomposes itself at most once."""

    def rank(
        self, top: float | None = None, rank: int | None = None, energy: float | None = None
    ) -> int:
        """The k, 0 ≤ k ≤ r, that a fraction, a count or a share of this matrix's energy means."""
        ...

    def top(self, k: int) -> Factors:
        """Leading k triplets: U (m, k), S (k,) descending, Vh (k, n)."""
        ...

    def tail(self, k: int) -> Factors:
        """Last k triplets: U (m, k), S (k,) descending, Vh (k, n)."""
        ...

    def values(self) -> Tensor:
        """All r singular values, descending."""
        ...

    def plus(self, *terms: Term) -> Matrix:
        """W + Σ left @ right over `terms` of left (m, k) and right (k, n), as a new matrix.

        It is never held as a whole in high precision: rows are computed as they are written.
        """
        ...

    def __sub__(self, other: Matrix) -> Matrix:
        """The difference, as a matrix that decomposes itself in turn."""
        ...
