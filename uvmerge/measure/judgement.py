"""What counts as chance, as rounding or as a finding: every such rule of the package stands here.

The rules take plain numbers, so that each can be read and tested by itself. `null.py` gives the
numbers of chance; the classes of `measures.py` and `findings.py` ask these rules about themselves;
a drawing or a sentence asks those classes.
"""

from __future__ import annotations

from collections.abc import Iterable

# A figure outside this many standard deviations of what chance gives is told from chance.
BAND_SD = 4.0
# Two matrices under the first |cosine| are unrelated (a relative change near √2). Up to the second
# one they are if their leading vectors are chance as well: vectors at a cut among equal values turn
# for nothing, and say nothing.
UNRELATED_COSINE, RELATED_COSINE = 0.2, 0.9
# Leading vectors that fill so much of their space that independent spans are nearer than this
# chordal distance cannot be told from independent ones.
LEAST_CHORDAL = 0.1
# Shares of the change's energy spread more than sums of as many independent squares do, because
# rows and columns differ in size: up to 1.7 times where these spread over a decade, in simulations.
SPREAD = 2.0
SHARE_ERROR = 1e-6  # of a share, as it is measured
SMALLEST_ANGLE = 1e-7  # radians; a smaller angle is a rounding error
TIMES_ROUNDING = 1.5  # a change of up to so many times what storing makes may be rounding alone
LOOSE_CUT = 1.0  # gap at the cut over the change; under it vectors may swap places over the cut
ALIKE = 1.15  # groups whose means differ by less than this factor turned alike
NEARER = 0.98  # a distance is nearer than before if it shrank to less than this share


def can_be_told(k: int, smallest_chordal: float) -> bool:
    """Whether spans of k vectors could look different from independent ones: not where they must
    fill most of the space.

    Args:
        smallest_chordal: chordal distance of independent spans, at the lower end of their band.
    """
    return k > 0 and smallest_chordal > LEAST_CHORDAL


def spans_are_chance(chordal: float, smallest_chordal: float) -> bool:
    """Whether two spans are no nearer to each other than independent ones are."""
    return chordal >= smallest_chordal


def are_unrelated(cosine: float, spans_are_chance: bool) -> bool:
    """Whether two matrices have no more in common than independent ones.

    Args:
        cosine: of the two matrices; NaN where one of them is zero, which says nothing.
        spans_are_chance: whether the leading spans of both sides are.
    """
    size = abs(cosine)
    return size < UNRELATED_COSINE or (spans_are_chance and size < RELATED_COSINE)


def side_of_band(value: float, band: tuple[float, float]) -> int:
    """−1 under what chance gives, 0 within, 1 over it."""
    low, high = band
    return (value > high) - (value < low)


def is_rounding(relative: float, rounding: float) -> bool:
    """Whether a relative change is no larger than storing any matrix makes one.

    Args:
        rounding: root mean square of the relative change that rounding to the dtype makes.
    """
    return relative <= TIMES_ROUNDING * rounding


def is_placed(is_rounding: bool, block_share: float, block_band: tuple[float, float]) -> bool:
    """Whether it can be said where a matrix changed: by more than rounding, or with more of its
    change in the block of leading directions than a change without structure has there."""
    return not is_rounding or side_of_band(block_share, block_band) > 0


def is_loose(gap_over_change: float) -> bool:
    """Whether the change is large enough to swap vectors over the cut, so that the largest angles
    may come from where k falls."""
    return gap_over_change < LOOSE_CUT


def are_most(count: int, of: int) -> bool:
    """Whether `count` is more than half."""
    return 2 * count > of


def verdict(unrelated: int, measured: int, is_unchanged: bool) -> str:
    """Of one checkpoint: `unrelated` where most matrices are, `identical` where no tensor that was
    compared changed, else `related`."""
    if are_most(unrelated, measured):
        return "unrelated"
    return "identical" if is_unchanged else "related"


def verdict_of_all(verdicts: Iterable[str]) -> str:
    """`unrelated` if any checkpoint is, `identical` if all are, else `related`."""
    found = set(verdicts)
    if "unrelated" in found:
        return "unrelated"
    return "identical" if found == {"identical"} else "related"


def turned_alike(least: float, most: float) -> bool:
    """Whether means of groups are too close to each other to name one that turned most."""
    return most < ALIKE * least


def came_nearer(before: float, after: float) -> bool:
    """Whether a distance shrank: by less is not told from where the cut falls."""
    return after < NEARER * before
