from __future__ import annotations

from typing import Annotated

from ..spectral import Edited, Matrix
from .inputs import starts_from_base
from .options import (
    Energy,
    Option,
    Rank,
    chosen_rank,
    leaves_equal_inputs_alone,
    top_option,
    where_none_is_given,
)

DEFAULT_TOP = 0.05

Top = Annotated[float | None, top_option(DEFAULT_TOP)]
Drop = Annotated[bool, Option("remove the leading part of the fine-tuning instead of keeping it")]


@leaves_equal_inputs_alone
@starts_from_base(unless="drop")
@where_none_is_given(top=DEFAULT_TOP)
def truncate(
    base: Matrix,
    finetuned: Matrix,
    *,
    top: Top = None,
    rank: Rank = None,
    energy: Energy = None,
    drop: Drop = False,
) -> Edited:
    """Keep only the leading triplets of the fine-tuning, or with `--drop` remove them.

    Formula: with D = W_f - W_b: W_b + [D]_k; with `--drop`: W_f - [D]_k. Without `--top`,
        `--rank` or `--energy`, k is 5 % of r = min(m, n).
    Exact: k = 0 copies the base's bytes and k = r the fine-tuned ones'; with `--drop` the other
        way round.
    Cost: one decomposition, of D.
    Source: Eckart and Young 1936; [D]_k is also what a LoRA of rank k can hold of the fine-tuning.
    """
    delta = finetuned - base
    k = chosen_rank(delta, top, rank, energy, DEFAULT_TOP)
    if k == 0:
        return finetuned if drop else base
    if k == min(delta.shape):
        return base if drop else finetuned
    U, S, Vh = delta.top(k)
    return finetuned.plus((-S * U, Vh)) if drop else base.plus((S * U, Vh))
