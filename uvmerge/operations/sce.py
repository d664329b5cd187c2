from __future__ import annotations

from typing import Annotated

from ..spectral import Edited, Whole
from .options import Option, leaves_equal_inputs_alone

SelectTopk = Annotated[
    float,
    Option("share of the elements to merge: those that vary most over the models", 0, 1,
           percent=True, metavar="p", example="--select-topk 0.2"),
]  # fmt: skip


@leaves_equal_inputs_alone
def sce(base: Whole, *models: Whole, select_topk: SelectTopk = 1.0) -> Edited:
    """Select the elements that vary most over the models, calculate weights, erase minority signs.

    Formula: W_b + Σ w_i d_i / Σ w_i over the models whose d_i has the sign of Σ d_i, for each element;
        d_i = W_i - W_b with zeros in place of all but the elements of largest variance over the models,
        int(p · n) of the n whose variance is not zero; w_i is the mean of d_i².
    Exact: a share of 0 copies the base's bytes. Of equal variances those of lower index are selected
        first. float64 inside.
    Cost: reading and writing; one selection (no sort) for each tensor.
    Source: SCE of FuseChat-3.0 (Wan et al. 2024, arXiv 2408.07990). mergekit 0.1.5 takes equal weights
        where the means of d_i² add up to less than 1e-6 (values that moved by less than about 0.001), and
        rounds to the models' dtype.
    """
    from ..spectral.vectors import agreeing_sum, differences, select_varied

    if select_topk == 0:
        return base
    start, deltas = differences(base, models)
    if select_topk < 1:
        deltas = select_varied(deltas, select_topk)
    weights = [float(delta.square().mean()) if delta.numel() else 0.0 for delta in deltas]
    total = sum(weights)
    shares = [weight / total if total else 1.0 for weight in weights]
    votes = [1.0] * len(deltas)
    return agreeing_sum(deltas, shares, normalize=True, votes=votes).add_(start)
