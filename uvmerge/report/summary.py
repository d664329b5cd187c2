"""What a comparison found, on one screen of a terminal."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from itertools import groupby

from ..measure.findings import Compared, Entry, Findings, with_measures
from ..text import brief, inert, table
from .column import Column, Place, mean
from .columns import shown_in
from .format import DEGREES, NONE, Unit
from .words import headline

WIDTH = 100
_MOST_ROWS, _MOST_MOVED, _MOST_LABELS, _MOST_BARS = 8, 3, 10, 60
_BARS = "▁▂▃▄▅▆▇█"


def summary(findings: Findings) -> str:
    """The findings in about 30 lines of 100 columns; names in them are inert."""
    verdict, *rest = headline(findings, beside_table=True)
    lines = _wrapped(verdict)
    shown = findings.compared[-1]
    if _shown(shown):
        lines += ["", *_table(findings, shown).splitlines()]
    if findings.verdict != "unrelated":
        lines += _most_turned(shown)
    if findings.pairs and len(findings.labels) <= _MOST_LABELS:
        lines += ["", *_between(findings).splitlines()]
    lines += ["", *(line for sentence in rest for line in _wrapped(sentence))]
    return "\n".join(lines)


def _wrapped(sentence: str) -> list[str]:
    return textwrap.wrap(inert(sentence), WIDTH, subsequent_indent="  ", break_long_words=False)


def _shown(compared: Compared) -> list[Entry]:
    """The matrices to show: all of an unrelated pair, else those that can be told from chance."""
    is_unrelated = compared.verdict == "unrelated"
    return compared.measured if is_unrelated else compared.related_matrices


def _table(findings: Findings, compared: Compared) -> str:
    """Means per role (or module, where there are many roles), beside what chance gives."""
    shown = _shown(compared)
    by_role: dict[str, list[Entry]] = {}
    by_module = len({entry.role for entry in shown}) > _MOST_ROWS
    for entry in shown:
        by_role.setdefault(entry.module if by_module else entry.role, []).append(entry)
    groups = [*by_role.items(), *([("all", shown)] if len(by_role) > 1 else [])]
    rows = [
        (brief(name, 40), f"{len(entries):,}", *(text for _, text in _cells(entries)))
        for name, entries in groups
    ]
    head = ["mean of", "n", *(name for name, _ in _cells(()))]
    title = f"{inert(compared.label)}: " if len(findings.compared) > 1 else ""
    legend = textwrap.wrap(f"{title}{_legend()}", WIDTH)
    return "\n".join([*legend, table(head, rows, right=" ".join(head[1:]))])


def _legend() -> str:
    """What the heads of the columns stand for."""
    by_name: dict[str, list[str]] = {}
    for column in shown_in(Place.TERMINAL):
        by_name.setdefault(column.name or column.key, []).append(_one_word(column.head))
    return "; ".join(f"{', '.join(heads)}: {name}" for name, heads in by_name.items())


def _cells(entries: Sequence[Entry]) -> list[tuple[str, str]]:
    """(head, text) of means over some matrices, and of what chance gives, once for each group."""
    found: list[tuple[str, str]] = []
    for _, group in groupby(shown_in(Place.TERMINAL), lambda column: column.group):
        columns = list(group)
        chances: list[float] = []
        for column in columns:
            telling = [entry for entry in entries if _is_shown(column, entry)]
            found.append((_one_word(column.head), _text(column.unit, column.values(telling))))
            chances += column.chances(telling)
        if any(Place.CHANCE in column.shown and column.has_chance for column in columns):
            found.append(("chance", _text(columns[0].unit, chances)))
    return found


def _is_shown(column: Column, entry: Entry) -> bool:
    """Whether a value counts: where it says something, or shows that a pair is unrelated."""
    is_evidence = Place.EVIDENCE in column.shown and entry.is_unrelated
    return is_evidence or not column.is_void(entry)


def _one_word(head: str) -> str:
    return head.replace(" ", "-")


def _text(unit: Unit, values: Sequence[float]) -> str:
    """The mean, without a space in it."""
    return unit.text(mean(values)).replace(" ", "").replace(NONE, "-")


def _most_turned(compared: Compared) -> list[str]:
    """The matrices that turned most, and a bar for each layer or so many layers."""
    turned = [
        (entry, angle)
        for entry, found in with_measures(compared.related_matrices)
        if (angle := found.telling_angle) is not None
    ]
    if not turned or not compared.says_where:
        return []
    most = sorted(turned, key=lambda pair: -pair[1])[:_MOST_MOVED]
    named = [f"{brief(entry.name, 60)} ({DEGREES.text(angle)})" for entry, angle in most]
    return _wrapped(f"most turned: {', '.join(named)}") + _layers(turned)


def _layers(turned: Sequence[tuple[Entry, float]]) -> list[str]:
    layers = sorted({entry.layer for entry, _ in turned if entry.layer is not None})
    if len(layers) < 2:
        return []
    every = -(-len(layers) // _MOST_BARS)  # layers under one bar
    spans = [layers[i : i + every] for i in range(0, len(layers), every)]
    of = [[angle for entry, angle in turned if entry.layer in span] for span in spans]
    means = [sum(angles) / len(angles) for angles in of]
    top = max(means) or 1.0
    bars = "".join(_BARS[round(angle / top * (len(_BARS) - 1))] for angle in means)
    return [f"by layer {layers[0]} to {layers[-1]}: {bars}  (0 to {DEGREES.text(top)})"]


def _between(findings: Findings) -> str:
    """Chordal distances (mean of both sides) of each two checkpoints."""
    labels = [brief(label, 24) for label in findings.labels]
    cells = {(p.first, p.second): f"{(p.left + p.right) / 2:.3g}" for p in findings.pairs}
    rows = [
        (f"{i} {label}", *(cells.get((i, j), cells.get((j, i), "-")) for j in range(len(labels))))
        for i, label in enumerate(labels)
    ]
    head = ("chordal distance", *map(str, range(len(labels))))
    return table(head, rows, right=" ".join(head[1:]))
