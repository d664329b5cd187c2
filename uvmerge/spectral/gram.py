"""Gram matrices, and their leading eigenvectors: from float32, refined in float64 by GEMM alone.

A float32 eigenproblem costs half of a float64 one, and its vectors miss by about 1e-6 λ_1 over
the distance of the eigenvalues. A step of perturbation theory squares that error (in the manner of
Ogita and Aishima 2018, doi:10.1007/s13160-018-0310-3, for leading columns alone): with
G q_j ≈ λ_j q_j,

    z_i + Σ_j q_j q_jᵀ(G z_i - θ_i z_i) / (θ_i - λ_j),    j beyond a window behind the block,

and what is near the block's end, where the distances are small, is settled by Rayleigh–Ritz in the
span of block and window. Blocks are a fifth of the columns each, however many are wanted, so that a
sweep over k gives the bits of separate runs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from .precision import Precision

MOST_BLOCKS = 2  # beyond them, it is as fast too
LARGEST_CONDITION = 1e4  # λ_1/λ_i up to which a float32 vector is a start worth refining
# λ_1/λ_i up to which float32 products are exact enough: they displace v_i as a change of W by
# about 5e-9 λ_1/λ_i would (measured), and `fast` has 1e-6.
PRODUCTS_CONDITION = 200
MOST_STEPS = 3
_STRIPE = 224  # rows of the Gram matrix computed at a time; what lies left of them is symmetric


def gram(panels: Iterable[Tensor], r: int, device: torch.device) -> Tensor:
    """Σ panelᵀ panel over row panels (rows, r): (r, r) float64. Products in the panels' dtype, sums
    over panels in float64, and only on and above the diagonal."""
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
    """A float32 panel, divided by a power of two where its products would leave the range of
    float32, and the square of that power."""
    largest = max(map(abs, map(float, panel.aminmax())))
    if 1e-12 < largest < 1e12 or not 0 < largest < torch.inf:
        return panel, 1.0
    exponent = max(-126, min(126, math.frexp(largest)[1]))  # 2^±126 are normal numbers
    return panel * 2.0**-exponent, 4.0**exponent


@dataclass(frozen=True)
class Eigenpairs:
    """Neighbouring eigenpairs: `values` (b,) descending, `vectors` (r, b), and the next value."""

    values: Tensor
    vectors: Tensor
    following: float | None

    @classmethod
    def all_of(cls, G: Tensor) -> Eigenpairs | None:
        """All r of them, in G's dtype; None where they do not converge."""
        try:
            values, vectors = torch.linalg.eigh(G)
        except torch.linalg.LinAlgError:  # type: ignore[attr-defined]
            return None
        return cls(values.flip(0), vectors.flip(1), None)


class Refiner:
    """Leading eigenpairs of G (r, r) float64, symmetric and positive semidefinite, in blocks.

    Args:
        G: from products in the policy's dtype; it is scaled in place.
        policy: decides the residual ‖G v_i − θ_i v_i‖ / θ_i that is accepted.
    """

    def __init__(self, G: Tensor, policy: Precision) -> None:
        self.dtype, self.residual = policy.multiply, policy.residual
        self.scale = 2.0 ** float(G.diagonal().max().clamp(min=1e-300).log2().round())
        self.G = G.div_(self.scale)  # in the range of float32
        self.start = Eigenpairs.all_of(self.G.float())

    def block(
        self, begin: int, end: int, before: Tensor, multiply: Callable[[torch.dtype], Tensor]
    ) -> Eigenpairs | None:
        """Eigenpairs `begin` to `end`, or None where they cannot be refined.

        Args:
            multiply: gives G from products in another dtype, where the policy's do not suffice.
            before: the eigenvectors (r, begin) of all larger eigenvalues.
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
            moved = self._moved(Z[:, :b], vectors[:, window:], values[window:])
            Z = torch.cat([moved, Z[:, b:]], dim=1)
            if begin:
                Z -= before @ (before.mT @ Z)
            found = _rayleigh_ritz(self.G, Z)
            if found is None:
                return None
            theta, Z, GZ = found
            missed = GZ[:, :b] - Z[:, :b] * theta[:b]
            if begin:  # what is left along `before` turns vectors within the leading space alone
                missed -= before @ (before.mT @ missed)
            norms = torch.linalg.vector_norm(missed, dim=0)
            if bool((norms <= self.residual * theta[:b]).all()):
                following = float(theta[b]) * self.scale if window > end else None
                return Eigenpairs(theta[:b] * self.scale, Z[:, :b].contiguous(), following)
        return None

    def _moved(self, Z: Tensor, beyond: Tensor, values: Tensor) -> Tensor:
        """The columns of Z (r, b) moved by first-order perturbation theory along `beyond`."""
        GZ = self.G @ Z
        theta = (Z * GZ).sum(0) / (Z * Z).sum(0)
        missed = GZ.sub_(Z * theta)
        size = missed.abs().max().clamp(min=1e-300)  # keeps float32 from underflowing
        X = beyond.mT @ (missed / size).float()
        apart = theta.float() - values[:, None]
        X = torch.where(apart > 1e-6 * theta.float(), X / apart, 0.0)
        return Z.add((beyond @ X).double(), alpha=float(size))


def _rayleigh_ritz(G: Tensor, Z: Tensor) -> tuple[Tensor, Tensor, Tensor] | None:
    """Ritz values in the span of Z, descending, Ritz vectors, and G times them; None where Z is
    not of full rank."""
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
