"""Line charts as static SVG text that reads in print and without colour. Pure.

Lengths are in CSS pixels. Every text that a caller passes is escaped here.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from .format import number, safe

# Okabe and Ito 2008, with a dash pattern each.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
DASHES = ("", "6 3", "2 2", "8 3 2 3", "1 3", "10 4", "4 1")
FONT = 'font-family="system-ui,sans-serif" font-size="10" fill="#333"'


@dataclass(frozen=True)
class Axis:
    """A range of values, linear or logarithmic, with its label."""

    low: float
    high: float
    label: str = ""
    log: bool = False
    whole: bool = False  # ticks at whole numbers only

    @staticmethod
    def over(values: Sequence[float], label: str, log: bool = False, decades: float = 8) -> Axis:
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
        if not self.log:
            rough = (self.high - self.low) / (most - 1)
            unit = 10.0 ** math.floor(math.log10(rough)) if rough > 0 else 1.0
            step = next((m * unit for m in (1, 2, 5) if m * unit >= rough), 10 * unit)
            step = max(1.0, step) if self.whole else step
            first, last = math.ceil(self.low / step), math.floor(self.high / step)
            return [i * step for i in range(first, last + 1)]
        first, last = math.floor(math.log10(self.low)), math.ceil(math.log10(self.high))
        apart = max(1, math.ceil((last - first) / most))
        found: list[float] = []
        for factors in ((1,), (1, 3), (1, 2, 5), tuple(range(1, 10))):
            found = [f * 10.0**e for e in range(first, last + 1, apart) for f in factors]
            found = [value for value in found if self.low <= value <= self.high]
            if len(found) >= 3:
                break
        return found[:: max(1, math.ceil(len(found) / most))]


@dataclass(frozen=True)
class Line:
    """Points (x, y) joined by a line; on the right-hand axis if `twin`. `style` picks colour and dash."""

    points: Sequence[tuple[float, float]]
    label: str
    style: int = 0
    twin: bool = False
    thin: bool = False
    dots: bool = False


@dataclass(frozen=True)
class Band:
    """The area between two curves, as (x, low, high)."""

    points: Sequence[tuple[float, float, float]]
    label: str


@dataclass(frozen=True)
class _Frame:
    """Maps values to pixels inside the margins of a chart."""

    x: Axis
    y: Axis
    left: int = 44
    top: int = 22
    right: int = 290
    bottom: int = 168

    def at_x(self, value: float) -> str:
        return _length(self.left + self.x.share(value) * (self.right - self.left))

    def at_y(self, value: float, axis: Axis | None = None) -> str:
        return _length(self.bottom - (axis or self.y).share(value) * (self.bottom - self.top))

    def path(self, points: Sequence[tuple[float, float]], axis: Axis | None = None) -> str:
        return " ".join(f"{self.at_x(x)},{self.at_y(y, axis)}" for x, y in points)


def _length(pixels: float) -> str:
    return f"{pixels:.1f}".removesuffix(".0")


def chart(
    title: str,
    x: Axis,
    y: Axis,
    lines: Sequence[Line],
    bands: Sequence[Band] = (),
    twin: Axis | None = None,
) -> str:
    """Lines over shaded bands, 336 × 204 pixels, with axes and a legend; `title` is for screen readers."""
    frame = _Frame(x, y)
    parts = [
        f'<svg class="chart" viewBox="0 0 336 204" width="336" height="204" role="img"'
        f' aria-label="{safe(title)}" {FONT}>'
    ]
    for band in bands:
        above = [(at, high) for at, _, high in band.points]
        below = [(at, low) for at, low, _ in reversed(band.points)]
        parts.append(f'<polygon points="{frame.path(above + below)}" fill="#888" opacity=".28"/>')
    parts += _axes(frame, twin)
    for line in lines:
        axis = twin if line.twin else None
        points = [point for point in line.points if math.isfinite(point[1])]
        parts.append(f'<polyline points="{frame.path(points, axis)}" {_stroke(line)}/>')
        if line.dots or len(points) == 1:
            parts += [
                f'<circle cx="{frame.at_x(at)}" cy="{frame.at_y(value, axis)}" r="2.2"'
                f' fill="{COLOURS[line.style % len(COLOURS)]}"/>'
                for at, value in points
            ]
    parts += _legend(lines, bands, twin is not None)
    return "".join(parts) + "</svg>"


def _stroke(line: Line) -> str:
    dash = DASHES[line.style % len(DASHES)]
    pattern = f' stroke-dasharray="{dash}"' if dash else ""
    weak = ' stroke-width=".7" opacity=".55"' if line.thin else ' stroke-width="1.5"'
    return f'fill="none" stroke="{COLOURS[line.style % len(COLOURS)]}"{pattern}{weak}'


def _axes(frame: _Frame, twin: Axis | None) -> list[str]:
    left, right, top, bottom = frame.left, frame.right, frame.top, frame.bottom
    grid = "".join(f"M{left} {frame.at_y(v)}H{right}" for v in frame.y.ticks())
    ticks = "".join(f"M{frame.at_x(v)} {bottom}v4" for v in frame.x.ticks())
    parts = [
        f'<path d="{grid}" stroke="#ddd" fill="none"/>'
        f'<path d="M{left} {top}V{bottom}H{right}{ticks}" stroke="#777" fill="none"/>'
        '<g text-anchor="middle">'
    ]
    parts += [
        f'<text x="{frame.at_x(v)}" y="{bottom + 15}">{number(v)}</text>' for v in frame.x.ticks()
    ]
    middle = (left + right) // 2
    parts.append(f'<text x="{middle}" y="{bottom + 31}">{safe(frame.x.label)}</text>')
    height = (top + bottom) // 2
    parts.append(f'<text transform="translate(9 {height})rotate(-90)">{safe(frame.y.label)}</text>')
    if twin is not None:
        parts.append(
            f'<text transform="translate(332 {height})rotate(-90)">{safe(twin.label)}</text>'
        )
    parts.append('</g><g text-anchor="end">')
    parts += [
        f'<text x="{left - 4}" y="{frame.at_y(v)}" dy="3">{number(v)}</text>'
        for v in frame.y.ticks()
    ]
    parts.append("</g>")
    if twin is not None:
        marks = "".join(f"M{right} {frame.at_y(v, twin)}h4" for v in twin.ticks(5))
        parts.append(f'<path d="M{right} {top}V{bottom}{marks}" stroke="#777" fill="none"/>')
        parts += [
            f'<text x="{right + 6}" y="{frame.at_y(v, twin)}" dy="3">{number(v)}</text>'
            for v in twin.ticks(5)
        ]
    return parts


def _legend(lines: Sequence[Line], bands: Sequence[Band], twin: bool) -> list[str]:
    parts, at = [], 44
    for band in bands[:1]:
        parts.append(f'<rect x="{at}" y="5" width="18" height="9" fill="#888" opacity=".28"/>')
        parts.append(f'<text x="{at + 21}" y="13">{safe(band.label)}</text>')
        at += 31 + _width(band.label)
    for line in lines:
        if not line.label:
            continue
        parts.append(f'<path d="M{at} 10h18" {_stroke(line)}/>')
        parts.append(f'<text x="{at + 21}" y="13">{safe(line.label)}</text>')
        at += 31 + _width(line.label)
    return parts


def _width(text: str) -> int:
    """Pixels that `text` takes at font size 10, roughly."""
    return round(5.3 * len(text))
