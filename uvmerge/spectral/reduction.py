"""A symmetric matrix reduced to tridiagonal form, G = Q T Qᵀ, and its leading eigenvectors.

The reduction is two thirds of LAPACK's work for all eigenvectors and is done once; each vector of T
then costs little (`tridiagonal`), and Q turns it into one of G.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from .lapack import (
    Array,
    functions,
    tridiagonal_form,
    tridiagonal_values,
    tridiagonal_vectors,
)
from .tridiagonal import Twisted

MOST_VECTORS = 448  # columns that are computed together
_REFLECTORS = 128  # applied together


def block_size(r: int) -> int:
    """How many eigenvectors of a matrix (r, r) are computed together; their bits depend on it.

    It is a fifth of r, the default of `--top`, in whole 64s, and bounded for the sake of memory.
    """
    return min(MOST_VECTORS, -(-r // 320) * 64)


def is_available(device: torch.device) -> bool:
    """Whether matrices on this device can be reduced: on the CPU, where scipy is installed."""
    return device.type == "cpu" and functions() is not None


class Reduction:
    """G (r, r) = scale · Q T Qᵀ, symmetric and positive semidefinite, on the CPU.

    Attributes:
        values: all r eigenvalues of T in float64, descending.
        scale: a power of two that brings G into the range of its dtype.
    """

    def __init__(self, reflectors: Tensor, tau: Tensor, d: Array, e: Array, scale: float) -> None:
        self.reflectors, self.tau, self.d, self.e, self.scale = reflectors, tau, d, e, scale
        found = tridiagonal_values(d, e)
        self.converged = found is not None
        self.values = np.zeros(len(d)) if found is None else found
        self.size = block_size(len(d))
        self._blocks: list[Tensor | None] = []
        self._inverses: dict[int, Tensor] = {}
        self._robust: Tensor | None = None

    @classmethod
    def of(cls, G: Tensor, dtype: torch.dtype) -> Reduction | None:
        """Reduce G (float64, used up) in `dtype`; None where that fails."""
        scale = 2.0 ** float(G.diagonal().max().clamp(min=1e-300).log2().round())
        A = G.div_(scale).to(dtype).contiguous()
        found = tridiagonal_form(A.numpy())
        if found is None:
            return None
        d, e, tau = found
        made = cls(A, torch.from_numpy(tau), d.astype(np.float64), e.astype(np.float64), scale)
        return made if made.converged else None

    @property
    def eigenvalues(self) -> Tensor:
        """All eigenvalues of G (r,) in float64, descending, none below 0."""
        return torch.from_numpy(np.maximum(self.values, 0.0) * self.scale)

    def block(self, number: int, bound: float) -> Tensor | None:
        """Columns `number` · b on of the eigenvectors Z of T, (r, b) or fewer at the end, with b from
        `block_size`.

        Args:
            bound: largest |zᵢᵀzⱼ − δᵢⱼ| accepted, among these columns and with all before them.

        Returns:
            None where neither way gives columns within the bound.
        """
        while len(self._blocks) <= number:
            before = self._blocks
            if any(Z is None for Z in before):
                return None
            begin = len(before) * self.size
            end = min(begin + self.size, len(self.d))
            Z = torch.from_numpy(Twisted.of(self.d, self.e, self.values[begin:end]).vectors())
            known = [block for block in before if block is not None]
            if not _are_orthonormal(Z, known, bound):
                Z = self._by_lapack()[:, begin:end].contiguous()
            before.append(Z if _are_orthonormal(Z, known, bound) else None)
        return self._blocks[number]

    def _by_lapack(self) -> Tensor:
        """All eigenvectors of T (r, r) from LAPACK; not finite where that fails."""
        if self._robust is None:
            r = len(self.d)
            found = tridiagonal_vectors(self.d, self.e, r)
            self._robust = torch.from_numpy(np.full((r, r), np.nan) if found is None else found)
        return self._robust

    def solved(self, values: Array, right: Tensor) -> Tensor:
        """x (r, b) with (T − λ) x = `right` for the λ of `values`; see `Twisted.solved`."""
        return torch.from_numpy(Twisted.of(self.d, self.e, values).solved(right.numpy()))

    def back(self, Z: Tensor) -> Tensor:
        """Q Z (r, b), in the dtype of the reduction."""
        return self._reflected(Z, transposed=False)

    def forth(self, R: Tensor) -> Tensor:
        """Qᵀ R (r, b), computed in the dtype of the reduction, in float64."""
        return self._reflected(R, transposed=True).double()

    def _reflected(self, X: Tensor, transposed: bool) -> Tensor:
        """Q X or Qᵀ X by reflectors in blocks, 1 − Vᵀ T V with T⁻¹ = triu(V Vᵀ, 1) + diag(1/τ)."""
        A = self.reflectors
        X = X.to(A.dtype, copy=True)
        starts = range(0, len(self.tau), _REFLECTORS)
        for start in starts if transposed else reversed(starts):
            stop = min(len(self.tau), start + _REFLECTORS)
            V, tau = A[start:stop, start + 1 :].triu(), self.tau[start:stop]
            V.diagonal().fill_(1.0)
            V[tau == 0] = 0.0  # no reflector: it takes no part in T
            if start not in self._inverses:
                inverse = torch.triu(V @ V.mT, 1)
                inverse.diagonal().copy_(torch.where(tau == 0, 1.0, 1.0 / tau))
                self._inverses[start] = inverse
            inverse = self._inverses[start]
            Y = torch.linalg.solve_triangular(
                inverse.mT if transposed else inverse, V @ X[start + 1 :], upper=not transposed
            )
            X[start + 1 :] -= V.mT @ Y
        return X


def _are_orthonormal(Z: Tensor, before: list[Tensor], bound: float) -> bool:
    """Whether the columns of Z are finite, orthonormal, and orthogonal to those before them."""
    if not bool(Z.isfinite().all()):
        return False
    eye = torch.eye(Z.shape[1], dtype=Z.dtype)
    return all(
        float((other.mT @ Z - (eye if other is Z else 0.0)).abs().max()) <= bound
        for other in (*before, Z)
    )
