from __future__ import annotations

from typing import Annotated

from ..spectral import Edited, Whole
from .inputs import for_models
from .options import Option, leaves_equal_inputs_alone

T = Annotated[
    float,
    Option("where between both models: 0 is the first one, 1 the second", 0, 1, metavar="t",
           example="--t 0.3"),
]  # fmt: skip
# Where sin θ is at most this, the arc is a straight line.
STRAIGHT = (1 - 0.9995**2) ** 0.5


@leaves_equal_inputs_alone
@for_models(2, 2)
def slerp(*models: Whole, t: T = 0.5) -> Edited:
    """Mix two models along the arc between them, every tensor as one vector.

    Formula: (sin((1 - t) θ) x_0 + sin(t θ) x_1) / sin θ, with θ the angle between x_0 and x_1;
        (1 - t) x_0 + t x_1 where |cos θ| > 0.9995. θ is a right angle where a tensor is zero.
    Exact: t = 0 copies the first model's bytes and t = 1 the second's. float64 inside.
    Cost: reading and writing; the lengths and the inner product of each tensor.
    Source: Shoemake 1985, "Animating rotation with quaternion curves". The threshold is that of the
        field's implementations: a fine-tune that moved a tensor by less than about 3 % of its length
        is mixed along the straight line. mergekit 0.1.5 computes in float32.
    """
    from ..spectral.vectors import exact, on_arc

    first, second = models
    if t in (0, 1):
        return second if t else first
    return on_arc(exact(first), exact(second), t, STRAIGHT)
