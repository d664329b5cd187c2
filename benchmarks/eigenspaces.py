"""Ways to the leading singular directions of a matrix by products alone, for devices that multiply fast.

Each takes the Gram matrix G (r, r) of the shorter side in float64 and gives an orthonormal V (r, k) of
the span of its k leading eigenvectors. Nothing here depends on the device. `uvmerge` uses none of it:
`gpu.py` measures which of them deserves to be.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

DEGREE = 10  # of the filter, per round
ROUNDS = 60
GUARD = 0.25  # columns beyond k that the filter carries along, as a share of k
RESIDUAL = 1e-10  # ‖G v − θ v‖ / θ_1 at which a column is locked
STEPS = 60  # of the sign iteration


def by_eigh(G: Tensor, k: int) -> Tensor:
    """LAPACK on a CPU, cuSOLVER on a GPU: all eigenvectors."""
    return torch.linalg.eigh(G).eigenvectors.flip(-1)[..., :k]


def by_filter(G: Tensor, k: int) -> Tensor:
    """A locked Chebyshev filter (Zhou et al. 2006, doi:10.1016/j.jcp.2006.03.017).

    A round multiplies the columns by a polynomial that is at most 1 on the unwanted part of the
    spectrum and grows beyond it, orthonormalises them by CholeskyQR2 and rotates them to Ritz vectors;
    leading columns whose residual is small are locked and left out of the next rounds.
    """
    r = len(G)
    width = min(r, k + max(8, int(GUARD * k)))
    generator = torch.Generator(G.device).manual_seed(0)
    V = torch.randn(r, width, generator=generator, dtype=G.dtype, device=G.device)
    locked = V[:, :0]
    theta, V = rayleigh_ritz(G, orthonormal(G @ V))
    size = float(theta[0])
    for _ in range(ROUNDS):
        V = filtered(G, V, float(theta[-1]))
        V = orthonormal(V - locked @ (locked.mT @ V))
        V = orthonormal(V - locked @ (locked.mT @ V))
        theta, V = rayleigh_ritz(G, V)
        residuals = torch.linalg.vector_norm(G @ V - V * theta, dim=0)
        done = int((residuals <= RESIDUAL * size).int().cumprod(0).sum())
        locked, V, theta = torch.cat([locked, V[:, :done]], dim=1), V[:, done:], theta[done:]
        if locked.shape[1] >= k:
            return locked[:, :k]
    raise ArithmeticError(f"{locked.shape[1]} of {k} columns converged in {ROUNDS} rounds")


def filtered(G: Tensor, V: Tensor, bound: float) -> Tensor:
    """T_d((2 G − b) / b) V for eigenvalues of 0 to b that are not wanted."""
    half = bound / 2
    before, now = V, (G @ V - half * V) / half
    for _ in range(DEGREE - 1):
        before, now = now, 2 / half * (G @ now - half * now) - before
        size = now.abs().max()
        before, now = before / size, now / size
    return now


def by_sign(G: Tensor, k: int) -> Tensor:
    """The projector (1 + sign(G − μ)) / 2 by Newton–Schulz, with μ between λ_k and λ_{k+1}."""
    values = torch.linalg.eigvalsh(G).flip(0)
    middle = float(values[k - 1] + values[k]) / 2 if k < len(G) else -1.0
    eye = torch.eye(len(G), dtype=G.dtype, device=G.device)
    X = (G - middle * eye) / max(float(values[0]) - middle, middle)
    for _ in range(STEPS):
        square = X @ X
        if float((square - eye).abs().max()) < 1e-12:
            break
        X = X @ (1.5 * eye - 0.5 * square)
    generator = torch.Generator(G.device).manual_seed(0)
    start = torch.randn(len(G), k, generator=generator, dtype=G.dtype, device=G.device)
    return orthonormal((start + X @ start) / 2)


def orthonormal(V: Tensor) -> Tensor:
    """An orthonormal basis of the columns of V, by CholeskyQR2."""
    V = V / torch.linalg.vector_norm(V, dim=0).clamp(min=1e-300)
    for _ in range(2):
        square = V.mT @ V
        shift = 1e-14 * float(square.diagonal().sum())
        L = torch.linalg.cholesky(
            square + shift * torch.eye(len(square), dtype=V.dtype, device=V.device)
        )
        V = torch.linalg.solve_triangular(L, V.mT, upper=False).mT
    return V


def rayleigh_ritz(G: Tensor, V: Tensor) -> tuple[Tensor, Tensor]:
    """Ritz values, descending, and Ritz vectors of G in the span of the orthonormal V."""
    theta, Y = torch.linalg.eigh(V.mT @ (G @ V))
    return theta.flip(0), V @ Y.flip(1)


METHODS: dict[str, Callable[[Tensor, int], Tensor]] = {
    "eigh": by_eigh,
    "filter": by_filter,
    "sign": by_sign,
}
