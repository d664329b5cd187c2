from __future__ import annotations

import math

from ..spectral import Edited, Whole
from .merging_options import Density, Gamma, Normalize, Rescale, Scale, Weight, total_of
from .options import leaves_equal_inputs_alone


@leaves_equal_inputs_alone
def breadcrumbs(
    base: Whole,
    *models: Whole,
    weight: Weight = 1.0,
    density: Density = 1.0,
    gamma: Gamma = 0.01,
    scale: Scale = 1.0,
    normalize: Normalize = False,
    rescale: Rescale = False,
) -> Edited:
    """Add the models' changes without the largest and the smallest ones.

    Formula: W_b + a Σ w_i d_i, over Σ w_i under `--normalize`; d_i = W_i - W_b with zeros in place of its
        int(`--gamma` · n) largest of n elements, and of the smallest ones until int(`--density` · n) are
        left.
        Where density + gamma is more than 1, fewer of the largest go; at density 1 nothing goes.
    Exact: a = 0 copies the base's bytes. Exactly so many elements are kept; of equal magnitudes those
        of lower index first, at both ends. float64 inside.
    Cost: reading and writing; two selections (no sort) in each model's difference.
    Source: Model Breadcrumbs (Davari & Belilovsky 2023, arXiv 2312.06795). mergekit 0.1.5 keeps
        whichever equal magnitude its sort puts first, and rounds to the models' dtype.
    """
    from ..spectral.pieces import merged, middle_places
    from ..spectral.vectors import weighted_sum

    total = total_of(weight) if normalize else 1.0
    if scale == 0:
        return base
    count = math.prod(base.shape)
    places = [middle_places(count, *each) for each in zip(density, gamma, strict=True)]
    return merged(
        base,
        models,
        places,
        rescale,
        lambda deltas: weighted_sum(deltas, weight, total).mul_(scale),
    )
