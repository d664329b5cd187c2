"""Scales of drawings, the same on the page and for a paper. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence

from ..measure.findings import Entry
from ..measure.judgement import SMALLEST_ANGLE
from .colours import GOOD, SEQUENTIAL
from .column import Column, mean
from .format import DEGREES
from .heat import Scale
from .svg import Axis

# Mean squares of C over those of a change without structure.
BLOCK = Scale(Axis(1 / 32, 32.0, log=True), marks=[(1.0, "chance")])
SMALL_ANGLES = DEGREES.drawn(0.3)  # angles are drawn on a logarithmic axis where all are smaller


def scale_of(column: Column, drawn: Sequence[Column], cells: Sequence[Sequence[Entry]]) -> Scale:
    """The colours of a heat map; logarithmic where its values spread over a decade.

    Args:
        drawn: all columns that are drawn; those of one group share a scale.
        cells: the matrices of each cell, which shows the mean of their values.
    """
    means = [mean(other.values(cell)) for other in drawn if other.group == column.group
             for cell in cells]  # fmt: skip
    ends = [column.unit.drawn(value) for value in means if value and math.isfinite(value)]
    marks = _marks(column, cells)
    ends += [at for at, _ in marks]
    if column.scaling.threshold is not None:
        at = column.unit.drawn(column.scaling.threshold[0])
        ends += [0.5 * at, 2 * at]
    low, high = min(ends, default=1.0), max(ends, default=1.0)
    ramp = GOOD if column.scaling.much_is_good else SEQUENTIAL
    if 0 < 10 * low < high:
        return Scale(Axis(max(low, high * 1e-6), high, log=True), ramp, marks)
    return Scale(Axis(min(0.0, low), high), ramp, marks)


def _marks(column: Column, cells: Sequence[Sequence[Entry]]) -> list[tuple[float, str]]:
    """The marks of a scale, (value, words): a threshold, or what chance gives."""
    unit, scaling = column.unit, column.scaling
    if scaling.threshold is not None:
        at, words = scaling.threshold
        return [(unit.drawn(at), words)]
    chances = [chance for cell in cells if (chance := mean(column.chances(cell)))]
    if not chances or not scaling.marks_chance:
        return []
    at = max(chances) if scaling.ends_at_chance else sum(chances) / len(chances)
    return [(unit.drawn(at), f"{column.beside} {unit.brief(at)}")]


def angle_axis(angles: Sequence[float]) -> Axis:
    """An axis in degrees for angles in radians, up to a right angle."""
    drawn = [DEGREES.drawn(angle) for angle in angles]
    right_angle = DEGREES.drawn(math.pi / 2)
    if max(drawn, default=0.0) >= SMALL_ANGLES:
        return Axis(0.0, right_angle, "angle, degrees")
    smallest = DEGREES.drawn(SMALLEST_ANGLE)
    floor = max(smallest, min((angle for angle in drawn if angle > 0), default=smallest))
    return Axis(floor / 1.5, right_angle, "angle, degrees", log=True)
