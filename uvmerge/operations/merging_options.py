"""Options that several ways of merging models share."""

from __future__ import annotations

from typing import Annotated

from .options import Option
from .varying import PerModel

Weight = Annotated[
    PerModel,
    Option("weight of each model: one number for all, or one for each, in their order",
           metavar="w/w", example="--weight 0.5/0.3/0.2"),
]  # fmt: skip
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
