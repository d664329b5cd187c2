from __future__ import annotations

from typing import Annotated

from ..spectral import Edited, Operand
from .inputs import for_models
from .options import Option, leaves_equal_inputs_alone

T = Annotated[
    float,
    Option("how far an element may move from the base", 0, metavar="t", example="--t 0.001"),
]


@leaves_equal_inputs_alone
@for_models(1, 1)
def nearswap(base: Operand, *models: Operand, t: T = 0.0001) -> Edited:
    """Take the elements of a model that are near the base's, and move the base by t towards the rest.

    Formula: w x + (1 - w) W_b, with w = min(t / |x - W_b|, 1): W_b + (x - W_b) limited to ±t.
    Exact: t = 0 copies the base's bytes. float64 inside.
    Cost: reading and writing, no decomposition.
    Source: the recipe of QuartetAnemoi-70B-t0.0001 (Alchemonaut 2024). mergekit 0.1.5 reads |x - W_b|
        below 1e-6 as 1e-6, which matters for t below that, and rounds to the models' dtype.
    """
    if t == 0:
        return base
    start = base.tensor
    return (models[0].tensor - start).clamp_(-t, t).add_(start)
