"""Gram matrices, and their leading eigenvectors: from float32, refined in float64 by GEMM alone.

A float32 eigenproblem costs half of a float64 one, and the error of its eigenvectors is about
1e-6 λ_1 over the distance of the eigenvalues. A step of first-order perturbation theory squares
that error (in the manner of Ogita and Aishima 2018, doi:10.1007/s13160-018-0310-3, for leading
columns alone): with G q_j ≈ λ_j q_j, an approximate eigenvector z_i with Ritz value θ_i becomes

    z_i + Σ_j q_j q_jᵀ(G z_i − θ_i z_i) / (θ_i − λ_j),    j over the columns after the window.

The window is the few columns that follow the block. Its eigenvalues are too close to the block's
last ones for this formula, so Rayleigh–Ritz in the span of block and window corrects along them.
Each block is a fifth of the columns, however many columns are wanted, so that a sweep over k gives
the same bits as separate runs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from .precision import Precision

MOST_BLOCKS = 2  # beyond two blocks, the float64 eigenproblem is as fast
LARGEST_CONDITION = 1e4  # λ_1/λ_i up to which refining a float32 eigenvector converges
# λ_1/λ_i up to which products in float32 are exact enough: their error displaces v_i as a relative
# change of W by about 5e-9 λ_1/λ_i would (measured), and `fast` allows 1e-6.
PRODUCTS_CONDITION = 200
MOST_STEPS = 3
_STRIPE = 224  # rows of G computed at a time; what is left of the diagonal is copied


def gram(panels: Iterable[Tensor], r: int, device: torch.device) -> Tensor:
    """The Gram matrix Σ panelᵀ panel (r, r) in float64, of row panels (rows, r).

    Products are computed in the dtype of the panels and summed over panels in float64. What is under
    the diagonal is copied from above it.
    """
    G = torch.zeros(r, r, dtype=torch.float64, device=device)
    for panel in panels:
        panel, size = (panel, 1.0) if panel.dtype == G.dtype else in_range(panel)
        for at in range(0, r, _STRIPE):
            stripe, left = G[at : at + _STRIPE, at:], panel[:, at : at + _STRIPE].mT
            if panel.dtype == G.dtype:
                stripe.addmm_(left, panel[:, at:])
            else:
                stripe.add_(left @ panel[:, at:], alpha=size)
    for at in range(_STRIPE, r, _STRIPE):
        G[at:, at - _STRIPE : at] = G[at - _STRIPE : at, at:].mT
    return G


def in_range(panel: Tensor) -> tuple[Tensor, float]:
    """A panel whose products stay in the range of float32, and a factor for these products.

    A float32 panel with very large or very small values is divided by a power of two; the factor is
    the square of this power, and 1 for any other panel.
    """
    largest = max(map(abs, map(float, panel.aminmax())))
    if 1e-12 < largest < 1e12 or not 0 < largest < torch.inf:
        return panel, 1.0
    exponent = max(-126, min(126, math.frexp(largest)[1]))  # 2^±126 are normal numbers
    return panel * 2.0**-exponent, 4.0**exponent


@dataclass(frozen=True)
class Eigenpairs:
    """Eigenpairs of neighbouring eigenvalues.

    Attributes:
        values: (b,), descending.
        vectors: (r, ·), one column per eigenvalue; pairs kept on disk may lack the last columns.
        following: the next smaller eigenvalue, or None where it is unknown or there is none.
    """

    values: Tensor
    vectors: Tensor
    following: float | None

    @classmethod
    def all_of(cls, G: Tensor) -> Eigenpairs | None:
        """All r eigenpairs of G (r, r), in its dtype; None where LAPACK does not converge."""
        try:
            values, vectors = torch.linalg.eigh(G)
        except torch.linalg.LinAlgError:  # type: ignore[attr-defined]
            return None
        return cls(values.flip(0), vectors.flip(1), None)

    def can_be(self, count: int, r: int, dtype: torch.dtype = torch.float64) -> bool:
        """Whether these may be `count` pairs of a Gram matrix (r, r) with vectors of `dtype`, or the
        none of a failed rung."""
        shapes = len(self.values), len(self.vectors), self.values.dtype, self.vectors.dtype
        return (
            shapes in [(b, r, torch.float64, dtype) for b in (count, 0)]
            and self.vectors.shape[1] <= len(self.values)
            and bool(self.vectors.isfinite().all() and self.values.isfinite().all())
            and not bool((self.values.diff() > 0).any())
            and math.isfinite(self.following or 0.0)
        )


class Refiner:
    """Leading eigenpairs of G (r, r) float64, symmetric and positive semidefinite, in blocks.

    Args:
        G: a Gram matrix from products in `policy.multiply`; the refiner scales G in place.
        policy: sets the largest residual ‖G v_i − θ_i v_i‖ / θ_i that is accepted.
    """

    def __init__(self, G: Tensor, policy: Precision) -> None:
        self.dtype, self.residual = policy.multiply, policy.residual
        self.scale = 2.0 ** float(G.diagonal().max().clamp(min=1e-300).log2().round())
        self.G = G.div_(self.scale)  # in the range of float32
        self.start = Eigenpairs.all_of(self.G.float())

    @property
    def whole(self) -> Eigenpairs | None:
        """All r eigenpairs that refining starts from, with float32 vectors."""
        if self.start is None:
            return None
        return Eigenpairs(self.start.values.double() * self.scale, self.start.vectors, None)

    def block(
        self, begin: int, end: int, before: Tensor, multiply: Callable[[torch.dtype], Tensor]
    ) -> Eigenpairs | None:
        """Eigenpairs `begin` to `end` in float64, or None where refining them does not converge.

        Args:
            before: the eigenvectors (r, begin) of all larger eigenvalues.
            multiply: computes G anew from products in the dtype it is given, for eigenvalues so
                small that products in the policy's dtype are not exact enough.
        """
        r, b = len(self.G), end - begin
        if self.start is None:
            return None
        values, vectors = self.start.values, self.start.vectors
        if not values[end - 1] * LARGEST_CONDITION > values[0]:
            return None
        if self.dtype == torch.float32 and not values[end - 1] * PRODUCTS_CONDITION > values[0]:
            self.dtype = torch.float64
            self.G = multiply(self.dtype).div_(self.scale)
        window = min(r, end + max(16, b // 4))
        Z = vectors[:, begin:window].double()
        for _ in range(MOST_STEPS):
            corrected = self._corrected(Z[:, :b], vectors[:, window:], values[window:])
            Z = torch.cat([corrected, Z[:, b:]], dim=1)
            if begin:
                Z -= before @ (before.mT @ Z)
            found = _rayleigh_ritz(self.G, Z)
            if found is None:
                return None
            theta, Z, GZ = found
            residuals = GZ[:, :b] - Z[:, :b] * theta[:b]
            if begin:  # an error along `before` only turns vectors within the leading subspace
                residuals -= before @ (before.mT @ residuals)
            norms = torch.linalg.vector_norm(residuals, dim=0)
            if bool((norms <= self.residual * theta[:b]).all()):
                following = float(theta[b]) * self.scale if window > end else None
                return Eigenpairs(theta[:b] * self.scale, Z[:, :b].contiguous(), following)
        return None

    def _corrected(self, Z: Tensor, beyond: Tensor, values: Tensor) -> Tensor:
        """The columns of Z (r, b), corrected along `beyond` by first-order perturbation theory.

        Args:
            beyond, values: float32 eigenvectors (r, ·) after the window, and their eigenvalues.
        """
        GZ = self.G @ Z
        theta = (Z * GZ).sum(0) / (Z * Z).sum(0)
        residuals = GZ.sub_(Z * theta)
        size = residuals.abs().max().clamp(min=1e-300)  # keeps float32 from underflowing
        X = beyond.mT @ (residuals / size).float()
        distances = theta.float() - values[:, None]
        X = torch.where(distances > 1e-6 * theta.float(), X / distances, 0.0)
        return Z.add((beyond @ X).double(), alpha=float(size))


def _rayleigh_ritz(G: Tensor, Z: Tensor) -> tuple[Tensor, Tensor, Tensor] | None:
    """Ritz values (·,) of G in the span of Z, descending, the Ritz vectors V, and G V.

    Returns None where Z (r, ·) does not have full rank.
    """
    GZ = G @ Z
    try:
        C = torch.linalg.cholesky(Z.mT @ Z)
        eye = torch.eye(len(C), dtype=C.dtype, device=C.device)
        inverse = torch.linalg.solve_triangular(C, eye, upper=False)
        H = inverse @ (Z.mT @ GZ) @ inverse.mT
        theta, Y = torch.linalg.eigh((H + H.mT) / 2)
    except torch.linalg.LinAlgError:  # type: ignore[attr-defined]
        return None
    T = inverse.mT @ Y.flip(1)
    return theta.flip(0), Z @ T, GZ @ T
