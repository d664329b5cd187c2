"""What a search found, as text, as data and as rows."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from typing import Any

from ..errors import counted
from ..tasks.goals import Goal
from ..tasks.margins import Estimate
from ..tasks.searched import SAME_ITEMS, Searched, Tried, shown
from ..text import brief, inert, table

SCHEMA = 1
WIDTH = 100


def as_text(found: Searched) -> str:
    """The line, the front, what both are, and the verdict as the last sentence."""
    return "\n".join(_lines(found))


def _lines(found: Searched) -> Iterator[str]:
    header = ["", *(goal.name for goal in found.goals), *_margin_names(found.goals)]
    rows = [_cells(tried, found) for tried in (*found.line, *found.found) if tried.placed]
    yield table([brief(name, 40) for name in header], rows)
    yield ""
    for tried in found.found:
        yield from _wrapped(f"{tried.name}: {_settings(tried)}")
    if found.found:
        yield ""
    for sentence in _sentences(found):
        yield from _wrapped(sentence)
    yield from _wrapped(found.verdict)
    yield from filter(None, [found.caveat])


def _margin_names(goals: tuple[Goal, ...]) -> list[str]:
    if len(goals) == 1:
        return ["over the line"]
    return [f"at equal {goal.name}" for goal in goals[:2]]


def _cells(tried: Tried, found: Searched) -> list[str]:
    assert tried.placed is not None
    star = " *" if tried.name in found.front else ""
    margins = [shown(each) for each in tried.placed.over_line]
    empty = [""] * (len(_margin_names(found.goals)) - len(margins))
    return [f"{tried.name}{star}", *(shown(v, "") for v in tried.placed.values), *margins, *empty]


def _settings(tried: Tried) -> str:
    return ", ".join(
        f"{brief(key, 60)} {brief(value, 60)}" for key, value in tried.settings.items()
    )


def _sentences(found: Searched) -> Iterator[str]:
    failed = [tried for tried in found.trials if tried.error is not None]
    count = f"{counted(len(found.trials), 'setting')} tried"
    if failed:
        count += f", {len(failed)} failed (the last: {failed[-1].name}: {failed[-1].error})"
    how = (
        "chosen on the search items and reported on the others" if found.has_halves else SAME_ITEMS
    )
    yield f"{count}; the front (*) is {how}."
    if found.items:
        parts = [
            f"{name} {items:,}" + (f" in {clusters:,} clusters" if clusters != items else "")
            for name, (items, clusters) in found.items.items()
        ]
        yield f"items: {', '.join(parts)}. In brackets 95 % intervals: of values one by one, of" \
            " margins for all of them at once."  # fmt: skip
    if len(found.goals) > 1:
        first, second = found.goals[:2]
        yield (
            f"at equal {first.name}: {second.name} above what the line offers at no worse"
            f" {first.name}; and the other way round. The line joins interpolations by straight parts."
        )
    yield from (f"note: {note}" for note in found.notes)


def _wrapped(sentence: str) -> list[str]:
    return textwrap.wrap(inert(sentence), WIDTH, subsequent_indent="  ", break_long_words=False)


def as_data(found: Searched) -> dict[str, Any]:
    """The findings as JSON-able data, without NaN."""
    return {
        "uvmerge_search": SCHEMA,
        "metrics": [
            {"name": g.name, "direction": "max" if g.is_max else "min", "floor": g.floor}
            for g in found.goals
        ],
        "has_halves": found.has_halves,
        "items": {name: list(counts) for name, counts in found.items.items()},
        "line": [_tried(tried, found) for tried in found.line],
        "front": [_tried(tried, found) for tried in found.found],
        "tried": len(found.trials),
        "failed": {t.name: t.error for t in found.trials if t.error is not None},
        "beats_interpolation": found.beating,
        "notes": list(found.notes),
        "sentence": found.sentence,
    }


def _tried(tried: Tried, found: Searched) -> dict[str, Any]:
    names = [goal.name for goal in found.goals]
    placed = tried.placed
    margins = placed.over_line if placed is not None else ()
    keys = [f"{g.name}" for g in found.goals[:2]] if len(found.goals) > 1 else ["best"]
    return {
        "name": tried.name,
        "on_front": tried.name in found.front,
        "settings": dict(tried.settings),
        "chosen_by": dict(tried.chosen_by),
        "reported": {n: _estimate(v) for n, v in zip(names, placed.values)} if placed else None,
        "over_line_at_equal": {n: _estimate(v) for n, v in zip(keys, margins)},
        "weights_xxh3_128": dict(tried.weights),
    }


def _estimate(estimate: Estimate) -> dict[str, Any]:
    interval = estimate.interval
    return {"value": estimate.value, "interval_95": None if interval is None else list(interval)}


def rows(found: Searched) -> list[dict[str, Any]]:
    """A row for each checkpoint of the line and each trial, with numbers and texts alone."""
    return [
        _flat(tried, found, kind)
        for kind, group in (("line", found.line), ("trial", found.trials))
        for tried in group
    ]


def _flat(tried: Tried, found: Searched, kind: str) -> dict[str, Any]:
    row: dict[str, Any] = {"name": tried.name, "kind": kind, "on_front": tried.name in found.front}
    row |= {goal.name: tried.chosen_by.get(goal.name) for goal in found.goals}
    values = tried.placed.values if tried.placed is not None else ()
    margins = tried.placed.over_line if tried.placed is not None else ()
    for i, goal in enumerate(found.goals):
        row |= _columns(f"reported_{goal.name}", values[i] if values else None)
    for i, name in enumerate(_margin_names(found.goals)):
        row |= _columns(name.replace(" ", "_"), margins[i] if margins else None)
    return row | {"error": tried.error} | dict(tried.settings)


def _columns(name: str, estimate: Estimate | None) -> dict[str, float | None]:
    low, high = (estimate.interval if estimate is not None else None) or (None, None)
    value = None if estimate is None else estimate.value
    return {name: value, f"{name}_low": low, f"{name}_high": high}
