"""The heat maps of layers by roles: every matrix of a checkpoint, for each measure. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from ..measure.findings import Compared, Entry, by_place
from ..text import brief
from .column import Column, Place, mean
from .columns import shown_in
from .format import number, safe
from .heat import Cell, heat_map
from .scales import scale_of

MOST_ROLES, MOST_LAYERS = 16, 200  # that are drawn; matrices.csv has all


def heat_maps(compared: Compared, links: Mapping[str, str]) -> str:
    """All heat maps of a checkpoint as HTML figures; `links` are anchors by names of entries."""
    roles, layers, cells = by_place(compared.entries)
    dropped = len(roles) > MOST_ROLES or len(layers) > MOST_LAYERS
    often = Counter(entry.role for entry in compared.entries)
    kept = {role for role, _ in often.most_common(MOST_ROLES)}
    roles, layers = [role for role in roles if role in kept], layers[:MOST_LAYERS]
    shown = {
        (i, j): cells[role, layer]
        for i, layer in enumerate(layers)
        for j, role in enumerate(roles)
        if (role, layer) in cells
    }
    names = ["outside" if layer is None else str(layer) for layer in layers]
    drawn, columns = [], shown_in(Place.MAP)
    for column in columns:
        scale = scale_of(column, columns, list(shown.values()))
        made = {place: _cell(column, entries, links) for place, entries in shown.items()}
        heads = [brief(role, 18) for role in roles]
        picture = heat_map(column.title, names, heads, made, scale)
        title, note = safe(column.title), safe(column.note or column.meaning, 400)
        note = f'<span class="note">{note}</span>'
        drawn.append(f"<figure><figcaption>{title}{note}</figcaption>{picture}</figure>")
    rest = '<p class="note">Only the most frequent roles and the first layers are drawn.</p>'
    return f'<div class="maps">{"".join(drawn)}</div>{rest if dropped else ""}'


def _cell(column: Column, entries: Sequence[Entry], links: Mapping[str, str]) -> Cell:
    """The mean over the entries of one place: one matrix, or the experts of a layer."""
    found = mean(column.values(entries))
    hatched = found is not None and column.are_no_finding(entries)
    value = None if found is None else column.unit.drawn(found)
    text = "" if value is None else number(value, 2)
    link = next((links[entry.name] for entry in entries if entry.name in links), None)
    return Cell(value, text, _tip(column, entries, found, hatched), link, hatched)


def _tip(column: Column, entries: Sequence[Entry], value: float | None, hatched: bool) -> str:
    """What is said of a cell that is pointed at."""
    first = entries[0]
    where = "" if first.layer is None else f"layer {first.layer}, "
    many = f" ({len(entries)} matrices)" if len(entries) > 1 else ""
    states = "".join(f", {s}" for s in dict.fromkeys(e.state for e in entries) if s != "measured")
    tip = f"{where}{brief(first.role, 60)}{many}: {column.unit.brief(value)}{states}"
    chance = mean(column.chances(entries))
    if chance is not None:
        tip += f"; {column.beside} {column.unit.brief(chance)}"
    return f"{tip}; no finding" if hatched else tip
