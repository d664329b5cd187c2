from __future__ import annotations

from ..spectral import Edited, Matrix
from .options import (
    DEFAULT_TOP,
    Alpha,
    Energy,
    Rank,
    Top,
    chosen_rank,
    leaves_equal_inputs_alone,
    where_none_is_given,
)


@leaves_equal_inputs_alone
@where_none_is_given(top=DEFAULT_TOP)
def values(
    base: Matrix,
    finetuned: Matrix,
    *,
    top: Top = None,
    rank: Rank = None,
    energy: Energy = None,
    alpha: Alpha = 1.0,
) -> Edited:
    """Set the leading singular values back to the base's and leave the directions alone: a control.

    Formula: W_f + a U_f,k diag(S_b,k - S_f,k) Vh_f,k. Without `--top`, `--rank` or `--energy`, k is
        20 % of r = min(m, n).
    Exact: k = 0 and a = 0 leave every byte alone.
    Cost: one decomposition of each matrix.
    Source: the singular-value control of Jin et al. 2025, arXiv 2509.12235: expected to change
        next to nothing, because fine-tuning rotates directions and leaves values.
    """
    k = chosen_rank(base, top, rank, energy)
    if alpha == 0 or k == 0:
        return finetuned
    U_f, S_f, Vh_f = finetuned.top(k)
    change = base.top(k).S - S_f
    return finetuned.plus((alpha * change * U_f, Vh_f))
