"""From what the user asks for to an integer rank k."""

from __future__ import annotations

import math
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def leading_count(r: int, *, top: float | None = None, rank: int | None = None) -> int:
    """The rank k ≤ r that `top` or `rank` means for a matrix with r singular values.

    Args:
        top: a fraction of r; k is the nearest integer, and a half is rounded up.
        rank: a count, clamped to r. It goes before `top`.
    """
    if rank is not None:
        return min(rank, r)
    if top is None:
        raise ValueError("leading_count needs top or rank")
    return min(math.floor(top * r + 0.5 + 1e-9), r)


def needs_small_values(energy: float) -> bool:
    """Whether `energy_count` for this share depends on singular values so small that a Gram matrix
    cannot give them."""
    return energy > 1 - 1e-9


def energy_count(values: Tensor, energy: float, long: int) -> int:
    """The smallest k whose leading singular values have the share `energy` of the sum of all squares.

    The squares after the k-th are summed from the smallest on, so that none is lost beside the
    largest. For all of the energy, k is the numerical rank: values that float64 cannot tell from zero,
    up to 2^-52 σ_1 times `long`, do not count.

    Args:
        values: all singular values (r,) in float64, descending.
        long: the longer side of the matrix.
    """
    if values[0] == 0 or energy <= 0:
        return 0
    shares = values * 2.0 ** -math.frexp(float(values[0]))[1]  # squares neither over- nor underflow
    shares = shares.where(shares > long * sys.float_info.epsilon * shares[0], 0.0)
    after = shares.square().flip(0).cumsum(0).flip(0)  # after[i] = Σ of the squares from i on
    total = float(after[0])
    slack = min(1e-12 * energy * total, 1e-6 * (1 - energy) * total)  # for the rounding of `energy`
    return int((after > (1 - energy) * total + slack).sum())
