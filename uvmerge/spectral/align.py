"""Aligning one orthonormal block with another, before their vectors are exchanged."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def align_block(block: Tensor, target: Tensor, how: str) -> Tensor:
    """`block` (d, k) turned towards `target` (d, k), in the dtype of `block`.

    Both have orthonormal columns and one dtype, float32 or float64.

    Args:
        how: `procrustes` multiplies `block` by the orthogonal Q (k, k) that minimises
            ‖block Q − target‖_F, which is U Vh of the SVD of blockᵀ target. `match` reorders the
            columns greedily by |cosine|, then flips signs so that every cosine is at least 0.
            `sign` flips signs alone.
    """
    import torch

    cosines = block.mT @ target  # (k, k): of column i of the block with column j of the target
    if how == "procrustes":
        U, _, Vh = torch.linalg.svd(cosines.double())
        return block @ (U @ Vh).to(block.dtype)
    if how == "match":
        order = _greedy_matching(cosines.abs())
        block, cosines = block[:, order], cosines[order]
    signs: Tensor = torch.where(cosines.diagonal() < 0, -1.0, 1.0).to(block.dtype)
    return block * signs


def _greedy_matching(similarity: Tensor) -> list[int]:
    """For each column j of `similarity` (k, k), the row matched to it; the most similar pair of a free
    row and a free column is taken first."""
    k = similarity.shape[0]
    order = [-1] * k
    free_rows, free_columns = set(range(k)), set(range(k))
    ranking = similarity.flatten().argsort(descending=True, stable=True)
    for chunk in ranking.split(1 << 16):  # k² Python integers at once would be gigabytes
        for flat in chunk.tolist():
            i, j = divmod(flat, k)
            if i in free_rows and j in free_columns:
                order[j] = i
                free_rows.discard(i)
                free_columns.discard(j)
        if not free_rows:
            break
    return order
