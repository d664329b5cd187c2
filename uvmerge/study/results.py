"""The results of a study: one JSON file, a CSV file for each stage, the page and its figures."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from ..output.manifest import write_whole
from ..report.plots import png
from ..report.rows import cell
from .journal import DONE, Key
from .lab import MACHINE, Lab, measured
from .page import page
from .sizes import names
from .stage import Measured, stages

FORMAT = 2
_LEVELS = 4  # of `study.json`: the file, its stages, a stage, its rows
Entries = Mapping[Key, Mapping[str, Any]]


def results(lab: Lab, seeds: int) -> dict[str, Any]:
    """All that has been measured, as JSON-able data.

    A stage is summarised over the pairs on which it is finished.
    """
    journals = {name: lab.entries(*name) for name in names(seeds, lab.sizes.quick)}
    found = {}
    for stage in stages().values():
        pairs = [
            measured(*name, stage.name, entries)
            for name, entries in journals.items()
            if (stage.name, DONE) in entries
        ]
        if pairs:
            found[stage.name] = {
                "pairs": [_as_data(pair) for pair in pairs],
                "cpu_s": _seconds(stage.name, journals.values()),
                **stage.summarise(pairs),
            }
    return {
        "uvmerge_study": FORMAT,
        "sizes": lab.sizes.as_data(),
        "machines": _machines(journals.values()),
        "stages": found,
    }


def _machines(journals: Iterable[Entries]) -> list[dict[str, Any]]:
    """The machines on which something was measured, as `machine.described` tells them, most pairs first;
    `pairs` of each."""
    found: dict[str, dict[str, Any]] = {}
    for journal in journals:
        for (of, key), entry in journal.items():
            if of == MACHINE:
                found.setdefault(key, {**entry["value"], "pairs": 0})["pairs"] += 1
    return sorted(found.values(), key=lambda machine: -machine["pairs"])


def _as_data(pair: Measured) -> dict[str, Any]:
    return {"regime": pair.regime, "seed": pair.seed, "values": dict(pair.values)}


def _seconds(stage: str, journals: Iterable[Entries]) -> float:
    """CPU time of a stage over all pairs.

    That of a pair is what its last process took, with trainings; where an earlier one was stopped, at
    least that of all its measurements.
    """
    total = 0.0
    for journal in journals:
        own = {key: entry for (of, key), entry in journal.items() if of == stage}
        last = own[DONE]["value"] if DONE in own else 0
        total += max(float(last), sum(entry["cpu_s"] for entry in own.values()))
    return round(total, 1)


def save(found: Mapping[str, Any], out: Path) -> list[Path]:
    """Write `study.json`, `study.md`, and a CSV file and a figure for each stage; returns the paths."""
    contents = {"study.json": as_json(found), "study.md": page(found)}
    for name, summary in found["stages"].items():
        contents[f"{name}.csv"] = as_csv(stages()[name].rows(summary))
    for name, text in contents.items():
        write_whole(out / name, text.encode())
    paths = [out / name for name in contents]
    for name, summary in found["stages"].items():
        paths.append(out / f"{name}.png")
        write_whole(paths[-1], png(partial(stages()[name].draw, summary)))
    return paths


def as_json(found: Mapping[str, Any]) -> str:
    """The text of `study.json`: numbers with six significant digits; a row, or a pair, is one line."""
    return _laid_out(_rounded(found), _LEVELS) + "\n"


def _laid_out(value: Any, levels: int, indent: str = "") -> str:
    """JSON whose outer levels have a line for each of their parts."""
    if not levels or not value or not isinstance(value, (dict, list)):
        return json.dumps(value, allow_nan=False)
    within = f"{indent} "
    keys = (
        [f"{json.dumps(key)}: " for key in value] if isinstance(value, dict) else [""] * len(value)
    )
    parts = value.values() if isinstance(value, dict) else value
    lines = [
        f"{within}{key}{_laid_out(part, levels - 1, within)}"
        for key, part in zip(keys, parts, strict=True)
    ]
    first, last = "{}" if isinstance(value, dict) else "[]"
    return "\n".join([first, ",\n".join(lines), f"{indent}{last}"])


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.6g}")
    if isinstance(value, Mapping):
        return {key: _rounded(each) for key, each in value.items()}
    return [_rounded(each) for each in value] if isinstance(value, (list, tuple)) else value


def as_csv(rows: Sequence[Mapping[str, Any]]) -> str:
    """The text of a CSV file: six significant digits, empty cells for what is not known."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows({key: cell(value) for key, value in row.items()} for row in rows)
    return text.getvalue()
