from __future__ import annotations

import math
from typing import Annotated, Literal

from ..checkpoint.anatomy import Place
from ..checkpoint.selection import parse_names
from ..errors import UsageError
from ..spectral import Edited, Operand
from .options import (
    Layers,
    Option,
    did_you_mean,
    exclusive,
    leaves_equal_inputs_alone,
    where_none_is_given,
)

DEFAULT_FRAC = 0.25
OUTSIDE = ("embeddings", "head", "final-norm")


def _parse_also(value: object) -> tuple[str, ...]:
    names = parse_names(value)
    for name in names:
        if name not in OUTSIDE:
            raise UsageError("--also", f"{name!r} is not a part", did_you_mean(name, OUTSIDE))
    return names


Frac = Annotated[
    float | None,
    Option("share of the decoder layers to reset, rounded up", 0, 1, percent=True, metavar="f",
           example=f"--frac {DEFAULT_FRAC}", unset=str(DEFAULT_FRAC)),
]  # fmt: skip
From = Annotated[Literal["first", "last"], Option("which end of the model --frac counts from")]
Also = Annotated[
    tuple[str, ...],
    Option("reset these too: embeddings,head,final-norm", parse=_parse_also,
           accepts="str | Sequence[str]", metavar="PARTS", words=OUTSIDE),
]  # fmt: skip
MatricesOnly = Annotated[bool, Option("reset weight matrices alone, as the papers' scripts do")]


@leaves_equal_inputs_alone
@where_none_is_given(frac=DEFAULT_FRAC)
def reset_layers(
    base: Operand,
    finetuned: Operand,
    *,
    place: Place,
    frac: Frac = None,
    layers: Layers = None,
    from_: From = "first",
    also: Also = (),
    matrices_only: MatricesOnly = False,
) -> Edited:
    """Set whole decoder layers back to the base.

    Formula: W_b for every tensor of the first ceil(f L) of L layers (`--from last`: of the last),
        or of the layers named with `--layers`; W_f elsewhere. Without either, f is 0.25.
    Exact: entirely; bytes are copied and nothing is computed.
    Cost: reading and writing, no decomposition.
    Source: Jin et al. 2025, arXiv 2508.16546 (the first 25 % of layers), who reset the weight
        matrices alone (`--matrices-only`); by default norms and biases go with them.
    """
    exclusive(frac=frac, layers=layers)
    if place.layer is None:
        inside = place.module in also
    elif layers is not None:
        inside = place.layer in layers
    else:
        share = DEFAULT_FRAC if frac is None else frac
        count = math.ceil(share * place.depth - 1e-9)
        from_end = place.depth - 1 - place.layer
        inside = (place.layer if from_ == "first" else from_end) < count
    return base if inside and (place.is_matrix or not matrices_only) else finetuned
