"""Heat maps of layers × roles: all matrices of a checkpoint, one map for each measure. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from ..measure.findings import Compared, Entry, by_place
from ..text import brief
from .column import Column, Place, mean
from .columns import shown_in
from .format import number, safe
from .heat import LARGE, SMALL, Cell, Size, heat_map
from .scales import scale_of

MOST_ROLES, MOST_LAYERS = 16, 200  # how many are drawn; matrices.csv has all


def heat_maps(compared: Compared, links: Mapping[str, str]) -> str:
    """All heat maps of a checkpoint as HTML figures: one large, the others in a row of small ones.

    Args:
        links: anchors by name of a matrix.
    """
    return f"{large_map(compared, links)}{small_maps(compared, links)}"


def large_map(compared: Compared, links: Mapping[str, str]) -> str:
    """The heat map of the first measure."""
    columns = shown_in(Place.MAP)
    return _figure(columns[0], compared, links, LARGE)


def small_maps(compared: Compared, links: Mapping[str, str]) -> str:
    """The heat maps of all other measures, without numbers in the cells."""
    columns = shown_in(Place.MAP)
    drawn = (_figure(column, compared, links, SMALL) for column in columns[1:])
    return f'<div class="small">{"".join(drawn)}</div>'


def _figure(column: Column, compared: Compared, links: Mapping[str, str], size: Size) -> str:
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
    scale = scale_of(column, shown_in(Place.MAP), list(shown.values()))
    made = {place: _cell(column, entries, links) for place, entries in shown.items()}
    picture = heat_map(column.title, names, [brief(role, 18) for role in roles], made, scale, size)
    notes = [_LARGE_NOTE] if size is LARGE else []
    if column.scaling.much_is_good:
        notes.append(_MUCH_IS_GOOD)
    if dropped:
        notes.append("the most frequent roles and the first layers only")
    note = f'<span class="note">{safe("; ".join(notes), 500)}</span>' if notes else ""
    return f"<figure><figcaption>{safe(column.title)}{note}</figcaption>{picture}</figure>"


def explained_maps() -> str:
    """What the small maps show, folded."""
    rows = "".join(
        f"<dt>{safe(column.title)}</dt><dd>{safe(column.note or column.meaning, 400)}</dd>"
        for column in shown_in(Place.MAP)[1:]
    )
    return (
        '<details class="prose"><summary>What these maps show</summary>'
        f'<dl class="meaning">{rows}</dl></details>'
    )


_MUCH_IS_GOOD = "much is good here: greens of its own"
_LARGE_NOTE = (
    "layers × roles, ‖W_f − W_b‖ / ‖W_b‖; dark is much; hatched: no finding, no more than rounding"
    " makes; a cell leads to its matrix"
)


def _cell(column: Column, entries: Sequence[Entry], links: Mapping[str, str]) -> Cell:
    """The cell of one role and layer: the mean over its matrices (several are experts)."""
    found = mean(column.values(entries))
    hatched = found is not None and column.are_no_finding(entries)
    value = None if found is None else column.unit.drawn(found)
    text = "" if value is None else number(value, 2)
    link = next((links[entry.name] for entry in entries if entry.name in links), None)
    return Cell(value, text, _tip(column, entries, found, hatched), link, hatched)


def _tip(column: Column, entries: Sequence[Entry], value: float | None, hatched: bool) -> str:
    """The text that is shown when the pointer is on a cell."""
    first = entries[0]
    where = "" if first.layer is None else f"layer {first.layer}, "
    many = f" ({len(entries)} matrices)" if len(entries) > 1 else ""
    states = "".join(f", {s}" for s in dict.fromkeys(e.state for e in entries) if s != "measured")
    tip = f"{where}{brief(first.role, 60)}{many}: {column.unit.brief(value)}{states}"
    chance = mean(column.chances(entries))
    if chance is not None:
        tip += f"; {column.beside} {column.unit.brief(chance)}"
    return f"{tip}; no finding" if hatched else tip
