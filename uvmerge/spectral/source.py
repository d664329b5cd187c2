"""What the rungs of the ladder share: the matrix, its Gram matrix, and kept eigenpairs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from .gram import Eigenpairs, gram
from .precision import Precision
from .recombine import Sum


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


@dataclass(frozen=True)
class Source:
    """A matrix W (m, n) with r = min(m, n), as the rungs of the ladder see it: W / 2^exponent.

    Attributes:
        shelf: where eigenpairs of earlier runs are looked for, and new ones are kept.
    """

    W: Sum
    precision: Precision
    shelf: Shelf | None

    @property
    def r(self) -> int:
        """The shorter side."""
        return min(self.W.shape)

    def gram(self, multiply: torch.dtype) -> Tensor:
        """The Gram matrix (r, r) of the shorter side in float64, from products in `multiply`."""
        return gram(self.panels(multiply), self.r, self.W.device)

    def panels(self, dtype: torch.dtype) -> Iterator[Tensor]:
        """The row panels (rows, r) of W, or of Wᵀ where W is wide."""
        panels, exponent = self.W.panels(dtype), self.W.exponent
        return (panel * 2.0**-exponent for panel in panels) if exponent else panels

    def project(self, blocks: Sequence[Tensor]) -> list[Tensor]:
        """W V, or Wᵀ U where W is wide, for blocks (r, ·) of the shorter side's vectors: the longer
        side's vectors times their singular values, (long side, ·), in `precision.combine`."""
        to = self.precision.combine
        blocks = [block.to(to).contiguous() for block in blocks]
        others = [block.new_empty(max(self.W.shape), block.shape[1]) for block in blocks]
        start = 0
        for panel in self.panels(to) if blocks else ():
            for block, other in zip(blocks, others):
                torch.mm(panel, block, out=other[start : start + len(panel)])
            start += len(panel)
        return others

    def across(self, others: Sequence[Tensor]) -> list[Tensor]:
        """Wᵀ Y, or W Y where W is wide, for blocks Y (long side, ·) in `precision.combine`."""
        sums = [other.new_zeros(self.r, other.shape[1]) for other in others]
        start = 0
        for panel in self.panels(self.precision.combine):
            for total, other in zip(sums, others):
                total.addmm_(panel.mT, other[start : start + len(panel)])
            start += len(panel)
        return sums

    def recalled(
        self, rung: str, columns: int, count: int, dtype: torch.dtype = torch.float64
    ) -> Eigenpairs | None:
        """Eigenpairs from the shelf, on the device; None where none can be the `count` of a rung."""
        pairs = None if self.shelf is None else self.shelf.recall(self._kept_as(rung), columns)
        if pairs is None or not pairs.can_be(count, self.r, dtype):
            return None
        device = self.W.device
        return Eigenpairs(pairs.values.to(device), pairs.vectors.to(device), pairs.following)

    def keep(self, rung: str, pairs: Eigenpairs) -> None:
        """Put eigenpairs on the shelf, if there is one."""
        if self.shelf is not None:
            self.shelf.keep(self._kept_as(rung), pairs)

    def _kept_as(self, rung: str) -> str:
        """The name of a rung on the shelf, where eigenpairs are those of W / 2^exponent."""
        return f"{rung}-over-2-{self.W.exponent}" if self.W.exponent else rung

    def nothing(self, dtype: torch.dtype = torch.float64) -> Eigenpairs:
        """No eigenpairs, which record that a rung failed."""
        vectors = torch.zeros(self.r, 0, dtype=dtype, device=self.W.device)
        return Eigenpairs(vectors.flatten().double(), vectors, None)
