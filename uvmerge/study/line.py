"""The line to beat: what interpolation reaches out of domain at a given level in domain. Pure.

The best of a line is the best of several measurements, and so too good by chance: a model would lie
below the line of its own noise. Where both halves of the hands are known, the place on the line is
therefore chosen on one half and both the place and the model are judged on the other, and the other way
round.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..tasks.margins import offered

Point = tuple[float, float]


@dataclass(frozen=True)
class OnLine:
    """What the line offers at a level.

    Attributes:
        value: out of domain.
        is_beyond: whether the line does not reach the level, so that `value` is that of its best
            point in domain.
    """

    value: float
    is_beyond: bool


def line_at(points: Sequence[Point], level: float) -> OnLine:
    """The best that the line has out of domain at no less than a level in domain.

    The line is straight between its points; it is that of `tasks.margins`.

    Args:
        points: (in domain, out of domain), in the order of the line; more is better, so that a loss
            is given with a minus sign.
        level: in domain, in the unit of the points.
    """
    x, y = np.array(points, dtype=np.float64).T[:, None]
    return OnLine(float(offered(x, y, np.array([[level]]))[0, 0]), bool(level > x.max()))


@dataclass(frozen=True)
class Place:
    """A place on a line: `share` of the way from its point `first` to the next one."""

    first: int
    share: float = 0.0


def best_place(points: Sequence[Point], level: float) -> Place:
    """Where on the line the best is that it has at no less than a level; as `line_at` otherwise."""
    x = [point[0] for point in points]
    if level > max(x):
        found = [Place(i) for i, value in enumerate(x) if value == max(x)]
    else:
        found = [Place(i) for i, value in enumerate(x) if value >= level]
        for i, (here, after) in enumerate(itertools.pairwise(x)):
            if min(here, after) < level < max(here, after):
                found.append(Place(i, (level - here) / (after - here)))
    return max(found, key=lambda place: at(points, place)[1])


def at(points: Sequence[Point], place: Place) -> Point:
    """The line at a place."""
    (x0, y0), (x1, y1) = points[place.first], points[min(place.first + 1, len(points) - 1)]
    return x0 + place.share * (x1 - x0), y0 + place.share * (y1 - y0)


def above_line(
    chosen: tuple[Sequence[Point], Point], judged: tuple[Sequence[Point], Point]
) -> float:
    """By how much a model lies above the line out of domain, at its own level in domain.

    Args:
        chosen: the line and the model on the hands on which the place on the line is chosen.
        judged: both on the hands on which they are compared.
    """
    place = best_place(chosen[0], chosen[1][0])
    return judged[1][1] - at(judged[0], place)[1]
