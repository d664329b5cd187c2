from __future__ import annotations

from typing import Annotated, Literal

from ..checkpoint.anatomy import Place
from ..spectral import Edited, Whole
from .merging_options import Density, Scale, Weight, in_subspaces, is_layer_matrix
from .options import Option, leaves_equal_inputs_alone

Method = Annotated[
    Literal["ties", "task-arithmetic"],
    Option("how the differences are merged in their common basis"),
]


@in_subspaces
@leaves_equal_inputs_alone
def knots(
    base: Whole,
    *models: Whole,
    place: Place,
    method: Method = "ties",
    weight: Weight = 1.0,
    density: Density = 1.0,
    scale: Scale = 1.0,
) -> Edited:
    """Merge several models' differences in a basis that they have in common.

    Formula: base + a U M(S V_1ᵀ … S V_Nᵀ), with U S [V_1ᵀ … V_Nᵀ] the decomposition of
        [δ_1 … δ_N], δ_i = W_i - base, and M the merge that `--method` names, with `--weight` and, for
        ties, `--density`; a from `--scale`. What is no matrix of a layer (norms, biases, embeddings,
        heads): base + a M(δ_1 … δ_N).
    Exact: a = 0 copies the base's bytes. With `--method task-arithmetic` it is task arithmetic.
        Directions whose singular value is 0 are left out.
    Cost: one decomposition of all differences side by side.
    Source: KnOTS (Stoica et al. 2024, arXiv 2410.19735), made for the differences of adapters; there ties
        trims all tensors together, here each for itself. A study on LLMs (arXiv 2511.21437) finds only
        task arithmetic reliable.
    """
    from ..spectral import singular
    from ..spectral.vectors import differences

    if scale == 0:
        return base
    start, deltas = differences(base, models)
    if not is_layer_matrix(place, base):
        return start + scale * singular.merged(method, deltas, weight, density)
    return start + scale * singular.in_common_basis(
        deltas, lambda parts: singular.merged(method, parts, weight, density)
    )
