"""Operands that hold numbers: tensors, and matrices that decompose themselves."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from .ladder import Basis, Ladder
from .log import Log, difference
from .operand import Factors, Matrix, Spectrum, Term
from .precision import Precision
from .rank import energy_count, leading_count, needs_small_values
from .recombine import Sum, converted
from .source import Shelf


class DenseOperand:
    """A tensor, or a piece of one, kept in its stored dtype and converted when asked for.

    See `operand.Operand`.
    """

    def __init__(self, name: str, stored: Tensor, precision: Precision) -> None:
        self.name, self.stored, self.precision = name, stored, precision
        self.shape = tuple(stored.shape)

    @property
    def stored_bytes(self) -> int:
        """Bytes of one value as stored."""
        return self.stored.dtype.itemsize

    @property
    def tensor(self) -> Tensor:
        return converted(self.stored, self.precision.combine)

    @property
    def kept(self) -> Tensor:
        return self.stored


class DenseMatrix(DenseOperand):
    """A matrix W (m, n) with r = min(m, n); see `operand.Matrix`.

    A matrix belongs to one thread. It remembers every decomposition that it computed; what it was
    asked for, it notes in the log.

    Args:
        stored: (m, n), the matrix that `terms` are added to, in any floating-point dtype.
        terms: pairs of left (m, k) and right (k, n); W is stored + Σ left @ right.
        shelf: where eigenpairs of earlier runs are looked for, and new ones are kept.
        log: where every rank and decomposition that an operation asks for is noted.
        operand: what the log calls W.
    """

    def __init__(
        self,
        name: str,
        stored: Tensor,
        precision: Precision,
        terms: tuple[Term, ...] = (),
        shelf: Shelf | None = None,
        log: Log | None = None,
        operand: str = "",
    ) -> None:
        super().__init__(name, stored, precision)
        self.sum = Sum(stored, terms)
        self.shelf, self.log, self.operand = shelf, log, operand
        self._ladder = Ladder(name, self.sum, precision, shelf)
        self._delta: tuple[DenseMatrix, DenseMatrix] | None = None  # subtrahend, difference

    @property
    def tensor(self) -> Tensor:
        return self.sum.tensor(self.precision.combine)

    @property
    def kept(self) -> Tensor:
        return self.tensor if self.sum.terms else self.stored

    def panels(self, dtype: torch.dtype) -> Iterator[Tensor]:
        """W, or Wᵀ where W is wide, in row panels (rows, r) of `dtype`."""
        return self.sum.panels(dtype)

    def plus(self, *terms: Term) -> DenseMatrix:
        return self._result(self.stored, (*self.sum.terms, *terms))

    def with_values(self, values: Tensor) -> DenseMatrix:
        """A result `values` (m, n) of an operation on W, as a matrix that later steps can decompose."""
        return self._result(values, ())

    def over(self, exponent: int) -> DenseMatrix:
        """A stored W over 2^exponent, in float64."""
        assert not self.sum.terms
        stored = converted(self.stored, torch.float64).mul_(2.0**-exponent)
        return DenseMatrix(self.name, stored, self.precision)

    def _result(self, stored: Tensor, terms: tuple[Term, ...]) -> DenseMatrix:
        operand = "" if self.log is None else self.log.result
        return DenseMatrix(self.name, stored, self.precision, terms, log=self.log, operand=operand)

    def __sub__(self, other: Matrix) -> DenseMatrix:
        assert isinstance(other, DenseMatrix)
        if self._delta is None or self._delta[0] is not other:
            shelf = None
            if self.shelf is not None and other.shelf is not None:
                shelf = self.shelf.minus(other.shelf, self.precision)
            name, operand = f"{self.name} - {other.name}", difference(self.operand, other.operand)
            values = self.tensor - other.tensor
            delta = DenseMatrix(
                name, values, self.precision, shelf=shelf, log=self.log, operand=operand
            )
            self._delta = other, delta
        return self._delta[1]

    def rank(
        self, top: float | None = None, rank: int | None = None, energy: float | None = None
    ) -> int:
        if energy is None:
            k = leading_count(min(self.shape), top=top, rank=rank)
        else:
            ladder = self._ladder
            found = ladder.values() if needs_small_values(energy) else ladder.rough_values()
            self._note(None, found)
            k = energy_count(found.values, energy, max(self.shape))
        if self.log is not None:
            self.log.rank(k)
        return k

    def values(self) -> Tensor:
        found = self._ladder.values()
        self._note(None, found)
        return found.values.to(self.precision.combine)

    def top(self, k: int) -> Factors:
        found = self._ladder.top(k, self.log is None or self.log.wholly)
        self._note(k, found)
        return found

    def tail(self, k: int) -> Factors:
        found = self._ladder.tail(k)
        self._note(min(self.shape) - k, found)
        return found

    def basis(self) -> Basis:
        """All r singular values, and the vectors of the shorter side, from what was decomposed."""
        return self._ladder.basis()

    def keep(self) -> None:
        """Put the eigenpairs of W and of its last difference on their shelves."""
        if self._delta is not None:
            self._delta[1].keep()
        self._ladder.keep()

    def release(self) -> None:
        """Put eigenpairs on the shelves, then free every decomposition; W alone stays."""
        self.keep()
        self._delta = None
        self._ladder = Ladder(self.name, self.sum, self.precision, self.shelf)

    def _note(self, k: int | None, found: Factors | Spectrum) -> None:
        if self.log is not None:
            self.log.decomposition(self.operand, k, found)
