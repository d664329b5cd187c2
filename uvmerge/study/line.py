"""The line to beat: what interpolation reaches out of domain at a given level in domain. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

Point = tuple[float, float]


@dataclass(frozen=True)
class OnLine:
    """A point of the line.

    Attributes:
        value: out of domain.
        is_beyond: whether the line does not reach the level, so that `value` is that of its point
            nearest to it.
    """

    value: float
    is_beyond: bool


def line_at(points: Sequence[Point], level: float) -> OnLine:
    """What the line has out of domain at a level in domain, linear between its points.

    A line that passes a level several times counts with the best of them.

    Args:
        points: (in domain, out of domain), in the order of the line.
        level: in domain, in the unit of the points: a loss, or an accuracy.
    """
    found = [
        _between(first, second, level)
        for first, second in pairwise(points)
        if min(first[0], second[0]) <= level <= max(first[0], second[0])
    ]
    if found:
        return OnLine(max(found), False)
    nearest = min(abs(x - level) for x, _ in points)
    return OnLine(max(y for x, y in points if abs(x - level) == nearest), True)


def _between(first: Point, second: Point, level: float) -> float:
    (x, y), (other_x, other_y) = first, second
    if x == other_x:
        return max(y, other_y)
    return y + (other_y - y) * (level - x) / (other_x - x)
