from __future__ import annotations

from ..errors import UsageError
from ..spectral import Edited, Whole
from .merging_options import Deltas, Normalize, Weight, total_of


def multislerp(
    *models: Whole, weight: Weight = 1.0, normalize: Normalize = True, deltas: Deltas = False
) -> Edited:
    """Average the directions of several models and their lengths apart, every tensor as one vector.

    Formula: m · Σ w_i ‖x_i‖, with u_i = x_i / ‖x_i‖ and m = Σ w_i u_i / ‖Σ w_i u_i‖; the weights add up
        to 1 unless `--no-normalize` is given. With `--deltas` the first model is a base and x_i its
        differences to the others; its weight counts for nothing. Where Σ w_i u_i is zero, m has no
        direction, and Σ w_i x_i is taken.
    Exact: a single model is copied. float64 inside.
    Cost: reading and writing; the lengths of each tensor.
    Source: Goddard 2025, "MultiSLERP" (goddard.blog), and mergekit 0.1.5. Both add a step in the
        tangent space at m, Σ w_i (u_i - (u_i · m) m); that sum is zero, because m is the direction of
        Σ w_i u_i, so the step is left out. `karcher` takes steps that matter. mergekit adds 1e-8 to
        lengths, and refuses three models or more whose directions cancel.
    """
    from ..spectral.vectors import exact, unit, weighted_sum

    if len(models) <= deltas:
        raise UsageError("multislerp", "has a base and no model", "Name models after the base.")
    merged, weights = models[deltas:], weight[deltas:]
    if len(merged) == 1:
        return merged[0]
    total = total_of(weights) if normalize else 1.0
    weights = tuple(each / total for each in weights)
    start = exact(models[0]) if deltas else 0.0
    tensors = [exact(model) - start for model in merged]
    pairs = [unit(each) for each in tensors]
    direction, size = unit(weighted_sum([u for u, _ in pairs], weights))
    if size < 1e-8:
        return weighted_sum(tensors, weights) + start
    return direction * sum(w * length for w, (_, length) in zip(weights, pairs)) + start
