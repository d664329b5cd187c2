from __future__ import annotations

from typing import Annotated, Literal

from ..spectral import Edited, Matrix
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

Side = Annotated[
    Literal["two", "left", "right"],
    Option("project out of the block (two), the left or the right leading space"),
]


@leaves_equal_inputs_alone
@where_none_is_given(top=DEFAULT_TOP)
def project(
    base: Matrix,
    finetuned: Matrix,
    *,
    top: Top = None,
    rank: Rank = None,
    energy: Energy = None,
    side: Side = "two",
    alpha: Alpha = 1.0,
) -> Edited:
    """Remove the part of the fine-tuning that acts inside the base's leading singular space.

    Formula: with D = W_f - W_b and U_k, V_k from the base: W_f - a U_k (U_kᵀ D V_k) V_kᵀ (`two`),
        W_f - a U_k U_kᵀ D (`left`), W_f - a D V_k V_kᵀ (`right`).
        Without `--top`, `--rank` or `--energy`, k is 20 % of r = min(m, n).
    Exact: k = 0 and a = 0 leave every byte alone; idempotent at a = 1; never farther from the base
        than the fine-tuned matrix. k = r gives the base where the leading space is the whole space.
    Cost: one decomposition, of the base alone, and 4 m n k floating-point operations.
    Source: the penalty of RPSFT (Jin et al. 2026, arXiv 2605.10973), applied after the fact; the
        one-sided forms are ours.
    """
    k = chosen_rank(base, top, rank, energy)
    if alpha == 0 or k == 0:
        return finetuned
    U, _, Vh = base.top(k)
    delta = (finetuned - base).tensor
    if side == "left":
        return finetuned.plus((-alpha * U, U.mT @ delta))
    along = delta @ Vh.mT  # (m, k)
    if side == "two":
        along = U @ (U.mT @ along)
    return finetuned.plus((-alpha * along, Vh))
