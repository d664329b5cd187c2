"""`matrices.csv`: a row for each matrix of each checkpoint. Pure."""

from __future__ import annotations

import csv
import io
import math
from typing import Union

from ..measure.findings import Entry, Findings
from ..text import inert
from .column import Place
from .columns import shown_in

Value = Union[str, int, float, bool, None]  # noqa: UP007 (an alias is evaluated)


def header() -> list[str]:
    """The names of the columns, in order."""
    names = ["checkpoint"]
    for column in shown_in(Place.CSV):
        names += [column.key, *([column.key_of_chance] if column.has_chance else [])]
    return names


def as_csv(findings: Findings) -> str:
    """The text of the file: six significant digits, angles in radians, empty cells for None."""
    text = io.StringIO()
    writer = csv.DictWriter(text, header(), lineterminator="\n")
    writer.writeheader()
    for row in rows(findings):
        writer.writerow({name: cell(value) for name, value in row.items()})
    return text.getvalue()


def rows(findings: Findings) -> list[dict[str, Value]]:
    """A row for each matrix and checkpoint, by the names of the header; may lack names."""
    return [
        {"checkpoint": compared.label, **_matrix(entry)}
        for compared in findings.compared
        for entry in compared.entries
    ]


def _matrix(entry: Entry) -> dict[str, Value]:
    found: dict[str, Value] = {}
    for column in shown_in(Place.CSV):
        if entry.measures is not None or column.is_always_there:
            value = column.value(entry)
            found[column.key] = " ".join(value) if isinstance(value, list) else value
            if column.has_chance:
                found[column.key_of_chance] = column.chance(entry)
    return found


def cell(value: Value) -> str:
    """A value as text that no spreadsheet runs as a formula and no terminal as an escape."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:.6g}" if math.isfinite(value) else ""
    if isinstance(value, str):
        return (
            f"'{inert(value)}"
            if value.startswith(("=", "+", "-", "@", "\t", "\r"))
            else inert(value)
        )
    return "" if value is None else str(value)
