"""`report.json`: the findings as JSON-able data; docs/report.md describes the schema. Pure."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from ..measure.findings import Compared, Entry, Findings
from .column import Column, Place
from .columns import shown_in

SCHEMA = 1  # of `report.json`; a new number where a key changes its meaning


def as_data(findings: Findings) -> dict[str, Any]:
    """The findings as JSON-able data, numbers to six digits and angles in radians."""
    return _rounded({
        "uvmerge_report": SCHEMA,
        "verdict": findings.verdict,
        "base": {"reference": findings.base, "commit": findings.base_commit},
        "settings": dict(findings.settings),
        "versions": dict(findings.versions),
        "seconds": dict(findings.seconds),
        "checkpoints": [_checkpoint(compared) for compared in findings.compared],
        "pairs": [dict(vars(pair)) for pair in findings.pairs],
    })  # fmt: skip


def _checkpoint(compared: Compared) -> dict[str, Any]:
    behaviour = compared.behaviour
    return {
        "reference": compared.label, "commit": compared.commit, "verdict": compared.verdict,
        "notes": list(compared.notes),
        "behaviour": None if behaviour is None else asdict(behaviour),
        "hidden": None if compared.hidden is None else asdict(compared.hidden),
        "matrices": [_matrix(entry) for entry in compared.entries],
        "others": [dict(vars(other)) for other in compared.others],
    }  # fmt: skip


def _matrix(entry: Entry) -> dict[str, Any]:
    """The columns of one matrix; a column with the path `left.mean` is in an object `left`."""
    data: dict[str, Any] = {}
    for column in shown_in(Place.JSON):
        if entry.measures is not None or column.is_always_there:
            *objects, name = json_path(column).split(".")
            inner = data
            for each in objects:
                inner = inner.setdefault(each, {})
            inner |= _numbers(column, name, entry)
    return data


def json_path(column: Column) -> str:
    """Where the value of a column stands: `left.mean`."""
    return column.path or column.key


def beside_in_json(column: Column, name: str) -> list[tuple[str, Callable[[Entry], Any]]]:
    """What stands beside it: the key and the function of what chance gives."""
    found: list[tuple[str, Callable[[Entry], Any]]] = []
    if column.has_chance:
        found.append((column.chance_key or f"{name}_chance", column.chance))
    if column.has_band:
        found.append((f"{name}_chance_band", column.band))
    return found


def _numbers(column: Column, name: str, entry: Entry) -> dict[str, Any]:
    """The value of a column, what chance gives, and the band of chance, by name."""
    beside = {key: value(entry) for key, value in beside_in_json(column, name)}
    return {name: column.value(entry), **beside}


def _rounded(data: Any) -> Any:
    """`data` with floats to six significant digits, and None for NaN and infinity."""
    if isinstance(data, float):
        return float(f"{data:.6g}") if math.isfinite(data) else None
    if isinstance(data, Mapping):
        return {key: _rounded(value) for key, value in data.items()}
    if isinstance(data, Sequence) and not isinstance(data, str):
        return [_rounded(value) for value in data]
    return data
