"""Which differences between evaluations are findings: intervals, tests and resampling. Pure.

Sources: E. B. Wilson, "Probable Inference, the Law of Succession, and Statistical Inference",
Journal of the American Statistical Association 22 (158), 1927; Q. McNemar, "Note on the sampling
error of the difference between correlated proportions or percentages", Psychometrika 12, 1947;
S. Holm, "A simple sequentially rejective multiple test procedure", Scandinavian Journal of
Statistics 6, 1979; B. Efron, "Bootstrap methods", Annals of Statistics 7, 1979.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

LEVEL = 0.95  # of every interval
Z = NormalDist().inv_cdf(0.5 + LEVEL / 2)
DRAWS = 4000  # of a bootstrap
SEED = 1927
_CELLS = 200_000  # counts of one round of resampling, so that they stay in the processor's cache

Floats = NDArray[np.float64]
Interval = tuple[float, float]


def wilson(successes: int, total: int, z: float = Z) -> Interval:
    """The Wilson score interval of a proportion.

    With n = total and p = successes / n the bounds are
    (p + z²/(2n) ∓ z √(p(1 − p)/n + z²/(4n²))) / (1 + z²/n).

    Raises:
        ValueError: `total` is under 1, or `successes` is not between 0 and `total`.
    """
    if total < 1 or not 0 <= successes <= total:
        raise ValueError(f"need 0 <= successes <= total and total >= 1: {successes} of {total}")
    share, scale = successes / total, 1 + z * z / total
    middle = share + z * z / (2 * total)
    spread = z * math.sqrt(share * (1 - share) / total + z * z / (4 * total * total))
    low = 0.0 if successes == 0 else (middle - spread) / scale
    high = 1.0 if successes == total else (middle + spread) / scale
    return low, high


def normal_p(z: float) -> float:
    """The two-sided p of a standard normal variable."""
    return math.erfc(abs(z) / math.sqrt(2))


def pooled_z(successes: int, total: int, other_successes: int, other_total: int) -> float:
    """The p of two independent proportions: two-sided pooled z test without correction."""
    pooled = (successes + other_successes) / (total + other_total)
    variance = pooled * (1 - pooled) * (1 / total + 1 / other_total)
    difference = successes / total - other_successes / other_total
    return normal_p(difference / math.sqrt(variance)) if variance > 0 else 1.0


def mcnemar(first: int, second: int) -> float:
    """The exact two-sided p of McNemar's test.

    Args:
        first: items that only the first of two models has right.
        second: items that only the second has right.
    """
    return sign_flip([1] * first + [-1] * second)


def sign_flip(differences: Sequence[int]) -> float:
    """The exact two-sided p of a sum whose terms have either sign with the same chance.

    Of single items (1, −1 or 0) this is McNemar's exact test. Of sums over the items of a cluster
    it is the same test for items that are independent only between clusters.
    """
    sizes = np.abs(np.asarray(differences, dtype=np.int64))
    observed = abs(int(np.sum(differences)))
    chances = np.ones(1)  # of the sums −n, −n + 1, …, n
    for size, count in zip(*np.unique(sizes[sizes > 0], return_counts=True)):
        spread = np.zeros(2 * int(size) * int(count) + 1)
        spread[:: 2 * int(size)] = _coin(int(count))
        chances = np.convolve(chances, spread)
    middle = len(chances) // 2
    tail = chances[middle + observed :].sum()
    return min(1.0, float(2 * tail if observed else 1.0))


def _coin(count: int) -> Floats:
    """The chances of 0, 1, …, count heads."""
    logs = [math.lgamma(i + 1) for i in range(count + 1)]
    whole = logs[count] - count * math.log(2)
    return np.exp([whole - logs[i] - logs[count - i] for i in range(count + 1)])


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's adjusted p values, in the order given."""
    order = sorted(range(len(p_values)), key=p_values.__getitem__)
    adjusted, highest = [0.0] * len(p_values), 0.0
    for rank, place in enumerate(order):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[place]))
        adjusted[place] = highest
    return adjusted


def summed(values: Floats, clusters: Sequence[Any] | None) -> Floats:
    """The sums of rows over each cluster; `values` itself where every item is its own cluster."""
    if clusters is None:
        return values
    _, places = np.unique(np.asarray(clusters), return_inverse=True)
    sums = np.zeros((int(places.max(initial=-1)) + 1, *values.shape[1:]))
    np.add.at(sums, places, values)
    return sums


