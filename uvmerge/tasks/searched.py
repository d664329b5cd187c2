"""What a search found: the line of interpolation, the front, and whether anything beats the line."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from .goals import Goal
from .margins import Estimate, Placed

SAME_ITEMS = "chosen and judged on the same items"


@dataclass(frozen=True)
class Tried:
    """A checkpoint of a search.

    Attributes:
        name: `interpolate-0.3` of the line, or `trial-7`.
        settings: what is free in the space, by name; the scale of an interpolation.
        chosen_by: by goal, the value on the items that the front is chosen on; empty if it failed.
        placed: its values and margins on the items that are reported on; None where it was not asked.
        error: why it has no values; None where it has some.
        weights: xxh3-128 of each weight file.
    """

    name: str
    settings: Mapping[str, object]
    chosen_by: Mapping[str, float] = field(default_factory=dict)
    placed: Placed | None = None
    error: str | None = None
    weights: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Searched:
    """What a search found.

    Attributes:
        goals: the metrics, the one in domain first.
        has_halves: whether the front was chosen on other items than it is reported on.
        line: interpolations, in the order of their scales.
        trials: every setting that was tried, those that failed included.
        front: names on the front, of trials and of the line.
        items: by goal, how many items and how many independent clusters of them are reported on;
            empty where the evaluation does not tell.
        notes: what the user should know.
    """

    goals: tuple[Goal, ...]
    has_halves: bool
    line: tuple[Tried, ...]
    trials: tuple[Tried, ...]
    front: tuple[str, ...]
    items: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def found(self) -> list[Tried]:
        """The trials on the front, the largest first margin first."""
        rows = [t for t in self.trials if t.name in self.front and t.placed is not None]
        return sorted(rows, key=lambda t: -_margin(t).value)

    @property
    def beating(self) -> list[str]:
        """Names of the trials on the front whose margin over the line is more than noise."""
        return [t.name for t in self.found if t.placed is not None and t.placed.beats_line]

    @property
    def sentence(self) -> str:
        """What follows from the margins and their intervals, and on which items."""
        return " ".join(filter(None, (self.verdict, self.caveat)))

    @property
    def caveat(self) -> str:
        """That the points were judged on the items that they were chosen on, if they were."""
        return "" if self.has_halves else f"The points were {SAME_ITEMS}."

    @property
    def verdict(self) -> str:
        """What follows from the margins and their intervals."""
        if not self.found:
            why = "no setting that was tried lies on the front"
            if not self.front:
                why += ", nor does the line: nothing reaches the floors"
            return f"Nothing beats interpolation: {why}."
        best = self.found[0]
        margin = _margin(best)
        if margin.value <= 0:
            return f"Nothing beats interpolation: no setting lies above the line, {best.name} at" \
                f" {shown(margin)} comes closest."  # fmt: skip
        if margin.interval is None:
            return (
                "Nothing is shown to beat interpolation: the evaluation gives totals without items, so"
                f" the margins ({best.name} at {shown(margin)}) have no intervals."
            )
        if not self.beating:
            return (
                "Nothing beats interpolation by more than noise: the largest margin is that of"
                f" {best.name}, {shown(margin)}."
            )
        winner = next(t for t in self.found if t.name in self.beating)
        others = len(self.beating) - 1
        more = f"; so do {others} more" if others > 1 else "; so does one more" if others else ""
        return f"{winner.name} beats interpolation: {shown(_margin(winner))} {self._where()}{more}."

    def _where(self) -> str:
        if len(self.goals) == 1:
            return f"in {self.goals[0].name} above the best of the line"
        first, second = self.goals[:2]
        return f"in {second.name} at equal {first.name}"


def _margin(tried: Tried) -> Estimate:
    """The margin that decides: out of domain at equal accuracy in domain, or of the only metric."""
    assert tried.placed is not None
    return tried.placed.over_line[0]


def shown(estimate: Estimate, sign: str = "+") -> str:
    """`+0.031 (−0.012 to +0.055)`; without `sign`, plus signs are left out."""
    value = f"{estimate.value:{sign}.3f}"
    if estimate.interval is None:
        return value
    low, high = estimate.interval
    return f"{value} ({low:{sign}.3f} to {high:{sign}.3f})"
