"""Every matrix: a folded section for each layer, with drawings of as many matrices as fit. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from ..errors import counted
from ..measure.findings import Compared, Entry, by_place
from ..measure.measures import Measures
from .column import Place, mean
from .columns import column_of, shown_in
from .details import details, legends
from .format import safe
from .tables import STAR_NOTE, of_matrices

PAGE_BYTES = 1_860_000  # of maps and matrices, so that a page stays under 2 MB
CELL_BYTES = 135  # of a cell of a map, about
ROWS = 0.07  # share of the room for matrices without drawings


class Folded(NamedTuple):
    """The sections as HTML, and the anchors of the matrices in them, by name."""

    html: str
    links: dict[str, str]


def folded_layers(compared: Compared, earlier: Sequence[Mapping[str, Measures]]) -> Folded:
    """A section for each layer; the matrices that turned most are drawn, the others have a row of
    numbers, as far as the page has room.

    Args:
        earlier: the measures of other checkpoints by name, whose angles are in the background.
    """
    drawn: dict[str, str] = {}
    links: dict[str, str] = {}
    cells = len(by_place(compared.entries)[2]) * len(shown_in(Place.MAP))
    total, room = 0.0, max(0, PAGE_BYTES - CELL_BYTES * cells)
    for i, entry in enumerate(compared.most_turned_first):
        before = [found[entry.name] for found in earlier if entry.name in found]
        made = details(entry, f"m{i}", before, is_open=i == 0)
        total += len(made.encode())
        if total > (1 - ROWS) * room:
            break
        drawn[entry.name] = made
        links[entry.name] = f"m{i}"
    first = next(iter(drawn), None)
    rows_room = ROWS * room
    sections, left_out = [], 0
    for layer, entries in _by_layer(compared).items():
        inside = [drawn[entry.name] for entry in entries if entry.name in drawn]
        rest = [entry for entry in entries if entry.name not in drawn]
        rows = of_matrices(rest, {}) + f'<p class="note">{STAR_NOTE}</p>' if rest else ""
        rows_room -= len(rows.encode())
        if rows_room < 0:
            left_out, rows = left_out + len(rest), ""
        is_open = any(entry.name == first for entry in entries)
        sections.append(_section(layer, entries, "".join(inside) + rows, is_open))
    note = (
        f'<p class="note">{counted(left_out, "matrix")} that turned less are in matrices.csv and'
        " report.json only.</p>"
        if left_out
        else ""
    )
    return Folded(legends() + "".join(sections) + note, links)


def _by_layer(compared: Compared) -> dict[int | None, list[Entry]]:
    """The measured matrices by layer, ascending; those outside the layers come last."""
    found: dict[int | None, list[Entry]] = {}
    for entry in sorted(compared.measured, key=lambda e: (e.layer is None, e.layer or 0)):
        found.setdefault(entry.layer, []).append(entry)
    return found


def _section(layer: int | None, entries: Sequence[Entry], body: str, is_open: bool) -> str:
    parts = []
    for key, word in (("relative_delta", "moved"), ("left_mean", "turned left"),
                      ("right_mean", "right")):  # fmt: skip
        column = column_of(key)
        value = mean(column.telling_values(entries))
        parts.append(f"{word} {column.unit.text(value) if value is not None else 'as chance'}")
    name = "Outside of the layers" if layer is None else f"Layer {layer}"
    summary = (
        f"<b>{name}</b> <span>{counted(len(entries), 'matrix')}, {safe(', '.join(parts))}</span>"
    )
    state = " open" if is_open else ""
    return f'<details class="layer"{state}><summary>{summary}</summary>{body}</details>'
