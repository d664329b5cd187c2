"""Several values of an option as text: `0.1,0.2`, and ranges such as `0.1:0.5:0.1`."""

from __future__ import annotations

from decimal import Decimal, InvalidOperation
from typing import Any

from ..errors import UsageError
from ..operations.options import Parameter
from ..text import brief

MOST_VALUES = 1000


def series(parameter: Parameter, text: str) -> list[Any]:
    """The values that `text` lists for a sweep: pieces between commas, each a value or a range.

    A range is FIRST:LAST:STEP. LAST is a value too where the steps reach it.
    """
    pieces = (piece.strip() for piece in text.split(","))
    return [value for piece in pieces for value in _values(parameter, piece)]


def _values(parameter: Parameter, piece: str) -> list[Any]:
    if ":" not in piece or parameter.type not in (int, float):
        return [parameter.parse_text(piece)]
    unit = "%" if piece.endswith("%") else ""
    try:
        first, last, step = (Decimal(part.strip().removesuffix("%")) for part in piece.split(":"))
        count = int((last - first) / step) + 1 if (last - first) * step >= 0 else 0
    except (ValueError, ArithmeticError, InvalidOperation):
        count = 0
    if not 1 <= count <= MOST_VALUES:
        raise UsageError(
            f"--{parameter.key}",
            f"'{brief(piece, 80)}' is not a range of at most {MOST_VALUES:,} values",
            "Write FIRST:LAST:STEP, like 0.1:0.5:0.1.",
        )
    return [parameter.parse_text(f"{first + i * step:f}{unit}") for i in range(count)]
