from __future__ import annotations

from typing import Annotated

from ..checkpoint.anatomy import Place
from ..spectral import Edited, Operand
from .options import Option, leaves_equal_inputs_alone

Start = Annotated[
    float,
    Option("share of the fine-tuning kept in the first layer", metavar="a", example="--start 0.1",
           formerly=("alpha",)),
]  # fmt: skip
Slope = Annotated[
    float,
    Option("how much that share grows until the last layer", metavar="b", formerly=("beta",)),
]


@leaves_equal_inputs_alone
def lines(
    base: Operand, finetuned: Operand, *, place: Place, start: Start = 0.0, slope: Slope = 1.0
) -> Edited:
    """Scale the fine-tuning by depth: little of it in shallow layers, more in deep ones.

    Formula: W_b + (a + b l / (L - 1)) (W_f - W_b) in layer l of L, with a from `--start` and b from
        `--slope`; tensors outside the decoder layers stay as fine-tuned, and a single layer (L = 1)
        counts as the last.
    Exact: where the factor is 0 the base's bytes are copied, where it is 1 the fine-tuned ones'.
    Cost: reading and writing, no decomposition.
    Source: LiNeS (Wang et al. 2024, arXiv 2410.17146; a and b are their α and β), a smooth form of
        `reset-layers`.
    """
    if place.layer is None:
        return finetuned
    share = place.layer / (place.depth - 1) if place.depth > 1 else 1.0
    scale = start + slope * share
    if scale == 0:
        return base
    if scale == 1:
        return finetuned
    origin = base.tensor
    return (finetuned.tensor - origin).mul_(scale).add_(origin)
