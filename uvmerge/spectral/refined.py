"""The rung `refined`: leading eigenvectors from float32, refined in float64 by products alone.

It serves where a matrix cannot be reduced to tridiagonal form (`reduction.is_available`), unless the
device multiplies float64 at half the rate of float32: there a float64 eigenproblem takes less time.
"""

from __future__ import annotations

from functools import cache

import torch

from .gram import MOST_BLOCKS, Eigenpairs, Refiner
from .side import Side
from .source import Source

# Compute capabilities of GPUs with float64 units for half the rate of float32: V100, A100, H100. On an
# H100 the rung `gram` was measured (benchmarks/results/gpu.json); of the others the rate is documented.
_FAST_FLOAT64 = ((7, 0), (8, 0), (9, 0))


@cache
def is_fast_in_float64(device: str) -> bool:
    """Whether a device is a GPU that multiplies float64 at half the rate of float32."""
    return device.startswith("cuda") and torch.cuda.get_device_capability(device) in _FAST_FLOAT64


class RefinedRung:
    """Up to two fifths of the triplets of a matrix, in blocks of a fifth."""

    name = "refined"

    def __init__(self, source: Source) -> None:
        self.source = source
        self._refiner: Refiner | None = None
        self._blocks: list[Eigenpairs] = []
        self._sides: dict[int, Side] = {}

    @property
    def is_offered(self) -> bool:
        """Whether the source is of a size and on a device for which refining pays."""
        source = self.source
        is_large = source.r >= source.precision.smallest_refined
        return is_large and not is_fast_in_float64(str(source.W.device))

    def side(self, k: int) -> Side | None:
        """At least the leading k triplets; None where they cannot be refined."""
        r = self.source.r
        size = -(-r // 5)
        count = -(-k // size)
        if not self.is_offered or not 0 < count <= MOST_BLOCKS:
            return None
        blocks = self._blocks
        while len(blocks) < count and (not blocks or len(blocks[-1].values)):
            begin, end = size * len(blocks), min(r, size * (len(blocks) + 1))
            blocks.append(self._block(begin, end))
        if len(blocks) < count or not len(blocks[count - 1].values):
            return None
        if count not in self._sides:
            self._sides[count] = Side.of(self.name, blocks[:count])
        return self._sides[count]

    def start(self) -> Eigenpairs | None:
        """All r float32 eigenpairs that refining starts from; None where LAPACK does not converge."""
        rung, r = f"{self.source.precision.name}-start", self.source.r
        start = self.source.recalled(rung, r, r, torch.float32)
        if start is not None and len(start.values) and start.vectors.shape[1] == r:
            return start
        start = self._start_of_refiner().whole
        if start is not None:
            self.source.keep(rung, start)
        return start

    def _start_of_refiner(self) -> Refiner:
        if self._refiner is None:
            precision = self.source.precision
            self._refiner = Refiner(self.source.gram(precision.multiply), precision)
        return self._refiner

    def _block(self, begin: int, end: int) -> Eigenpairs:
        """Eigenpairs `begin` to `end`, from the shelf or computed; empty where refining fails."""
        source, nothing = self.source, self.source.nothing()
        rung = f"{source.precision.name}-{end}"
        pairs = source.recalled(rung, end - begin, end - begin)
        if pairs is not None:
            return pairs
        before = [nothing.vectors, *(block.vectors for block in self._blocks)]
        refiner = self._start_of_refiner()
        pairs = refiner.block(begin, end, torch.cat(before, dim=1), source.gram) or nothing
        source.keep(rung, pairs)
        return pairs
