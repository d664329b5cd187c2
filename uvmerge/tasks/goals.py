"""What a search wants: metrics with a direction, which points lie on the front of them. Pure.

The first metric is the one in domain, the second the one out of domain. A point lies on the front if
no other one is at least as good in every metric and better in one.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ..errors import UsageError
from ..text import brief

LARGEST = 1e12  # of a metric: what is beyond is a mistake of the evaluation
_HOW = "Write NAME:max or NAME:min, or NAME:max:0.9 with the worst value that is acceptable."


@dataclass(frozen=True)
class Goal:
    """A metric and the direction in which it is better.

    Attributes:
        name: a key of the JSON object, or TASK.METRIC of lm-evaluation-harness.
        floor: the worst value of a point on the front; None for any.
    """

    name: str
    is_max: bool = True
    floor: float | None = None

    @classmethod
    def parse(cls, text: str) -> Goal:
        """The goal that `NAME:max[:floor]` or `NAME:min[:floor]` names.

        Raises:
            UsageError: `text` is written otherwise.
        """
        found = re.fullmatch(r"(.+?):(max|min)(?::(.+))?", text.strip())
        if not found:
            raise UsageError("--metric", f"'{brief(text)}' names no direction", _HOW)
        try:
            floor = None if found[3] is None else float(found[3])
        except ValueError:
            floor = float("nan")
        if floor is not None and not abs(floor) <= LARGEST:
            raise UsageError("--metric", f"'{brief(found[3])}' is not a number", _HOW)
        return cls(found[1], found[2] == "max", floor)

    def __str__(self) -> str:
        floor = "" if self.floor is None else f":{self.floor:g}"
        return f"{self.name}:{'max' if self.is_max else 'min'}{floor}"

    def gain(self, value: float) -> float:
        """`value`, with its sign changed where less is better."""
        return value if self.is_max else -value

    def shortfall(self, value: float) -> float:
        """By how much `value` is worse than the floor; 0 where it is not."""
        return 0.0 if self.floor is None else max(0.0, self.gain(self.floor) - self.gain(value))


def parse_goals(texts: Sequence[str]) -> tuple[Goal, ...]:
    """The goals of a search, the one in domain first.

    Raises:
        UsageError: there is none, one cannot be read, or a name stands twice.
    """
    if isinstance(texts, str):
        texts = [texts]
    goals = tuple(Goal.parse(text) for text in texts)
    if not goals:
        raise UsageError("--metric", "is missing", f"Name one or more. {_HOW}")
    names = [goal.name for goal in goals]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise UsageError("--metric", f"'{brief(twice)}' is given twice", "Name it once.")
    return goals


def front(values: Mapping[str, Sequence[float]], goals: Sequence[Goal]) -> list[str]:
    """The points on the front, in the order given.

    Args:
        values: of each point, a value for every goal.
    """
    kept = {
        name: tuple(goal.gain(value) for goal, value in zip(goals, row, strict=True))
        for name, row in values.items()
        if not any(goal.shortfall(value) for goal, value in zip(goals, row, strict=True))
    }
    seen: set[tuple[float, ...]] = set()
    found = []
    for name, place in kept.items():
        better = (all(o >= p for o, p in zip(other, place)) for other in kept.values()
                  if other != place)  # fmt: skip
        if place not in seen and not any(better):
            found.append(name)
        seen.add(place)
    return found
