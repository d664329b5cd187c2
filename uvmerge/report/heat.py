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
    '<path d="M0 6L6 0M-1 1L1-1M5 7L7 5" stroke="#333" stroke-width=".8"/>'
    "</pattern>"
    f'<rect id="cell" width="{WIDTH - 1}" height="{HEIGHT - 1}"/>'
    f'<rect id="hatched" width="{WIDTH - 1}" height="{HEIGHT - 1}" fill="url(#hatch)"'
    ' opacity=".8"/>'
    "</defs></svg>"
)


@dataclass(frozen=True)
class Cell:
    """One value of a heat map.

    Attributes:
        value: the number that is coloured; None draws an empty cell.
        text: is shown in the cell.
        tip: is shown when the pointer is on the cell.
        link: the anchor that a click goes to.
        hatched: whether the value is no finding.
    """

    value: float | None
    text: str
    tip: str
    link: str | None = None
    hatched: bool = False


@dataclass(frozen=True)
class Size:
    """How large a heat map is drawn.

    Attributes:
        width, height: of a cell at most, in CSS pixels; where there are many, cells are smaller.
        most_width, most_height: of all cells.
        legend: width of the legend.
        has_texts: whether a cell shows its number, if there is room.
    """

    width: int
    height: int
    most_width: int
    most_height: int
    legend: int
    has_texts: bool = True

    def cell(self, rows: int, columns: int) -> tuple[int, int]:
        """Width and height of a cell of a table."""
        width, height = self.most_width // max(columns, 1), self.most_height // max(rows, 1)
        return max(6, min(self.width, width)), max(4, min(self.height, height))


LARGE, MEDIUM = Size(WIDTH, 17, 560, 520, 200), Size(34, HEIGHT, 345, 420, 200)
SMALL = Size(20, 10, 200, 230, 130, has_texts=False)


@dataclass(frozen=True)
class Scale:
    """Colours for values between the ends of `axis`, with marks on its legend."""

    axis: Axis
    ramp: Sequence[str] = SEQUENTIAL
    marks: Sequence[tuple[float, str]] = field(default=())

    def colour(self, value: float) -> tuple[str, str]:
        """The colour of a cell, and a colour of text that is readable on the cell."""
        red, green, blue = mixed(self.ramp, self.axis.share(value))
        light = 0.299 * red + 0.587 * green + 0.114 * blue > 120
        return f"#{red:02x}{green:02x}{blue:02x}", "#000" if light else "#fff"


def heat_map(
    title: str,
    rows: Sequence[str],
    columns: Sequence[str],
    cells: Mapping[tuple[int, int], Cell],
    scale: Scale,
    size: Size = LARGE,
) -> str:
    """A table of coloured cells, keyed by (row, column), with its legend underneath."""
    w, h = size.cell(len(rows), len(columns))
    left = 12 + round(5.6 * max((len(row) for row in rows), default=0))
    longest = max((len(column) for column in columns), default=0)
    top = 12 + (round(4.2 * longest) if longest > 2 else 4)
    width = max(
        left + w * len(columns) + (4 * longest if longest > 2 else 8), left + size.legend + 20
    )
    height = top + h * len(rows) + 46
    parts = [
        f'<svg class="heat" viewBox="0 0 {width} {height}" width="{width}" height="{height}"'
        f' role="img" aria-label="{safe(title)}" {FONT}><g text-anchor="end">'
    ]
    every = -(-11 // h)  # rows under one label
    parts += [
        f'<text x="{left - 5}" y="{top + h * i + h // 2 + 4}">{safe(row)}</text>'
        for i, row in enumerate(rows)
        if i % every == 0
    ]
    parts.append("</g>")
    turn = "rotate(-40)" if longest > 2 else ""
    parts += [
        f'<text transform="translate({left + w * j + w // 2 - 4} {top - 4}){turn}">{safe(column)}'
        "</text>"
        for j, column in enumerate(columns)
    ]
    has_texts = size.has_texts and h >= 12 and w >= 32
    parts.append(
        f'<g transform="translate({left} {top})scale({w / WIDTH:.4g} {h / HEIGHT:.4g})"'
        ' text-anchor="middle" font-size="9" fill="#000">'
    )
    parts += [
        _cell(cell, WIDTH * j, HEIGHT * i, scale, has_texts) for (i, j), cell in cells.items()
    ]
    parts.append("</g>")
    parts.append(_legend(scale, left, top + h * len(rows) + 10, size.legend))
    return "".join(parts) + "</svg>"


def _cell(cell: Cell, x: int, y: int, scale: Scale, has_text: bool) -> str:
    fill, ink = scale.colour(cell.value) if cell.value is not None else ("#eee", "#000")
    parts = [f'<use href="#cell" x="{x}" y="{y}" fill="{fill}"/>']
    if cell.hatched:
        parts.append(f'<use href="#hatched" x="{x}" y="{y}"/>')
    if cell.text and has_text:
        outline = 'stroke-width="3" stroke-linejoin="round" paint-order="stroke"'
        halo = f' stroke="{fill}" {outline}' if cell.hatched else ""
        light = f' fill="{ink}"' if ink != "#000" else ""
        place = f'x="{x + WIDTH // 2}" y="{y + 10}"'
        parts.append(f"<text {place}{light}{halo}>{safe(cell.text)}</text>")
    parts.append(f"<title>{safe(cell.tip, 600)}</title>")
    drawn = "".join(parts)
    return f'<a href="#{cell.link}">{drawn}</a>' if cell.link else f"<g>{drawn}</g>"


def _legend(scale: Scale, x: int, y: int, width: int) -> str:
    steps = 40
    parts = []
    for i in range(steps):
        red, green, blue = mixed(scale.ramp, (i + 0.5) / steps)
        at = x + i * width // steps
        parts.append(
            f'<rect x="{at}" y="{y}" width="{-(-width // steps) + 1}" height="8" fill="#{red:02x}{green:02x}{blue:02x}"/>'
        )
    parts.append('<g text-anchor="middle" font-size="9">')
    free = x - 30  # where the last number ends
    for value in scale.axis.ticks(5 if width > 150 else 3):
        at = x + round(scale.axis.share(value) * width)
        if at - free < 28:
            continue
        free = at
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
    """A PNG with one pixel for each value, as a `data:` URL."""
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
