from __future__ import annotations

from typing import Annotated, Literal

from ..spectral import Edited, Factors, Matrix, Term
from .options import (
    DEFAULT_TOP,
    Alpha,
    Energy,
    Option,
    Rank,
    Top,
    chosen_rank,
    exclusive,
    leaves_equal_inputs_alone,
    where_none_is_given,
)

Values = Annotated[
    Literal["finetuned", "base"], Option("whose singular values the restored directions carry")
]
Tail = Annotated[
    float | None,
    Option(
        "restore the last triplets too, as a fraction of min(m, n), rounded half up",
        0,
        1,
        percent=True,
        metavar="q",
    ),
]
TailRank = Annotated[
    int | None, Option("restore the last triplets too, as a count", 0, metavar="t")
]


@leaves_equal_inputs_alone
@where_none_is_given(top=DEFAULT_TOP)
def restore(
    base: Matrix,
    finetuned: Matrix,
    *,
    top: Top = None,
    rank: Rank = None,
    energy: Energy = None,
    tail: Tail = None,
    tail_rank: TailRank = None,
    values: Values = "finetuned",
    alpha: Alpha = 1.0,
) -> Edited:
    """Recombine the leading singular directions of the base with the rest of the fine-tuned matrix.

    Formula: W_f + a (U_b,k diag(S) Vh_b,k - U_f,k diag(S_f,k) Vh_f,k), with S = S_f,k
        (`--values finetuned`) or S_b,k (`--values base`, a swap of best rank-k approximations).
        `--tail q` applies it to the last q r triplets and `--tail-rank t` to the last t, alone or
        with a head. Without any of `--top`, `--rank`, `--energy`, `--tail`, `--tail-rank`, k is 20 %
        of r = min(m, n).
    Exact: k = 0 and a = 0 leave every byte alone; joint sign flips of a pair (u, v) cancel.
        Well posed where the singular values at the cut differ; the gap there is recorded. The
        result's singular values are not S: the combined directions are not orthonormal.
    Cost: one decomposition of each matrix, and 4 m n k floating-point operations.
    Source: Jin et al. 2025, arXiv 2508.16546 and 2509.12235, who use one absolute k for every
        matrix, head and tail, and copy the base's where k = r; here k is a fraction by default, and k = r gives
        U_b diag(S_f) Vh_b (or the base, with `--values base`).
    """
    exclusive(tail=tail, tail_rank=tail_rank)
    ends = (tail, tail_rank)
    head_default = DEFAULT_TOP if ends == (None, None) else 0.0
    k = chosen_rank(base, top, rank, energy, head_default)
    r = min(base.shape)
    last = 0 if ends == (None, None) else min(base.rank(top=tail, rank=tail_rank), r - k)
    if alpha == 0 or k + last == 0:
        return finetuned
    if values == "base" and alpha == 1 and k + last == r:
        return base
    terms = _exchange(base.top(k), finetuned.top(k), values, alpha) if k else []
    if last:
        terms += _exchange(base.tail(last), finetuned.tail(last), values, alpha)
    return finetuned.plus(*terms)


def _exchange(
    base_factors: Factors, finetuned_factors: Factors, values: str, alpha: float
) -> list[Term]:
    """a (U_b S Vh_b - U_f S_f Vh_f) as two terms."""
    U_b, S_b, Vh_b = base_factors
    U_f, S_f, Vh_f = finetuned_factors
    S = S_b if values == "base" else S_f
    return [(alpha * S * U_b, Vh_b), (-alpha * S_f * U_f, Vh_f)]
