"""Items and their metrics, collected line by line and made into scores."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ..errors import InputRefused, counted
from .lines import FORCE
from .scores import Items, Score, score_of_items

Pair = tuple[float, float]


@dataclass
class ItemTable:
    """The items of one task after one filter, and the values of each metric.

    Attributes:
        keys: of every line.
        clusters: the unordered hand of every line, or None.
        values: of each metric, one for every line; None where a line has none.
    """

    keys: list[bytes] = field(default_factory=list)
    clusters: list[str | None] = field(default_factory=list)
    values: dict[str, list[float | Pair | None]] = field(default_factory=dict)

    def add(self, key: bytes, cluster: str | None, values: dict[str, float | Pair | None]) -> None:
        """Add a line."""
        for name in [name for name in values if name not in self.values]:
            self.values[name] = [None] * len(self.keys)
        for name, column in self.values.items():
            column.append(values.get(name))
        self.keys.append(key)
        self.clusters.append(cluster)

    def scores(
        self,
        where: Path,
        force: bool,
        notes: list[str],
        scale_of: Callable[[str], str] = lambda name: "mean",
        better_of: Callable[[str], bool | None] = lambda name: None,
    ) -> dict[str, Score]:
        """The score of every metric.

        Raises:
            InputRefused: values are NaN or infinite, and not `force`.
        """
        found = {}
        every = self._items(range(len(self.keys)))
        for name, column in self.values.items():
            asked = [i for i, value in enumerate(column) if value is not None]
            kept = [i for i in asked if _is_finite(column[i])]
            if len(kept) < len(asked):
                what = f"{name} is not finite in {len(asked) - len(kept):,} of"
                what += f" {counted(len(asked), 'item')}"
                if not force:
                    raise InputRefused(where, what, FORCE)
                notes.append(f"{where.name}: {what}, which are left out")
            if len(asked) < len(column):
                lacking = counted(len(column) - len(asked), "item")
                notes.append(f"{where.name}: {name} is not measured for {lacking}")
            items = every if len(kept) == len(column) else self._items(kept)
            if kept:
                found[name] = _score(items, [column[i] for i in kept], scale_of, better_of, name)
        return found

    def _items(self, places: range | list[int]) -> Items:
        """Items with clusters where any two of them share one."""
        keys = [self.keys[i] for i in places]
        clusters = [self.clusters[i] or self.keys[i].hex() for i in places]
        shared = len(set(clusters)) < len(set(keys))
        return Items(keys, clusters if shared else None)


def _is_finite(value: float | Pair | None) -> bool:
    parts = value if isinstance(value, tuple) else (value,)
    return all(part is not None and math.isfinite(part) for part in parts)


def _score(
    items: Items,
    values: list[float | Pair | None],
    scale_of: Callable[[str], str],
    better_of: Callable[[str], bool | None],
    name: str,
) -> Score:
    pairs = np.array([v if isinstance(v, tuple) else (v, 1.0) for v in values], dtype=np.float64)
    weighted = any(isinstance(value, tuple) for value in values)
    below = pairs[:, 1].copy() if weighted else None
    return score_of_items(items, pairs[:, 0].copy(), below, scale_of(name), better_of(name))
