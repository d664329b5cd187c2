"""Options that several ways of merging models share."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, Literal

from ..checkpoint.anatomy import Place
from ..errors import UsageError
from ..spectral import Operand
from .options import Function, Option
from .varying import PerModel

WEIGHT = "weight of each model: one number for all, or one for each, in their order"
Weight = Annotated[PerModel, Option(WEIGHT, metavar="w/w", example="--weight 0.5/0.3/0.2")]
Density = Annotated[
    PerModel,
    Option("share of the elements of each model's difference to keep", 0, 1, percent=True,
           metavar="d/d"),
]  # fmt: skip
Epsilon = Annotated[
    PerModel,
    Option("half the range of the densities, from the smallest difference to the largest", 0, 1,
           metavar="e/e"),
]  # fmt: skip
Gamma = Annotated[
    PerModel,
    Option("share of the largest elements of each model's difference to drop", 0, 1, percent=True,
           metavar="g/g"),
]  # fmt: skip
Scale = Annotated[float, Option("factor on the merged difference", metavar="a")]
Normalize = Annotated[bool, Option("divide by the sum of the weights")]
Seed = Annotated[int, Option("seed of the random masks", 0, 2**31 - 1, metavar="n")]
Rescale = Annotated[
    bool, Option("scale what is kept of each difference, so that the sum of magnitudes stays")
]
Deltas = Annotated[
    bool, Option("merge differences from the first checkpoint, which is then a base and no model")
]
RescaleKept = Annotated[bool, Option("rescale what the random masks keep")]
RescaleBy = Annotated[
    Literal["probability", "norm"],
    Option("divide each element by its probability, or scale all to the same sum of magnitudes"),
]


def is_layer_matrix(place: Place, operand: Operand) -> bool:
    """Whether a tensor is one that merges in singular subspaces decompose: a matrix of a layer."""
    return place.is_matrix and place.layer is not None and len(operand.shape) == 2


# The headings of `uvmerge merge --help`.
MEANS, DIFFERENCES = "Between models", "Differences from a base"
SUBSPACES = (
    "Singular subspaces (on LLMs a study found only task-arithmetic reliable: arXiv 2511.21437)"
)
GROUPS = (MEANS, DIFFERENCES, SUBSPACES)


def in_subspaces(operation: Function) -> Function:
    """Declare that a way of merging decomposes the differences, for the headings of the help."""
    operation.group = SUBSPACES  # type: ignore[attr-defined]
    return operation


def cancel(weight: Sequence[float]) -> bool:
    """Whether weights sum to 0, but for the rounding of numbers like 0.1."""
    return abs(math.fsum(weight)) <= 1e-12 * math.fsum(map(abs, weight))


def total_of(weight: Sequence[float], always: bool = False) -> float:
    """The sum of the weights, by which a mean is divided.

    Args:
        always: whether the operation has no option not to divide.

    Raises:
        UsageError: the sum is 0.
    """
    if cancel(weight):
        otherwise = "" if always else ", or do not divide by it: --no-normalize"
        raise UsageError(
            "--weight", f"the weights sum to 0 ({'/'.join(f'{each:g}' for each in weight)})",
            f"Give weights with another sum{otherwise}.",
        )  # fmt: skip
    return math.fsum(weight)
