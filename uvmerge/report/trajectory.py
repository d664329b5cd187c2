"""Several checkpoints: curves of measures over the checkpoints, and distances of each two. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable

from ..measure.findings import Compared, Findings, with_measures
from .column import Column, Place, mean
from .columns import shown_in
from .format import DEGREES, number, safe
from .heat import Cell, heat_map
from .pairs import DISTANCES, Distance, scale_of
from .svg import Axis, Line, chart

MOST_MODULES = 6
MOST_LINES, SHARES = 7, 25  # checkpoints in a drawing of angles, the last ones; points of a line


def trajectory(findings: Findings) -> str:
    """Curves over the checkpoints and the distances of each two, as HTML figures."""
    curves = ((column.title, _curve(findings, column)) for column in shown_in(Place.CURVE))
    figures = [
        f"<figure><figcaption>{safe(title)}</figcaption>{body}</figure>"
        for title, body in (*curves, *_angles(findings), *_pairs(findings))
        if body
    ]
    note = '<p class="note">Numbered in the order given; 0 is the base.</p>'
    return f'{note}<div class="maps">{"".join(figures)}</div>'


def _curve(findings: Findings, column: Column) -> str:
    """Means over the matrices of each module, and over all, for each checkpoint."""
    entries = [entry for compared in findings.compared for entry in compared.entries]
    modules = list(dict.fromkeys(entry.module for entry in entries))
    groups: list[str | None] = [None, *(modules[:MOST_MODULES] if len(modules) > 1 else [])]
    lines = []
    for style, group in enumerate(groups):
        means = [
            (i, _mean(column, compared, group)) for i, compared in enumerate(findings.compared, 1)
        ]
        points = [(float(i), column.unit.drawn(found)) for i, found in means if found is not None]
        if points:
            lines.append(Line(points, group or "all", style, dots=True))
    if not lines:
        return ""
    drawn = [0.0, *(at for line in lines for _, at in line.points)]
    x = Axis(0.5, len(findings.compared) + 0.5, "checkpoint", whole=True)
    y = Axis(min(drawn), Axis.over(drawn).high, column.label)
    return chart(column.title, x, y, lines)


def _angles(findings: Findings) -> Iterable[tuple[str, str]]:
    """The angles of the leading spans of several checkpoints in one drawing, for each side: at each
    share of the k angles the mean over matrices."""
    several = list(enumerate(findings.compared, 1))[-MOST_LINES:]
    for side in ("left", "right"):
        lines = []
        for style, (i, compared) in enumerate(several):
            curves = [
                [
                    turn.angles[round(j / (SHARES - 1) * (len(turn.angles) - 1))]
                    for j in range(SHARES)
                ]
                for _, found in with_measures(compared.related_matrices)
                if (turn := getattr(found, side)).angles
            ]
            points = [
                (100 * j / (SHARES - 1), DEGREES.drawn(sum(at) / len(at)))
                for j, at in enumerate(zip(*curves))
            ]
            if points:
                lines.append(Line(points, str(i), style))
        drawn = [angle for line in lines for _, angle in line.points]
        if drawn:
            title = f"Angles of the leading spans, {side}"
            x = Axis(0.0, 100.0, "rank, % of k; smallest angle first")
            yield title, chart(title, x, Axis(0.0, Axis.over(drawn).high, "degrees"), lines)


def _mean(column: Column, compared: Compared, module: str | None) -> float | None:
    """The mean over the matrices of a module, or over all, without values that are void."""
    among = [entry for entry in compared.entries if module in (None, entry.module)]
    return mean(list(filter(math.isfinite, column.telling_values(among))))


def _pairs(findings: Findings) -> Iterable[tuple[str, str]]:
    """Heat maps of the distances of each two checkpoints: left, right and of the weights."""
    names = [str(i) for i in range(len(findings.labels))]
    for distance in DISTANCES if findings.pairs else ():
        title, scale = distance.title, scale_of(distance, findings)
        drawn = heat_map(title, names, names, _cells(findings, distance), scale)
        yield f"{title}, each two", drawn


def _cells(findings: Findings, distance: Distance) -> dict[tuple[int, int], Cell]:
    cells = {
        (i, i): Cell(0.0, "0", f"{label} and itself: 0") for i, label in enumerate(findings.labels)
    }
    for pair in findings.pairs:
        found = distance.value(pair)
        tip = f"checkpoints {pair.first} and {pair.second}: {number(found)}"
        cell = Cell(found, number(found, 2), tip)
        cells[pair.first, pair.second] = cells[pair.second, pair.first] = cell
    return cells
