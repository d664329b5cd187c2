from __future__ import annotations

from typing import Annotated

from ..spectral import Edited, Matrix
from .options import Option, leaves_equal_inputs_alone

Threshold = Annotated[
    float,
    Option("a vector is an intruder below this |cosine| with every base vector", 0, 1, metavar="τ"),
]
Damping = Annotated[
    float,
    Option("factor on an intruder's singular value", 0, 1, metavar="λ", example="--damping 0.5"),
]
First = Annotated[int, Option("how many leading triplets to examine", 0, metavar="N")]


@leaves_equal_inputs_alone
def damp_intruders(
    base: Matrix,
    finetuned: Matrix,
    *,
    threshold: Threshold = 0.5,
    damping: Damping = 0.75,
    first: First = 10,
) -> Edited:
    """Shrink leading directions of the fine-tuned matrix that the base has nothing like.

    Formula: W_f + (λ - 1) Σ_{i in I} σ_i u_i v_iᵀ, with I the leading i (of the first N) whose
        max_j |cos(u_i of W_f, u_j of W_b)| < τ over all left vectors j of the base.
    Exact: λ = 1, τ = 0 and N = 0 leave every byte alone, and so does a matrix without intruders.
    Cost: a full decomposition of the base, the leading N triplets of the fine-tuned matrix.
    Source: Shuttleworth et al. 2024, arXiv 2410.21228.
    """
    k = finetuned.rank(rank=first)
    if damping == 1 or threshold == 0 or k == 0:
        return finetuned
    U_f, S_f, Vh_f = finetuned.top(k)
    U_b, _, _ = base.top(min(base.shape))
    closest = (U_b.mT @ U_f).abs().amax(dim=0)  # (k,)
    intruders = closest < threshold - 1e-6  # of an unmoved vector the cosine is 1 but for rounding
    if not bool(intruders.any()):
        return finetuned
    U, S, Vh = U_f[:, intruders], S_f[intruders], Vh_f[intruders]
    return finetuned.plus(((damping - 1) * S * U, Vh))
