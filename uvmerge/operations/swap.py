from __future__ import annotations

from typing import Annotated, Literal

from ..errors import UsageError
from ..spectral import Edited, Matrix
from ..spectral.align import align_block
from .options import (
    DEFAULT_TOP,
    Alpha,
    Energy,
    Option,
    Rank,
    Top,
    chosen_rank,
    leaves_equal_inputs_alone,
    where_none_is_given,
)
from .restore import restore

Left = Annotated[bool, Option("take the left singular vectors U from the base", example="--left")]
Right = Annotated[bool, Option("take the right singular vectors V from the base")]
Align = Annotated[
    Literal["procrustes", "match", "sign"],
    Option("how base vectors are matched to fine-tuned ones: rotate, reorder, or flip signs"),
]


@leaves_equal_inputs_alone
@where_none_is_given(top=DEFAULT_TOP)
def swap(
    base: Matrix,
    finetuned: Matrix,
    *,
    left: Left = False,
    right: Right = False,
    top: Top = None,
    rank: Rank = None,
    energy: Energy = None,
    align: Align = "procrustes",
    alpha: Alpha = 1.0,
) -> Edited:
    """Take the leading left or right singular vectors from the base, and keep the other side.

    Formula: left: W_f + a (U_b,k Q - U_f,k) diag(S_f,k) Vh_f,k, with Q aligning U_b,k to U_f,k;
        right: the mirror image. Both sides together are `restore`, where no alignment is needed.
        Without `--top`, `--rank` or `--energy`, k is 20 % of r = min(m, n).
    Exact: k = 0 and a = 0 leave every byte alone. With one side alone the sign of each pair (u, v),
        and the order of near-equal values, would be arbitrary without the alignment. `procrustes`
        rotates the whole block (the closest orthogonal Q), `match` reorders and flips signs, `sign`
        only flips signs.
        Where the block is the whole space, a rotation undoes the swap and nothing changes.
    Cost: one decomposition of each matrix; for `procrustes` a k by k SVD more.
    Source: the U/V exchange of Jin et al. 2025, arXiv 2509.12235; the alignment is ours
        (orthogonal Procrustes problem, Schönemann 1966).
    """
    if not (left or right):
        raise UsageError("swap", "no side given", "Add --left, --right or both.")
    k = chosen_rank(base, top, rank, energy)
    if left and right:
        return restore(base, finetuned, rank=k, alpha=alpha)
    if alpha == 0 or k == 0:
        return finetuned
    U_b, _, Vh_b = base.top(k)
    U_f, S_f, Vh_f = finetuned.top(k)
    if left:
        return finetuned.plus((alpha * (align_block(U_b, U_f, align) - U_f) * S_f, Vh_f))
    V_b, V_f = Vh_b.mT, Vh_f.mT
    return finetuned.plus((alpha * S_f * U_f, (align_block(V_b, V_f, align) - V_f).mT))
