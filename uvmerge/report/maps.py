"""The heat maps of layers by roles: one figure of every matrix of a checkpoint, on shared scales. Pure."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from ..measure import judgement
from ..measure.findings import Compared, Entry, by_place
from ..measure.measures import Measures
from ..measure.null import ROUNDING
from ..text import brief
from .format import number, safe
from .heat import Cell, Scale, heat_map
from .svg import Axis

MOST_ROLES, MOST_LAYERS = 16, 200  # that are drawn; matrices.csv has all


@dataclass(frozen=True)
class _Figure:
    """What one heat map shows.

    Attributes:
        value: of an entry; None where there is nothing to show.
        is_chance: whether it is no finding, which hatches the cell.
        chance: what chance gives, for the tooltip and the scale; `beside` is its name there.
        group: figures of one group share a scale, which ends at chance if `to_chance`.
    """

    title: str
    note: str
    value: Callable[[Entry], float | None]
    is_chance: Callable[[Entry], bool]
    chance: Callable[[Entry], float | None]
    group: str
    to_chance: bool = False
    beside: str = "chance"


def heat_maps(compared: Compared, links: Mapping[str, str]) -> str:
    """All heat maps of a checkpoint as HTML figures; `links` gives the anchor of an entry by name."""
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
    drawn = []
    for figure in _FIGURES:
        scale = _scale(figure, shown)
        made = {place: _cell(figure, entries, links) for place, entries in shown.items()}
        columns = [brief(role, 18) for role in roles]
        picture = heat_map(figure.title, names, columns, made, scale)
        note = f'<span class="note">{safe(figure.note, 400)}</span>'
        drawn.append(f"<figure><figcaption>{figure.title}{note}</figcaption>{picture}</figure>")
    rest = '<p class="note">Only the most frequent roles and the first layers are drawn.</p>'
    return f'<div class="maps">{"".join(drawn)}</div>{rest if dropped else ""}'


def _scale(figure: _Figure, shown: Mapping[tuple[int, int], list[Entry]]) -> Scale:
    """Holds all means of the figures of a group; logarithmic where they spread over a decade."""
    ends = [
        mean
        for other in _FIGURES
        if other.group == figure.group
        for entries in shown.values()
        if (mean := _mean(other.value, entries)) and math.isfinite(mean)
    ]
    chance = [c for entries in shown.values() if (c := _mean(figure.chance, entries))]
    marks: list[tuple[float, str]] = []
    if figure.group == "gap":
        marks = [(1.0, "as large as the change")]
        ends += [0.5, 2.0]
    elif figure.to_chance and chance:
        marks = [(max(chance), f"chance {number(max(chance))}")]
        ends.append(max(chance))
    elif figure.group == "share" and chance:
        mean = sum(chance) / len(chance)
        marks = [(mean, f"chance {number(mean)}")]
        ends.append(mean)
    low, high = min(ends, default=1.0), max(ends, default=1.0)
    if high > 10 * low:
        return Scale(Axis(max(low, high * 1e-6), high, log=True), marks=marks)
    return Scale(Axis(0.0, high), marks=marks)


def _cell(figure: _Figure, entries: Sequence[Entry], links: Mapping[str, str]) -> Cell:
    """The mean over the entries of one place: one matrix, or the experts of a layer."""
    mean = _mean(figure.value, entries)
    no_finding = sum(_is_unrelated(entry) or figure.is_chance(entry) for entry in entries)
    hatched = mean is not None and judgement.are_most(no_finding, len(entries))
    first = entries[0]
    where = "" if first.layer is None else f"layer {first.layer}, "
    many = f" ({len(entries)} matrices)" if len(entries) > 1 else ""
    states = "".join(f", {s}" for s in dict.fromkeys(e.state for e in entries) if s != "measured")
    tip = f"{where}{brief(first.role, 60)}{many}: {number(mean)}{states}"
    chance = _mean(figure.chance, entries)
    if chance is not None:
        tip += f"; {figure.beside} {number(chance)}"
    if hatched:
        tip += "; no finding"
    link = next((links[entry.name] for entry in entries if entry.name in links), None)
    return Cell(mean, "" if mean is None else number(mean, 2), tip, link, hatched)


def _mean(value: Callable[[Entry], float | None], entries: Sequence[Entry]) -> float | None:
    found = [v for entry in entries if (v := value(entry)) is not None]
    return sum(found) / len(found) if found else None


def _measured(entry: Entry, value: Callable[[Measures], float | None]) -> float | None:
    """A figure of a measured matrix; 0 for an identical one."""
    if entry.measures is None:
        return 0.0 if entry.state == "identical" else None
    return value(entry.measures)


def _only_measured(entry: Entry, value: Callable[[Measures], float | None]) -> float | None:
    """A figure that has no meaning where nothing changed."""
    found = entry.measures
    return None if found is None or not found.k or entry.relative == 0 else value(found)


def _is_unrelated(entry: Entry) -> bool:
    """Every figure of such a matrix is what chance gives, whatever it is."""
    return entry.is_unrelated


def _never(entry: Entry) -> bool:
    return False


def _relative(entry: Entry) -> float | None:
    return None if math.isnan(entry.relative) else entry.relative


def _angle(side: str, entry: Entry) -> float | None:
    return _measured(entry, lambda found: getattr(found, side).mean if found.k else None)


def _angle_is_chance(side: str, entry: Entry) -> bool:
    return entry.measures is not None and not getattr(entry.measures, side).is_telling


def _angle_chance(side: str, entry: Entry) -> float | None:
    found = entry.measures
    return getattr(found, side).chance.mean if found is not None and found.k else None


def _value_change(entry: Entry) -> float | None:
    return _measured(entry, lambda found: found.value_change if found.k else None)


def _share(part: str, entry: Entry) -> float | None:
    return _only_measured(entry, lambda found: getattr(found.change, part))


def _share_chance(part: str, entry: Entry) -> float | None:
    found = entry.measures
    return None if found is None or not found.k else found.change.expected(part, found.k)


def _share_is_chance(part: str, entry: Entry) -> bool:
    share, found = _share(part, entry), entry.measures
    if share is None or found is None:
        return False
    return found.change.side_of_band(part, found.k) == 0


def _gap(entry: Entry) -> float | None:
    return None if entry.measures is None else entry.measures.gap_over_change


def _no_chance(entry: Entry) -> float | None:
    return None


_FIGURES = (
    _Figure(
        "Relative change of the weights",
        "‖W_f − W_b‖ / ‖W_b‖; hatched: no more than rounding to the dtype makes",
        _relative, lambda e: e.is_rounding, lambda e: ROUNDING.get(e.dtype), "relative",
        beside="rounding",
    ),
    *(
        _Figure(
            f"Mean angle, {side} singular vectors",
            "radians, up to what independent subspaces show; hatched: no nearer than those,"
            " or nothing can be told",
            partial(_angle, side), partial(_angle_is_chance, side), partial(_angle_chance, side),
            "angle", to_chance=True,
        )
        for side in ("left", "right")
    ),
    _Figure(
        "Relative change of singular values",
        "root mean square over the leading k; stable values alone say nothing",
        _value_change, _never, _no_chance, "value",
    ),
    *(
        _Figure(
            title, f"share of the change's energy {where}; hatched: what chance would show",
            partial(_share, part), partial(_share_is_chance, part), partial(_share_chance, part),
            "share",
        )
        for title, where, part in (
            ("In the leading block", "in the k × k block of leading directions", "inside"),
            ("On its diagonal (diag)", "that changes leading values", "diagonal"),
            ("Off its diagonal (rot)", "that turns leading vectors among each other", "rotation"),
        )
    ),
    _Figure(
        "Gap at the cut",
        "σ_k − σ_k+1 of the base over the change's largest singular value; hatched: under 1,"
        " the largest angles may come from where k falls",
        _gap, lambda e: e.measures is not None and e.measures.has_loose_cut, _no_chance, "gap",
    ),
)  # fmt: skip
