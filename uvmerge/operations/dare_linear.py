from __future__ import annotations

from ..spectral import Draw, Edited, Whole
from ..spectral.masks import thinned
from .merging_options import (
    Density,
    Normalize,
    RescaleBy,
    RescaleKept,
    Scale,
    Seed,
    Weight,
    total_of,
)
from .options import leaves_equal_inputs_alone


@leaves_equal_inputs_alone
def dare_linear(
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
    """Add the weighted differences of several models, each with elements dropped at random.

    Formula: base + a Σ w_i m_i δ_i, with δ_i = W_i - base, a from `--scale`; each element of the mask
        m_i is 1/d with the probability d of `--density`, else 0. With `--normalize` over Σ w_i.
    Exact: a = 0 copies the base's bytes. The masks depend on `--seed`, tensor and model alone. A
        density of 1 is task arithmetic.
    Cost: reading and writing; one random number for each element of each model.
    Source: DARE (Yu et al. 2023, arXiv 2311.03099). mergekit rescales to the sum of magnitudes that δ_i
        had (`--rescale-by norm`).
    """
    from ..spectral.vectors import differences, weighted_sum

    total = total_of(weight) if normalize else 1.0
    if scale == 0:
        return base
    start, deltas = differences(base, models)
    kept = [
        thinned(delta, draw(i, base.shape), share, rescale and rescale_by)
        for i, (delta, share) in enumerate(zip(deltas, density))
    ]
    return start + scale * weighted_sum(kept, weight, total)