def cluster_standard_error(values: Floats, clusters: Sequence[Any] | None = None) -> float:
    """The standard error of a mean over items that are independent only between clusters.

    √(C/(C − 1) Σ_c (Σ_{i in c} (xᵢ − x̄))²) / n over C clusters of n items, which for clusters of
    one item is s/√n. NaN for a single cluster.
    """
    residuals = summed(values - values.mean(), clusters)
    count = len(residuals)
    if count < 2:
        return math.nan
    return math.sqrt(count / (count - 1) * float(residuals @ residuals)) / len(values)


def resampled(
    numerators: Floats,
    denominators: Floats,
    clusters: Sequence[Any] | None = None,
    draws: int = DRAWS,
    seed: int = SEED,
) -> Floats:
    """Bootstrap draws of Σ numerators / Σ denominators; every column sees the same items.

    Args:
        numerators: items × columns.
        denominators: items × columns, or × 1 where they are the same for every column.
        clusters: of each item; clusters are drawn whole.

    Returns:
        draws × columns.
    """
    above, below = summed(numerators, clusters), summed(denominators, clusters)
    generator, count = np.random.default_rng(seed), len(above)
    at_once = max(1, min(draws, _CELLS // max(1, count)))
    parts = []
    for start in range(0, draws, at_once):
        rows = min(at_once, draws - start)
        drawn = generator.integers(0, count, size=(rows, count))
        drawn += (np.arange(rows) * count)[:, None]
        times = np.bincount(drawn.ravel(), minlength=rows * count).reshape(rows, count)
        weights = times.astype(np.float64)
        with np.errstate(divide="ignore", invalid="ignore"):
            parts.append((weights @ above) / (weights @ below))
    return np.concatenate(parts)


def percentiles(draws: Floats) -> Interval | None:
    """The middle 95 % of bootstrap draws; None where more than 2.5 % of them do not exist."""
    finite = draws[np.isfinite(draws)]
    if len(finite) < (0.5 + LEVEL / 2) * len(draws):
        return None
    low, high = np.quantile(finite, [0.5 - LEVEL / 2, 0.5 + LEVEL / 2])
    return float(low), float(high)


def by_cluster(draws: Floats, clusters: Sequence[Any], successes: int | None) -> Interval | None:
    """The 95 % interval of a mean over items that are independent only between clusters.

    Percentiles of bootstrap draws over clusters. Where every item is 0, or every item 1, no draw
    differs, and the interval is Wilson's with clusters in the place of items.

    Args:
        draws: of the mean, as `resampled` gives them.
        clusters: of each item.
        successes: how many items are 1; None where items are not 0 or 1.
    """
    if successes in (0, len(clusters)):
        count = len(set(clusters))
        return wilson(count if successes else 0, count)
    return percentiles(draws)


def clustered_interval(values: Floats, clusters: Sequence[Any]) -> Interval:
    """The 95 % interval of a mean of values between 0 and 1, by `by_cluster`."""
    ends = {0.0: 0, 1.0: len(values)}
    drawn = resampled(values[:, None], np.ones((len(values), 1)), clusters)
    found = by_cluster(drawn, clusters, ends.get(float(values.mean())))
    assert found is not None  # every draw of a mean exists
    return found


def bootstrap_p(draws: Floats, observed: float) -> float:
    """The two-sided p of a difference: how often its resampling errors are as large as itself."""
    smaller = np.count_nonzero(np.abs(draws - observed) < abs(observed) * (1 - 1e-12))
    return (1 + len(draws) - int(smaller)) / (1 + len(draws))


def binomial_draws(share: float, total: int, draws: int = DRAWS, seed: int = SEED) -> Floats:
    """Draws of a proportion of which only the total is known, as independent items give them."""
    return np.random.default_rng(seed).binomial(total, share, size=draws) / total


def recovered_of_best(restored: Any, best: Any) -> Any:
    """First reading of "recovered": restored / best. Of numbers or of draws."""
    return restored / best


def recovered_of_loss(restored: Any, lost: Any, best: Any) -> Any:
    """Second reading of "recovered": (restored − fine-tuned) / (best − fine-tuned)."""
    return (restored - lost) / (best - lost)
