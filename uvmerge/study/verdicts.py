"""What an interval over pairs says, in words. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..tasks.statistics import Interval
from ..tasks.student import mean_over

SEEN, NOT_SEEN, CANNOT_TELL = "seen here", "not seen", "cannot tell"
BETTER, WORSE = "above the line", "below the line"


def verdict(interval: Interval | None) -> str:
    """Whether a claim that a number is positive was seen.

    *seen here*: the whole interval is above 0. *not seen*: the whole interval is below 0, or is 0 itself.
    *cannot tell*: it holds 0, or there is no interval (less than three pairs).
    """
    if interval == (0.0, 0.0):
        return NOT_SEEN
    return {1: SEEN, -1: NOT_SEEN, 0: CANNOT_TELL}[_side(interval)]


def against_line(interval: Interval | None) -> str:
    """Where a model lies, from the interval of its differences to the line."""
    return {1: BETTER, -1: WORSE, 0: CANNOT_TELL}[_side(interval)]


def _side(interval: Interval | None) -> int:
    """1 or −1 where the whole interval lies on this side of 0, else 0."""
    low, high = interval or (0.0, 0.0)
    return (low > 0) - (high < 0)


def summary(values: Sequence[float]) -> dict[str, Any]:
    """Values of pairs, their mean, standard deviation and 95 % t-interval, as JSON-able data."""
    mean = mean_over(values)
    return {
        "values": list(values),
        "mean": mean.value,
        "sd": mean.sd,
        "interval_95": None if mean.interval is None else list(mean.interval),
        "pairs": mean.count,
    }


def claim(said: str, regime: str, values: Sequence[float]) -> dict[str, Any]:
    """A claim that a difference is positive, with what was measured and the verdict.

    Args:
        said: the claim in one sentence.
        values: the difference on each pair of the regime.
    """
    found = summary(values)
    ends = found["interval_95"]
    said_verdict = verdict(None if ends is None else (ends[0], ends[1]))
    return {"claim": said, "regime": regime, "verdict": said_verdict, **found}
