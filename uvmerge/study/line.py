"""The line to beat: what interpolation reaches out of domain at a given level in domain. Pure."""

from __future__ import annotations

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
