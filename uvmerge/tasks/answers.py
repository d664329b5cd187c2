"""Reads answers that uvmerge writes: JSON Lines of items, and the report of the demo.

A line is an item with its metrics, as `uvmerge eval cards` writes them into `samples.jsonl`:

    {"task": "uvmerge_cards_id", "doc_id": 7, "unordered": "A 5 5 K", "attempts": 2,
     "success@1": 0, "success@5": 1, "published@1": 0, "format_error@1": 1}

or one attempt at an item:

    {"task": "cards", "rule": "id", "seed": 1, "doc_id": 7, "hand": ["A", "5", "5", "K"],
     "attempt": 1, "success": false, "format_error": true, "published": false,
     "doc_hash": "…", "prompt_hash": "…"}

`task` and `doc_id` are needed; `rule` is a part of the task's name; items of one `unordered` hand, or
of one `hand` in any order, are a cluster. Numbers and truth values under any other name are metrics.
Of attempts, the metrics of the first are `success@1` and so on, and `success@N` and `published@N` say
whether one of the N attempts had it; of lines that repeat an attempt the last counts. Without
attempts, lines that repeat an item count once, with the mean of their values.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..checkpoint.bounded import read_json
from ..errors import InputRefused
from ..text import brief
from .items import ItemTable, Pair
from .lines import FORCE, as_number, hand_of, json_lines
from .scores import Evaluated, Metric, Score, item_key

REPORT_BYTES = 64 << 20
SAMPLES, ATTEMPTS, RESULTS = "samples.jsonl", "attempts.jsonl", "results.json"
_NO_METRIC = {"task", "rule", "seed", "doc_id", "hand", "attempt", "attempts", "limit", "tokens"}
_EVER = ("success", "published")  # what a later attempt may still win
_LOWER_IS_BETTER = {"format_error"}
_DOMAINS = ("in_domain", "out_of_domain")  # tasks of the demo


def read_answers(name: str, files: Sequence[Path], force: bool) -> Evaluated:
    """What the items in JSON Lines say.

    Raises:
        InputRefused: a line is broken or names no item and not `force`, or there are no items.
    """
    lines: dict[str, list[dict[str, Any]]] = {}
    notes: list[str] = []
    for path in files:
        for number, line in enumerate(json_lines(path, force, notes), 1):
            if not isinstance(line.get("task"), str) or "doc_id" not in line:
                what = f"item {number} has no task or no doc_id"
                raise InputRefused(path, what, "Name a file of lines with `task` and `doc_id`.")
            rule = line.get("rule")
            task = line["task"] if rule in (None, "") else f"{line['task']}_{rule}"
            lines.setdefault(task, []).append(line)
    if not lines:
        raise InputRefused(files[0], "holds no items", "Run the evaluation again.")
    scores: dict[Metric, Score] = {}
    for task, found in lines.items():
        attempts = any("attempt" in line for line in found)
        table = _attempts(found, files[0], force, notes) if attempts else _items(found)
        for metric, score in table.scores(
            files[0], force, notes, better_of=lambda n: n.partition("@")[0] not in _LOWER_IS_BETTER
        ).items():
            scores[Metric(task, metric)] = score
    if not scores:
        raise InputRefused(
            files[0], "holds no metric", "Each line needs a number or true or false."
        )
    shared = _shared_settings(files[0].with_name(RESULTS))
    settings = {task: shared | _settings(found) for task, found in lines.items()}
    return Evaluated(name, str(files[0].parent), scores, settings, notes=notes)


def answers_files(folder: Path) -> list[Path]:
    """The JSON Lines of a folder: `samples.jsonl` alone where there is one.

    Raises:
        InputRefused: the folder is of an evaluation that has not finished.
    """
    if (folder / SAMPLES).is_file():
        return [folder / SAMPLES]
    if (folder / ATTEMPTS).is_file():
        do = "Run the same `uvmerge eval` again: it resumes."
        raise InputRefused(folder, "holds an evaluation that has not finished", do)
    return sorted(path for path in folder.glob("*.jsonl") if path.is_file())


def _shared_settings(results: Path) -> dict[str, str]:
    """How the items were asked, where the file beside them says so."""
    told = read_json(results, REPORT_BYTES).get("settings") if results.is_file() else None
    return {key: str(value) for key, value in told.items()} if isinstance(told, dict) else {}


def _settings(lines: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    seeds = sorted({str(line["seed"]) for line in lines if "seed" in line})
    return {"seed": ", ".join(seeds[:5])} if seeds else {}


def _key(line: dict[str, Any]) -> bytes:
    return item_key(line["doc_id"], line.get("doc_hash", hand_of(line)), line.get("prompt_hash"))


def _metrics(line: Mapping[str, Any]) -> dict[str, float | Pair | None]:
    found = {name: as_number(value) for name, value in line.items() if name not in _NO_METRIC}
    return {name: value for name, value in found.items() if value is not None}


def _items(lines: Sequence[dict[str, Any]]) -> ItemTable:
    table = ItemTable()
    for line in lines:
        table.add(_key(line), hand_of(line), _metrics(line))
    return table


def _attempts(
    lines: Sequence[dict[str, Any]], path: Path, force: bool, notes: list[str]
) -> ItemTable:
    """A table with a row for each item, from lines that are attempts at items."""
    tries: dict[bytes, dict[int, dict[str, Any]]] = {}
    first_key = {}
    for line in lines:
        number = line.get("attempt")
        if not isinstance(number, int) or isinstance(number, bool) or number < 1:
            do = "Number the attempts at an item from 1."
            raise InputRefused(path, f"{brief(number)} is no number of an attempt", do)
        place = item_key(line["doc_id"], line.get("doc_hash"), line.get("seed"))
        tries.setdefault(place, {})[number] = line
        if number == 1:  # later prompts hold the answers before
            first_key[place] = _key(line)
    most = max(as_number(line.get("attempts")) or line["attempt"] for line in lines)
    table, unfinished = ItemTable(), 0
    for place, found in tries.items():
        won = any(found[number].get("success") for number in found)
        if set(found) != set(range(1, max(found) + 1)) or not (won or max(found) >= most):
            unfinished += 1
            continue
        values = {f"{name}@1": value for name, value in _metrics(found[1]).items()}
        if most > 1:
            for name in _EVER:
                if any(name in line for line in found.values()):
                    ever = any(line.get(name) for line in found.values())
                    values[f"{name}@{most:.0f}"] = float(ever)
        table.add(first_key[place], hand_of(found[1]), values)
    if unfinished:
        what = f"{unfinished:,} of {len(tries):,} items lack attempts"
        if not force:
            raise InputRefused(path, what, FORCE)
        notes.append(f"{path.name}: {what}, and are left out")
    return table


def read_report(path: Path) -> list[Evaluated] | None:
    """The checkpoints of a demo's `report.json`.

    Of a report of an earlier version, which has no answers, totals alone are known.

    Returns:
        None where the file is another report.
    """
    data = read_json(path, REPORT_BYTES)
    rows, task = data.get("rows"), data.get("task")
    if not isinstance(rows, list) or not isinstance(task, dict) or not rows:
        return None
    settings = {key: str(value) for key, value in task.items()}
    both = dict.fromkeys(_DOMAINS, settings)
    found = []
    for row in (row for row in rows if isinstance(row, dict)):
        told = row.get("answers")
        scores = _totals(path, row) if told is None else _per_hand(path, told, data)
        found.append(Evaluated(str(row.get("name")), str(path), scores, both))
    return found


def _per_hand(path: Path, told: object, report: Mapping[str, Any]) -> dict[Metric, Score]:
    """The scores of a row of the demo: out of domain, an item is a hand under one rule."""
    hands, inside = report.get("hands"), report["task"].get("in_domain_rule")
    if not isinstance(hands, list) or not isinstance(told, dict) or inside not in told:
        raise _broken(path)
    tables = {domain: ItemTable() for domain in _DOMAINS}
    for rule, right in told.items():
        if not isinstance(right, str) or len(right) != len(hands) or set(right) - {"0", "1"}:
            raise _broken(path)
        table = tables[_DOMAINS[rule != inside]]
        for place, (hand, digit) in enumerate(zip(hands, right)):
            key = item_key(place, hand, rule)
            table.add(key, hand_of({"hand": hand}), {"accuracy": float(digit)})
    return {
        Metric(domain, name): score
        for domain, table in tables.items()
        for name, score in table.scores(path, False, [], better_of=lambda name: True).items()
    }


def _broken(path: Path) -> InputRefused:
    what = "has a row whose answers are not a 0 or 1 for each hand under every rule"
    return InputRefused(path, what, "Run the demo again.")


def _totals(path: Path, row: Mapping[str, Any]) -> dict[Metric, Score]:
    """The scores of a row of which totals are known."""
    scores = {}
    for domain in _DOMAINS:
        told = row.get(domain)
        right, total = (
            (told.get(k) for k in ("right", "total")) if isinstance(told, dict) else (0, 0)
        )
        if type(right) is not int or type(total) is not int or not 0 <= right <= total or not total:
            what = f"has a row without items {domain.replace('_', ' ')}"
            raise InputRefused(path, what, "Run the demo again.")
        scores[Metric(domain, "accuracy")] = Score(right / total, total, None, right, True)
    return scores
