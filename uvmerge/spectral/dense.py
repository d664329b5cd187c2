"""Matrices with numbers in them, and how they decompose themselves.

Leading triplets come from the Gram matrix of the shorter side, which is faster than an SVD. Squaring
costs accuracy at small singular values, which shows as a loss of orthogonality on the other side;
where that exceeds the policy's bound, the next rung of the ladder in `precision.py` takes over.

What `top(k)` returns is the same to the bit whatever was asked before: columns are computed in
blocks that do not depend on k, and a rung is judged by the first k columns alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Protocol

import torch
from torch import Tensor

from ..errors import RunFailed
from .gram import MOST_BLOCKS, Eigenpairs, Refiner, gram
from .operand import Factors, Matrix, Term
from .precision import RESIDUAL, SMALLEST_VALUE, Precision
from .rank import leading_count

PANEL_ROWS = 256  # multiplied at a time, or a quarter of the shorter side, if that is more
PANEL_BYTES = 2_000_000  # of a result in its computing dtype, recombined at a time
BLOCK = 64  # columns projected, and inner dimension recombined, at a time


class Memory(Protocol):
    """Where eigenpairs are kept between runs. Pairs without values say that there are none."""

    def recall(self, key: str, columns: int) -> Eigenpairs | None:
        """What was kept under `key`, if it has that many vectors (or all there are)."""
        ...

    def keep(self, key: str, pairs: Eigenpairs) -> None: ...


@dataclass
class Notes:
    """What was asked of a matrix, for the record."""

    k: int | None = None
    cuts: dict[int, float | None] = field(default_factory=dict)
    delta_cuts: dict[int, float | None] = field(default_factory=dict)
    methods: list[str] = field(default_factory=list)


class DenseOperand:
    """A tensor, or a piece of one, kept as stored and converted when asked for."""

    def __init__(self, name: str, stored: Tensor, precision: Precision) -> None:
        self.name, self.precision = name, precision
        self.shape = tuple(stored.shape)
        self._stored = stored

    @property
    def stored_bytes(self) -> int:
        """Bytes of one value as stored."""
        return self._stored.dtype.itemsize

    @property
    def tensor(self) -> Tensor:
        return _converted(self._stored, self.precision.combine)


@dataclass
class _Side:
    """Eigenpairs of a Gram matrix, and the other side's vectors as far as they were asked for.

    Attributes:
        method: the rung of the ladder.
        values: singular values, descending.
        short: singular vectors (r, ·) of the shorter side.
        following: the singular value after the last one, where there is one.
        other: blocks (long side, `BLOCK`) of the other side's vectors, times their values.
        crooked: per column j of `other`, largest |uᵢᵀuⱼ − δᵢⱼ| over i ≤ j.
    """

    method: str
    values: Tensor
    short: Tensor
    following: float | None
    other: list[Tensor] = field(default_factory=list)
    crooked: list[float] = field(default_factory=list)

    @classmethod
    def of(cls, method: str, blocks: Sequence[Eigenpairs]) -> _Side:
        values = torch.cat([block.values for block in blocks]).clamp(min=0).sqrt()
        last = blocks[-1].following
        following = None if last is None else max(last, 0.0) ** 0.5
        vectors = [block.vectors for block in blocks]
        short = vectors[0] if len(vectors) == 1 else torch.cat(vectors, dim=1)
        return cls(method, values, short, following)

    def holds(self, k: int, bound: float) -> bool:
        """Whether the first k triplets are within the policy's bound."""
        if k == 0:
            return True
        if not bool(self.values[k - 1] > 1e-7 * self.values[0]):
            return False
        return max(self.crooked[:k]) <= bound

    def extend(self, k: int, project: Callable[[list[Tensor]], list[Tensor]]) -> None:
        """See to it that the first k columns of the other side are there."""
        starts = range(len(self.other) * BLOCK, min(k, len(self.values)), BLOCK)
        for at, new in zip(starts, project([self.short[:, at : at + BLOCK] for at in starts])):
            self.other.append(new)
            S = self.values[at : at + BLOCK]
            worst = torch.zeros_like(S)
            for i, block in enumerate(self.other):
                scale = self.values[i * BLOCK : i * BLOCK + block.shape[1]]
                cosines = (block.mT @ new).to(S.dtype) / scale[:, None] / S
                if block is new:
                    cosines = (cosines - torch.eye(len(S), dtype=S.dtype, device=S.device)).triu()
                worst = torch.maximum(worst, cosines.abs().amax(0))
            self.crooked += worst.nan_to_num(nan=torch.inf).tolist()


