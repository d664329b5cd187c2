"""In domain against out of domain: checkpoints as crosses, interpolation as the line. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from .colours import LINES
from .format import number, safe
from .svg import Axis

WIDTH, HEIGHT = 900, 470
_LEFT, _TOP, _RIGHT, _BOTTOM = 56, 16, 560, 420
_MOST_KEYS = 24


@dataclass(frozen=True)
class Cross:
    """A checkpoint: its score and interval along each axis."""

    x: float
    y: float
    x_ends: tuple[float, float]
    y_ends: tuple[float, float]

    @property
    def ends(self) -> tuple[list[float], list[float]]:
        """All values along each axis."""
        return [self.x, *self.x_ends], [self.y, *self.y_ends]


def pareto(
    crosses: Mapping[str, Cross], line: Sequence[str], front: Sequence[str], labels: tuple[str, str]
) -> str:
    """The plot as SVG; a key beside it names the numbers.

    Args:
        crosses: by the name of the checkpoint.
        line: the names that the line joins, in order.
        front: the names that are drawn bold.
        labels: of the axes.
    """
    x = Axis.over([value for cross in crosses.values() for value in cross.ends[0]], labels[0])
    y = Axis.over([value for cross in crosses.values() for value in cross.ends[1]], labels[1])
    parts = [
        f'<svg class="pareto" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}"'
        f' role="img" aria-label="{safe(labels[1])} against {safe(labels[0])}"'
        ' font-family="system-ui,sans-serif" font-size="11" fill="#333">',
        *_axes(x, y),
    ]
    along = [crosses[name] for name in line if name in crosses]
    if len(along) > 1:
        path = " ".join(f"{_at_x(x, cross.x)},{_at_y(y, cross.y)}" for cross in along)
        parts.append(
            f'<polyline points="{path}" fill="none" stroke="{LINES[0]}" stroke-width="2"/>'
        )
    for place, (name, cross) in enumerate(crosses.items(), 1):
        colour = LINES[0] if name in line else LINES[1]
        parts.append(_cross(place, name, cross, (x, y), colour, name in front))
    return "".join([*parts, *_keys(crosses, line, front), "</svg>"])


def _at_x(axis: Axis, value: float) -> str:
    return f"{_LEFT + axis.share(value) * (_RIGHT - _LEFT):.1f}"


def _at_y(axis: Axis, value: float) -> str:
    return f"{_BOTTOM - axis.share(value) * (_BOTTOM - _TOP):.1f}"


def _axes(x: Axis, y: Axis) -> list[str]:
    grid = "".join(f"M{_LEFT} {_at_y(y, v)}H{_RIGHT}" for v in y.ticks())
    grid += "".join(f"M{_at_x(x, v)} {_TOP}V{_BOTTOM}" for v in x.ticks())
    along = "".join(f'<text x="{_at_x(x, v)}" y="{_BOTTOM + 16}">{number(v)}</text>'
                    for v in x.ticks())  # fmt: skip
    beside = "".join(f'<text x="{_LEFT - 6}" y="{float(_at_y(y, v)) + 4:.1f}">{number(v)}</text>'
                     for v in y.ticks())  # fmt: skip
    middle = (_TOP + _BOTTOM) // 2
    return [
        f'<path d="{grid}" stroke="#e3e3e3" fill="none"/>',
        f'<path d="M{_LEFT} {_TOP}V{_BOTTOM}H{_RIGHT}" stroke="#777" fill="none"/>',
        f'<g text-anchor="middle">{along}<text x="{(_LEFT + _RIGHT) // 2}" y="{_BOTTOM + 38}">'
        f"{safe(x.label)}</text>"
        f'<text transform="translate(13 {middle})rotate(-90)">{safe(y.label)}</text></g>',
        f'<g text-anchor="end">{beside}</g>',
    ]


def _cross(
    place: int, name: str, cross: Cross, axes: tuple[Axis, Axis], colour: str, bold: bool
) -> str:
    x, y = axes
    at_x, at_y = _at_x(x, cross.x), _at_y(y, cross.y)
    (left, right), (low, high) = cross.x_ends, cross.y_ends
    arms = f"M{_at_x(x, left)} {at_y}H{_at_x(x, right)}M{at_x} {_at_y(y, low)}V{_at_y(y, high)}"
    tip = f"{place} {name}: {number(cross.x)} in domain, {number(cross.y)} out of domain"
    return (
        f'<g><path d="{arms}" stroke="{colour}" stroke-width="{2 if bold else 1}" opacity=".75"/>'
        f'<circle cx="{at_x}" cy="{at_y}" r="{4 if bold else 2.5}" fill="{colour}"/>'
        f'<text x="{float(at_x) + 6:.1f}" y="{float(at_y) - 5:.1f}" stroke="#fff" stroke-width="3"'
        f' paint-order="stroke"{_bold(bold)}>{place}</text><title>{safe(tip, 400)}</title></g>'
    )


def _bold(bold: bool) -> str:
    return ' font-weight="700"' if bold else ""


def _keys(crosses: Mapping[str, Cross], line: Sequence[str], front: Sequence[str]) -> list[str]:
    """Which number is which checkpoint."""
    left = _RIGHT + 28
    keys = [
        f'<text x="{left}" y="{_TOP + 10 + 15 * i}" fill="{LINES[0] if name in line else LINES[1]}"'
        f"{_bold(name in front)}>{i + 1} {safe(name, 40)}</text>"
        for i, name in enumerate(list(crosses)[:_MOST_KEYS])
    ]
    below = _TOP + 20 + 15 * len(keys)
    more = f"{len(crosses) - _MOST_KEYS} more: see the tables" if len(crosses) > _MOST_KEYS else ""
    said = [more, "blue: interpolation" if line else "", "bold: not exceeded in both domains"]
    keys += [f'<text x="{left}" y="{below + 15 * i}" fill="#666">{words}</text>'
             for i, words in enumerate(filter(None, said))]  # fmt: skip
    return keys
