from __future__ import annotations

from typing import Annotated

from ..spectral import Edited, Operand
from .inputs import for_models
from .options import Option
from .varying import PerModel

Scale = Annotated[PerModel, Option("factor on the model's values", metavar="a",
                                   example="--scale 1.1")]  # fmt: skip


@for_models(1, 1)
def passthrough(*models: Operand, scale: Scale = 1.0) -> Edited:
    """Take one model as it is, or scaled: what slices of several models are put together by.

    Formula: a W, with a from `--scale`.
    Exact: a = 1 copies the model's bytes.
    Cost: reading and writing.
    Source: the field's name for a merge that takes layers without mixing them.
    """
    return models[0] if scale[0] == 1 else models[0].tensor * scale[0]
