from __future__ import annotations

import math

from ..spectral import Edited, Whole
from .merging_options import Density, Gamma, Normalize, Rescale, Scale, Weight
from .options import leaves_equal_inputs_alone


@leaves_equal_inputs_alone
def breadcrumbs_ties(
    base: Whole,
    *models: Whole,
    weight: Weight = 1.0,
    density: Density = 1.0,
    gamma: Gamma = 0.01,
    scale: Scale = 1.0,
    normalize: Normalize = False,
    rescale: Rescale = False,
) -> Edited:
    """Add those middle-sized changes of the models that have the elected sign.

    Formula: W_b + a Σ w_i d_i over the models whose w_i d_i has the sign of Σ w_i d_i, for each element;
        d_i = W_i - W_b with zeros in place of its largest and smallest elements, by `--gamma`
        and `--density` as in `breadcrumbs`;
        signs are elected as in `ties`.
    Exact: a = 0 copies the base's bytes. Of equal magnitudes those of lower index are kept first.
        float64 inside.
    Cost: reading and writing; two selections (no sort) in each model's difference.
    Source: Model Breadcrumbs (Davari & Belilovsky 2023, arXiv 2312.06795) with the election of
        TIES-Merging (arXiv 2306.01708), a combination of mergekit. Its release 0.1.5 keeps whichever
        equal magnitude its sort puts first, and rounds to the models' dtype.
    """
    from ..spectral.pieces import merged, middle_places
    from ..spectral.vectors import agreeing_sum

    if scale == 0:
        return base
    count = math.prod(base.shape)
    places = [middle_places(count, *each) for each in zip(density, gamma, strict=True)]
    return merged(
        base,
        models,
        places,
        rescale,
        lambda deltas: agreeing_sum(deltas, weight, normalize).mul_(scale),
    )
