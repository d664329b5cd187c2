"""The leading triplets of one matrix, and which of them have vectors of their own."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..spectral import Factors
from ..spectral.matrix import DenseMatrix
from ..spectral.precision import SMALLEST_VALUE
from .judgement import EQUAL
from .tenths import NOT_TURNED, Angles, Taken, turned_tenths

INTRUDERS = 10  # how many leading vectors are looked at, whatever k is


@dataclass(frozen=True)
class Leading:
    """The leading k triplets of a matrix W (m, n), without the rest of its decomposition.

    Attributes:
        U, S, Vh: (m, k), (k,) descending, (k, n), in the dtype `combine` of the precision policy.
        gap: (σ_k − σ_{k+1})/σ_k; None where k is 0 or min(m, n).
        method: the rung of the precision ladder that gave the triplets.
        energy: ‖W‖_F².
        first: the leading ten triplets, or all k where k is more.
        taken: vectors of every tenth of the spectrum; None unless they were asked for.
        turned: how the vectors of the tenths turned, left and right; empty for a base.
    """

    matrix: DenseMatrix
    U: Tensor
    S: Tensor
    Vh: Tensor
    gap: float | None
    method: str
    energy: float
    first: Factors
    taken: Taken | None = None
    turned: tuple[Angles, Angles] = NOT_TURNED

    @classmethod
    def of(cls, matrix: DenseMatrix, k: int, base: Leading | None = None) -> Leading:
        """Decompose `matrix`, which then forgets its decompositions.

        Args:
            base: what the tenths of the spectrum are compared with; None for a base.
        """
        found = matrix.top(k)
        first = found if k >= INTRUDERS else matrix.top(min(INTRUDERS, *matrix.shape))
        taken, turned = None, NOT_TURNED
        if k and base is None:
            taken = Taken.of(matrix, matrix.basis())
        elif k and base is not None and base.taken is not None:
            turned = turned_tenths(matrix, matrix.basis(), base.taken)
        matrix.release()
        energy = sum(
            float(torch.linalg.vector_norm(panel, dtype=torch.float64)) ** 2
            for panel in matrix.panels(wide_enough(matrix))
        )
        return cls(
            matrix,
            found.U,
            found.S,
            found.Vh,
            found.gap,
            found.method,
            energy,
            first,
            taken,
            turned,
        )

    @property
    def k(self) -> int:
        return len(self.S)

    def cut(self, k: int) -> Leading:
        """The first k triplets."""
        if k == self.k:
            return self
        gap = float(1 - self.S[k] / self.S[k - 1]) if k else None
        return replace(self, U=self.U[:, :k], S=self.S[:k], Vh=self.Vh[:k], gap=gap)


def numerical_rank(S: Tensor) -> int:
    """How many singular values are over 1e-6 σ_1, and so have vectors of their own; S descends."""
    return int((SMALLEST_VALUE * S[:1] < S).sum())


def groups_of(S: Tensor) -> Tensor:
    """(k,) int64: for each singular value, the number of its group of equal values, from 0."""
    if not len(S):
        return S.long()
    apart = S[:-1] - S[1:] > EQUAL * S[:-1]
    return torch.cat([apart.new_zeros(1), apart]).cumsum(0)


def wide_enough(matrix: DenseMatrix) -> torch.dtype:
    """The dtype, float32 or float64, that holds the stored values of a matrix exactly."""
    return torch.float32 if matrix.stored_bytes < 8 else torch.float64
