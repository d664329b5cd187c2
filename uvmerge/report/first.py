"""The first screen of the page: a sentence, four figures, one map, and what to do next. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from ..measure.findings import Compared, Entry, Findings
from .column import Column, Place
from .columns import shown_in
from .format import NONE, safe
from .lead import lead, moving_matrices, times, typical
from .maps import large_map
from .svg import Axis
from .what_now import what_now

TILES = 4
_WIDTH = 150  # of the bar of a figure


def whole(sentence: str) -> str:
    """An escaped sentence with no line break between a number and its unit."""
    return re.sub(r"(?<=\d) (?=%|nats|±)", "&nbsp;", safe(sentence, 2000))


def first_screen(findings: Findings, links: Mapping[str, str]) -> str:
    """The answers to *what moved, where, how sure, what now*, in this order.

    Args:
        links: anchors by name of a matrix.
    """
    parts = [f'<p class="lead {findings.verdict}">{whole(lead(findings))}</p>']
    if findings.compared:
        shown = findings.compared[-1]
        measured = shown_matrices(shown)
        parts.append(f'<div class="tiles">{_tiles(measured)}</div>' if measured else "")
        parts.append(f'<div class="map">{large_map(shown, links)}</div>' if shown.entries else "")
        parts.append(_what_now(findings))
    return f'<div class="first">{"".join(parts)}</div>'


def shown_matrices(compared: Compared) -> list[Entry]:
    """The matrices that the figures are about: all of an unrelated pair, else those that moved."""
    is_unrelated = compared.verdict == "unrelated"
    return compared.measured if is_unrelated else moving_matrices(compared)


def four_figures() -> list[Column]:
    """The measures that the first screen shows beside chance."""
    return [column for column in shown_in(Place.CURVE) if column.has_chance][:TILES]


def _tiles(entries: Sequence[Entry]) -> str:
    return "".join(_tile(column, entries) for column in four_figures())


def _tile(column: Column, entries: Sequence[Entry]) -> str:
    """One figure: its name, its value, and a bar with a mark at what chance gives."""
    value, chance = typical(column, entries)
    name = f"{column.name}, {column.side}" if column.side else column.name
    of = "median" if column.key == "relative_delta" else "mean"
    beside = f"{column.beside} {column.unit.text(chance)}" if chance is not None else ""
    if value and chance and value > chance and not column.are_no_finding(entries):
        beside += f": {multiple}" if (multiple := times(value, chance)) else ""
    drawn = "" if value is None else _bar(column, value, chance, entries)
    shown = column.unit.text(value)
    none = "" if shown != NONE else " as chance" if entries else ""
    return (
        f'<div class="tile"><span class="name">{safe(name)}</span>'
        f"<b>{shown.replace(' ', '&nbsp;')}{none}</b>{drawn}"
        f'<span class="note">{of} of {len(entries):,}; {safe(beside)}</span></div>'
    )


def _bar(column: Column, value: float, chance: float | None, entries: Sequence[Entry]) -> str:
    """The value as a bar, hatched where it is no finding, and chance as a black mark."""
    axis = Axis(0.0, 1.15 * max(value, chance or 0.0))
    length = max(1.0, axis.share(value) * _WIDTH)
    parts = [
        f'<svg class="bar" viewBox="0 0 {_WIDTH} 14" width="{_WIDTH}" height="14" aria-hidden="true">'
        f'<rect y="3" width="{_WIDTH}" height="8" fill="#eceff1"/>'
        f'<rect y="3" width="{length:.1f}" height="8" fill="#123570"/>'
    ]
    if column.are_no_finding(entries):
        parts.append(f'<rect y="3" width="{length:.1f}" height="8" fill="url(#hatch)"/>')
    if chance is not None:
        parts.append(
            f'<path d="M{axis.share(chance) * _WIDTH:.1f} 0v14" stroke="#000" stroke-width="2"/>'
        )
    return "".join(parts) + "</svg>"


def _what_now(findings: Findings) -> str:
    """The next step, in a sentence and in commands to paste."""
    found = what_now(findings, findings.base, findings.labels[-1])
    commands = "".join(
        f'<p class="why">{safe(command.why)}</p><pre>{safe(command.line, 2000)}</pre>'
        for command in found.commands
    )
    sentence = found.sentence[:1].upper() + found.sentence[1:]
    return f'<section class="now"><h2>What now</h2><p>{whole(sentence)}</p>{commands}</section>'
