"""`report.json`: the findings as JSON-able data; docs/report.md describes the schema. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from ..measure.findings import Compared, Entry, Findings
from ..measure.measures import Turn
from ..measure.null import ROUNDING

SCHEMA = 1  # of `report.json`; a new number where a key changes its meaning


def as_data(findings: Findings) -> dict[str, Any]:
    """The findings as JSON-able data, numbers to six digits; docs/report.md describes the schema."""
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
        "behaviour": None if behaviour is None else dict(vars(behaviour)),
        "matrices": [_entry(entry) for entry in compared.entries],
        "others": [dict(vars(other)) for other in compared.others],
    }  # fmt: skip


def _entry(entry: Entry) -> dict[str, Any]:
    data: dict[str, Any] = {
        "name": entry.name, "layer": entry.layer, "module": entry.module, "role": entry.role,
        "shape": list(entry.shape), "dtype": entry.dtype, "state": entry.state,
        "relative_delta": entry.relative, "rounding_of_dtype": ROUNDING.get(entry.dtype),
        "device": entry.device,
    }  # fmt: skip
    found = entry.measures
    if found is None:
        return data
    change, chance = found.change, found.change.chance
    return data | {
        "k": found.k, "is_chance": found.is_chance, "methods": list(found.methods),
        "left": _turn(found.left), "right": _turn(found.right),
        "values": {
            "base": list(found.base_values), "finetuned": list(found.finetuned_values),
            "relative_change_rms": found.value_change,
        },
        "gap": {"base": found.base_gap, "finetuned": found.finetuned_gap},
        "intruders": found.intruders,
        "delta": {
            "cosine": change.cosine, "values": list(change.values),
            "effective_rank": change.effective_rank,
            "stable_rank": change.stable_rank, "stable_rank_chance": chance.stable_rank,
            "leading_energy": change.leading_energy(found.k),
            "leading_energy_chance": chance.leading_energy(found.k),
            "diag": change.diagonal, "rot": change.rotation, "outside": change.outside,
            "in_block_chance": change.structureless,
            "in_block_chance_band": list(change.band("inside", found.k)),
            "block": [list(row) for row in change.picture],
        },
    }  # fmt: skip


def _turn(turn: Turn) -> dict[str, Any]:
    chance = turn.chance
    return {
        "angles": list(turn.angles), "mean": turn.mean, "largest": turn.largest,
        "chordal": turn.chordal, "chordal_chance": chance.chordal,
        "chordal_chance_band": list(chance.chordal_band),
        "zeros_chance": chance.zeros, "smallest_chance": chance.smallest,
        "is_chance": turn.is_chance,
        "alignment": turn.alignment, "alignment_chance": turn.chance_alignment,
    }  # fmt: skip


def _rounded(data: Any) -> Any:
    """`data` with floats to six digits, and None for what JSON has no number for."""
    if isinstance(data, float):
        return float(f"{data:.6g}") if math.isfinite(data) else None
    if isinstance(data, Mapping):
        return {key: _rounded(value) for key, value in data.items()}
    if isinstance(data, Sequence) and not isinstance(data, str):
        return [_rounded(value) for value in data]
    return data
