from __future__ import annotations

from ..spectral import Draw, Edited, Whole
from ..spectral.masks import thinned
from .merging_options import Density, Normalize, RescaleBy, RescaleKept, Scale, Seed, Weight
from .options import leaves_equal_inputs_alone


@leaves_equal_inputs_alone
def dare_ties(
    base: Whole,
    *models: Whole,
    draw: Draw,
    weight: Weight = 1.0,
    density: Density = 1.0,
    scale: Scale = 1.0,
    normalize: Normalize = False,
    rescale: RescaleKept = True,
    rescale_by: RescaleBy = "probability",
    seed: Seed = 0,
) -> Edited:
    """Drop elements of several models' differences at random, and add those that agree in sign.

    Formula: base + a Σ w_i m_i δ_i over the models whose w_i m_i δ_i has the sign of the sum over all of
        them, element by element, with δ_i = W_i - base and the masks m_i of `dare-linear`, by
        `--density`. With
        `--normalize` over the sum of those w_i.
    Exact: a = 0 copies the base's bytes. The masks depend on `--seed`, tensor and model alone; a sum of
        0 counts as plus.
    Cost: reading and writing; one random number for each element of each model.
    Source: DARE (Yu et al. 2023, arXiv 2311.03099) with TIES (Yadav et al. 2023, arXiv 2306.01708).
        mergekit rescales to the sum of magnitudes that δ_i had (`--rescale-by norm`).
    """
    from ..spectral.vectors import agreeing_sum, differences

    if scale == 0:
        return base
    start, deltas = differences(base, models)
    kept = [
        thinned(delta, draw(i, base.shape), share, rescale and rescale_by)
        for i, (delta, share) in enumerate(zip(deltas, density))
    ]
    return start + scale * agreeing_sum(kept, weight, normalize)
