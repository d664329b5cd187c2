"""One matrix: its spectra, angles, change and numbers, folded away until asked for. Pure."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import lru_cache

from ..measure.findings import Entry
from ..measure.measures import Measures, Turn
from ..measure.null import RandomMatrix, RandomSubspaces
from .format import number, percent, safe
from .heat import DIVERGING, Scale, picture
from .svg import Axis, Band, Line, chart, furniture

POINTS, FEW = 28, 12  # of a curve, and of one in the background
BLOCK = Scale(Axis(1 / 32, 32.0, log=True), DIVERGING)
BACKGROUND = 6  # other checkpoints that are drawn behind the angles of the last


def legends() -> str:
    """What the charts of all matrices share; stands once on the page."""
    rank = _ranks(1)
    value, angle = Axis(0, 1, "singular value"), Axis(0, 1, "angle, rad")
    change = Line((), "change (right)", 2)
    made = (
        furniture(rank, value, (Line((), "base"), Line((), "fine-tuned", 1), change), (),
                  Axis(0, 1, "relative change, %"), "spectra"),
        furniture(rank, angle, (Line((), "left"), Line((), "right", 1)), (Band((), "chance"),),
                  None, "angles"),
        furniture(rank, value, (Line((), "change"), Line((), "without structure", 1)), (),
                  None, "delta"),
    )  # fmt: skip
    return (
        f'<svg class="chart" style="position:absolute;height:0"><defs>{"".join(made)}</defs></svg>'
    )


def details(
    entry: Entry, anchor: str, earlier: Sequence[Measures] = (), is_open: bool = False
) -> str:
    """The `<details>` of a measured matrix.

    Args:
        anchor: links go to `#anchor`, inside, so that browsers unfold it.
        earlier: the same matrix in other checkpoints, drawn behind its angles.
    """
    found = entry.measures
    assert found is not None
    m, n = entry.shape
    summary = (
        f"<b>{safe(entry.name)}</b> <span>{m} × {n}, k = {found.k}, moved {percent(entry.relative)},"
        f" turned left {_angle(found.left)}, right {_angle(found.right)}</span>"
    )
    figures = [_delta(found)]
    if found.k:
        figures = [_spectra(found), _angles(found, earlier[-BACKGROUND:]), *figures, _block(found)]
    drawn = "".join(
        f"<figure><figcaption>{title}</figcaption>{body}</figure>" for title, body in figures
    )
    return (
        f'<details id="{anchor}d"{" open" if is_open else ""}><summary>{summary}</summary>'
        f'<div id="{anchor}" class="row">{drawn}{_numbers(entry, found)}</div></details>'
    )


def _angle(turn: Turn) -> str:
    """A mean angle, or that it is no finding."""
    if not turn.angles:
        return "–"
    if turn.is_chance:
        return "as chance"
    return f"{number(turn.mean)} rad"


def chosen(count: int, points: int = POINTS, power: float = 1.0) -> list[int]:
    """At most that many of `range(count)`, both ends included, denser at the start for a power > 1."""
    if count <= points:
        return list(range(count))
    places = (round((count - 1) * (i / (points - 1)) ** power) for i in range(points))
    return sorted(set(places))


def _ranks(count: int) -> Axis:
    return Axis(1.0, max(count, 2), "rank", whole=True)


def _spectra(found: Measures) -> tuple[str, str]:
    at = chosen(found.k, power=1.6)
    base = [(i + 1, found.base_values[i]) for i in at]
    after = [(i + 1, found.finetuned_values[i]) for i in at]
    relative = found.value_changes
    changes = [(i + 1, 100 * relative[i]) for i in at]
    twin = Axis.over([0.0, *(change for _, change in changes)])
    axis = Axis.over([*found.base_values, *found.finetuned_values], log=True)
    lines = [
        Line(base, ""),
        Line(after, "", 1),
        Line(changes, "", 2, twin=True),
    ]
    title = "Leading singular values"
    return title, chart(title, _ranks(found.k), axis, lines, twin=twin, legend="spectra")


@lru_cache(maxsize=128)
def _null_band(chance: RandomSubspaces) -> tuple[tuple[float, ...], tuple[float, ...]]:
    return chance.band()


def _angles(found: Measures, earlier: Sequence[Measures]) -> tuple[str, str]:
    title = "Principal angles" + (" (thin: other checkpoints)" if earlier else "")
    all_angles = [*found.left.angles, *found.right.angles]
    log = max(all_angles) < 0.3
    bands = [_band(space) for space in dict.fromkeys((found.left.chance, found.right.chance))]
    if log:
        floor = min((a for a in all_angles if a > 0), default=1e-8)
        y = Axis(max(floor, 1e-8) / 1.5, math.pi / 2, log=True)
    else:
        y = Axis(0.0, math.pi / 2)
    lines = [
        Line([(i + 1, turn.angles[i]) for i in chosen(len(turn.angles), FEW)], "", style, thin=True)
        for other in earlier
        for style, turn in enumerate((other.left, other.right))
        if turn.angles
    ]
    for style, turn in enumerate((found.left, found.right)):
        points = [(i + 1, turn.angles[i]) for i in chosen(found.k)]
        lines.append(Line(points, "", style))
    return title, chart(title, _ranks(found.k), y, lines, bands, legend="angles")


def _band(chance: RandomSubspaces) -> Band:
    low, high = _null_band(chance)
    bends = (i for end in (0, chance.zeros) for i in range(end - 4, end + 4) if 0 <= i < chance.k)
    at = sorted({*chosen(chance.k, FEW), *bends})
    return Band([(i + 1, low[i], high[i]) for i in at], "")


def _delta(found: Measures) -> tuple[str, str]:
    title = "Singular values of the change"
    values, change = found.change.values, found.change
    expected = change.chance.values()
    scale = math.sqrt(change.energy / sum(v * v for v in expected)) if change.energy else 0.0
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
        '<span class="ramp"></span><span class="ends"><i>1/32</i><i>1</i><i>32</i></span>'
        '<span class="note">times what a change without structure shows</span>'
    )
    return "Change in leading directions", body


def _numbers(entry: Entry, found: Measures) -> str:
    left, right, change = found.left, found.right, found.change
    chance: RandomMatrix = change.chance
    rows = [
        (
            "mean angle, rad",
            *_sides(left, right, lambda t: t.mean, lambda t: t.chance.mean),
        ),
        ("largest angle, rad", number(left.largest), "", number(right.largest), ""),
        ("chordal distance", *_sides(left, right, lambda t: t.chordal, lambda t: t.chance.chordal)),
        ("alignment", *_sides(left, right, lambda t: t.alignment, lambda t: t.chance_alignment)),
    ]
    turns = "".join(
        f"<tr><th>{row[0]}</th>" + "".join(f"<td>{cell}</td>" for cell in row[1:]) + "</tr>"
        for row in rows
    )
    facts = [
        ("cosine of the matrices", number(change.cosine, 6)),
        ("value change, rms", percent(found.value_change)),
        ("gap at the cut, base", number(found.base_gap)),
        ("… fine-tuned", number(found.finetuned_gap)),
        (
            "in the leading block",
            f"{percent(change.inside)} ({percent(change.expected('inside', found.k))})",
        ),
        ("diag, rot", f"{percent(change.diagonal)}, {percent(change.rotation)}"),
        ("stable rank", f"{number(change.stable_rank)} ({number(chance.stable_rank)})"),
        ("effective rank", number(change.effective_rank)),
        (
            "energy in its own leading k",
            f"{percent(change.leading_energy(found.k))} ({percent(chance.leading_energy(found.k))})",
        ),
        ("intruders", "–" if found.intruders is None else str(found.intruders)),
    ]
    listed = "".join(f"<tr><th>{name}</th><td>{value}</td></tr>" for name, value in facts)
    head = "".join(f"<th>{name}</th>" for name in ("", "left", "chance", "right", "chance"))
    return (
        f'<table class="numbers"><tr>{head}</tr>{turns}</table>'
        f'<table class="numbers">{listed}</table>'
    )


def _sides(
    left: Turn, right: Turn, value: Callable[[Turn], float], chance: Callable[[Turn], float]
) -> list[str]:
    """A figure of both sides, each beside what chance gives."""
    return [number(measure(turn)) for turn in (left, right) for measure in (value, chance)]
