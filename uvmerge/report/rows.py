"""`matrices.csv`: a row for each matrix of each checkpoint. Pure."""

from __future__ import annotations

import csv
import io
import math
from typing import Union

from ..measure.findings import Entry, Findings
from ..measure.measures import Measures, Turn
from ..measure.null import ROUNDING
from ..text import inert

Value = Union[str, int, float, bool, None]  # noqa: UP007 (an alias is evaluated)
_TURN = ("mean", "mean_chance", "largest", "chordal", "chordal_chance", "is_chance", "alignment",
         "alignment_chance")  # fmt: skip
COLUMNS = (
    "checkpoint", "name", "layer", "module", "role", "rows", "columns", "dtype", "state", "device",
    "relative_delta", "rounding_of_dtype", "is_rounding", "k", "is_chance", "cosine",
    *(f"left_{name}" for name in _TURN), *(f"right_{name}" for name in _TURN),
    "relative_change_rms", "gap_base", "gap_finetuned", "intruders",
    "stable_rank", "stable_rank_chance", "effective_rank",
    "leading_energy", "leading_energy_chance",
    "diag", "rot", "outside", "in_block_chance", "methods",
)  # fmt: skip


def as_csv(findings: Findings) -> str:
    """Numbers to six digits, angles in radians; an empty cell is a figure that there is not."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    for row in rows(findings):
        writer.writerow({name: _cell(value) for name, value in row.items()})
    return text.getvalue()


def rows(findings: Findings) -> list[dict[str, Value]]:
    """A row per matrix and checkpoint, by the names in `COLUMNS`; what there is not is left out."""
    return [
        {"checkpoint": compared.label, **_entry(entry)}
        | ({} if entry.measures is None else _measures(entry.measures))
        for compared in findings.compared
        for entry in compared.entries
    ]


def _cell(value: Value) -> str:
    """Text that a spreadsheet does not run as a formula, nor a terminal as an escape."""
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


def _entry(entry: Entry) -> dict[str, Value]:
    return {
        "name": entry.name, "layer": entry.layer, "module": entry.module, "role": entry.role,
        "rows": entry.shape[0], "columns": entry.shape[1], "dtype": entry.dtype,
        "state": entry.state, "device": entry.device, "relative_delta": entry.relative,
        "rounding_of_dtype": ROUNDING.get(entry.dtype), "is_rounding": entry.is_rounding,
    }  # fmt: skip


def _measures(found: Measures) -> dict[str, Value]:
    change, chance, k = found.change, found.change.chance, found.k
    return {
        "k": k, "is_chance": found.is_chance, "cosine": change.cosine,
        **_turn("left", found.left), **_turn("right", found.right),
        "relative_change_rms": found.value_change,
        "gap_base": found.base_gap, "gap_finetuned": found.finetuned_gap,
        "intruders": found.intruders,
        "stable_rank": change.stable_rank, "stable_rank_chance": chance.stable_rank,
        "effective_rank": change.effective_rank,
        "leading_energy": change.leading_energy(k),
        "leading_energy_chance": chance.leading_energy(k),
        "diag": change.diagonal, "rot": change.rotation, "outside": change.outside,
        "in_block_chance": change.structureless, "methods": " ".join(found.methods),
    }  # fmt: skip


def _turn(side: str, turn: Turn) -> dict[str, Value]:
    values: tuple[Value, ...] = (
        turn.mean, turn.chance.mean, turn.largest, turn.chordal, turn.chance.chordal,
        turn.is_chance, turn.alignment, turn.chance_alignment,
    )  # fmt: skip
    return {f"{side}_{name}": value for name, value in zip(_TURN, values)}
