"""Several checkpoints: curves over them, and each two of them against each other. Pure."""

from __future__ import annotations

import math
from collections.abc import Callable

from ..measure.findings import Compared, Entry, Findings, Pair
from ..measure.measures import Measures
from .format import number
from .heat import Cell, Scale, heat_map
from .svg import Axis, Line, chart

MOST_MODULES = 6


def trajectory(findings: Findings) -> str:
    """Curves over the checkpoints and the distances of each two, as HTML figures."""
    figures = [
        f"<figure><figcaption>{title}</figcaption>{body}</figure>"
        for title, body in (*_curves(findings), *_pairs(findings))
        if body
    ]
    note = '<p class="note">Numbered in the order given; 0 is the base.</p>'
    return f'{note}<div class="maps">{"".join(figures)}</div>'


def _curves(findings: Findings) -> list[tuple[str, str]]:
    figures: list[tuple[str, str, Callable[[Entry], float | None]]] = [
        ("Relative change of the weights", "mean", _relative),
        ("Mean angle, left singular vectors", "mean angle, rad", lambda e: _angle("left", e)),
        ("Mean angle, right singular vectors", "mean angle, rad", lambda e: _angle("right", e)),
        ("Relative change of singular values", "rms", lambda e: _found(e, _value_change)),
        ("Energy of the change in the leading block", "share", lambda e: _found(e, _inside)),
    ]
    return [(title, _curve(findings, title, label, value)) for title, label, value in figures]


def _curve(
    findings: Findings, title: str, label: str, value: Callable[[Entry], float | None]
) -> str:
    """Means over the matrices of each module, and over all, against the number of the checkpoint."""
    entries = [entry for compared in findings.compared for entry in compared.entries]
    modules = list(dict.fromkeys(entry.module for entry in entries))
    groups: list[str | None] = [None, *(modules[:MOST_MODULES] if len(modules) > 1 else [])]
    lines = []
    for style, group in enumerate(groups):
        means = [
            (i, _mean(compared, group, value)) for i, compared in enumerate(findings.compared, 1)
        ]
        points = [(float(i), mean) for i, mean in means if mean is not None]
        if points:
            lines.append(Line(points, group or "all", style, dots=True))
    if not lines:
        return ""
    y = Axis.over([0.0, *(mean for line in lines for _, mean in line.points)], label)
    x = Axis(0.5, len(findings.compared) + 0.5, "checkpoint", whole=True)
    return chart(title, x, Axis(0.0, y.high, label), lines)


def _mean(
    compared: Compared, module: str | None, value: Callable[[Entry], float | None]
) -> float | None:
    found = [
        v
        for entry in compared.entries
        if module in (None, entry.module) and (v := value(entry)) is not None and math.isfinite(v)
    ]
    return sum(found) / len(found) if found else None


def _relative(entry: Entry) -> float | None:
    return entry.relative


def _angle(side: str, entry: Entry) -> float | None:
    """0 for an identical matrix; None where the angle says nothing."""
    if entry.measures is None:
        return 0.0 if entry.state == "identical" else None
    turn = getattr(entry.measures, side)
    return turn.mean if turn.is_telling else None


def _found(entry: Entry, value: Callable[[Measures], float]) -> float | None:
    found = entry.measures
    return value(found) if found is not None and found.k and not found.is_chance else None


def _value_change(found: Measures) -> float:
    return found.value_change


def _inside(found: Measures) -> float:
    return found.change.inside


def _pairs(findings: Findings) -> list[tuple[str, str]]:
    """How far each two are apart, left, right and in all weights."""
    if not findings.pairs:
        return []
    names = [str(i) for i in range(len(findings.labels))]
    spans = max(max(pair.left, pair.right) for pair in findings.pairs)
    chance = _chance(findings)
    top = Axis(0.0, max(spans, chance or 0.0) or 1.0)
    marks = [(chance, f"chance {number(chance)}")] if chance else []
    farthest = max(pair.distance for pair in findings.pairs)
    figures: list[tuple[str, Scale, Callable[[Pair], float]]] = [
        ("Chordal distance, left", Scale(top, marks=marks), lambda pair: pair.left),
        ("Chordal distance, right", Scale(top, marks=marks), lambda pair: pair.right),
        ("Distance of the weights", Scale(Axis(0.0, farthest or 1.0)), lambda pair: pair.distance),
    ]
    return [
        (f"{title}, each two", heat_map(title, names, names, _cells(findings, value), scale))
        for title, scale, value in figures
    ]


def _cells(findings: Findings, value: Callable[[Pair], float]) -> dict[tuple[int, int], Cell]:
    cells = {
        (i, i): Cell(0.0, "0", f"{label} and itself: 0") for i, label in enumerate(findings.labels)
    }
    for pair in findings.pairs:
        found = value(pair)
        tip = f"checkpoints {pair.first} and {pair.second}: {number(found)}"
        cell = Cell(found, number(found, 2), tip)
        cells[pair.first, pair.second] = cells[pair.second, pair.first] = cell
    return cells


def _chance(findings: Findings) -> float | None:
    """Mean chordal distance that independent spans of these matrices would have."""
    found = [
        turn.chance.chordal
        for compared in findings.compared
        for entry in compared.measured
        if entry.measures is not None and entry.measures.k
        for turn in (entry.measures.left, entry.measures.right)
    ]
    return sum(found) / len(found) if found else None
