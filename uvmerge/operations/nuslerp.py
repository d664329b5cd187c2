from __future__ import annotations

from typing import Annotated, Literal

from ..errors import UsageError
from ..spectral import Edited, Whole
from .inputs import for_models
from .merging_options import WEIGHT, Deltas, total_of
from .options import Option, leaves_equal_inputs_alone
from .varying import PerModel

Weight = Annotated[PerModel, Option(WEIGHT, metavar="w/w", example="--weight 0.7/0.3")]
Vectors = Annotated[
    Literal["whole", "rows", "columns"],
    Option("what counts as one vector: the whole tensor, each of its rows, or each of its columns"),
]
# Where sin θ is at most this, the arc is a straight line.
STRAIGHT = 1e-8


@leaves_equal_inputs_alone
@for_models(2, 3)
def nuslerp(
    *models: Whole, weight: Weight = 1.0, deltas: Deltas = False, vectors: Vectors = "whole"
) -> Edited:
    """Mix two models along the arc between them by weights, or along that of their differences.

    Formula: slerp with t = w_1 / (w_0 + w_1), from `--weight`, whose sum must not be 0; with `--deltas`
        the first of three models is a base, W_b + slerp(x_1 - W_b, x_2 - W_b), and its weight counts for
        nothing. `--vectors`: rows are vectors along the last axis of a tensor,
        columns along the first; a tensor of one axis is always one vector.
    Exact: t = 0 and t = 1 copy a model's bytes. float64 inside; equal and opposite directions, with
        sin² θ of at most 1e-16, are mixed along the straight line.
    Cost: reading and writing; the lengths and the inner products of the vectors.
    Source: the method of that name of mergekit 0.1.5, where rows are asked for by `nuslerp_flatten:
        false`, columns by `nuslerp_row_wise: true`, and differences by a `base_model`. There lengths of
        less than 1e-7 count as 1e-7, weights that sum to less than 1e-6 give t = 0.5, and everything is
        rounded to the models' dtype.
    """
    from ..spectral.vectors import exact, on_arc

    if len(models) != 2 + deltas:
        raise UsageError(
            "nuslerp",
            f"mixes two models, not {len(models) - deltas}",
            "Name two; with --deltas the base before them.",
        )
    first, second = models[-2:]
    w_0, w_1 = weight[-2:]
    t = w_1 / total_of((w_0, w_1), always=True)
    if t in (0, 1):
        return second if t else first
    axis = {"whole": None, "rows": -1, "columns": 0}[vectors]
    one, other = exact(first), exact(second)
    if not deltas:
        return on_arc(one, other, t, STRAIGHT, axis)
    start = exact(models[0])
    return on_arc(one - start, other - start, t, STRAIGHT, axis) + start
