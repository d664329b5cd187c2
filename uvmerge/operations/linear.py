from __future__ import annotations

from ..spectral import Edited, Operand
from .merging_options import Normalize, Weight, total_of


def linear(*models: Operand, weight: Weight = 1.0, normalize: Normalize = True) -> Edited:
    """Average several models, each with a weight of its own.

    Formula: Σ w_i W_i / Σ w_i; without the division under `--no-normalize`.
    Exact: a model whose share is 1, with the others at 0, is copied. A weight may be negative.
    Cost: reading and writing.
    Source: model soups (Wortsman et al. 2022, arXiv 2203.05482), whose weights are equal.
    """
    total = total_of(weight) if normalize else 1.0
    used = [(each, model) for each, model in zip(weight, models) if each != 0]
    if len(used) == 1 and used[0][0] == total:
        return used[0][1]
    merged = models[0].tensor * weight[0]
    for each, model in zip(weight[1:], models[1:]):
        merged = merged.add_(model.tensor * each)
    return merged if total == 1 else merged.div_(total)
