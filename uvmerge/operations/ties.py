from __future__ import annotations

import math

from ..spectral import Edited, Whole
from .merging_options import Density, Normalize, Rescale, Scale, Weight
from .options import leaves_equal_inputs_alone


@leaves_equal_inputs_alone
def ties(
    base: Whole,
    *models: Whole,
    weight: Weight = 1.0,
    density: Density = 1.0,
    scale: Scale = 1.0,
    normalize: Normalize = True,
    rescale: Rescale = False,
) -> Edited:
    """Keep the largest changes of each model, and of these the ones with the elected sign.

    Formula: W_b + a Σ w_i d_i / Σ w_i over the models whose w_i d_i has the sign of Σ w_i d_i, for each
        element; d_i = W_i - W_b with zeros in place of all but int(density · n) of its n elements, and
        at least one. A sum of zero elects plus, a d_i of zero agrees with nothing.
    Exact: a = 0 copies the base's bytes. Exactly so many elements are kept; of equal magnitudes those
        of lower index first. float64 inside.
    Cost: reading and writing; one selection (no sort) in each model's difference.
    Source: TIES-Merging (Yadav et al. 2023, arXiv 2306.01708), which sets the smaller changes to zero
        by layer or model, here by tensor as the field does. mergekit 0.1.5 keeps whichever equal
        magnitude its sort puts first, and rounds differences and sums to the models' dtype.
    """
    from ..spectral.pieces import largest_places, merged
    from ..spectral.vectors import agreeing_sum

    if scale == 0:
        return base
    count = math.prod(base.shape)
    places = [largest_places(count, share) for share in density]
    return merged(
        base,
        models,
        places,
        rescale,
        lambda deltas: agreeing_sum(deltas, weight, normalize).mul_(scale),
    )
