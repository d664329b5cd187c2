from __future__ import annotations

from ..spectral import Edited, Operand
from .merging_options import MEANS, Normalize, Weight, of_group, total_of


@of_group(MEANS)
def linear(*models: Operand, weight: Weight = 1.0, normalize: Normalize = True) -> Edited:
    """Average several models, each with a weight of its own.

    Formula: Σ w_i W_i / Σ w_i; without the division under `--no-normalize`.
    Exact: a model whose share is 1, with the others at 0, is copied. A weight may be negative.
    Cost: reading and writing.
    Source: model soups (Wortsman et al. 2022, arXiv 2203.05482), whose weights are equal.
    """
    total = total_of(weight) if normalize else 1.0
    shares = [each / total for each in weight]
    used = [(share, model) for share, model in zip(shares, models) if share != 0]
    if len(used) == 1 and used[0][0] == 1:
        return used[0][1]
    merged = models[0].tensor * shares[0]
    for share, model in zip(shares[1:], models[1:]):
        merged = merged.add_(model.tensor, alpha=share)
    return merged
