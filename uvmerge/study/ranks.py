"""Rank correlation with its interval. Pure.

Sources: Spearman 1904; the interval by Fisher's transformation with the standard error
√((1 + ρ²/2) / (n − 3)) of Bonett and Wright, "Sample size requirements for estimating Pearson, Kendall
and Spearman correlations", Psychometrika 65, 2000.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..tasks.statistics import Interval, Z
from .verdicts import verdict

FEWEST = 4  # points of an interval


def spearman(x: Sequence[float], y: Sequence[float]) -> float:
    """Spearman's ρ, with mean ranks for ties; 0 where all of `x` or of `y` are equal."""
    ranks = [_ranks(np.asarray(each, dtype=np.float64)) for each in (x, y)]
    first, second = (each - each.mean() for each in ranks)
    size = math.sqrt(float(first @ first) * float(second @ second))
    return float(first @ second) / size if size else 0.0


def _ranks(values: np.ndarray) -> np.ndarray:
    _, places, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    means: np.ndarray = (last - (counts - 1) / 2)[places]
    return means


def interval(rho: float, count: int) -> Interval | None:
    """The 95 % interval of a ρ over `count` independent points; None for fewer than 4."""
    if count < FEWEST:
        return None
    if abs(rho) >= 1 - 1e-12:
        rho = math.copysign(1 - 1 / (2 * count * count), rho)  # the transformation has no end there
    error = math.sqrt((1 + rho * rho / 2) / (count - 3))
    low, high = (math.tanh(math.atanh(rho) + sign * Z * error) for sign in (-1, 1))
    return low, high


def correlation(said: str, regime: str, x: Sequence[float], y: Sequence[float]) -> dict[str, Any]:
    """A claim that two measures of pairs rank them alike, with the verdict.

    Args:
        said: the claim in one sentence.
        x, y: of each pair.
    """
    rho = spearman(x, y)
    ends = interval(rho, len(x))
    return {
        "claim": said, "regime": regime, "verdict": verdict(ends), "points": [list(x), list(y)],
        "mean": rho, "interval_95": None if ends is None else list(ends), "pairs": len(x),
    }  # fmt: skip
