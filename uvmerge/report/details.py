"""One matrix: spectra, angles, change and numbers, in a part of the page that unfolds. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

from ..measure.findings import Entry
from ..measure.measures import Measures
from ..measure.null import RandomSubspaces
from .column import Column, Place
from .columns import column_of, shown_in
from .format import DEGREES, NONE, percent, safe
from .heat import picture
from .scales import BLOCK, angle_axis
from .svg import Axis, Band, Line, chart, furniture

POINTS, FEW = 28, 12  # points of a curve, and of a curve in the background
BACKGROUND = 6  # how many other checkpoints are drawn behind the angles of the last


def legends() -> str:
    """The legends that the charts of all matrices share, which are on the page once."""
    rank = _ranks(1)
    value, angle = Axis(0, 1, "singular value"), angle_axis(())
    change = Line((), "change (right)", 2)
    made = (
        furniture(rank, value, (Line((), "base"), Line((), "fine-tuned", 1), change), (),
                  Axis(0, 1, "relative change, %"), "spectra"),
        furniture(rank, angle, (Line((), "left"), Line((), "right", 1)), (Band((), "chance"),),
                  None, "angles"),
        furniture(rank, value, (Line((), "change"), Line((), "without structure", 1)), (),
                  None, "delta"),
        furniture(rank, Axis(0, 1, "|C_ii|"), (Line((), "this"), Line((), "others", 1)), (),
                  None, "diagonals"),
    )  # fmt: skip
    return (
        f'<svg class="chart" style="position:absolute;height:0"><defs>{"".join(made)}</defs></svg>'
    )


def details(
    entry: Entry, anchor: str, earlier: Sequence[Measures] = (), is_open: bool = False
) -> str:
    """The `<details>` of a measured matrix.

    Args:
        anchor: the id that links go to; it is inside, so that browsers unfold the part.
        earlier: the same matrix in other checkpoints, whose angles are drawn in the background.
        is_open: whether the part is unfolded at first.
    """
    found = entry.measures
    assert found is not None
    m, n = entry.shape
    summary = (
        f"<b>{safe(entry.name)}</b> <span>{m} × {n}, k = {found.k},"
        f" moved {percent(entry.relative)},"
        f" turned left {_angle(entry, 'left')}, right {_angle(entry, 'right')}</span>"
    )
    figures = [_delta(found)]
    if found.k:
        before = earlier[-BACKGROUND:]
        figures = [_spectra(found, before), _angles(found, before), *figures, _block(found)]
        figures += [_diagonals(found, before)] if before else []
    drawn = "".join(
        f"<figure><figcaption>{title}</figcaption>{body}</figure>" for title, body in figures
    )
    return (
        f'<details id="{anchor}d"{" open" if is_open else ""}><summary>{summary}</summary>'
        f'<div id="{anchor}" class="row">{drawn}{_numbers(entry)}</div></details>'
    )


def _angle(entry: Entry, side: str) -> str:
    """The mean angle of one side, or `as chance` where the angle is no finding."""
    of_side = column_of(f"{side}_mean")
    value = of_side.value(entry)
    if value is None:
        return NONE
    return "as chance" if of_side.is_void(entry) else of_side.unit.text(value)


def chosen(count: int, points: int = POINTS, power: float = 1.0) -> list[int]:
    """At most `points` of `range(count)`, both ends included; a power over 1 prefers the start."""
    if count <= points:
        return list(range(count))
    places = (round((count - 1) * (i / (points - 1)) ** power) for i in range(points))
    return sorted(set(places))


def _ranks(count: int) -> Axis:
    return Axis(1.0, max(count, 2), "rank", whole=True)


def _diagonals(found: Measures, earlier: Sequence[Measures]) -> tuple[str, str]:
    """|diag C| of this checkpoint and, thin, of others: the change along each leading direction."""
    lines = []
    for style, other in [*((1, other) for other in earlier), (0, found)]:
        entries = other.change.diagonal_entries
        points = [(i + 1.0, entries[i]) for i in chosen(len(entries), power=1.6) if entries[i]]
        lines.append(Line(points, "", style, thin=other is not found))
    y = Axis.over([value for line in lines for _, value in line.points], log=True, decades=5)
    title = "|diag C|, change along leading directions"
    return title, chart(title, _ranks(found.k), y, lines, legend="diagonals")


def _spectra(found: Measures, earlier: Sequence[Measures]) -> tuple[str, str]:
    at = chosen(found.k, power=1.6)
    base = [(i + 1, found.base_values[i]) for i in at]
    after = [(i + 1, found.finetuned_values[i]) for i in at]
    relative = found.value_changes
    changes = [(i + 1, 100 * relative[i]) for i in at]
    twin = Axis.over([0.0, *(change for _, change in changes)])
    axis = Axis.over([*found.base_values, *found.finetuned_values], log=True)
    lines = [
        Line([(i + 1, other.finetuned_values[i]) for i in at if i < other.k], "", 1, thin=True)
        for other in earlier
    ]
    lines += [
        Line(base, ""),
        Line(after, "", 1),
        Line(changes, "", 2, twin=True),
    ]
    title = "Leading singular values" + (" (thin: other checkpoints)" if earlier else "")
    return title, chart(title, _ranks(found.k), axis, lines, twin=twin, legend="spectra")


@lru_cache(maxsize=128)
def _null_band(chance: RandomSubspaces) -> tuple[tuple[float, ...], tuple[float, ...]]:
    return chance.band()


def _angles(found: Measures, earlier: Sequence[Measures]) -> tuple[str, str]:
    title = "Principal angles" + (" (thin: other checkpoints)" if earlier else "")
    bands = [_band(space) for space in dict.fromkeys((found.left.chance, found.right.chance))]
    lines = [
        Line(_points(turn.angles, FEW), "", style, thin=True)
        for other in earlier
        for style, turn in enumerate((other.left, other.right))
        if turn.angles
    ]
    for style, turn in enumerate((found.left, found.right)):
        lines.append(Line(_points(turn.angles), "", style))
    y = angle_axis([*found.left.angles, *found.right.angles])
    return title, chart(title, _ranks(found.k), y, lines, bands, legend="angles")


def _points(angles: Sequence[float], points: int = POINTS) -> list[tuple[float, float]]:
    """(rank, degrees) of at most `points` of the angles."""
    return [(i + 1, DEGREES.drawn(angles[i])) for i in chosen(len(angles), points)]


def _band(chance: RandomSubspaces) -> Band:
    low, high = _null_band(chance)
    bends = (i for end in (0, chance.zeros) for i in range(end - 4, end + 4) if 0 <= i < chance.k)
    at = sorted({*chosen(chance.k, FEW), *bends})
    return Band([(i + 1, DEGREES.drawn(low[i]), DEGREES.drawn(high[i])) for i in at], "")


def _delta(found: Measures) -> tuple[str, str]:
    title = "Singular values of the change"
    values, change = found.change.values, found.change
    expected = change.chance.values()
    scale = change.norm / math.hypot(*expected)
    at = chosen(len(values), power=1.6)
    lines = [
        Line([(i + 1, values[i]) for i in at], ""),
        Line([(i + 1, scale * expected[i]) for i in at], "", 1),
    ]
    drawn = [value for line in lines for _, value in line.points]
    y = Axis.over(drawn, log=True, decades=4)
    return title, chart(title, _ranks(len(values)), y, lines, legend="delta")


def _block(found: Measures) -> tuple[str, str]:
    """The picture of C, leading vectors at the top left."""
    image = picture(found.change.picture, BLOCK)
    body = (
        f'<img class="block" width="144" height="144" alt="block" src="{image}">'
        '<span class="ramp"></span><span class="ends"><i>1/32</i><i>chance</i><i>32</i></span>'
        '<span class="note">times what a change without structure shows</span>'
    )
    return "Change in leading directions", body


def _numbers(entry: Entry) -> str:
    """Tables of the measures beside what chance gives; measures of vectors by side."""
    columns = shown_in(Place.DETAILS)
    by_name: dict[str, list[Column]] = {}
    for each in columns:
        if each.side:
            by_name.setdefault(each.name, []).append(each)
    sides = [(name, *(_cells(each, entry) for each in both)) for name, both in by_name.items()]
    rows = "".join(
        f"<tr><th>{name}</th>{''.join(f'<td>{cell}</td>' for cells in both for cell in cells)}</tr>"
        for name, *both in sides
    )
    head = "".join(f"<th>{name}</th>" for name in ("", "left", "chance", "right", "chance"))
    facts = "".join(_fact(each, entry) for each in columns if not each.side)
    return (
        f'<table class="numbers"><tr>{head}</tr>{rows}</table>'
        f'<table class="numbers"><tr><th></th><th>(chance)</th></tr>{facts}</table>'
    )


def _cells(column: Column, entry: Entry) -> tuple[str, str]:
    """The texts of a value and of what chance gives."""
    chance = column.chance(entry)
    return column.unit.text(column.value(entry)), "" if chance is None else column.unit.text(chance)


def _fact(column: Column, entry: Entry) -> str:
    value, chance = _cells(column, entry)
    beside = f" ({chance})" if chance else ""
    name = safe(column.heading or column.name or column.key)
    return f"<tr><th>{name}</th><td>{value}{beside}</td></tr>"
