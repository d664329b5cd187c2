"""Singular vectors of both sides of a matrix, from the eigenpairs of its Gram matrix."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from .gram import Eigenpairs
from .recombine import BLOCK


@dataclass
class Side:
    """Singular vectors from the eigenpairs of a Gram matrix: of the shorter side at once, of the
    longer side as far as they were asked for.

    Attributes:
        method: the rung of the ladder.
        values: singular values in float64, descending.
        short: singular vectors (r, ·) of the shorter side, in float64.
        following: the singular value after the last one; None where it is unknown or there is none.
        tilt: an estimate of ‖sin‖_F of the angles between `short` and the leading singular subspace,
            where the rung leaves some.
        other: blocks (long side, `BLOCK`) of the longer side's vectors, times their singular values.
        non_orthogonality: per column j of `other`, the largest |uᵢᵀuⱼ − δᵢⱼ| over i ≤ j.
    """

    method: str
    values: Tensor
    short: Tensor
    following: float | None
    tilt: float = 0.0
    other: list[Tensor] = field(default_factory=list)
    non_orthogonality: list[float] = field(default_factory=list)

    @classmethod
    def of(cls, method: str, blocks: Sequence[Eigenpairs]) -> Side:
        """From blocks of eigenpairs of a Gram matrix, the one with the largest values first."""
        values = torch.cat([block.values for block in blocks]).clamp(min=0).sqrt()
        last = blocks[-1].following
        following = None if last is None else max(last, 0.0) ** 0.5
        vectors = [block.vectors for block in blocks]
        short = vectors[0] if len(vectors) == 1 else torch.cat(vectors, dim=1)
        return cls(method, values, short, following)

    def holds(self, k: int, bound: float) -> bool:
        """Whether the first k triplets are accurate: non-orthogonality at most `bound`."""
        if k == 0:
            return True
        if not bool(self.values[k - 1] > 1e-7 * self.values[0]):
            return False
        return max(self.non_orthogonality[:k]) <= bound

    def extend(self, k: int, project: Callable[[list[Tensor]], list[Tensor]]) -> None:
        """Compute what is missing of the first k columns of the longer side.

        Args:
            project: multiplies blocks (r, ·) of the shorter side's vectors by W or Wᵀ.
        """
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
            self.non_orthogonality += worst.nan_to_num(nan=torch.inf).tolist()
