"""Merging differences δ = W − base of several models in their singular subspaces.

All functions take and return matrices (m, n) with r = min(m, n), in float64. Singular values of at most
`NEGLIGIBLE` times the largest count as zero: their vectors are arbitrary, so no result depends on them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from .operand import Factors

if TYPE_CHECKING:
    from torch import Tensor

NEGLIGIBLE = 1e-9


def leading(matrix: Tensor, k: int, size: float = 0.0) -> Factors:
    """The leading k triplets of a matrix, without those whose singular value is negligible.

    Args:
        size: what singular values are compared with, if it is more than the largest of them.

    Raises:
        RunFailed: no decomposition of the matrix converges.
    """
    from .ladder import Ladder
    from .precision import EXACT
    from .recombine import Sum

    m, n = matrix.shape
    if k == 0 or not bool(matrix.any()):
        empty = [matrix.new_zeros(shape) for shape in ((m, 0), (0,), (0, n))]
        return Factors(empty[0], empty[1], empty[2], None, "")
    U, S, Vh = found = Ladder("a sum of differences", Sum(matrix), EXACT).top(k)
    bound = NEGLIGIBLE * max(float(S[0]), size)
    count = int(S.gt(bound).sum())
    return Factors(U[:, :count], S[:count], Vh[:count], found.gap, found.method)


def polar(matrix: Tensor) -> Tensor:
    """The orthonormal columns nearest to those of a matrix: U Vᵀ of its SVD U S Vᵀ.

    Where columns are linearly dependent, the result is the partial isometry of the polar decomposition:
    it has the column space of the matrix.
    """
    U, _, Vh = leading(matrix, min(matrix.shape))
    return U @ Vh


def tsv(deltas: Sequence[Tensor]) -> Tensor:
    """TSV-M: the leading r/N triplets of each δ, at least one, with the stacked U and V made orthonormal."""
    k = max(1, min(deltas[0].shape) // len(deltas))
    U, S, V = _stacked([leading(delta, k) for delta in deltas])
    return (polar(U) * S) @ polar(V).mT


def isotropic(delta: Tensor) -> Tensor:
    """Iso-C: U Vᵀ times the mean singular value, over those that are not zero."""
    U, S, Vh = leading(delta, min(delta.shape))
    return U @ Vh * S.mean() if len(S) else delta.new_zeros(delta.shape)


def isotropic_with_tasks(deltas: Sequence[Tensor], common: float) -> Tensor:
    """Iso-CTS: of the sum the leading directions, of each δ outside their left span the leading ones, all
    with the mean of their singular values.

    Args:
        common: the share of r for the directions of the sum, rounded so that the rest is divisible by N.
    """
    r, N = min(deltas[0].shape), len(deltas)
    each = round((r - int(r * common)) / N)
    each = min(each, r // N)
    shared = leading(sum(deltas[1:], deltas[0]), r - each * N)
    outside = [delta - shared.U @ (shared.U.mT @ delta) for delta in deltas] if each else []
    own = [leading(part, each, float(delta.norm())) for part, delta in zip(outside, deltas)]
    U, S, V = _stacked([*own, shared])
    return polar(U) @ polar(V).mT * S.mean() if len(S) else deltas[0].new_zeros(deltas[0].shape)


def in_common_basis(
    deltas: Sequence[Tensor], merge: Callable[[Sequence[Tensor]], Tensor]
) -> Tensor:
    """KnOTS: with U S [V₁ᵀ … V_Nᵀ] = [δ₁ … δ_N], U times what `merge` makes of the S Vᵢᵀ (·, n)."""
    import torch

    side_by_side = torch.cat(list(deltas), dim=1)
    U = leading(side_by_side, min(side_by_side.shape)).U
    return U @ merge([U.mT @ delta for delta in deltas])


def boosted(delta: Tensor, share: float) -> Tensor:
    """Subspace Boosting: every smaller singular value raised to the first at which the sum of the leading
    ones reaches a share of the sum of all."""
    U, S, Vh = leading(delta, min(delta.shape))
    if not len(S):
        return delta
    reached = S.cumsum(0) >= share * S.sum()
    at = int(reached.double().argmax()) if bool(reached.any()) else len(S) - 1
    return delta + (U * (S[at] - S).clamp(min=0)) @ Vh


def calibrated(delta: Tensor, deltas: Sequence[Tensor], alpha: float) -> Tensor:
    """SVC: each singular value σ of a merged δ times N / Σᵢ max(α, sᵢ).

    sᵢ = <uᵀδ, uᵀδᵢ> / ‖uᵀδᵢ‖² is how often the merge has what model i does in direction u; 0 where
    model i does nothing there. The factor is 1 where the sum is 0.
    """
    U, S, Vh = leading(delta, min(delta.shape))
    if not len(S):
        return delta
    merged, total = S[:, None] * Vh, delta.new_zeros(len(S))
    for own in deltas:
        response = U.mT @ own  # (k, n)
        size = response.square().sum(1)
        present = size > (NEGLIGIBLE * S[0]) ** 2
        overlap = (merged * response).sum(1) / size.where(present, 1.0)
        total += overlap.where(present, 0.0).clamp(min=alpha)
    factors = (len(deltas) / total).where(total > 0, 1.0)
    return delta + (U * (S * (factors - 1))) @ Vh


def _stacked(several: Sequence[Factors]) -> tuple[Tensor, Tensor, Tensor]:
    """U, S and V (not Vᵀ) of several factors side by side."""
    import torch

    U = torch.cat([each.U for each in several], dim=1)
    S = torch.cat([each.S for each in several])
    V = torch.cat([each.Vh for each in several]).mT
    return U, S, V


def merged(
    method: str,
    deltas: Sequence[Tensor],
    weights: Sequence[float],
    densities: Sequence[float] = (),
) -> Tensor:
    """The merged difference of a simple method, for those that work on top of another one.

    Args:
        method: `task-arithmetic`, `ties`, `tsv` or `iso-c`.
        deltas: tensors of one shape; matrices for `tsv` and `iso-c`.
        densities: of each δ, for `ties`.
    """
    from .vectors import agreeing_sum, keep_largest, weighted_sum

    if method == "ties":
        kept = [keep_largest(delta, share) for delta, share in zip(deltas, densities)]
        return agreeing_sum(kept, weights, normalize=True)
    if method == "tsv":
        return tsv([delta * weight for delta, weight in zip(deltas, weights)])
    total = weighted_sum(deltas, weights)
    return isotropic(total) if method == "iso-c" else total
