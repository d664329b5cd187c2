from __future__ import annotations

from typing import Annotated, Literal

from ..checkpoint.anatomy import Place
from ..spectral import Edited, Whole
from .merging_options import Density, Scale, Weight, in_subspaces, is_layer_matrix
from .options import Option, leaves_equal_inputs_alone

Method = Annotated[
    Literal["task-arithmetic", "ties", "tsv", "iso-c"],
    Option("the merge whose singular values are calibrated"),
]
Alpha = Annotated[
    float,
    Option("least overlap of a model that counts; under 1, what the merge weakened is raised", 0, 1,
           metavar="a"),
]  # fmt: skip


@in_subspaces
@leaves_equal_inputs_alone
def svc(
    base: Whole,
    *models: Whole,
    place: Place,
    method: Method = "task-arithmetic",
    weight: Weight = 1.0,
    density: Density = 1.0,
    scale: Scale = 1.0,
    alpha: Alpha = 1.0,
) -> Edited:
    """Merge by another method, and scale down the directions that it counts several times.

    Formula: base + a U diag(S_r N / Σ_i max(α, s_ri)) Vᵀ, with U S Vᵀ the decomposition of the merged
        difference δ of `--method`, with `--weight` and, for ties, `--density`, and
        s_ri = <u_rᵀδ, u_rᵀδ_i> / ‖u_rᵀδ_i‖², δ_i = W_i - base: how often the merge has what model i does
        in direction r. a comes from `--scale`, after the calibration. What is no matrix of a layer
        (norms, biases, embeddings, heads) is not calibrated, and merged by the method; by tsv and iso-c,
        as the mean.
    Exact: a = 0 copies the base's bytes. Directions that one model alone has stay as they are, with
        α = 1; what all models have alike counts once.
    Cost: one decomposition of the merged difference, beside those of the method.
    Source: SVC (Li et al. 2026, arXiv 2602.05536). A model that does nothing in a direction counts as
        s = 0. A study on LLMs (arXiv 2511.21437) finds only task arithmetic reliable.
    """
    from ..spectral import singular
    from ..spectral.vectors import differences, weighted_sum

    if scale == 0:
        return base
    start, deltas = differences(base, models)
    if is_layer_matrix(place, base):
        delta = singular.merged(method, deltas, weight, density)
        return start + scale * singular.calibrated(delta, deltas, alpha)
    if method in ("tsv", "iso-c"):
        return start + scale / len(models) * weighted_sum(deltas, weight)
    return start + scale * singular.merged(method, deltas, weight, density)
