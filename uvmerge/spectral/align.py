"""Aligning one orthonormal block with another, before their vectors are exchanged."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def align_block(block: Tensor, target: Tensor, how: str) -> Tensor:
    """`block` (d, k) turned towards `target` (d, k), both with orthonormal columns.

    `procrustes`: times the orthogonal Q (k, k) that minimises ‖block Q - target‖_F, which is U Vh
    of the SVD of blockᵀ target. `match`: columns reordered greedily by |cosine|, then signs.
    `sign`: signs alone.
    """
    import torch

    cosines = block.mT @ target  # (k, k): of base vector i with fine-tuned vector j
    if how == "procrustes":
        U, _, Vh = torch.linalg.svd(cosines.double())
        return block @ (U @ Vh).to(block.dtype)
    if how == "match":
        order = _greedy_matching(cosines.abs())
        block, cosines = block[:, order], cosines[order]
    signs: Tensor = torch.where(cosines.diagonal() < 0, -1.0, 1.0).to(block.dtype)
    return block * signs


def _greedy_matching(similarity: Tensor) -> list[int]:
    """For each column j, the row i matched to it: the most similar free pair first."""
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
