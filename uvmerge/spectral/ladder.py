"""How a matrix is decomposed: the ladder of `precision.py`, each rung climbed at most once.

Leading triplets come from the Gram matrix of the shorter side, which is faster than an SVD. The
Gram matrix squares the condition number and so loses accuracy at small singular values. This loss
shows as non-orthogonality of the longer side's singular vectors; where it exceeds the bound of the
precision policy, the next rung takes over. A matrix whose squares leave the range of float64 is
divided by a power of two first, and its singular values are multiplied by it.

The result of `top(k)` is the same to the bit whatever was asked before: columns are computed in
blocks that do not depend on k, and a rung is judged by the first k columns alone.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ..errors import RunFailed
from .gram import Eigenpairs
from .operand import Factors, Spectrum
from .precision import SMALLEST_VALUE, Precision
from .recombine import BLOCK, Sum
from .reduced import CorrectedRung, TridiagonalRung
from .refined import RefinedRung, is_fast_in_float64
from .side import Side
from .source import Shelf, Source
from .svd import checked_svd


class Basis(NamedTuple):
    """All r singular values of a matrix, and the singular vectors of its shorter side.

    Attributes:
        values: (r,) in float64, descending; of W / 2^exponent.
        vectors: (r, r), a column for each value, in float64 or, before they were refined, float32.
    """

    values: Tensor
    vectors: Tensor


class GramRung:
    """All singular values, and as many vectors as were asked for, from a float64 eigenproblem."""

    name = "gram"

    def __init__(self, source: Source) -> None:
        self.source = source
        self._side: Side | None = None
        self._unkept: Eigenpairs | None = None  # what `_side` was made from, unless recalled
        self._worth_keeping = 0  # columns of `_unkept` that were asked for

    @property
    def is_climbed(self) -> bool:
        """Whether the eigenproblem was solved, or its result recalled."""
        return self._side is not None

    def side(self, k: int) -> Side | None:
        """All singular values, and at least k of the shorter side's vectors; None where LAPACK does
        not converge."""
        k = -(-k // BLOCK) * BLOCK  # whole blocks, as `Side.extend` projects them
        self._worth_keeping = max(self._worth_keeping, k)
        if self._side is None or self._side.short.shape[1] < min(k, len(self._side.values)):
            pairs = self.source.recalled(self.name, k, self.source.r)
            if pairs is None:
                found = Eigenpairs.all_of(self.source.gram(torch.float64))
                pairs = self._unkept = found or self.source.nothing()
            self._side = Side.of(self.name, [pairs])
        return self._side if len(self._side.values) else None

    def keep(self) -> None:
        """Put the eigenpairs on the shelf, with as many vectors as were asked for."""
        if self._unkept is not None:
            shelf = self.source.shelf
            whole = shelf is not None and shelf.memory.keeps_whole
            columns = self._unkept.vectors[:, : None if whole else self._worth_keeping]
            self.source.keep(self.name, Eigenpairs(self._unkept.values, columns, None))
            self._unkept = None


class Ladder:
    """Decompositions of a matrix W (m, n) with r = min(m, n), each computed once and remembered.

    A ladder belongs to one thread.

    Args:
        name: of the matrix, for the message where no rung decomposes it.
        shelf: where eigenpairs of earlier runs are looked for, and new ones are kept.

    Raises:
        RunFailed: from any method, where no decomposition of W converges.
    """

    def __init__(self, name: str, W: Sum, precision: Precision, shelf: Shelf | None = None) -> None:
        self.name, self.W, self.precision = name, W, precision
        self.source = Source(W, precision, shelf)
        self._corrected = CorrectedRung(self.source)
        self._tridiagonal = TridiagonalRung(self.source)
        self._refined = RefinedRung(self.source)
        self._gram = GramRung(self.source)
        self._svd: Factors | None = None

    def top(self, k: int, wholly: bool = True) -> Factors:
        """Leading k triplets, 0 ≤ k ≤ r, in the dtype `precision.combine`.

        Args:
            wholly: correct all vectors, where the rung `corrected` gives them, and not only those
                next to the cut, whose errors count most.
        """
        side = self._leading(k, wholly)
        if side is None:
            return self._part_of_svd(slice(0, k), k)
        S = side.values[:k].to(self.precision.combine)  # of W / 2^exponent, like `side.other`
        short = side.short[:, :k].to(self.precision.combine).contiguous()
        other = short.new_empty(max(self.W.shape), k)
        for at in range(0, k, BLOCK):
            columns = slice(at, min(at + BLOCK, k))
            other[:, columns] = side.other[at // BLOCK][:, : columns.stop - at] / S[columns]
        if bool((S.diff() > 0).any()):  # lengths of images may be out of order by a rounding
            S, order = S.sort(descending=True, stable=True)
            short, other = short[:, order], other[:, order]
        U, Vh = (other, short.mT) if self.W.is_tall else (short, other.mT)
        gap = self._gap(k, side.values, side.following)
        missed = 2.0**0.5 * float(S[-1]) * side.tilt * 2.0**self.W.exponent if k else 0.0
        return Factors(U, self._unscaled(S), Vh, gap, side.method, missed)

    def tail(self, k: int) -> Factors:
        """Last k triplets, 0 ≤ k ≤ r, in the dtype `precision.combine`."""
        cut = min(self.W.shape) - k
        return self._part_of_svd(slice(cut, cut + k), cut)

    def values(self) -> Spectrum:
        """All singular values in float64."""
        found = self.rough_values()
        if bool(found.values[-1] <= SMALLEST_VALUE * found.values[0]):
            return self._values_of_svd()
        return found

    def rough_values(self) -> Spectrum:
        """All singular values in float64, with an error of up to about 1e-8 σ_1 in small ones."""
        reduced = self._tridiagonal.reduced
        values = reduced.values() if reduced.is_offered else None
        if values is not None:
            return Spectrum(self._unscaled(values.sqrt()), self._tridiagonal.name)
        side = self._gram.side(0)
        if side is None:
            return self._values_of_svd()
        return Spectrum(self._unscaled(side.values), side.method)

    def _values_of_svd(self) -> Spectrum:
        svd = self._full_svd()
        return Spectrum(self._unscaled(svd.S), svd.method)

    def basis(self) -> Basis:
        """What the rungs that were climbed know of all r vectors of the shorter side."""
        if self._svd is not None:
            svd = self._svd
            return Basis(svd.S, svd.Vh.mT if self.W.is_tall else svd.U)
        pairs = self._all_pairs()
        if pairs is None:
            self._full_svd()
            return self.basis()
        return Basis(pairs.values.clamp(min=0).sqrt(), pairs.vectors)

    def _all_pairs(self) -> Eigenpairs | None:
        """All r eigenpairs of the Gram matrix, from the first rung that gives them."""
        r = min(self.W.shape)
        if not self._gram.is_climbed:
            is_fast = self.precision.multiply == torch.float32
            reduced = (self._corrected if is_fast else self._tridiagonal).reduced
            blocks = reduced.blocks(r) if reduced.is_offered else None
            if blocks is not None:
                values = torch.cat([block.values for block in blocks])
                return Eigenpairs(values, torch.cat([b.vectors for b in blocks], dim=1), None)
            skipped = reduced.is_offered or is_fast_in_float64(str(self.W.device))
            start = None if skipped else self._refined.start()
            if start is not None:
                return start
        side = self._gram.side(r)
        return None if side is None else Eigenpairs(side.values.square(), side.short, None)

    def keep(self) -> None:
        """Put the eigenpairs of the rung `gram` on the shelf, with as many vectors as were asked for
        or all of them, as the memory wants.

        Those of the other rungs are put there as soon as they are computed.
        """
        self._gram.keep()
        source, reduced = self.source, self._tridiagonal.reduced
        if source.shelf is not None and source.shelf.memory.keeps_whole and reduced.is_computed:
            reduced.blocks(source.r)

    def _leading(self, k: int, wholly: bool) -> Side | None:
        """The first rung whose leading k triplets are accurate; None where only the SVD is left."""
        corrected = self._corrected.side(k, wholly)
        if corrected is not None and corrected.holds(k, self.precision.orthogonality):
            return corrected
        for rung in (self._tridiagonal, self._refined, self._gram):
            side = rung.side(k)
            if side is None:
                continue
            side.extend(k, self.source.project)
            if side.holds(k, self.precision.orthogonality):
                return side
            if rung is self._tridiagonal:  # the same Gram matrix gives no better vectors
                return None
        return None

    def _unscaled(self, values: Tensor) -> Tensor:
        """Singular values of W, from those of W / 2^exponent.

        Raises:
            RunFailed: the largest is beyond the range of its dtype.
        """
        if not self.W.exponent:
            return values
        values = values * 2.0**self.W.exponent
        if not bool(values.isfinite().all()):
            raise RunFailed(
                self.name,
                f"its largest singular value does not fit {str(values.dtype).split('.')[-1]}",
                "Leave the tensor out with --exclude.",
            )
        return values

    def _part_of_svd(self, columns: slice, cut: int) -> Factors:
        svd, to = self._full_svd(), self.precision.combine
        gap = self._gap(cut, svd.S, None)
        U, S, Vh = svd.U[:, columns], self._unscaled(svd.S[columns]), svd.Vh[columns]
        return Factors(U.to(to), S.to(to), Vh.to(to), gap, svd.method)

    def _full_svd(self) -> Factors:
        """All r triplets of W / 2^exponent in float64, checked; the transposed matrix is the second
        try."""
        if self._svd is None:
            W = self.W.tensor(torch.float64)
            self._svd = checked_svd(W * 2.0**-self.W.exponent if self.W.exponent else W)
        if self._svd is None:
            raise RunFailed(
                self.name,
                "no singular value decomposition of it converged",
                "Leave the tensor out with --exclude and report the matrix.",
            )
        return self._svd

    def _gap(self, k: int, S: Tensor, following: float | None) -> float | None:
        """(σ_k − σ_{k+1})/σ_k, with σ_{k+1} in `S` or after its end; None at k = 0 and k = r."""
        if not 0 < k < min(self.W.shape):
            return None
        high = float(S[k - 1])
        low = float(S[k]) if k < len(S) else following or 0.0
        return (high - low) / high if high > 0 else 0.0