class DenseMatrix(DenseOperand):
    """A matrix W (m, n) with r = min(m, n); see `operand.Matrix`. It is used by one thread.

    Args:
        stored: W, or what `terms` are added to, in any floating point dtype.
        terms: pairs left (m, k), right (k, n); W is stored + Σ left @ right.
        memory: where to look for eigenpairs, and to keep them.
        content: identifies W among all matrices; without it, `memory` is not used.

    Attributes:
        k: what `rank` was first asked for and is not 0, until someone sets it back.
        cuts: relative gap (σ_k − σ_{k+1})/σ_k at each k it was cut at; None at k = r.
        methods: the rungs that were used.
        delta_cuts: `cuts` of the difference `self - …`, which notes its k and methods here too.
    """

    def __init__(
        self,
        name: str,
        stored: Tensor,
        precision: Precision,
        terms: tuple[Term, ...] = (),
        memory: Memory | None = None,
        content: str | None = None,
    ) -> None:
        super().__init__(name, stored, precision)
        self.memory, self.content = memory, content
        self._terms = terms
        self._notes, self._is_delta = Notes(), False
        self._delta: tuple[Matrix, DenseMatrix] | None = None  # the last difference, and from what
        self._refiner: Refiner | None = None
        self._refined_blocks: list[Eigenpairs] = []
        self._refined_sides: dict[int, _Side] = {}
        self._gram: _Side | None = None
        self._svd: tuple[str, Factors] | None = None
        self._unkept: Eigenpairs | None = None  # what `_gram` was made from, if made here
        self._worth_keeping = 0  # columns of it that were asked for

    def begin(self) -> None:
        """Forget what was noted, not what was computed: another operation begins."""
        notes = self._notes
        notes.k = None
        for noted in (notes.cuts, notes.delta_cuts, notes.methods):
            noted.clear()

    @property
    def k(self) -> int | None:
        return self._notes.k

    @k.setter
    def k(self, k: int | None) -> None:
        self._notes.k = k

    @property
    def cuts(self) -> dict[int, float | None]:
        return self._notes.delta_cuts if self._is_delta else self._notes.cuts

    @property
    def delta_cuts(self) -> dict[int, float | None]:
        return self._notes.delta_cuts

    @property
    def methods(self) -> list[str]:
        return self._notes.methods

    @property
    def tensor(self) -> Tensor:
        return self._slab(0, self.shape[0], self.precision.combine)

    def plus(self, *terms: Term) -> DenseMatrix:
        return DenseMatrix(self.name, self._stored, self.precision, (*self._terms, *terms))

    def __sub__(self, other: Matrix) -> DenseMatrix:
        if self._delta is None or self._delta[0] is not other:
            theirs = getattr(other, "content", None)
            known = self.content and theirs  # a policy rounds the difference in its own way
            content = f"{self.content}-{theirs}-{self.precision.name}" if known else None
            delta = DenseMatrix(
                f"{self.name} - {other.name}", self.tensor - other.tensor, self.precision,
                (), self.memory, content,
            )  # fmt: skip
            delta._notes, delta._is_delta = self._notes, True
            self._delta = other, delta
        return self._delta[1]

    def rank(
        self, top: float | None = None, rank: int | None = None, energy: float | None = None
    ) -> int:
        if energy is None:
            k = leading_count(min(self.shape), top=top, rank=rank)
        else:
            k = self._energy_rank(energy)
        self.k = self.k or k
        return k

    def _energy_rank(self, energy: float) -> int:
        side = self._gram_side(0)
        squares = (self._full()[1] if side is None else side.values).square().cumsum(0)
        if squares[-1] == 0:
            return 0
        reached = squares >= energy * squares[-1] * (1 - 1e-12)
        return int(reached.nonzero()[0]) + 1 if energy > 0 else 0

    def values(self) -> Tensor:
        side = self._gram_side(0)
        if side is None or bool(side.values[-1] <= SMALLEST_VALUE * side.values[0]):
            return self._full()[1].to(self.precision.combine)
        self._used("gram")
        return side.values.to(self.precision.combine)

    def top(self, k: int) -> Factors:
        to = self.precision.combine
        side = self._leading(k)
        if side is None:
            U, S, Vh = self._full()
            self._note_cut(k, S, None)
            return U[:, :k].to(to), S[:k].to(to), Vh[:k].to(to)
        self._note_cut(k, side.values, side.following)
        self._used(side.method)
        S = side.values[:k].to(to)
        short = side.short[:, :k].to(to).contiguous()
        other = short.new_empty(max(self.shape), k)
        for at in range(0, k, BLOCK):
            columns = slice(at, min(at + BLOCK, k))
            other[:, columns] = side.other[at // BLOCK][:, : columns.stop - at] / S[columns]
        return (other, S, short.mT) if self._is_tall else (short, S, other.mT)

    def tail(self, k: int) -> Factors:
        U, S, Vh = self._full()
        r, to = len(S), self.precision.combine
        self._note_cut(r - k, S, None)
        return U[:, r - k :].to(to), S[r - k :].to(to), Vh[r - k :].to(to)

    def _leading(self, k: int) -> _Side | None:
        """The first rung that holds the leading k triplets; None leaves the SVD."""
        for rung in (self._refined_side, self._gram_side):
            side = rung(k)
            if side is not None:
                side.extend(k, self._project)
                if side.holds(k, self.precision.orthogonality):
                    return side
        return None

    def _refined_side(self, k: int) -> _Side | None:
        r = min(self.shape)
        size = -(-r // 5)
        count = -(-k // size)
        if r < self.precision.smallest_refined or not 0 < count <= MOST_BLOCKS:
            return None
        blocks = self._refined_blocks
        while len(blocks) < count and (not blocks or len(blocks[-1].values)):
            begin, end = size * len(blocks), min(r, size * (len(blocks) + 1))
            rung = f"{self.precision.name}-{end}"
            pairs = self._recalled(rung, end - begin)
            if pairs is None:
                if self._refiner is None:
                    G = self._gram_matrix(self.precision.multiply)
                    self._refiner = Refiner(G, self.precision)
                known = torch.cat([self._nothing.vectors, *(b.vectors for b in blocks)], dim=1)
                found = self._refiner.block(begin, end, known, self._gram_matrix)
                pairs = found or self._nothing
                if self.memory is not None and self.content is not None:
                    self.memory.keep(f"{self.content}-{rung}", pairs)
            blocks.append(pairs)
        if len(blocks) < count or not len(blocks[count - 1].values):
            return None
        if count not in self._refined_sides:
            self._refined_sides[count] = _Side.of("refined", blocks[:count])
        return self._refined_sides[count]

    def _gram_matrix(self, multiply: torch.dtype) -> Tensor:
        return gram(self.panels(multiply), min(self.shape), self._stored.device)

    def _gram_side(self, k: int) -> _Side | None:
        """All singular values, and at least k of the shorter side's vectors, in float64."""
        k = -(-k // BLOCK) * BLOCK  # whole blocks, as `_Side.extend` projects them
        self._worth_keeping = max(self._worth_keeping, k)
        if self._gram is None or self._gram.short.shape[1] < min(k, len(self._gram.values)):
            pairs = self._recalled("gram", k)
            if pairs is None:
                pairs = Eigenpairs.all_of(self._gram_matrix(torch.float64)) or self._nothing
                self._unkept = pairs
            self._gram = _Side.of("gram", [pairs])
        return self._gram if len(self._gram.values) else None

    def keep(self) -> None:
        """Give `memory` the leading float64 eigenpairs that were computed here, as many as were
        asked for. (The blocks of the other rung are given away as they are computed.)"""
        if self._delta is not None:
            self._delta[1].keep()
        if self._unkept is not None and self.memory is not None and self.content is not None:
            columns = self._unkept.vectors[:, : self._worth_keeping]
            kept = Eigenpairs(self._unkept.values, columns, None)
            self.memory.keep(f"{self.content}-gram", kept)
            self._unkept = None

    def release(self) -> None:
        """Keep what is to be kept, then forget every decomposition: W alone is left."""
        self.keep()
        self._delta = self._refiner = self._gram = self._svd = None
        self._refined_blocks, self._refined_sides = [], {}

    def _recalled(self, rung: str, columns: int) -> Eigenpairs | None:
        if self.memory is None or self.content is None:
            return None
        pairs = self.memory.recall(f"{self.content}-{rung}", columns)
        if pairs is None:
            return None
        device = self._stored.device
        return Eigenpairs(pairs.values.to(device), pairs.vectors.to(device), pairs.following)

    @property
    def _nothing(self) -> Eigenpairs:
        r, zeros = min(self.shape), self._stored.new_zeros
        return Eigenpairs(zeros(0).double(), zeros(r, 0).double(), None)

    def _project(self, blocks: list[Tensor]) -> list[Tensor]:
        """The longer side's vectors times their values, W V or Wᵀ U, of blocks (r, ·)."""
        to = self.precision.combine
        blocks = [block.to(to).contiguous() for block in blocks]
        others = [block.new_empty(max(self.shape), block.shape[1]) for block in blocks]
        start = 0
        for panel in self.panels(to) if blocks else ():
            for block, other in zip(blocks, others):
                torch.mm(panel, block, out=other[start : start + len(panel)])
            start += len(panel)
        return others

    @property
    def _is_tall(self) -> bool:
        return self.shape[0] > self.shape[1]

    def panels(self, dtype: torch.dtype) -> Iterator[Tensor]:
        """W, or Wᵀ where it is wide, in row panels (rows, r) of `dtype`."""
        long, r = max(self.shape), min(self.shape)
        for start, stop in _spans(long, max(PANEL_ROWS, r // 4)):
            if self._is_tall:
                yield self._slab(start, stop, dtype)
            else:
                yield self._slab(start, stop, dtype, columns=True).mT

    def _slab(self, start: int, stop: int, dtype: torch.dtype, columns: bool = False) -> Tensor:
        """Rows (or columns) `start` to `stop` of W."""
        part = self._stored[:, start:stop] if columns else self._stored[start:stop]
        slab = _converted(part, dtype)
        for left, right in self._pieces():
            left = left if columns else left[start:stop]
            right = right[:, start:stop] if columns else right
            slab = torch.addmm(slab, left.to(dtype), right.to(dtype))
        return slab

    def _pieces(self) -> Iterator[Term]:
        """The terms in the order in which they are added: `BLOCK` inner columns of each in turn."""
        longest = max((left.shape[1] for left, _ in self._terms), default=0)
        for at in range(0, longest, BLOCK):
            for left, right in self._terms:
                if at < left.shape[1]:
                    yield left[:, at : at + BLOCK], right[at : at + BLOCK]

    def _full(self) -> Factors:
        """All r triplets of the full SVD; notes that it was used."""
        if self._svd is None:
            self._svd = self._decomposed()
        method, factors = self._svd
        self._used(method)
        return factors

    def _decomposed(self) -> tuple[str, Factors]:
        """A full SVD, checked; the transposed matrix is the second try."""
        W = self._slab(0, self.shape[0], torch.float64)
        for method in ("svd", "svd of the transpose"):
            flip = method != "svd"
            try:
                U, S, Vh = torch.linalg.svd(W.mT if flip else W, full_matrices=False)
            except torch.linalg.LinAlgError:  # type: ignore[attr-defined]
                continue
            if flip:
                U, Vh = Vh.mT, U.mT
            if _is_svd(W, U, S, Vh):
                return method, (U, S, Vh)
        raise RunFailed(
            self.name, "no singular value decomposition of it converged",
            "Leave the tensor out with --exclude and report the matrix.",
        )  # fmt: skip

    def _used(self, method: str) -> None:
        if method not in self.methods:
            self.methods.append(method)

    def _note_cut(self, k: int, S: Tensor, following: float | None) -> None:
        if k == min(self.shape):
            self.cuts[k] = None
        elif k > 0:
            high = float(S[k - 1])
            low = float(S[k]) if k < len(S) else following or 0.0
            self.cuts[k] = (high - low) / high if high > 0 else 0.0


def rows_of(results: Sequence[DenseMatrix]) -> Iterator[list[Tensor]]:
    """Row panels (rows, n) of several results in the policy's dtype; those with the same leading
    terms share the work. What each yields does not depend on the others."""
    plans = [list(result._pieces()) for result in results]
    order = sorted(range(len(results)), key=lambda i: len(plans[i]))
    shared = [0, *(_common(results, plans, i, j) for i, j in pairwise(order)), 0]
    first = results[0]
    m, n = first.shape
    rows = max(1, PANEL_BYTES // (n * first.precision.combine.itemsize))
    for start, stop in _spans(m, rows):
        panels: list[Tensor] = [first._stored] * len(results)
        running, done = first._stored, 0
        for i, (before, after) in zip(order, pairwise(shared)):
            if done > before or not before:  # it holds what this one does not share
                stored = results[i]._stored[start:stop]
                running, done = _converted(stored, first.precision.combine), 0
            _add(running, plans[i][done:after], start, stop)
            done = max(done, after)
            panels[i] = running.clone() if after else running
            _add(panels[i], plans[i][done:], start, stop)
        yield panels


def _common(results: Sequence[DenseMatrix], plans: Sequence[Sequence[Term]], i: int, j: int) -> int:
    """How many of the leading pieces of two results are the same."""
    if results[i]._stored is not results[j]._stored:
        return 0
    count = 0
    for one, other in zip(plans[i], plans[j]):
        if not all(a.shape == b.shape and torch.equal(a, b) for a, b in zip(one, other)):
            break
        count += 1
    return count


def _add(panel: Tensor, pieces: Sequence[Term], start: int, stop: int) -> None:
    for left, right in pieces:
        panel.addmm_(left[start:stop].to(panel.dtype), right.to(panel.dtype))


def _converted(values: Tensor, dtype: torch.dtype) -> Tensor:
    """`values` in `dtype`, never the same memory; 16 bit to float64 by way of float32: 5 times as fast."""
    if values.dtype.itemsize == 2 and dtype == torch.float64:
        values = values.to(torch.float32)
    return values.to(dtype, copy=True)


def _spans(length: int, rows: int) -> Iterator[tuple[int, int]]:
    """(start, stop) of panels of so many rows."""
    for start in range(0, length, rows):
        yield start, min(start + rows, length)


def _is_svd(W: Tensor, U: Tensor, S: Tensor, Vh: Tensor) -> bool:
    """Whether U S Vh is W and both sides are orthonormal, within the policy's bound."""
    eye = torch.eye(len(S), dtype=W.dtype, device=W.device)
    crooked = max((U.mT @ U - eye).abs().max(), (Vh @ Vh.mT - eye).abs().max())
    residual = torch.linalg.norm(W - (U * S) @ Vh)
    return bool(crooked <= RESIDUAL and residual <= RESIDUAL * torch.linalg.norm(W))
