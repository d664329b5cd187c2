from __future__ import annotations

from typing import Annotated

from ..spectral import Edited, Operand
from .options import Option, leaves_equal_inputs_alone

Scale = Annotated[
    float,
    Option("share of the fine-tuning to keep: 0 is the base, 1 the fine-tuned", metavar="A",
           example="--scale 0.3"),
]  # fmt: skip


@leaves_equal_inputs_alone
def interpolate(base: Operand, finetuned: Operand, *, scale: Scale = 0.5) -> Edited:
    """Move every tensor along the straight line between base and fine-tuned checkpoint.

    Formula: W_b + a (W_f - W_b).
    Exact: a = 0 copies the base's bytes and a = 1 the fine-tuned checkpoint's.
    Cost: reading and writing, no decomposition.
    Source: WiSE-FT (Wortsman et al. 2022, arXiv 2109.01903). Like there, every tensor takes part,
        norms, biases and embeddings included; it is the baseline that spectral edits must beat.
    """
    if scale == 0:
        return base
    if scale == 1:
        return finetuned
    start = base.tensor
    return (finetuned.tensor - start).mul_(scale).add_(start)
