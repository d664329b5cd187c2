from __future__ import annotations

from ..checkpoint.anatomy import Place
from ..spectral import Edited, Whole
from .merging_options import Scale, Weight, in_subspaces, is_layer_matrix
from .options import leaves_equal_inputs_alone


@in_subspaces
@leaves_equal_inputs_alone
def iso_c(
    base: Whole, *models: Whole, place: Place, weight: Weight = 1.0, scale: Scale = 1.0
) -> Edited:
    """Add several models' differences, and make the singular values of the sum equal.

    Formula: base + a mean(S) U Vᵀ, with U S Vᵀ the decomposition of Σ w_i δ_i, δ_i = W_i - base, a from
        `--scale`. What is no matrix of a layer (norms, biases, embeddings, heads):
        base + a mean(w_i δ_i).
    Exact: a = 0 copies the base's bytes. Directions whose singular value is 0 are left out, of the
        mean too: the sum of the singular values stays.
    Cost: one decomposition of the sum, of all directions.
    Source: Iso-C (Marczak et al. 2025, arXiv 2502.04959), with a chosen on held-out data there. Norms and
        the like are averaged as there; embeddings and heads are averaged too. A study on LLMs (arXiv
        2511.21437) finds only task arithmetic reliable.
    """
    from ..spectral import singular
    from ..spectral.vectors import differences, weighted_sum

    if scale == 0:
        return base
    start, deltas = differences(base, models)
    if not is_layer_matrix(place, base):
        return start + scale / len(models) * weighted_sum(deltas, weight)
    return start + scale * singular.merged("iso-c", deltas, weight)
