"""The null model: what the measures give for unrelated matrices, as a comparison for findings.

Two unrelated matrices of one shape also have "stable singular values and rotated vectors", so that
a figure means something only beside what chance gives.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from dataclasses import dataclass
from functools import lru_cache
from statistics import NormalDist

from . import judgement
from .judgement import BAND_SD, SHARE_ERROR, SPREAD

_STEPS = 4096
# Root mean square of the relative change that rounding to a dtype causes, for numbers whose mantissas
# are spread evenly on a logarithmic scale: 2^-p √(3/8 / (12 log 2)), with p stored mantissa bits.
ROUNDING = {
    dtype: 2.0**-bits * math.sqrt(0.375 / (12 * math.log(2)))
    for dtype, bits in {"BF16": 7, "F16": 10, "F32": 23, "F64": 52}.items()
}


@dataclass(frozen=True)
class RandomSubspaces:
    """Two independent, uniformly random subspaces of dimension k in d dimensions.

    Source: the squared cosines of their angles follow the Jacobi ensemble; its limit for d, k → ∞ at k/d = c is a
    law of Wachter (1980, doi:10.1214/aos/1176345134), density √(λ − x) / (2πc √x (1 − x)) on (0, λ)
    with λ = 4c(1 − c), beside max(0, 2k − d) cosines that are 1 by the dimensions alone.
    """

    d: int
    k: int

    @property
    def zeros(self) -> int:
        """How many angles are 0, because two subspaces of more than d/2 dimensions intersect."""
        return max(0, 2 * self.k - self.d)

    @property
    def chordal(self) -> float:
        """√ of the mean of sin²θ: √(1 − k/d)."""
        return math.sqrt(1 - self.k / self.d)

    @property
    def chordal_band(self) -> tuple[float, float]:
        """Lower and upper limit of the chordal distances that chance explains.

        They are as unlikely as ± `BAND_SD` standard deviations of a normal law. For uniform subspaces
        Σ cos²θ has the mean k²/d and the variance 2k²(d − k)² / (d²(d − 1)(d + 2)). Where k > d/2,
        Σ sin²θ is that of the complements, which have d − k dimensions.
        """
        d, k = self.d, self.k
        if k in (0, d):
            return self.chordal, self.chordal
        free = min(k, d - k)
        degrees = (free / (d - free)) ** 2 * (d - 1) * (d + 2)
        low, high = ((free - shared) / k for shared in reversed(band_of(free * free / d, degrees)))
        return math.sqrt(max(0.0, low)), math.sqrt(min(1.0, high))

    @property
    def smallest(self) -> float:
        """The smallest angle in radians, in the limit: arccos √(4c(1 − c)) for c < 1/2, else 0."""
        c = self.k / self.d
        return math.acos(math.sqrt(4 * c * (1 - c))) if c < 0.5 else 0.0

    @property
    def can_be_distinguished(self) -> bool:
        """Whether related subspaces could be distinguished from these (`judgement`)."""
        return judgement.can_be_distinguished(self.k, self.chordal_band[0])

    @property
    def mean(self) -> float:
        """Mean of the k expected angles, in radians; 0 for k = 0."""
        return _mean_angle(self)

    def angles(self) -> tuple[float, ...]:
        """The k expected angles, ascending, in radians."""
        return tuple(self._angle(i + 0.5) for i in range(self.k))

    def band(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Lower and upper limits of the k angles that chance explains, in radians.

        The limits of an angle are the expected angles two ranks below and above, with a margin of
        2/√(dk). For the smallest angles that are not forced to be 0, the lower margin is 2/(dk)^⅓,
        from the edge of the law. Simulated angles of all shapes that were tried stay within.
        """
        margin = 2 / math.sqrt(self.d * max(self.k, 1))
        edge = 2 / (self.d * max(min(self.k, self.d - self.k), 1)) ** (1 / 3)
        low, high = [0.0] * self.zeros, [margin] * self.zeros
        for i in range(self.zeros, self.k):
            before = max(i - 2, self.zeros)
            low.append(max(0.0, self._angle(before) - (margin if before > self.zeros else edge)))
            high.append(min(math.pi / 2, self._angle(i + 3) + margin))
        return tuple(low), tuple(high)

    def _angle(self, rank: float) -> float:
        """The angle under which `rank` of the k angles are expected to lie."""
        free = self.k - self.zeros
        if rank < self.zeros or not free:
            return 0.0
        grid = _quantiles(min(self.k, self.d - self.k) / self.d)
        share = min(max((rank - self.zeros) / free, 0.0), 1.0)
        at = bisect_left(grid[1], share)
        if at == 0:
            return grid[0][0]
        if at == len(grid[1]):
            return grid[0][-1]
        (x0, x1), (y0, y1) = grid[1][at - 1 : at + 1], grid[0][at - 1 : at + 1]
        return y0 + (y1 - y0) * ((share - x0) / (x1 - x0) if x1 > x0 else 0.0)


