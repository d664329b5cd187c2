"""Student's t: the interval of a mean over a few independent pairs of checkpoints. Pure.

Source: "Student", "The probable error of a mean", Biometrika 6, 1908; the finite sums for whole degrees
of freedom: Abramowitz and Stegun, Handbook of Mathematical Functions, 26.7.3 and 26.7.4.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

from .statistics import LEVEL, Interval

FEWEST = 3  # pairs of which an interval is given


@dataclass(frozen=True)
class Mean:
    """A mean over pairs.

    Attributes:
        value: the mean.
        sd: standard deviation between pairs; None for a single pair.
        interval: the 95 % t-interval; None for less than `FEWEST` pairs, whose spread says little.
        count: how many pairs.
    """

    value: float
    sd: float | None
    interval: Interval | None
    count: int


def mean_over(values: Sequence[float]) -> Mean:
    """The mean of `values`, mean ± t · s/√n.

    Raises:
        ValueError: there are no values.
    """
    if not values:
        raise ValueError("a mean needs at least one value")
    middle, count = fmean(values), len(values)
    spread = stdev(values) if count > 1 else None
    if spread is None or count < FEWEST:
        return Mean(middle, spread, None, count)
    reach = t_quantile(0.5 + LEVEL / 2, count - 1) * spread / math.sqrt(count)
    return Mean(middle, spread, (middle - reach, middle + reach), count)


def t_within(t: float, freedom: int) -> float:
    """The chance that |T| < t, for t ≥ 0 and at least one degree of freedom."""
    angle = math.atan(t / math.sqrt(freedom))
    cosine, sine = math.cos(angle), math.sin(angle)
    odd = freedom % 2
    term = cosine if odd else 1.0
    total = term if freedom > 1 else 0.0
    for step in range(2 if odd else 1, freedom - 1, 2):
        term *= cosine * cosine * step / (step + 1)
        total += term
    return 2 / math.pi * (angle + sine * total) if odd else sine * total


def t_quantile(share: float, freedom: int) -> float:
    """The quantile of Student's t at `share` (0.5 to 1, without 1)."""
    low, high = 0.0, 1.0
    while t_within(high, freedom) < 2 * share - 1:
        high *= 2
    for _ in range(200):
        middle = (low + high) / 2
        if t_within(middle, freedom) < 2 * share - 1:
            low = middle
        else:
            high = middle
    return (low + high) / 2
