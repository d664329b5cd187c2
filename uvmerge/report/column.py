"""What a row of the table in `columns.py` holds: a measure of a matrix, and where it is shown."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from enum import Flag, auto
from typing import Any

from ..measure import judgement
from ..measure.findings import Entry
from .format import PLAIN, Unit


class Place(Flag):
    """Where a column is shown."""

    JSON = auto()
    CSV = auto()
    TERMINAL = auto()  # means of each role
    EVIDENCE = auto()  # there also of an unrelated pair, to show that it is one
    MAP = auto()  # heat map of the page
    FIGURE = auto()  # heat map for a paper
    CURVE = auto()  # over several checkpoints, on the page and for a paper
    MOVED = auto()  # the page's table of the matrices that moved most
    DETAILS = auto()  # the page's numbers of one matrix
    CHANCE = auto()  # in TERMINAL and MOVED, which are narrow, with what chance gives beside it
    FILES = JSON | CSV
    EVERYWHERE = JSON | CSV | TERMINAL | MAP | FIGURE | CURVE | MOVED | DETAILS | CHANCE


def nothing(_: Entry) -> None:
    """Of a column that has no such number."""


def never(_: Entry) -> bool:
    """Of a column for which a rule does not hold."""
    return False


def is_unrelated(entry: Entry) -> bool:
    """Whether a matrix has no more in common with its base than chance gives."""
    return entry.is_unrelated


@dataclass(frozen=True)
class Scaling:
    """How the colours of a heat map are scaled.

    Attributes:
        group: columns of one group share a scale.
        marks_chance: whether the mean of what chance gives is marked on the scale.
        ends_at_chance: whether the largest is marked instead, and the scale goes up to it.
        threshold: a value that is marked, and in which words.
    """

    group: str = ""
    marks_chance: bool = True
    ends_at_chance: bool = False
    threshold: tuple[float, str] | None = None


@dataclass(frozen=True)
class Column:
    """One measure of a matrix: what it is, what chance gives, and where it is shown.

    Attributes:
        key: its name in matrices.csv.
        value: of a matrix, in the unit of the files; None where there is none.
        name: for people; the same for both sides.
        heading: over a drawing, where the name is too long for that.
        side: `left` or `right`, of a measure of the vectors of one side.
        short: a name for the head of a narrow table.
        axis: a name for the axis of a drawing.
        meaning: its definition, for the page and the documentation.
        note: what to know beside a heat map; `meaning` where it is empty.
        chance: what chance gives, which drawings call `beside`; `by_chance` says it in words.
        band: of the values that chance explains.
        is_void: whether the value of a matrix says nothing, and so counts in no mean and no curve.
        is_chance: whether it is no more than chance or rounding gives, which drawings mark.
        path: its place in report.json, `key` where it is empty.
        chance_key: of what chance gives, in the files; made from the key where it is empty.
        is_always_there: whether matrices that were not measured have it too.
    """

    key: str
    value: Callable[[Entry], Any]
    name: str = ""
    unit: Unit = PLAIN
    side: str = ""
    heading: str = ""
    short: str = ""
    axis: str = ""
    meaning: str = ""
    note: str = ""
    chance: Callable[[Entry], float | None] = nothing
    beside: str = "chance"
    by_chance: str = ""
    band: Callable[[Entry], tuple[float, float] | None] = nothing
    is_void: Callable[[Entry], bool] = is_unrelated
    is_chance: Callable[[Entry], bool] = never
    scaling: Scaling = field(default_factory=Scaling)
    shown: Place = Place.EVERYWHERE
    path: str = ""
    chance_key: str = ""
    is_always_there: bool = False

    @property
    def title(self) -> str:
        """Over a drawing."""
        name = self.heading or self.name or self.key
        of_side = f", {self.side} singular vectors" if self.side else ""
        return f"{name[0].upper()}{name[1:]}{of_side}"

    @property
    def head(self) -> str:
        """Over a column of a table."""
        return self.short or self.name or self.key

    @property
    def label(self) -> str:
        """At an axis."""
        return self.axis or self.unit.label or self.head

    @property
    def group(self) -> str:
        return self.scaling.group or self.key

    @property
    def has_chance(self) -> bool:
        return self.chance is not nothing

    @property
    def has_band(self) -> bool:
        return self.band is not nothing

    @property
    def key_of_chance(self) -> str:
        return self.chance_key or f"{self.key}_chance"

    def is_no_finding(self, entry: Entry) -> bool:
        """Whether the value of a matrix is void, chance or rounding, or the matrix unrelated."""
        return bool(entry.is_unrelated or self.is_void(entry) or self.is_chance(entry))

    def are_no_finding(self, entries: Sequence[Entry]) -> bool:
        """Whether the values of most matrices are none."""
        return judgement.are_most(sum(map(self.is_no_finding, entries)), len(entries))

    def values(self, entries: Iterable[Entry]) -> list[float]:
        """Of the matrices that have one."""
        return _numbers(map(self.value, entries))

    def telling_values(self, entries: Iterable[Entry]) -> list[float]:
        """Those that say something."""
        return self.values(entry for entry in entries if not self.is_void(entry))

    def chances(self, entries: Iterable[Entry]) -> list[float]:
        """What chance gives for each of the matrices that have a value."""
        return _numbers(self.chance(entry) for entry in entries if self.value(entry) is not None)


def _numbers(values: Iterable[float | None]) -> list[float]:
    return [value for value in values if value is not None and not math.isnan(value)]


def mean(values: Sequence[float]) -> float | None:
    """None without any."""
    return sum(values) / len(values) if values else None
