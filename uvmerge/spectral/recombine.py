"""A matrix as the sum of a stored matrix and terms of low rank, and how its rows are computed.

The terms are added in pieces of `BLOCK` inner columns. The order of the pieces depends on the terms
alone, so that a result has the same bits whether it is computed alone or together with others.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from itertools import pairwise

import torch
from torch import Tensor

from .magnitude import exponent_of, largest
from .operand import Term

PANEL_ROWS = 256  # rows multiplied at a time, or a quarter of the shorter side, if that is more
PANEL_BYTES = 2_000_000  # recombined at a time, in the computing dtype
_PROBES = 32
BLOCK = 64  # columns projected, and inner dimension recombined, at a time


class Sum:
    """W = stored + Σ left @ right, a matrix (m, n) whose rows are computed on demand.

    Args:
        stored: (m, n) in any floating-point dtype.
        terms: pairs of left (m, k) and right (k, n).
    """

    def __init__(self, stored: Tensor, terms: tuple[Term, ...] = ()) -> None:
        self.stored, self.terms = stored, terms
        self.shape: tuple[int, int] = (stored.shape[0], stored.shape[1])
        self.device = stored.device

    @property
    def is_tall(self) -> bool:
        """Whether there are more rows than columns."""
        return self.shape[0] > self.shape[1]

    @cached_property
    def exponent(self) -> int:
        """The e for which W / 2^e is decomposed: 0 unless squares of W leave the range of float64."""
        sizes = [largest(self.stored)] if self.stored.dtype == torch.float64 else []
        sizes += [largest(left) * largest(right) * left.shape[1] for left, right in self.terms]
        return exponent_of(max(sizes)) if any(sizes) else 0

    def tensor(self, dtype: torch.dtype) -> Tensor:
        """W as a whole, (m, n)."""
        return self.slab(0, self.shape[0], dtype)

    def panels(self, dtype: torch.dtype) -> Iterator[Tensor]:
        """W, or Wᵀ where W is wide, in row panels (rows, r) of `dtype` with r = min(m, n)."""
        long, r = max(self.shape), min(self.shape)
        for start, stop in _spans(long, max(PANEL_ROWS, r // 4)):
            if self.is_tall:
                yield self.slab(start, stop, dtype)
            else:
                yield self.slab(start, stop, dtype, columns=True).mT

    def slab(self, start: int, stop: int, dtype: torch.dtype, columns: bool = False) -> Tensor:
        """Rows `start` to `stop` of W, or its columns `start` to `stop`, in `dtype`."""
        part = self.stored[:, start:stop] if columns else self.stored[start:stop]
        slab = converted(part, dtype)
        for left, right in self.pieces:
            left = left if columns else left[start:stop]
            right = right[:, start:stop] if columns else right
            slab = torch.addmm(slab, left.to(dtype), right.to(dtype))
        return slab

    @cached_property
    def pieces(self) -> list[Term]:
        """The terms in the order in which they are added: `BLOCK` inner columns of each in turn."""
        longest = max((left.shape[1] for left, _ in self.terms), default=0)
        return [
            (left[:, at : at + BLOCK], right[at : at + BLOCK])
            for at in range(0, longest, BLOCK)
            for left, right in self.terms
            if at < left.shape[1]
        ]


def size_of_change(result: Sum, own: Sum) -> float:
    """‖result − own‖_F, to about a tenth where both are terms beside the same stored matrix: from the
    images of `_PROBES` random vectors, the same for every call."""
    if result.stored is not own.stored:
        change = result.tensor(torch.float32) - own.tensor(torch.float32)
        return float(torch.linalg.vector_norm(change))
    dice = torch.Generator().manual_seed(0)
    m, n = result.shape
    probes = torch.randn(n, _PROBES, generator=dice).to(result.device)
    images = torch.zeros(m, _PROBES, device=result.device)
    for sign, terms in ((1.0, result.terms), (-1.0, own.terms)):
        for left, right in terms:
            images.addmm_(left.float(), right.float() @ probes, alpha=sign)
    return float(torch.linalg.vector_norm(images)) / _PROBES**0.5


def rows_of(results: Sequence[Sum], dtype: torch.dtype) -> Iterator[list[Tensor]]:
    """Row panels (rows, n) of several sums of shape (m, n), in `dtype`: per panel, one for each sum.

    Sums with the same leading terms share the work. The values of a sum do not depend on the others.
    """
    order = sorted(range(len(results)), key=lambda i: len(results[i].pieces))
    shared = [0, *(_common(results[i], results[j]) for i, j in pairwise(order)), 0]
    first = results[0]
    m, n = first.shape
    rows = max(1, PANEL_BYTES // (n * dtype.itemsize))
    for start, stop in _spans(m, rows):
        panels: list[Tensor] = [first.stored] * len(results)
        running, done = first.stored, 0
        for i, (before, after) in zip(order, pairwise(shared)):
            pieces = results[i].pieces
            if done > before or not before:  # `running` holds pieces that sum i does not share
                running, done = converted(results[i].stored[start:stop], dtype), 0
            _add(running, pieces[done:after], start, stop)
            done = max(done, after)
            panels[i] = running.clone() if after else running
            _add(panels[i], pieces[done:], start, stop)
        yield panels


def _common(one: Sum, other: Sum) -> int:
    """How many leading pieces two sums have in common."""
    if one.stored is not other.stored:
        return 0
    count = 0
    for mine, theirs in zip(one.pieces, other.pieces):
        if not all(a.shape == b.shape and torch.equal(a, b) for a, b in zip(mine, theirs)):
            break
        count += 1
    return count


def _add(panel: Tensor, pieces: Sequence[Term], start: int, stop: int) -> None:
    for left, right in pieces:
        panel.addmm_(left[start:stop].to(panel.dtype), right.to(panel.dtype))


def converted(values: Tensor, dtype: torch.dtype) -> Tensor:
    """A copy of `values` in `dtype`, never in the same memory."""
    if values.dtype.itemsize == 2 and dtype == torch.float64:
        values = values.to(torch.float32)  # on the way to float64 this is 5 times as fast
    return values.to(dtype, copy=True)


def _spans(length: int, rows: int) -> Iterator[tuple[int, int]]:
    """(start, stop) of panels of so many rows."""
    for start in range(0, length, rows):
        yield start, min(start + rows, length)
