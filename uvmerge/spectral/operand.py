"""What an operation may ask of its positional parameters.

Two classes implement these protocols: `spectral.matrix.DenseMatrix` holds numbers, and
`plan.Outline` holds only a shape, which lets the plan find out what an operation would do.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TypeAlias

if TYPE_CHECKING:
    from torch import Tensor

    Edited: TypeAlias = Tensor | "Operand"
    Term: TypeAlias = tuple[Tensor, Tensor]
else:  # the names exist without torch, so that signatures can be read
    Edited = Term = object


@dataclass(frozen=True, eq=False)
class Factors:
    """Neighbouring singular triplets of a matrix; iteration gives the three of `U, S, Vh = …`.

    Attributes:
        U, S, Vh: (m, k), (k,) descending, (k, n).
        gap: (σ_i − σ_{i+1})/σ_i at the cut between these triplets and the rest, 0 where σ_i is 0;
            None where there is no rest, or no triplet before the cut.
        method: the rung of the ladder in `precision.py` that gave them.
        missed: an estimate of the error of U S Vh in ‖·‖_F, where the rung leaves one.
    """

    U: Tensor
    S: Tensor
    Vh: Tensor
    gap: float | None
    method: str
    missed: float = 0.0

    def __iter__(self) -> Iterator[Tensor]:
        return iter((self.U, self.S, self.Vh))


@dataclass(frozen=True, eq=False)
class Spectrum:
    """All r singular values in float64, descending, and the rung that gave them."""

    values: Tensor
    method: str
    gap: None = None
    missed: float = 0.0


class Operand(Protocol):
    """Values of a tensor of any shape, or of a piece of it.

    An operation on operands works element by element, because a tensor may be given to it in pieces
    of any size. It returns a new tensor, or one of its operands untouched.
    """

    name: str
    shape: tuple[int, ...]

    @property
    def tensor(self) -> Tensor:
        """The values, in the dtype `combine` of the precision policy; never modify them in place."""
        ...


class Whole(Operand, Protocol):
    """A tensor of any shape, all of it at once, for operations that need its norm, cosines or ranks.

    A matrix that only a part of a tensor holds (an expert, a gate) is given like a tensor of its own.
    `name` is the label of the tensor or of that matrix.
    """

    @property
    def kept(self) -> Tensor:
        """The values in the dtype in which they are held, often the stored one; never modify them."""
        ...


class Matrix(Operand, Protocol):
    """A matrix W (out, in) = (m, n) with r = min(m, n), which decomposes itself at most once."""

    def rank(
        self, top: float | None = None, rank: int | None = None, energy: float | None = None
    ) -> int:
        """The integer rank k, 0 ≤ k ≤ r, that one of three arguments describes.

        Args:
            top: a fraction of r; k is the nearest integer, and a half is rounded up.
            rank: a count, clamped to r.
            energy: a share of ‖W‖_F² that the leading k singular values have at least; for all of
                it, k is the numerical rank.
        """
        ...

    def top(self, k: int) -> Factors:
        """Leading k triplets, with the gap after the k-th."""
        ...

    def tail(self, k: int) -> Factors:
        """Last k triplets, with the gap before the first of them."""
        ...

    def values(self) -> Tensor:
        """All r singular values, descending."""
        ...

    def plus(self, *terms: Term) -> Matrix:
        """W + Σ left @ right over `terms` of left (m, k) and right (k, n), as a new matrix.

        The new matrix is never held as a whole in float32 or float64: its rows are computed when
        they are written.
        """
        ...

    def __sub__(self, other: Matrix) -> Matrix:
        """W − other, as a matrix that decomposes itself too."""
        ...
