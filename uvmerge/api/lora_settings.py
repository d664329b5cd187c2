"""The options of `extract-lora` and `merge-lora`, declared as those of operations."""

from __future__ import annotations

import math
from typing import Annotated, Any

from ..errors import UsageError
from ..operations.options import FILTERS, Energy, Option, Parameter, Rank
from ..text import brief

EMITTED = ("emit", "adapter_rank", "adapter_error", "adapter_for", "lossy")
DECIDED = (*EMITTED, "max_shard_size", "report")  # by `extract_lora`


def parse_scales(value: object) -> tuple[float, ...]:
    """The scale of each adapter: `0.5`, `0.5/0.3`, or several numbers.

    Raises:
        UsageError: something in it is no finite number.
    """
    parts = value.split("/") if isinstance(value, str) else value
    numbers: list[Any] = list(parts) if isinstance(parts, (list, tuple)) else [parts]
    try:
        found = tuple(float(each) for each in numbers if not isinstance(each, bool))
    except (TypeError, ValueError):
        found = ()
    if len(found) != len(numbers) or not found or not all(map(math.isfinite, found)):
        do = "Write a number for each adapter, like 0.5/0.3."
        raise UsageError("--scale", f"'{brief(value)}' is no number", do)
    return found


Error = Annotated[
    float | None,
    Option(
        "smallest rank with this relative Frobenius error of the fine-tuning", 0, 1, metavar="E"
    ),
]
Scale = Annotated[
    tuple[float, ...] | None,
    Option("what each adapter's change is multiplied by, in their order: 0.5/0.3",
           parse=parse_scales, accepts="float | str | Sequence[float]", metavar="LIST", unset="1"),
]  # fmt: skip
EXTRACT_OPTIONS = (
    Parameter.read("rank", Rank, None),
    Parameter.read("energy", Energy, None),
    Parameter.read("error", Error, None),
    *FILTERS,
)
MERGE_OPTIONS = (Parameter.read("scale", Scale, None),)
