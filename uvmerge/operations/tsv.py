from __future__ import annotations

from ..checkpoint.anatomy import Place
from ..spectral import Edited, Whole
from .merging_options import Scale, Weight, in_subspaces, is_layer_matrix
from .options import leaves_equal_inputs_alone


@in_subspaces
@leaves_equal_inputs_alone
def tsv(
    base: Whole, *models: Whole, place: Place, weight: Weight = 1.0, scale: Scale = 1.0
) -> Edited:
    """Merge the leading singular directions of several models, made orthogonal to each other.

    Formula: base + a U S Vᵀ, with the leading r/N triplets of each w_i δ_i, δ_i = W_i - base, side by side
        in U, S and V, and U and V replaced by their nearest orthonormal matrices; r = min(m, n), a from
        `--scale`. What is no matrix of a layer (norms, biases, embeddings, heads): base + a mean(w_i δ_i).
    Exact: a = 0 copies the base's bytes. Models whose differences share no direction are added up,
        one model alone is kept. Directions that models share count once, because linearly dependent
        columns are not made up anew.
    Cost: a decomposition of each difference, and of U and V.
    Source: TSV-M (Gargiulo et al. 2024, arXiv 2412.00081). Norms and the like are averaged as there;
        embeddings and heads are averaged too. A study on LLMs (arXiv 2511.21437) finds only task
        arithmetic reliable.
    """
    from ..spectral import singular
    from ..spectral.vectors import differences, weighted_sum

    if scale == 0:
        return base
    start, deltas = differences(base, models)
    if not is_layer_matrix(place, base):
        return start + scale / len(models) * weighted_sum(deltas, weight)
    return start + scale * singular.merged("tsv", deltas, weight)
