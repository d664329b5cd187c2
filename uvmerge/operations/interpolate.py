from __future__ import annotations

from typing import Annotated

from ..spectral import Edited, Operand
from .options import Option, leaves_equal_inputs_alone

Scale = Annotated[
    float,
    Option("share of the fine-tuning to keep: 0 is the base, 1 the fine-tuned", metavar="a",
           example="--scale 0.3"),
]  # fmt: skip


@leaves_equal_inputs_alone
def interpolate(base: Operand, finetuned: Operand, *, scale: Scale = 0.5) -> Edited:
    """Keep a share of the fine-tuning in every tensor: the baseline that spectral edits must beat.

    Formula: W_b + a (W_f - W_b), with a from `--scale`: on the line between both checkpoints.
    Exact: a = 0 copies the base's bytes and a = 1 the fine-tuned checkpoint's.
    Cost: reading and writing, no decomposition.
    Source: WiSE-FT (Wortsman et al. 2022, arXiv 2109.01903). Like there, every tensor takes part,
        norms, biases and embeddings included.
    """
    if scale == 0:
        return base
    if scale == 1:
        return finetuned
    start = base.tensor
    return (finetuned.tensor - start).mul_(scale).add_(start)
