"""A row of the table in `columns.py`: a measure of a matrix, and where the measure is shown."""

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
    TERMINAL = auto()  # the table of means of each role
    EVIDENCE = auto()  # in TERMINAL also for an unrelated pair, to show that it is unrelated
    MAP = auto()  # heat map of the page
    FIGURE = auto()  # heat map for a paper
    CURVE = auto()  # over several checkpoints, on the page and for a paper
    MOVED = auto()  # the page's table of the matrices that moved most
    DETAILS = auto()  # the page's numbers of one matrix
    CHANCE = auto()  # in the narrow TERMINAL and MOVED, what chance gives beside the value
    FILES = JSON | CSV
    EVERYWHERE = JSON | CSV | TERMINAL | MAP | FIGURE | CURVE | MOVED | DETAILS | CHANCE


def nothing(_: Entry) -> None:
    """The function of a number that a column does not have."""


def never(_: Entry) -> bool:
    """The function of a rule that holds for no matrix."""
    return False


def is_unrelated(entry: Entry) -> bool:
    """Whether a matrix has no more in common with its base than chance gives."""
    return entry.is_unrelated


@dataclass(frozen=True)
class Scaling:
    """How the colours of a heat map are scaled.

    Attributes:
        group: the name of a group of columns that share a scale.
        marks_chance: whether the mean of what chance gives is marked on the scale.
        ends_at_chance: whether the largest value that chance gives is marked instead of the mean;
            the scale then includes that value.
        threshold: a value that is marked, and the words of the mark.
        much_is_good: whether a large value is good news; the map then has colours of its own.
    """

    group: str = ""
    marks_chance: bool = True
    ends_at_chance: bool = False
    threshold: tuple[float, str] | None = None
    much_is_good: bool = False


@dataclass(frozen=True)
class Column:
    """One measure of a matrix: what it is, what chance gives, and where it is shown.

    Attributes:
        key: the name of the measure in matrices.csv.
        value: the value of a matrix, in the unit of the files; None where there is none.
        name: the name for people, the same for both sides.
        unit: how people read the value.
        side: `left` or `right` for a measure of the vectors of one side, else empty.
        heading: the title of a drawing, where the name is too long for that.
        short: the name at the head of a narrow table.
        axis: the name at the axis of a drawing.
        meaning: the definition of the measure, for the page and the documentation.
        note: what to know beside a heat map; where it is empty, `meaning` is shown.
        chance: the value that chance gives; None where there is none.
        beside: the word of drawings for what chance gives: `chance` or `rounding`.
        by_chance: what chance gives, in words.
        band: the lowest and the highest value that chance explains.
        is_void: whether the value of a matrix says nothing and therefore counts in no mean or
            curve.
        is_chance: whether the value is no more than chance or rounding gives; drawings mark this.
        scaling: how the colours of the heat map are scaled.
        shown: the places that show the measure.
        path: the place in report.json; where it is empty, `key`.
        chance_key: the name in the files of what chance gives; where it is empty, made from `key`.
        is_always_there: whether matrices that were not measured have the value too.
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
        """The title of a drawing."""
        name = self.heading or self.name or self.key
        of_side = f", {self.side} singular vectors" if self.side else ""
        return f"{name[0].upper()}{name[1:]}{of_side}"

    @property
    def head(self) -> str:
        """The head of a column of a table."""
        return self.short or self.name or self.key

    @property
    def label(self) -> str:
        """The label of an axis."""
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
        """Whether the value of a matrix is void, chance or rounding, or the matrix is unrelated."""
        return bool(entry.is_unrelated or self.is_void(entry) or self.is_chance(entry))

    def are_no_finding(self, entries: Sequence[Entry]) -> bool:
        """Whether the values of most matrices are no finding."""
        return judgement.is_majority(sum(map(self.is_no_finding, entries)), len(entries))

    def values(self, entries: Iterable[Entry]) -> list[float]:
        """The values of the matrices that have one."""
        return _numbers(map(self.value, entries))

    def telling_values(self, entries: Iterable[Entry]) -> list[float]:
        """The values that are not void."""
        return self.values(entry for entry in entries if not self.is_void(entry))

    def chances(self, entries: Iterable[Entry]) -> list[float]:
        """What chance gives for each of the matrices that have a value."""
        return _numbers(self.chance(entry) for entry in entries if self.value(entry) is not None)


def _numbers(values: Iterable[float | None]) -> list[float]:
    return [value for value in values if value is not None and not math.isnan(value)]


def mean(values: Sequence[float]) -> float | None:
    """The mean; None of no values."""
    return sum(values) / len(values) if values else None
