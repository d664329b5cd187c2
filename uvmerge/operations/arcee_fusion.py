from __future__ import annotations

from ..spectral import Edited, Whole
from .inputs import for_models
from .options import leaves_equal_inputs_alone


@leaves_equal_inputs_alone
@for_models(1, 1)
def arcee_fusion(base: Whole, *models: Whole) -> Edited:
    """Take the elements of a model that are of outstanding importance, and the base's for the rest.

    Formula: W_b + d where s ≥ q_½ + 1.5 (q_¾ - q_¼), with d = W - W_b, the importance s = |d| · KL(
        softmax(row of W) ‖ softmax(row of W_b)), and q_p the value of s at int(p (n - 1)) in ascending
        order. A row runs along the last axis.
    Exact: elements that are not taken keep the base's value. float64 inside; a threshold close to many
        values of s hangs on the last bits.
    Cost: reading and writing; two softmaxes and three selections (no sort) for each tensor.
    Source: Arcee Fusion of mergekit 0.1.5, which computes in the models' dtype, adds 1e-8 to the
        softmaxes, and takes the quantiles of an unseeded sample where n is more than a million: its
        results differ from run to run.
    """
    from ..spectral.vectors import differences, in_order, row_divergence

    start, (delta,) = differences(base, models)
    divergence = row_divergence(start + delta, start)
    importance = delta.abs().mul_(divergence)
    count = importance.numel()
    if count == 0:
        return base
    low, middle, high = in_order(importance, [int(p * (count - 1)) for p in (0.25, 0.5, 0.75)])
    taken = importance >= middle + 1.5 * (high - low)
    return delta.mul_(taken).add_(start)
