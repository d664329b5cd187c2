"""Line charts as static SVG text that reads in print and without colour. Pure.

Lengths are in CSS pixels. Every text that a caller passes is escaped here.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from .colours import LINES
from .format import number, safe

# Of each colour of a line, so that it reads in print.
DASHES = ("none", "60 30", "20 20", "80 30 20 30", "10 30", "100 40", "40 10")
CHART_STYLE = (
    "".join(
        f".s{i}{{stroke:{colour};stroke-dasharray:{dash};stroke-width:15;fill:none;"
        "transform:scale(.1)}\n"
        for i, (colour, dash) in enumerate(zip(LINES, DASHES))
    )
    + """.thin{stroke-width:7;opacity:.55}
.band{fill:#888;opacity:.28;transform:scale(.1)}
.grid{stroke:#ddd;fill:none}.axis{stroke:#777;fill:none}
.chart{width:336px;font:10px system-ui,sans-serif;fill:#333}
"""
)  # what `chart` needs on its page; paths are in tenths of a pixel


@dataclass(frozen=True)
class Axis:
    """A range of values, linear or logarithmic, with its label."""

    low: float
    high: float
    label: str = ""
    log: bool = False
    whole: bool = False  # ticks at whole numbers only

    @staticmethod
    def over(
        values: Sequence[float], label: str = "", log: bool = False, decades: float = 8
    ) -> Axis:
        """An axis that holds all finite values; a logarithmic one at most that many decades."""
        finite = [v for v in values if math.isfinite(v) and (v > 0 or not log)]
        if not finite:
            return Axis(0.0, 1.0, label)
        low, high = min(finite), max(finite)
        if log:
            low = max(low, high * 10**-decades)
            return Axis(low / 1.15, high * 1.15, label, True)
        margin = 0.06 * (high - low) or 0.5 * abs(high) or 1.0
        return Axis(low - margin, high + margin, label)

    def share(self, value: float) -> float:
        """Where `value` lies, 0 at the low end and 1 at the high one; beyond them, at the end."""
        low, high = self.low, self.high
        if self.log:
            value = max(value, low)
            low, high, value = math.log(low), math.log(high), math.log(value)
        return min(max((value - low) / (high - low), 0.0), 1.0) if high > low else 0.5

    def ticks(self, most: int = 6) -> list[float]:
        """Round values inside the range, ascending."""
        if self.log:
            first, last = math.floor(math.log10(self.low)), math.ceil(math.log10(self.high))
            apart = max(1, math.ceil((last - first) / most))
            for factors in ((1.0,), (1.0, 3.0), (1.0, 2.0, 5.0), (1.0, 1.5, 2.0, 3.0, 5.0, 7.0)):
                found = [f * 10.0**e for e in range(first, last + 1, apart) for f in factors]
                found = [value for value in found if self.low <= value <= self.high]
                if len(found) >= 3:
                    return found[:: math.ceil(len(found) / most)]
        rough = (self.high - self.low) / (most - 1)
        unit = 10.0 ** math.floor(math.log10(rough)) if rough > 0 else 1.0
        step = next((m * unit for m in (1, 2, 5) if m * unit >= rough), 10 * unit)
        step = max(1.0, step) if self.whole else step
        first, last = math.ceil(self.low / step), math.floor(self.high / step)
        return [i * step for i in range(first, last + 1)]


@dataclass(frozen=True)
class Line:
    """Points (x, y) joined by a line, on the right-hand axis if `twin`; `style`: colour, dash."""

    points: Sequence[tuple[float, float]]
    label: str = ""
    style: int = 0
    twin: bool = False
    thin: bool = False
    dots: bool = False


@dataclass(frozen=True)
class Band:
    """The area between two curves, as (x, low, high)."""

    points: Sequence[tuple[float, float, float]]
    label: str = ""


@dataclass(frozen=True)
class _Frame:
    """Maps values to pixels inside the margins of a chart."""

    x: Axis
    y: Axis
    left: int = 44
    top: int = 22
    right: int = 282
    bottom: int = 168

    def at_x(self, value: float) -> str:
        return _length(self.left + self.x.share(value) * (self.right - self.left))

    def at_y(self, value: float, axis: Axis | None = None) -> str:
        return _length(self.bottom - (axis or self.y).share(value) * (self.bottom - self.top))

    def path(self, points: Sequence[tuple[float, float]], axis: Axis | None = None) -> str:
        """Steps in tenths of a pixel from point to point: half the length of coordinates."""
        places = [
            (round(10 * float(self.at_x(x))), round(10 * float(self.at_y(y, axis))))
            for x, y in points
        ]
        steps = (f"{b[0] - a[0]},{b[1] - a[1]}" for a, b in pairwise(places))
        return f"M{places[0][0]},{places[0][1]}l{' '.join(steps)}" if places else ""


def _length(pixels: float) -> str:
    return f"{pixels:.1f}".removesuffix(".0")


def chart(
    title: str,
    x: Axis,
    y: Axis,
    lines: Sequence[Line],
    bands: Sequence[Band] = (),
    twin: Axis | None = None,
    legend: str | None = None,
) -> str:
    """Lines over shaded bands, 336 × 204 pixels, with axes and a legend.

    Args:
        title: for screen readers.
        twin: the axis on the right.
        legend: what `furniture` made under this id on the same page, so as not to repeat it.
    """
    frame = _Frame(x, y)
    parts = [f'<svg class="chart" viewBox="0 0 336 204" role="img" aria-label="{safe(title)}">']
    for band in bands:
        above = [(at, high) for at, _, high in band.points]
        below = [(at, low) for at, low, _ in reversed(band.points)]
        parts.append(f'<path class="band" d="{frame.path(above + below)}"/>')
    parts += _axes(frame, twin)
    for line in lines:
        axis = twin if line.twin else None
        points = [point for point in line.points if math.isfinite(point[1])]
        parts.append(f'<path class="{_class(line)}" d="{frame.path(points, axis)}"/>')
        if line.dots or len(points) == 1:
            parts += [
                f'<circle cx="{frame.at_x(at)}" cy="{frame.at_y(value, axis)}" r="2.2"'
                f' fill="{LINES[line.style % len(LINES)]}"/>'
                for at, value in points
            ]
    parts.append(f'<use href="#{legend}"/>' if legend else furniture(x, y, lines, bands, twin))
    return "".join(parts) + "</svg>"


def furniture(
    x: Axis,
    y: Axis,
    lines: Sequence[Line],
    bands: Sequence[Band] = (),
    twin: Axis | None = None,
    name: str | None = None,
) -> str:
    """The legend of a chart and the labels of its axes, under the id `name`."""
    left, height = _Frame.left, (_Frame.top + _Frame.bottom) // 2
    middle = (left + _Frame.right) // 2
    labels = [
        f'<text x="{middle}" y="{_Frame.bottom + 31}">{safe(x.label)}</text>',
        f'<text transform="translate(9 {height})rotate(-90)">{safe(y.label)}</text>',
    ]
    if twin is not None:
        labels.append(
            f'<text transform="translate(333 {height})rotate(-90)">{safe(twin.label)}</text>'
        )
    keys = [("band", band.label) for band in bands[:1]]
    keys += [(_class(line), line.label) for line in lines if line.label]
    parts, at = [], left
    for style, label in keys:
        shape = "v80h180v-80z" if style == "band" else "m0,40h180"
        parts.append(f'<path class="{style}" d="M{10 * at},60{shape}"/>')
        parts.append(f'<text x="{at + 21}" y="13">{safe(label)}</text>')
        at += 31 + round(5.3 * len(label))  # pixels that it takes at this size, roughly
    attribute = f' id="{name}"' if name else ""
    return f'<g{attribute}><g text-anchor="middle">{"".join(labels)}</g>{"".join(parts)}</g>'


def _class(line: Line) -> str:
    return f"s{line.style % len(LINES)}{' thin' if line.thin else ''}"


def _axes(frame: _Frame, twin: Axis | None) -> list[str]:
    """Grid, ticks and their numbers."""
    left, right, top, bottom = frame.left, frame.right, frame.top, frame.bottom
    grid = "".join(f"M{left} {frame.at_y(v)}H{right}" for v in frame.y.ticks())
    ticks = "".join(f"M{frame.at_x(v)} {bottom}v4" for v in frame.x.ticks())
    along = "".join(f'<text x="{frame.at_x(v)}">{number(v)}</text>' for v in frame.x.ticks())
    parts = [
        f'<path class="grid" d="{grid}"/>',
        f'<path class="axis" d="M{left} {top}V{bottom}H{right}{ticks}"/>',
        f'<g text-anchor="middle" transform="translate(0 {bottom + 15})">{along}</g>',
        f'<g text-anchor="end" transform="translate({left - 4} 3)">{_numbers(frame, frame.y)}</g>',
    ]
    if twin is not None:
        marks = "".join(f"M{right} {frame.at_y(v, twin)}h4" for v in twin.ticks())
        parts.append(f'<path class="axis" d="M{right} {top}V{bottom}{marks}"/>')
        parts.append(f'<g transform="translate({right + 6} 3)">{_numbers(frame, twin)}</g>')
    return parts


def _numbers(frame: _Frame, axis: Axis) -> str:
    return "".join(f'<text y="{frame.at_y(v, axis)}">{_tick(v)}</text>' for v in axis.ticks())


def _tick(value: float) -> str:
    """A round number in few characters: `0.002`, `1e−4`."""
    shown = number(value)
    power = f"{value:.0e}".replace("e-0", "e-").replace("-", "−")
    return power if len(shown) > 4 and float(f"{value:.0e}") == float(f"{value:.3g}") else shown
