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

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from ..errors import RunFailed
from .gram import MOST_BLOCKS, Eigenpairs, Refiner, gram
from .operand import Factors
from .precision import SMALLEST_VALUE, Precision
from .recombine import BLOCK, Sum
from .side import Side
from .svd import checked_svd


class Memory(Protocol):
    """Where eigenpairs are kept between runs. Pairs without values record that a rung failed.

    Attributes:
        keeps_whole: whether all vectors of a rung are to be kept, not only as many as were asked for.
    """

    keeps_whole: bool

    def recall(self, key: str, columns: int) -> Eigenpairs | None:
        """The pairs kept under `key`, if they have at least `columns` vectors, or all r of them."""
        ...

    def keep(self, key: str, pairs: Eigenpairs) -> None:
        """Keep `pairs` under `key`, in place of what was kept there."""
        ...


@dataclass(frozen=True)
class Shelf:
    """The part of a memory that belongs to one matrix.

    Attributes:
        content: identifies the values of the matrix among all matrices: hash, shape and dtype.
    """

    memory: Memory
    content: str

    def recall(self, rung: str, columns: int) -> Eigenpairs | None:
        """The pairs kept of a rung, if they have at least `columns` vectors, or all r of them."""
        return self.memory.recall(f"{self.content}-{rung}", columns)

    def keep(self, rung: str, pairs: Eigenpairs) -> None:
        """Keep the eigenpairs of a rung."""
        self.memory.keep(f"{self.content}-{rung}", pairs)

    def minus(self, other: Shelf, precision: Precision) -> Shelf:
        """The shelf of the difference of two matrices, whose rounding depends on the policy."""
        return Shelf(self.memory, f"{self.content}-{other.content}-{precision.name}")


class Spectrum(NamedTuple):
    """All r singular values, descending, and the rung that gave them."""

    values: Tensor
    method: str


