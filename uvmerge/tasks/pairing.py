"""The same items of several checkpoints, and bootstrap draws of their scores on them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from .scores import SCALES, Score
from .statistics import Floats, resampled


@dataclass(frozen=True, eq=False)
class Aligned:
    """One metric of several checkpoints on the items that all of them were asked.

    Attributes:
        values: items × checkpoints.
        weights: the denominators, items × checkpoints, or × 1 where every item counts the same.
        clusters: of each item; None where every item is independent.
        scale: the name of a row of `SCALES`.
    """

    values: Floats
    weights: Floats
    clusters: Sequence[str] | None
    scale: str

    @property
    def count(self) -> int:
        """How many items all checkpoints share."""
        return len(self.values)

    def scores(self) -> Floats:
        """The score of each checkpoint on these items."""
        with np.errstate(divide="ignore", invalid="ignore"):
            means = self.values.sum(axis=0) / self.weights.sum(axis=0)
        return np.asarray(SCALES[self.scale](means))

    def draws(self) -> Floats:
        """Bootstrap draws of the scores, draws × checkpoints."""
        return np.asarray(SCALES[self.scale](resampled(self.values, self.weights, self.clusters)))


def aligned(scores: Sequence[Score]) -> Aligned:
    """The items that all scores are of, in the order of the first."""
    items = [score.items for score in scores]
    first = items[0]
    assert first is not None
    orders: list[Sequence[int] | slice] = [slice(None)] * len(scores)
    if any(other is None or other.keys != first.keys for other in items[1:]):
        places = [each.places() if each is not None else {} for each in items]
        shared = [key for key in first.keys if all(key in place for place in places)]
        orders = [[place[key] for key in shared] for place in places]
    values = np.stack([s.numerators[o] for s, o in zip(scores, orders)], axis=1)
    weights = np.ones((len(values), 1))
    if any(score.denominators is not None for score in scores):
        below = (s.denominators if s.denominators is not None else np.ones(s.count) for s in scores)
        weights = np.stack([each[o] for each, o in zip(below, orders)], axis=1)
    clusters, order = first.clusters, orders[0]
    if clusters is not None and not isinstance(order, slice):
        clusters = [clusters[place] for place in order]
    return Aligned(values, weights, clusters, scores[0].scale)


class Resampling:
    """Bootstrap draws for the scores of one metric, by the names of their checkpoints.

    Checkpoints that were asked the same items share their draws.
    """

    def __init__(self, scores: Mapping[str, Score]) -> None:
        self.scores = {name: score for name, score in scores.items() if score.is_paired}
        self._kept: list[tuple[list[str], Floats]] = []

    def draws(self, names: Sequence[str]) -> Floats:
        """Draws × checkpoints, on the items that all of `names` share."""
        distinct = list(dict.fromkeys(names))
        columns, drawn = self._of_group(distinct)
        return drawn[:, [columns.index(name) for name in names]]

    def _of_group(self, names: list[str]) -> tuple[list[str], Floats]:
        for columns, drawn in self._kept:
            if set(names) <= set(columns):
                return columns, drawn
        first = self.scores[names[0]].items
        assert first is not None
        alike = [
            name
            for name, score in self.scores.items()
            if score.items is not None and score.items.keys == first.keys
        ]
        columns = alike if set(names) <= set(alike) else names
        drawn = aligned([self.scores[name] for name in columns]).draws()
        self._kept.append((columns, drawn))
        return columns, drawn
