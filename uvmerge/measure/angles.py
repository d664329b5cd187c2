"""Angles between two subspaces, exact where they are small."""

from __future__ import annotations

import torch
from torch import Tensor


def principal_angles(P: Tensor, Q: Tensor, cosines: Tensor | None = None) -> Tensor:
    """Principal angles (k,) between the spans of P and Q, ascending, in radians.

    Small angles come from sines, the singular values of (1 − P Pᵀ) Q; large angles come from cosines,
    the singular values of Pᵀ Q (Björck and Golub 1973, doi:10.1090/S0025-5718-1973-0348991-3). The
    arccosine alone could not tell an angle under the square root of the rounding error from zero.

    Args:
        P, Q: (d, k), with orthonormal columns.
        cosines: Pᵀ Q (k, k), if it is known.
    """
    C = P.mT @ Q if cosines is None else cosines
    sines = torch.linalg.svdvals(torch.addmm(Q, P, C, alpha=-1)).flip(0).clamp(max=1)
    cosine = torch.linalg.svdvals(C).clamp(max=1)
    return torch.where(sines.square() < 0.5, sines.asin(), cosine.acos())


def chordal(P: Tensor, Q: Tensor) -> float:
    """Chordal distance: √ of the mean of sin²θ over the principal angles of the spans of P and Q.

    A small distance is computed from (1 − P Pᵀ) Q, because the sum of squared cosines could not tell
    it from a rounding error.

    Args:
        P, Q: (d, k), with orthonormal columns.
    """
    k = P.shape[1]
    if not k:
        return 0.0
    cosines = P.mT @ Q
    mean = 1 - float(torch.linalg.vector_norm(cosines)) ** 2 / k
    if mean < (1e-4 if P.dtype == torch.float64 else 1e-2):
        mean = float(torch.linalg.vector_norm(torch.addmm(Q, P, cosines, alpha=-1))) ** 2 / k
    return min(1.0, mean) ** 0.5
