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
    total_of,
)
from .options import leaves_equal_inputs_alone


@leaves_equal_inputs_alone
def della_linear(
    base: Whole,
    *models: Whole,
    draw: Draw,
    weight: Weight = 1.0,
    density: Density = 1.0,
    epsilon: Epsilon = 0.15,
    scale: Scale = 1.0,
    normalize: Normalize = False,
    rescale: RescaleKept = True,
    rescale_by: RescaleBy = "probability",
    seed: Seed = 0,
) -> Edited:
    """Add the weighted differences of several models, with small elements dropped more often.

    Formula: base + a Σ w_i m_i δ_i, with δ_i = W_i - base, a from `--scale`; each element of the mask m_i
        is 1/p with the probability p, else 0. In a row of δ_i, p runs from d - e (the smallest element)
        to d + e (the largest) by rank of magnitude, with d from `--density` and e from `--epsilon`;
        d = 1 keeps all. With `--normalize` over Σ w_i.
    Exact: a = 0 copies the base's bytes. The masks depend on `--seed`, tensor and model alone. A
        density of 1 is task arithmetic; equal magnitudes are ranked in their order in the row.
    Cost: one sort of each row of each model; one random number for each element of each model.
    Source: DELLA (Deep et al. 2024, arXiv 2406.11617). mergekit rescales to the sum of magnitudes that
        δ_i had (`--rescale-by norm`).
    """
    from ..spectral.vectors import weighted_sum

    total = total_of(weight) if normalize else 1.0
    if scale == 0:
        return base
    start, kept = kept_by_rank(
        base, models, draw, list(zip(density, epsilon)), rescale and rescale_by
    )
    return start + scale * weighted_sum(kept, weight, total)
