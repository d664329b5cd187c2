"""Tables of the page. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from ..measure.findings import Entry
from .column import Column, Place
from .columns import shown_in
from .format import NONE, safe

_NAME = ' class="name"'
STAR_NOTE = (
    "* no finding: no more than chance or rounding gives, or of a matrix that is unrelated to its"
    " base."
)


def table(header: Sequence[str], rows: Iterable[Sequence[str]], kind: str = "wide") -> str:
    """A table in HTML; the texts of its cells are HTML already."""
    head = "".join(f"<th>{name}</th>" for name in header)
    body = "".join(
        "<tr>"
        + "".join(f"<td{_NAME if i == 0 else ''}>{c}</td>" for i, c in enumerate(row))
        + "</tr>"
        for row in rows
    )
    body = body.replace(" %", "&nbsp;%")
    return f'<div class="scroll"><table class="{kind}"><tr>{head}</tr>{body}</table></div>'


def of_matrices(entries: Iterable[Entry], links: Mapping[str, str]) -> str:
    """A row of measures for each matrix; `links` holds anchors by name of a matrix."""
    columns = shown_in(Place.MOVED)
    header = ["matrix", "shape", "k", *map(_head, columns)]
    return table(header, (_row(entry, columns, links) for entry in entries))


def _head(column: Column) -> str:
    return safe(column.head) + (" (chance)" if Place.CHANCE in column.shown else "")


def _row(entry: Entry, columns: Sequence[Column], links: Mapping[str, str]) -> list[str]:
    name = safe(entry.name).replace(".", ".<wbr>")
    if entry.name in links:
        name = f'<a href="#{links[entry.name]}">{name}</a>'
    k = entry.measures.k if entry.measures is not None else 0
    shape = f"{entry.shape[0]} × {entry.shape[1]}"
    return [name, shape, str(k), *(_cell(column, entry) for column in columns)]


def _cell(column: Column, entry: Entry) -> str:
    value = column.value(entry)
    if value is None:
        return NONE
    chance = column.chance(entry) if Place.CHANCE in column.shown else None
    beside = "" if chance is None else f" ({column.unit.text(chance)})"
    star = "*" if column.is_no_finding(entry) else ""
    return f"{column.unit.text(value)}{beside}{star}"
