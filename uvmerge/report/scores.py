"""A comparison of evaluations as files: `report.html`, `report.json` and `scores.csv`."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

from ..output.manifest import write_whole
from ..tasks.comparison import Recovered, Row, Table, Test
from ..tasks.outcome import ComparedScores
from ..tasks.scores import Metric
from ..tasks.statistics import Interval
from .rows import cell
from .scores_page import render

SCHEMA = 1


def save(found: ComparedScores, folder: Path) -> list[Path]:
    """Write the three files, every file whole or not at all; returns their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    contents = {
        "report.json": json.dumps(as_data(found), separators=(",", ":"), allow_nan=False) + "\n",
        "scores.csv": as_csv(found),
        "report.html": render(found),
    }
    for name, text in contents.items():
        write_whole(folder / name, text.encode(errors="backslashreplace"))
    return [folder / name for name in contents]


def as_data(found: ComparedScores) -> dict[str, Any]:
    """The findings as JSON-able data, without NaN."""
    return {
        "uvmerge_compare": SCHEMA,
        "checkpoints": [
            {"name": name, "source": source}
            for name, source in zip(found.checkpoints, found.sources, strict=True)
        ],
        "against": found.against,
        "base": found.base,
        "finetuned": found.finetuned,
        "line": list(found.line),
        "in_domain": _metric(found.in_domain),
        "out_of_domain": _metric(found.out_of_domain),
        "front": found.front(),
        "comparisons": len(found.tests),
        "differences": list(found.differences),
        "notes": list(found.notes),
        "tables": [
            {
                **(_metric(table.metric) or {}),
                "higher_is_better": table.higher_is_better,
                "rows": [_row(row) for row in table.rows],
            }
            for table in found.tables
        ],
    }


def _metric(metric: Metric | None) -> dict[str, str] | None:
    if metric is None:
        return None
    return {"task": metric.task, "metric": metric.name, "filter": metric.filter}


def _row(row: Row) -> dict[str, Any]:
    return {
        "checkpoint": row.checkpoint,
        "score": row.value,
        "items": row.count,
        "successes": row.successes,
        "interval_95": _interval(row.interval),
        "interval": row.interval_name or None,
        "interval_95_by_hand": _interval(row.by_hand),
        "test": None if row.test is None else _test(row.test),
        "recovered": None if row.recovered is None else _recovered(row.recovered),
        "caveat": row.caveat or None,
    }


def _interval(interval: Interval | None) -> list[float] | None:
    return None if interval is None else list(interval)


def _test(test: Test) -> dict[str, Any]:
    return {
        "against": test.against,
        "name": test.name,
        "difference": test.difference,
        "interval_95": _interval(test.interval),
        "only_here": test.only_here,
        "only_there": test.only_there,
        "items": test.items,
        "p": test.p,
        "p_by_hand": test.p_by_hand,
        "p_holm": test.adjusted,
    }


def _recovered(recovered: Recovered) -> dict[str, Any]:
    return {
        "of_best": recovered.of_best,
        "of_best_interval_95": _interval(recovered.of_best_interval),
        "of_loss": recovered.of_loss,
        "of_loss_interval_95": _interval(recovered.of_loss_interval),
    }


def rows(found: ComparedScores) -> list[dict[str, Any]]:
    """A row for each metric and checkpoint, with numbers and texts alone."""
    return [_flat(table, row) for table in found.tables for row in table.rows]


def _flat(table: Table, row: Row) -> dict[str, Any]:
    flat: dict[str, Any] = {"checkpoint": row.checkpoint, **(_metric(table.metric) or {})}
    flat |= {"score": row.value, "items": row.count, **_ends("score", row.interval)}
    flat |= {"interval": row.interval_name, **_ends("score_by_hand", row.by_hand)}
    test = {} if row.test is None else _test(row.test)
    flat |= {key: test.get(key) for key in ("against", "difference")}
    flat |= _ends("difference", None if row.test is None else row.test.interval)
    flat |= {"test": test.get("name"), "paired_items": test.get("items")}
    flat |= {key: test.get(key) for key in ("only_here", "only_there", "p", "p_by_hand", "p_holm")}
    back = row.recovered
    for key in ("of_best", "of_loss"):
        flat[key] = getattr(back, key, None)
        flat |= _ends(key, getattr(back, f"{key}_interval", None))
    return flat


def _ends(name: str, interval: Interval | None) -> dict[str, float | None]:
    low, high = interval or (None, None)
    return {f"{name}_low": low, f"{name}_high": high}


def as_csv(found: ComparedScores) -> str:
    """The text of `scores.csv`: six significant digits, empty cells for what is not known."""
    text, flat = io.StringIO(), rows(found)
    writer = csv.DictWriter(text, list(flat[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows({key: cell(value) for key, value in row.items()} for row in flat)
    return text.getvalue()
