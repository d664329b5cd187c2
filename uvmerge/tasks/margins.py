"""By how much settings lie above the line of interpolation, and whether that is more than noise. Pure.

The line joins the interpolations in the order of their scales, straight between neighbours. At the
accuracy x in domain of a point, the line offers the best value out of domain that it has anywhere at
no less than x in domain; the margin is what the point has above that. Where the line has nowhere as
much as x, it offers what it has at its largest. The other way round likewise. With one metric, the
line offers its best value.

Intervals are percentiles of a bootstrap that draws clusters of items (a cluster with all its items, in
both metrics) and computes line, points and margins anew on each draw. They hold for all points at
once: of m points, each has an interval at 1 − 0.05/m (Bonferroni), so that the largest of many margins
is no finding by itself.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np

from .goals import Goal
from .scores import SCALES, Score
from .statistics import DRAWS, LEVEL, Floats, Interval, percentiles, resampled, summed

MOST_DRAWS = 20_000
_PER_POINT = 200  # draws for each interval: some have to lie beyond its ends


@dataclass(frozen=True)
class Estimate:
    """A number; its interval where items are known."""

    value: float
    interval: Interval | None = None


@dataclass(frozen=True)
class Placed:
    """A point against the line.

    Attributes:
        values: of each goal.
        over_line: what the point has above the line: in the second metric at equal values of the first,
            then in the first at equal values of the second. With one metric, above the best of the
            line, once. Positive is better, whatever the direction of the metric.
    """

    values: tuple[Estimate, ...]
    over_line: tuple[Estimate, ...]

    @property
    def beats_line(self) -> bool:
        """Whether the interval of the first margin lies above 0."""
        interval = self.over_line[0].interval if self.over_line else None
        return interval is not None and interval[0] > 0


Scores = Mapping[str, Score]


def place(
    line: Mapping[str, Scores],
    points: Mapping[str, Scores],
    goals: Sequence[Goal],
    among: int | None = None,
) -> dict[str, Placed]:
    """Line and points, each against the line; of the line itself only the values.

    Args:
        line: interpolations in the order of their scales, each with a score for every goal.
        points: the settings that are judged.
        among: how many settings the points were chosen from on these items; the number of the points
            where they were chosen on other ones.
    """
    names, every = [*line, *points], [*line.values(), *points.values()]
    count = max(1, among or len(points))
    observed = np.array([[[_value(s[g.name]) for g in goals] for s in every]])
    draws = _draws(every, goals, count)
    gains = np.array([1.0 if goal.is_max else -1.0 for goal in goals])
    over = _over_line(observed * gains, len(line))
    over_draws = None if draws is None else _over_line(draws * gains, len(line))
    found = {}
    for number, name in enumerate(names):
        values = tuple(
            Estimate(float(observed[0, number, i]), _ends(draws, number, i))
            for i in range(len(goals))
        )
        judged = number - len(line)
        margins = tuple(
            Estimate(float(over[0, judged, i]), _ends(over_draws, judged, i, count))
            for i in range(over.shape[2] if judged >= 0 else 0)
        )
        found[name] = Placed(values, margins)
    return found


def _value(score: Score) -> float:
    return math.nan if score.value is None else score.value


def _ends(draws: Floats | None, number: int, place: int, among: int = 1) -> Interval | None:
    """The interval of one column, for `among` intervals that hold at once."""
    if draws is None:
        return None
    column = draws[:, number, place]
    if among == 1:
        return percentiles(column)
    tail = (1 - LEVEL) / 2 / among
    low, high = np.quantile(column, [tail, 1 - tail])
    return (float(low), float(high)) if math.isfinite(low) and math.isfinite(high) else None


def _draws(every: Sequence[Scores], goals: Sequence[Goal], among: int) -> Floats | None:
    """Bootstrap draws of every value, draws × points × goals; None where items are not known."""
    first = every[0]
    if not all(first[goal.name].is_paired for goal in goals):
        return None
    labels = [_labels(first[goal.name]) for goal in goals]
    places = {label: i for i, label in enumerate(dict.fromkeys(chain(*labels)))}
    above, below = [], []
    for goal, own in zip(goals, labels):
        groups = np.array([places[label] for label in own])
        scores = [each[goal.name] for each in every]
        above.append(_by_cluster(np.stack([s.numerators for s in scores], 1), groups, len(places)))
        counts = [np.ones(len(own)) if s.denominators is None else s.denominators for s in scores]
        below.append(_by_cluster(np.stack(counts, 1), groups, len(places)))
    count = min(MOST_DRAWS, max(DRAWS, _PER_POINT * among))
    drawn = resampled(np.concatenate(above, 1), np.concatenate(below, 1), draws=count)
    parts = np.split(drawn, len(goals), axis=1)
    scaled = [SCALES[first[goal.name].scale](part) for goal, part in zip(goals, parts)]
    return np.stack(scaled, axis=2)


def _labels(score: Score) -> list[str]:
    """What each item shares with items that are not independent of it."""
    assert score.items is not None
    clusters = score.items.clusters
    return list(clusters) if clusters is not None else [key.hex() for key in score.items.keys]


def _by_cluster(values: Floats, groups: np.ndarray, count: int) -> Floats:
    """Sums over each cluster, 0 for clusters without an item."""
    padded = np.concatenate([values, np.zeros((count, values.shape[1]))])
    return summed(padded, [*groups, *range(count)])


def _over_line(gains: Floats, count: int) -> Floats:
    """Margins of the points after the first `count`: draws × points × margins."""
    line, points = gains[:, :count], gains[:, count:]
    if gains.shape[2] == 1:
        return points - line.max(axis=1, keepdims=True)
    margins = [
        points[:, :, other] - offered(line[:, :, at], line[:, :, other], points[:, :, at])
        for at, other in ((0, 1), (1, 0))
    ]
    return np.stack(margins, axis=2)


def offered(x: Floats, y: Floats, wanted: Floats) -> Floats:
    """The largest y of the line at no less than `wanted` in x.

    Args:
        x, y: draws × vertices of the line.
        wanted: draws × points.
    """
    most = x.max(axis=1, keepdims=True)
    at_most = np.where(x == most, y, -np.inf).max(axis=1, keepdims=True)
    best = np.where(wanted > most, at_most, -np.inf)
    for i in range(x.shape[1]):
        best = np.maximum(best, np.where(x[:, i, None] >= wanted, y[:, i, None], -np.inf))
    for i in range(x.shape[1] - 1):
        x0, x1, y0, y1 = (a[:, j, None] for a, j in ((x, i), (x, i + 1), (y, i), (y, i + 1)))
        is_between = (np.minimum(x0, x1) <= wanted) & (wanted <= np.maximum(x0, x1)) & (x0 != x1)
        share = (wanted - x0) / np.where(x0 == x1, 1.0, x1 - x0)
        best = np.where(is_between, np.maximum(best, y0 + share * (y1 - y0)), best)
    return best
