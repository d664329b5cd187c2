"""The last rung of the ladder: a singular value decomposition that is checked."""

from __future__ import annotations

import torch
from torch import Tensor

from .operand import Factors
from .precision import RESIDUAL


def checked_svd(W: Tensor) -> Factors | None:
    """The SVD of W, or else of Wᵀ with its factors exchanged; None where neither converges to W."""
    for method in ("svd", "svd of the transpose"):
        flip = method != "svd"
        try:
            U, S, Vh = torch.linalg.svd(W.mT if flip else W, full_matrices=False)
        except torch.linalg.LinAlgError:  # type: ignore[attr-defined]
            continue
        if flip:
            U, Vh = Vh.mT, U.mT
        if _is_svd(W, U, S, Vh):
            return Factors(U, S, Vh, None, method)
    return None


def _is_svd(W: Tensor, U: Tensor, S: Tensor, Vh: Tensor) -> bool:
    """Whether U S Vh is W and both sides are orthonormal, within `RESIDUAL`."""
    eye = torch.eye(len(S), dtype=W.dtype, device=W.device)
    non_orthogonality = max((U.mT @ U - eye).abs().max(), (Vh @ Vh.mT - eye).abs().max())
    residual = torch.linalg.norm(W - (U * S) @ Vh)
    return bool(non_orthogonality <= RESIDUAL and residual <= RESIDUAL * torch.linalg.norm(W))