class Basis(NamedTuple):
    """All r singular values of a matrix, and the singular vectors of its shorter side.

    Attributes:
        values: (r,) in float64, descending; of W / 2^exponent.
        vectors: (r, r), a column for each value, in float64 or, before they were refined, float32.
    """

    values: Tensor
    vectors: Tensor


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
        self.name, self.W, self.precision, self.shelf = name, W, precision, shelf
        self._refiner: Refiner | None = None
        self._refined_blocks: list[Eigenpairs] = []
        self._refined_sides: dict[int, Side] = {}
        self._gram: Side | None = None
        self._svd: Factors | None = None
        self._unkept: Eigenpairs | None = None  # what `_gram` was made from, unless recalled
        self._worth_keeping = 0  # columns of `_unkept` that were asked for

    def top(self, k: int) -> Factors:
        """Leading k triplets, 0 ≤ k ≤ r, in the dtype `precision.combine`."""
        side = self._leading(k)
        if side is None:
            return self._part_of_svd(slice(0, k), k)
        S = side.values[:k].to(self.precision.combine)  # of W / 2^exponent, like `side.other`
        short = side.short[:, :k].to(self.precision.combine).contiguous()
        other = short.new_empty(max(self.W.shape), k)
        for at in range(0, k, BLOCK):
            columns = slice(at, min(at + BLOCK, k))
            other[:, columns] = side.other[at // BLOCK][:, : columns.stop - at] / S[columns]
        U, Vh = (other, short.mT) if self.W.is_tall else (short, other.mT)
        gap = self._gap(k, side.values, side.following)
        return Factors(U, self._unscaled(S), Vh, gap, side.method)

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
        side = self._gram_side(0)
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
        if self._gram is not None:
            side = self._gram_side(min(self.W.shape))
            if side is not None:
                return Basis(side.values, side.short)
        start = self._start()
        if start is None:
            self._full_svd()
            return self.basis()
        return Basis(start.values.clamp(min=0).sqrt(), start.vectors)

    def _start(self) -> Eigenpairs | None:
        """The float32 eigenpairs that the rung `refined` starts from; None where LAPACK does not
        converge."""
        rung, r = f"{self.precision.name}-start", min(self.W.shape)
        start = None if self.shelf is None else self.shelf.recall(self._kept_as(rung), r)
        if start is not None and len(start.values) and start.can_be(r, r, torch.float32):
            device = self.W.device
            return Eigenpairs(start.values.to(device), start.vectors.to(device), None)
        if self._refiner is None:
            self._refiner = Refiner(self._gram_matrix(self.precision.multiply), self.precision)
        start = self._refiner.whole
        if start is not None and self.shelf is not None:
            self.shelf.keep(self._kept_as(rung), start)
        return start

    def keep(self) -> None:
        """Put the eigenpairs of the rung `gram` on the shelf, with as many vectors as were asked for
        or all of them, as the memory wants.

        The blocks of the rung `refined` are put there as soon as they are computed.
        """
        if self._unkept is not None and self.shelf is not None:
            count = None if self.shelf.memory.keeps_whole else self._worth_keeping
            columns = self._unkept.vectors[:, :count]
            self.shelf.keep(self._kept_as("gram"), Eigenpairs(self._unkept.values, columns, None))
            self._unkept = None

    def _leading(self, k: int) -> Side | None:
        """The first rung whose leading k triplets are accurate; None where only the SVD is left."""
        for rung in (self._refined_side, self._gram_side):
            side = rung(k)
            if side is not None:
                side.extend(k, self._project)
                if side.holds(k, self.precision.orthogonality):
                    return side
        return None

    def _refined_side(self, k: int) -> Side | None:
        r = min(self.W.shape)
        size = -(-r // 5)
        count = -(-k // size)
        if r < self.precision.smallest_refined or not 0 < count <= MOST_BLOCKS:
            return None
        blocks = self._refined_blocks
        while len(blocks) < count and (not blocks or len(blocks[-1].values)):
            begin, end = size * len(blocks), min(r, size * (len(blocks) + 1))
            blocks.append(self._refined_block(begin, end))
        if len(blocks) < count or not len(blocks[count - 1].values):
            return None
        if count not in self._refined_sides:
            self._refined_sides[count] = Side.of("refined", blocks[:count])
        return self._refined_sides[count]

    def _refined_block(self, begin: int, end: int) -> Eigenpairs:
        """Eigenpairs `begin` to `end`, from the shelf or computed; empty where refining fails."""
        rung = f"{self.precision.name}-{end}"
        pairs = self._recalled(rung, end - begin, end - begin)
        if pairs is not None:
            return pairs
        if self._refiner is None:
            self._refiner = Refiner(self._gram_matrix(self.precision.multiply), self.precision)
        before = [self._nothing.vectors, *(block.vectors for block in self._refined_blocks)]
        pairs = self._refiner.block(begin, end, torch.cat(before, dim=1), self._gram_matrix)
        pairs = pairs or self._nothing
        if self.shelf is not None:
            self.shelf.keep(self._kept_as(rung), pairs)
        return pairs

    def _gram_matrix(self, multiply: torch.dtype) -> Tensor:
        return gram(self._panels(multiply), min(self.W.shape), self.W.device)

    def _panels(self, dtype: torch.dtype) -> Iterator[Tensor]:
        """The panels of W / 2^exponent."""
        panels, exponent = self.W.panels(dtype), self.W.exponent
        return (panel * 2.0**-exponent for panel in panels) if exponent else panels

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

    def _gram_side(self, k: int) -> Side | None:
        """All singular values, and at least k of the shorter side's vectors, in float64."""
        k = -(-k // BLOCK) * BLOCK  # whole blocks, as `Side.extend` projects them
        self._worth_keeping = max(self._worth_keeping, k)
        if self._gram is None or self._gram.short.shape[1] < min(k, len(self._gram.values)):
            pairs = self._recalled("gram", k, min(self.W.shape))
            if pairs is None:
                pairs = Eigenpairs.all_of(self._gram_matrix(torch.float64)) or self._nothing
                self._unkept = pairs
            self._gram = Side.of("gram", [pairs])
        return self._gram if len(self._gram.values) else None

    def _recalled(self, rung: str, columns: int, count: int) -> Eigenpairs | None:
        """Eigenpairs from the shelf, on the device; None where none can be the `count` of a rung."""
        pairs = None if self.shelf is None else self.shelf.recall(self._kept_as(rung), columns)
        if pairs is None or not pairs.can_be(count, min(self.W.shape)):
            return None
        device = self.W.device
        return Eigenpairs(pairs.values.to(device), pairs.vectors.to(device), pairs.following)

    def _kept_as(self, rung: str) -> str:
        """The name of a rung on the shelf, where eigenpairs are those of W / 2^exponent."""
        return f"{rung}-over-2-{self.W.exponent}" if self.W.exponent else rung

    @property
    def _nothing(self) -> Eigenpairs:
        zeros = torch.zeros(min(self.W.shape), 0, dtype=torch.float64, device=self.W.device)
        return Eigenpairs(zeros.flatten(), zeros, None)

    def _project(self, blocks: list[Tensor]) -> list[Tensor]:
        """W V, or Wᵀ U where W is wide, for blocks (r, ·) of the shorter side's vectors: the longer
        side's vectors times their singular values, (long side, ·)."""
        to = self.precision.combine
        blocks = [block.to(to).contiguous() for block in blocks]
        others = [block.new_empty(max(self.W.shape), block.shape[1]) for block in blocks]
        start = 0
        for panel in self._panels(to) if blocks else ():
            for block, other in zip(blocks, others):
                torch.mm(panel, block, out=other[start : start + len(panel)])
            start += len(panel)
        return others

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
