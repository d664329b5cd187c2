from __future__ import annotations

from ..spectral import Edited, Operand
from .merging_options import Normalize, Scale, Weight, total_of


def task_arithmetic(
    base: Operand,
    *models: Operand,
    weight: Weight = 1.0,
    scale: Scale = 1.0,
    normalize: Normalize = False,
) -> Edited:
    """Add what several models learned to the base: the weighted sum of their differences from it.

    Formula: W_b + a Σ w_i (W_i - W_b), with a from `--scale`; under `--normalize` over Σ w_i.
    Exact: a = 0, or weights that are all 0, copy the base.
    Cost: reading and writing.
    Source: Ilharco et al. 2022, arXiv 2212.04089, where every weight is 1.
    """
    total = total_of(weight) if normalize else 1.0
    used = [(each, model) for each, model in zip(weight, models) if each != 0]
    if scale == 0 or not used:
        return base
    start = base.tensor
    (first, model), *others = used
    merged = (model.tensor - start).mul_(first)
    for each, model in others:
        merged = merged.add_((model.tensor - start).mul_(each))
    return merged.div_(total).mul_(scale).add_(start)
