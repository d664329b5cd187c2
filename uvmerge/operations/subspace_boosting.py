from __future__ import annotations

from typing import Annotated, Literal

from ..checkpoint.anatomy import Place
from ..spectral import Edited, Whole
from .merging_options import Density, Scale, Weight, in_subspaces, is_layer_matrix
from .options import Option, leaves_equal_inputs_alone

Method = Annotated[
    Literal["task-arithmetic", "ties"], Option("how the differences are merged before")
]
Share = Annotated[
    float,
    Option("share of the sum of singular values at which the floor of all is read", 0, 1, percent=True,
           metavar="b"),
]  # fmt: skip


@in_subspaces
@leaves_equal_inputs_alone
def subspace_boosting(
    base: Whole,
    *models: Whole,
    place: Place,
    method: Method = "task-arithmetic",
    weight: Weight = 1.0,
    density: Density = 1.0,
    scale: Scale = 1.0,
    share: Share = 0.01,
) -> Edited:
    """Merge several models' differences, and raise the small singular values of the result.

    Formula: base + a U max(S, S_j) Vᵀ, with U S Vᵀ the decomposition of what `--method` makes of the
        differences with `--weight` and, for ties, `--density`; j is the first place at which
        S_1 + … + S_j reaches the share `--share` of the sum, a comes from `--scale`. What is no matrix
        of a layer (norms, biases, embeddings, heads) is merged without that.
    Exact: a = 0 copies the base's bytes. `--share 1` raises nothing. Singular values of 0 stay 0.
    Cost: one decomposition, of the merged difference.
    Source: Subspace Boosting (Skorobogat et al. 2025, arXiv 2506.16506); with the share 0.01 given there
        most matrices get equal singular values. A study on LLMs (arXiv 2511.21437) finds only task
        arithmetic reliable.
    """
    from ..spectral import singular
    from ..spectral.vectors import differences

    if scale == 0:
        return base
    start, deltas = differences(base, models)
    delta = singular.merged(method, deltas, weight, density)
    return start + scale * (
        singular.boosted(delta, share) if is_layer_matrix(place, base) else delta
    )
