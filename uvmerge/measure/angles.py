"""Angles between two subspaces, exact where they are small."""

from __future__ import annotations

import torch
from torch import Tensor


def principal_angles(P: Tensor, Q: Tensor, cosines: Tensor | None = None) -> Tensor:
    """Angles (k,) between the spans of P and Q (d, k), orthonormal columns, ascending, in radians.

    Small ones come from sines, the singular values of (1 − P Pᵀ) Q, large ones from cosines, those of
    Pᵀ Q (Björck and Golub 1973, doi:10.1090/S0025-5718-1973-0348991-3): arccos alone could not tell
    an angle under the square root of the rounding error from zero.

    Args:
        cosines: Pᵀ Q, if it is there already.
    """
    C = P.mT @ Q if cosines is None else cosines
    sines = torch.linalg.svdvals(torch.addmm(Q, P, C, alpha=-1)).flip(0).clamp(max=1)
    cosine = torch.linalg.svdvals(C).clamp(max=1)
    return torch.where(sines.square() < 0.5, sines.asin(), cosine.acos())


def chordal(P: Tensor, Q: Tensor) -> float:
    """√ of the mean of sin²θ over the principal angles of the spans of P and Q (d, k).

    Where it is small, from (1 − P Pᵀ) Q: the sum of the cosines could not tell it from rounding.
    """
    k = P.shape[1]
    if not k:
        return 0.0
    cosines = P.mT @ Q
    mean = 1 - float(torch.linalg.vector_norm(cosines)) ** 2 / k
    if mean < (1e-4 if P.dtype == torch.float64 else 1e-2):
        mean = float(torch.linalg.vector_norm(torch.addmm(Q, P, cosines, alpha=-1))) ** 2 / k
    return min(1.0, mean) ** 0.5
