"""Where in the spectrum vectors turned: tenths of all singular values, beside chance. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from ..measure.findings import Compared, Entry, Findings, with_measures
from ..measure.judgement import SMALLEST_ANGLE
from ..measure.measures import Turn
from .column import mean
from .format import DEGREES, number, safe
from .heat import MEDIUM, Cell, Scale, heat_map
from .svg import Axis, Band, Line, chart

MOST = 7  # checkpoints in one drawing, the last ones
NAMES = [f"{i + 1}" for i in range(10)]


def tenths_figures(findings: Findings) -> str:
    """The turn of each tenth of the spectrum as HTML figures; empty where none was measured.

    Of one checkpoint: both sides in one drawing, and the layers below each other. Of several: a
    drawing for each side, with a line for each checkpoint.
    """
    shown = findings.compared[-1]
    entries = shown.related_matrices
    if not any(_turns(entries, side) for side in ("left", "right")):
        return ""
    if len(findings.compared) == 1:
        lines = [_line(entries, side, side, i) for i, side in enumerate(("left", "right"))]
        figures = [_drawing("Turn by position in the spectrum", lines, entries, ("left", "right"))]
    else:
        several = list(enumerate(findings.compared, 1))[-MOST:]
        figures = [
            _drawing(
                f"Turn by position in the spectrum, {side}",
                [_line(c.related_matrices, side, str(i), style) for style, (i, c) in enumerate(several)],
                entries,
                (side,),
            )
            for side in ("left", "right")
        ]  # fmt: skip
    return f'<div class="maps">{"".join(figures)}{_by_layer(shown)}</div>'


def _turns(entries: Sequence[Entry], side: str) -> list[Turn]:
    turns = [getattr(found, side) for _, found in with_measures(entries)]
    return [turn for turn in turns if turn.tenths]


def _means(turns: Sequence[Turn]) -> list[float | None]:
    """The mean angle of each tenth over matrices, in radians."""
    return [mean([a for turn in turns if (a := turn.tenths[i]) is not None]) for i in range(10)]


def _line(entries: Sequence[Entry], side: str, label: str, style: int) -> Line:
    points = [
        (i + 1.0, DEGREES.drawn(angle))
        for i, angle in enumerate(_means(_turns(entries, side)))
        if angle is not None
    ]
    return Line(points, label, style, dots=True)


def _drawing(
    title: str, lines: Sequence[Line], entries: Sequence[Entry], sides: Sequence[str]
) -> str:
    chances = [
        [
            DEGREES.drawn(turn.chance_of_tenths[i])
            for side in sides
            for turn in _turns(entries, side)
        ]
        for i in range(10)
    ]
    band = Band([(i + 1.0, min(at) - 0.5, max(at) + 0.5) for i, at in enumerate(chances)], "chance")
    drawn = [angle for line in lines for _, angle in line.points if angle > 0]
    low = max(DEGREES.drawn(SMALLEST_ANGLE), min(drawn, default=1.0))
    y = Axis(low / 1.5, 90.0, "angle, degrees", log=True)
    x = Axis(0.7, 10.3, "tenth of the spectrum, largest values first", whole=True)
    note = "mean over related matrices; the grey band is what independent matrices show" + (
        ": lines are numbered checkpoints" if len(sides) == 1 else ""
    )
    body = chart(title, x, y, lines, [band])
    return (
        f'<figure><figcaption>{safe(title)}<span class="note">{note}</span></figcaption>{body}'
        "</figure>"
    )


def _by_layer(compared: Compared) -> str:
    """Layers × tenths, the mean of both sides."""
    by_layer: dict[int, list[Turn]] = {}
    for entry, found in with_measures(compared.related_matrices):
        turns = [turn for turn in (found.left, found.right) if turn.tenths]
        if entry.layer is not None and turns:
            by_layer.setdefault(entry.layer, []).extend(turns)
    layers = sorted(by_layer)
    if len(layers) < 2:
        return ""
    angles = {
        (i, j): DEGREES.drawn(angle)
        for i, layer in enumerate(layers)
        for j, angle in enumerate(_means(by_layer[layer]))
        if angle is not None
    }
    chance = max(DEGREES.drawn(max(t.chance_of_tenths)) for ts in by_layer.values() for t in ts)
    low = max(1e-5, min((angle for angle in angles.values() if angle > 0), default=1.0))
    scale = Scale(
        Axis(low, max(chance, low), log=True), marks=[(chance, f"chance {number(chance)}°")]
    )
    cells = {
        (i, j): Cell(at, number(at, 2), f"layer {layers[i]}, tenth {j + 1}: {number(at)}°")
        for (i, j), at in angles.items()
    }
    title = "Turn by position and layer"
    drawn = heat_map(title, [str(layer) for layer in layers], NAMES, cells, scale, MEDIUM)
    note = "degrees, mean of both sides and of the layer's matrices; tenth 1 has the largest values"
    return (
        f'<figure><figcaption>{title}<span class="note">{note}</span></figcaption>{drawn}</figure>'
    )
