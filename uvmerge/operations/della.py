from __future__ import annotations

from ..spectral import Draw, Edited, Whole
from ..spectral.masks import kept_by_rank
from .merging_options import (
    Density,
    Epsilon,
    Normalize,
    RescaleBy,
    RescaleKept,
    Scale,
    Seed,
    Weight,
)
from .options import leaves_equal_inputs_alone


@leaves_equal_inputs_alone
def della(
    base: Whole,
    *models: Whole,
    draw: Draw,
    weight: Weight = 1.0,
    density: Density = 1.0,
    epsilon: Epsilon = 0.15,
    scale: Scale = 1.0,
    normalize: Normalize = True,
    rescale: RescaleKept = True,
    rescale_by: RescaleBy = "probability",
    seed: Seed = 0,
) -> Edited:
    """Drop small elements of several models' differences more often, and add those that agree in sign.

    Formula: base + a Σ w_i m_i δ_i / Σ w_i over the models whose w_i m_i δ_i has the sign of the sum over
        all of them, element by element, with the masks m_i of `della-linear`, by
        `--density` and `--epsilon`. With `--no-normalize`
        not over Σ w_i.
    Exact: a = 0 copies the base's bytes. The masks depend on `--seed`, tensor and model alone; a sum of
        0 counts as plus.
    Cost: one sort of each row of each model; one random number for each element of each model.
    Source: DELLA (Deep et al. 2024, arXiv 2406.11617). mergekit rescales to the sum of magnitudes that
        δ_i had (`--rescale-by norm`).
    """
    from ..spectral.vectors import agreeing_sum

    if scale == 0:
        return base
    start, kept = kept_by_rank(
        base, models, draw, list(zip(density, epsilon)), rescale and rescale_by
    )
    return start + scale * agreeing_sum(kept, weight, normalize)
