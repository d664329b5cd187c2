"""The block C = U_b,kᵀ D V_b,k (k, k) of a change: its diagonal, its picture, what lies outside."""

from __future__ import annotations

import torch
from torch import Tensor

CELLS = 24  # rows and columns of `Change.picture`


def mean_over_groups(values: Tensor, groups: Tensor) -> Tensor:
    """`values` (·, b), every column replaced by the mean over its group; `groups` (b,) numbers them."""
    sizes = groups.bincount()
    sums = values.new_zeros(len(values), len(sizes)).index_add_(1, groups, values)
    return (sums / sizes)[:, groups]


def residual(block: Tensor, energy: float) -> float | None:
    """The share of a matrix outside of its leading block U_b,kᵀ W V_b,k (k, k), as a square root."""
    if not energy:
        return None
    return max(0.0, 1 - float(block.double().square().sum()) / energy) ** 0.5


def diagonal_energy(C: Tensor, groups: Tensor) -> float:
    """‖diag C‖² of C (k, k)."""
    return float(diagonal_squares(C, groups).sum())


def diagonal_squares(C: Tensor, groups: Tensor) -> Tensor:
    """The squares (k,) of the diagonal of C (k, k).

    Among vectors of equal singular values, the symmetric part of C stands for the diagonal: its
    eigenvalues are the changes of the singular values, and no rotation of the vectors changes its norm.
    """
    if not len(groups) or int(groups[-1]) == len(groups) - 1:
        return C.diagonal().square()
    together = groups[:, None] == groups
    squares = torch.where(together, (C + C.mT) / 2, 0.0).square().sum(1)
    return mean_over_groups(squares[None], groups)[0]


def picture(C: Tensor, groups: Tensor) -> tuple[tuple[float, ...], ...]:
    """Mean squares of C (k, k) in up to `CELLS` × `CELLS` cells, after averaging the squares over
    vectors of equal singular values."""
    if not len(C):
        return ()
    cells = min(len(C), CELLS)
    squares = mean_over_groups(mean_over_groups(C.square(), groups).mT, groups).mT
    means = torch.nn.functional.adaptive_avg_pool2d(squares[None], cells)[0]
    return tuple(map(tuple, means.tolist()))
