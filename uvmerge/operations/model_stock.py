from __future__ import annotations

from typing import Annotated

from ..spectral import Edited, Whole
from .inputs import for_models
from .options import Option, leaves_equal_inputs_alone

FilterWise = Annotated[
    bool, Option("find one ratio for each row of a tensor, instead of one for the whole tensor")
]


@leaves_equal_inputs_alone
@for_models(2)
def model_stock(base: Whole, *models: Whole, filter_wise: FilterWise = False) -> Edited:
    """Move the base towards the models' mean, the farther the more their changes point one way.

    Formula: t mean(x_i) + (1 - t) W_b, with t = N cos θ / (1 + (N - 1) cos θ) and cos θ the mean cosine
        between the differences x_i - W_b of all pairs of the N models.
    Exact: where 1 + (N - 1) cos θ is less than 1e-6, t is not defined, and the base's values stay; the
        cosine of a difference of zero is 0. float64 inside.
    Cost: reading and writing; N (N - 1) / 2 inner products.
    Source: Model Stock (Jang et al. 2024, arXiv 2403.19522). mergekit 0.1.5 rounds the differences to
        the models' dtype, and divides inner products by 1e-6 where the lengths' product is smaller,
        which makes the cosines of small changes too small.
    """
    from ..spectral.vectors import differences, stock_ratio, weighted_sum

    start, deltas = differences(base, models)
    ratio = stock_ratio(deltas, -1 if filter_wise else None)
    mean = weighted_sum(deltas, [1.0] * len(deltas), len(deltas))
    return mean * ratio + start
