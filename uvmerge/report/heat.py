"""Heat maps: tables of coloured cells as SVG, and small pictures as PNG. Pure."""

from __future__ import annotations

import base64
import struct
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from .colours import SEQUENTIAL, mixed
from .format import number, safe
from .svg import Axis

FONT = 'font-family="system-ui,sans-serif" font-size="10" fill="#333"'
WIDTH, HEIGHT = 46, 15  # of a cell
SHARED = (
    '<svg width="0" height="0" style="position:absolute" aria-hidden="true"><defs>'
    '<pattern id="hatch" width="6" height="6" patternUnits="userSpaceOnUse">'
    '<path d="M0 6L6 0M-1 1L1-1M5 7L7 5" stroke="#fff" stroke-width="1.6"/>'
    '<path d="M0 6L6 0M-1 1L1-1M5 7L7 5" stroke="#444" stroke-width=".6"/>'
    "</pattern>"
    f'<rect id="cell" width="{WIDTH - 1}" height="{HEIGHT - 1}"/>'
    f'<rect id="hatched" width="{WIDTH - 1}" height="{HEIGHT - 1}" fill="url(#hatch)"'
    ' opacity=".6"/>'
    "</defs></svg>"
)


@dataclass(frozen=True)
class Cell:
    """One value of a heat map.

    Attributes:
        value: None draws an empty cell.
        text: shown in it.
        tip: shown when pointed at.
        link: anchor that a click goes to.
        hatched: whether the value is no finding.
    """

    value: float | None
    text: str
    tip: str
    link: str | None = None
    hatched: bool = False


@dataclass(frozen=True)
class Scale:
    """Colours for values between the ends of `axis`, with marks on its legend."""

    axis: Axis
    ramp: Sequence[str] = SEQUENTIAL
    marks: Sequence[tuple[float, str]] = field(default=())

    def colour(self, value: float) -> tuple[str, str]:
        """Of the cell, and of text that is readable on it."""
        red, green, blue = mixed(self.ramp, self.axis.share(value))
        light = 0.299 * red + 0.587 * green + 0.114 * blue > 120
        return f"#{red:02x}{green:02x}{blue:02x}", "#000" if light else "#fff"


def heat_map(
    title: str,
    rows: Sequence[str],
    columns: Sequence[str],
    cells: Mapping[tuple[int, int], Cell],
    scale: Scale,
) -> str:
    """A table of coloured cells, keyed by (row, column), with its legend underneath."""
    left = 12 + round(5.6 * max((len(row) for row in rows), default=0))
    top = 10 + round(4.2 * max((len(column) for column in columns), default=0))
    width = max(left + WIDTH * len(columns) + 40, left + 250)
    height = top + HEIGHT * len(rows) + 42
    parts = [
        f'<svg class="heat" viewBox="0 0 {width} {height}" width="{width}" height="{height}"'
        f' role="img" aria-label="{safe(title)}" {FONT}><g text-anchor="end">'
    ]
    parts += [
        f'<text x="{left - 5}" y="{top + HEIGHT * i + 11}">{safe(row)}</text>'
        for i, row in enumerate(rows)
    ]
    parts.append("</g>")
    parts += [
        f'<text transform="translate({left + WIDTH * j + 18} {top - 4})rotate(-40)">{safe(column)}'
        "</text>"
        for j, column in enumerate(columns)
    ]
    parts.append('<g text-anchor="middle" font-size="9" fill="#000">')
    parts += [
        _cell(cell, left + WIDTH * j, top + HEIGHT * i, scale) for (i, j), cell in cells.items()
    ]
    parts.append("</g>")
    parts.append(_legend(scale, left, top + HEIGHT * len(rows) + 10))
    return "".join(parts) + "</svg>"


def _cell(cell: Cell, x: int, y: int, scale: Scale) -> str:
    fill, ink = scale.colour(cell.value) if cell.value is not None else ("#eee", "#000")
    parts = [f'<use href="#cell" x="{x}" y="{y}" fill="{fill}"/>']
    if cell.hatched:
        parts.append(f'<use href="#hatched" x="{x}" y="{y}"/>')
    if cell.text:
        outline = 'stroke-width="3" stroke-linejoin="round" paint-order="stroke"'
        halo = f' stroke="{fill}" {outline}' if cell.hatched else ""
        light = f' fill="{ink}"' if ink != "#000" else ""
        place = f'x="{x + WIDTH // 2}" y="{y + 10}"'
        parts.append(f"<text {place}{light}{halo}>{safe(cell.text)}</text>")
    parts.append(f"<title>{safe(cell.tip, 600)}</title>")
    drawn = "".join(parts)
    return f'<a href="#{cell.link}">{drawn}</a>' if cell.link else f"<g>{drawn}</g>"


def _legend(scale: Scale, x: int, y: int) -> str:
    steps, width = 40, 200
    parts = []
    for i in range(steps):
        red, green, blue = mixed(scale.ramp, (i + 0.5) / steps)
        at = x + i * width // steps
        parts.append(
            f'<rect x="{at}" y="{y}" width="6" height="8" fill="#{red:02x}{green:02x}{blue:02x}"/>'
        )
    parts.append('<g text-anchor="middle" font-size="9">')
    for value in scale.axis.ticks(5):
        at = x + round(scale.axis.share(value) * width)
        parts.append(
            f'<path d="M{at} {y + 8}v3" stroke="#555"/>'
            f'<text x="{at}" y="{y + 20}">{number(value)}</text>'
        )
    for value, label in scale.marks:
        at = x + round(scale.axis.share(value) * width)
        anchor = "start" if at < x + width / 2 else "end"
        parts.append(f'<path d="M{at} {y - 3}v14" stroke="#000" stroke-width="2"/>')
        parts.append(
            f'<text x="{at}" y="{y + 30}" text-anchor="{anchor}" fill="#000">{safe(label)}</text>'
        )
    return "".join(parts) + "</g>"


def picture(values: Sequence[Sequence[float]], scale: Scale, levels: int = 21) -> str:
    """A PNG, one pixel for each value, as a data address."""
    palette = b"".join(bytes(mixed(scale.ramp, i / (levels - 1))) for i in range(levels))
    rows = b"".join(
        b"\0" + bytes(round(scale.axis.share(value) * (levels - 1)) for value in row)
        for row in values
    )
    header = struct.pack(">2I5B", len(values[0]), len(values), 8, 3, 0, 0, 0)
    chunks = {b"IHDR": header, b"PLTE": palette, b"IDAT": zlib.compress(rows, 9), b"IEND": b""}
    content = b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        for name, data in chunks.items()
    )
    return "data:image/png;base64," + base64.b64encode(content).decode()