def edges_of(r: int) -> list[int]:
    """Where the tenths of r singular values begin and end, 11 numbers; none where r is under ten."""
    return [r * i // 10 for i in range(11)] if r >= 10 else []


@lru_cache(maxsize=256)
def _mean_angle(subspaces: RandomSubspaces) -> float:
    angles = subspaces.angles()
    return sum(angles) / len(angles) if angles else 0.0


def share_band(expected: float, entries: int) -> tuple[float, float]:
    """Lower and upper limit of a share of a change's energy that random signs and rounding explain.

    Args:
        expected: the share without structure.
        entries: how many entries of the block C the share sums over.
    """
    low = high = expected
    if 0 < expected < 1:
        low, high = band_of(expected, entries / SPREAD**2)
    return max(0.0, low - SHARE_ERROR), min(1.0, high + SHARE_ERROR)


def band_of(mean: float, degrees: float) -> tuple[float, float]:
    """Quantiles of mean · χ²/degrees at ± `BAND_SD` standard deviations of a normal law.

    The cube root of a chi-square number is taken as normal (Wilson and Hilferty 1931).

    Args:
        degrees: degrees of freedom of the chi-square law.
    """
    spread = 2 / (9 * degrees)
    low, high = (1 - spread + side * BAND_SD * math.sqrt(spread) for side in (-1, 1))
    return mean * max(0.0, low) ** 3, mean * high**3


@lru_cache(maxsize=64)
def _quantiles(c: float) -> tuple[list[float], list[float]]:
    """(angles ascending, share of the free angles under each) of the limit law, 0 < c ≤ 1/2.

    With cos²θ = λ sin²φ the law has the smooth density (λ/πc) cos²φ / (1 − λ sin²φ) dφ on (0, π/2).
    """
    top = 4 * c * (1 - c)
    step = math.pi / 2 / _STEPS
    angles, shares, mass = [], [], 0.0
    for i in range(_STEPS, 0, -1):  # from the largest cosine, so from the smallest angle
        phi = (i - 0.5) * step
        angles.append(math.acos(math.sqrt(top) * min(1.0, math.sin(i * step))))
        shares.append(mass)
        denominator = max(1 - top * math.sin(phi) ** 2, 1e-300)
        mass += top / (math.pi * c) * math.cos(phi) ** 2 / denominator * step
    angles.append(math.pi / 2)
    shares.append(mass)
    return angles, [share / mass for share in shares]


def best_cosine(d: int, k: int) -> float:
    """Median of the largest |cosine| of a random direction with k orthonormal directions, for large d.

    Where k = d, the largest |cosine| is at least 1/√d.
    """
    if not k > 0:
        return 0.0
    quantile = (1 + 0.5 ** (1 / k)) / 2
    least = 1.0 if k == d else 0.0
    return min(1.0, max(least, NormalDist().inv_cdf(quantile)) / math.sqrt(d))


@dataclass(frozen=True)
class RandomMatrix:
    """An m × n matrix of independent entries: what a change without structure would be."""

    m: int
    n: int

    @property
    def stable_rank(self) -> float:
        """Expected ‖·‖_F² / ‖·‖₂² = mn / (√m + √n)², and no less than 1."""
        return max(1.0, self.m * self.n / (math.sqrt(self.m) + math.sqrt(self.n)) ** 2)

    def leading_energy(self, k: int) -> float:
        """Expected share of its energy in its own k leading singular values (Marchenko–Pastur)."""
        values = self.values()
        total = sum(v * v for v in values)
        return sum(v * v for v in values[:k]) / total if total else 0.0

    def values(self) -> list[float]:
        """Its r = min(m, n) expected singular values, descending, for entries of variance 1/max(m, n)."""
        return _marchenko_pastur(*sorted((self.m, self.n)))


@lru_cache(maxsize=64)
def _marchenko_pastur(short: int, long: int) -> list[float]:
    """Quantiles at (i − 1/2)/r of the law of singular values s on [1 − √β, 1 + √β], β = short/long.

    With s² = 1 + β + 2√β cos t the density is (2/π) sin²t / s² dt on (0, π), which is smooth.
    """
    beta = short / long
    root, step = math.sqrt(beta), math.pi / _STEPS
    masses, places, mass = [0.0], [1 + root], 0.0
    for i in range(_STEPS):
        t = (i + 0.5) * step
        mass += 2 / math.pi * math.sin(t) ** 2 / (1 + beta + 2 * root * math.cos(t)) * step
        masses.append(mass)
        places.append(math.sqrt(max(0.0, 1 + beta + 2 * root * math.cos((i + 1) * step))))
    values = []
    for i in range(short):
        share = (i + 0.5) / short * mass
        at = max(1, bisect_left(masses, share))
        before, after = masses[at - 1], masses[at]
        along = (share - before) / (after - before) if after > before else 0.0
        values.append(places[at - 1] + (places[at] - places[at - 1]) * along)
    return values
