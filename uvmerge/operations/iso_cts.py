from __future__ import annotations

from typing import Annotated

from ..checkpoint.anatomy import Place
from ..spectral import Edited, Whole
from .merging_options import Scale, Weight, in_subspaces, is_layer_matrix
from .options import Option, leaves_equal_inputs_alone

Common = Annotated[
    float,
    Option("share of the directions that come from the sum of all models", 0, 1, percent=True,
           metavar="c"),
]  # fmt: skip


@in_subspaces
@leaves_equal_inputs_alone
def iso_cts(
    base: Whole,
    *models: Whole,
    place: Place,
    weight: Weight = 1.0,
    scale: Scale = 1.0,
    common: Common = 0.8,
) -> Edited:
    """Add several models' differences with equal singular values, some of them for each model alone.

    Formula: base + a mean(S) U Vᵀ. U, S and V hold the leading k triplets of Σ w_i δ_i, and for each model
        the leading (r - k)/N ones of w_i δ_i less its projection on the k left vectors, with
        δ_i = W_i - base; U and V are replaced by their nearest orthonormal matrices. k is about the share
        `--common` of r = min(m, n), a comes from `--scale`. What is no matrix of a layer (norms, biases,
        embeddings, heads): base + a mean(w_i δ_i).
    Exact: a = 0 copies the base's bytes. With `--common 1` it is `iso-c`. Directions whose singular
        value is 0 are left out.
    Cost: a decomposition of the sum and of each model's difference, and of U and V.
    Source: Iso-CTS (Marczak et al. 2025, arXiv 2502.04959), with a chosen on held-out data there. Norms
        and the like are averaged as there; embeddings and heads are averaged too. A study on LLMs (arXiv
        2511.21437) finds only task arithmetic reliable.
    """
    from ..spectral.singular import isotropic_with_tasks
    from ..spectral.vectors import differences, weighted_sum

    if scale == 0:
        return base
    start, deltas = differences(base, models)
    if not is_layer_matrix(place, base):
        return start + scale / len(models) * weighted_sum(deltas, weight)
    weighted = [delta * factor for delta, factor in zip(deltas, weight)]
    return start + scale * isotropic_with_tasks(weighted, common)
