"""What counts as chance, as rounding or as a finding: every such rule of the package stands here.

The rules take plain numbers, so that each can be read and tested by itself. `null.py` computes what
chance gives. The classes of `measures.py` and `findings.py` apply these rules to their own numbers;
code that draws or writes asks these classes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

# A figure this many standard deviations from its expectation under chance counts as not by chance.
BAND_SD = 4.0
# Two matrices with a |cosine| under the first number are unrelated (their relative change is near
# √2). Up to the second number, they are unrelated if their leading vectors look independent as well.
# Above it the vectors do not count: at a cut among equal singular values, a tiny change turns them.
UNRELATED_COSINE, RELATED_COSINE = 0.2, 0.9
# Where independent spans can be nearer to each other than this chordal distance, because the leading
# vectors fill most of their space, related spans cannot be distinguished from independent ones.
LEAST_CHORDAL = 0.1
# The standard deviation of a share of the change's energy, over that of a sum of as many independent
# squares. Rows and columns of different sizes raise it: up to 1.7 in simulations, where the sizes
# spread over a decade.
SPREAD = 2.0
SHARE_ERROR = 1e-6  # rounding error of a measured share
SMALLEST_ANGLE = 1e-7  # radians; a smaller angle is a rounding error
TIMES_ROUNDING = 1.5  # a change up to this many times that of storing may be rounding alone
LOOSE_CUT = 1.0  # gap at the cut over the change; under it, vectors may swap across the cut
EQUAL = 1e-6  # neighbouring singular values that differ by less, relatively, count as equal
ALIKE = 1.15  # groups whose mean angles differ by less than this factor turned alike
MOST, FEW = 0.9, 0.5  # most of a change's energy; at most this share of the layers are few
FEWEST_LAYERS = 4  # with fewer layers in all, none are called few
NEARER = 0.98  # a distance has shrunk if it is less than this share of the earlier one


def can_be_distinguished(k: int, smallest_chordal: float) -> bool:
    """Whether related spans of k vectors could be distinguished from independent ones; they could
    not where k vectors fill most of the space.

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
        spans_are_chance: whether the leading left and right vectors both look independent.
    """
    size = abs(cosine)
    return size < UNRELATED_COSINE or (spans_are_chance and size < RELATED_COSINE)


def side_of_band(value: float, band: tuple[float, float]) -> int:
    """−1 where a value is under the band that chance gives, 0 within it, 1 over it."""
    low, high = band
    return (value > high) - (value < low)


def is_rounding(relative: float, rounding: float) -> bool:
    """Whether a relative change is no larger than what rounding to a dtype causes.

    Args:
        rounding: root mean square of the relative change that rounding to the dtype makes.
    """
    return relative <= TIMES_ROUNDING * rounding


def is_placed(is_rounding: bool, block_share: float, block_band: tuple[float, float]) -> bool:
    """Whether it can be said where a matrix changed: its change is larger than rounding, or a larger
    share of it lies in the block of leading directions than of a change without structure."""
    return not is_rounding or side_of_band(block_share, block_band) > 0


def is_loose(gap_over_change: float) -> bool:
    """Whether the change is large enough to swap vectors across the cut, so that the largest angles
    may be due to the choice of k."""
    return gap_over_change < LOOSE_CUT


def is_majority(count: int, of: int) -> bool:
    """Whether `count` is more than half."""
    return 2 * count > of


def verdict(unrelated: int, measured: int, is_unchanged: bool) -> str:
    """The verdict on one checkpoint: `unrelated` where most measured matrices are, `identical` where no
    tensor that was compared changed, else `related`."""
    if is_majority(unrelated, measured):
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
    """Whether a distance shrank by more than the choice of k explains."""
    return after < NEARER * before


def where_most_is(energies: Mapping[int, float]) -> tuple[list[int], float]:
    """The fewest layers that together hold most of a change, largest first, and their share.

    Args:
        energies: of the change, by layer.
    """
    total, share = sum(energies.values()), 0.0
    found: list[int] = []
    for layer in sorted(energies, key=lambda layer: -energies[layer]) if total else ():
        if share >= MOST:
            break
        found.append(layer)
        share += energies[layer] / total
    return found, share


def are_few(layers: int, of: int) -> bool:
    """Whether so many layers are few of all."""
    return of >= FEWEST_LAYERS and 0 < layers <= FEW * of
