"""From what the user asks for to an integer rank k."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def leading_count(r: int, *, top: float | None = None, rank: int | None = None) -> int:
    """The rank k ≤ r that `top` or `rank` means for a matrix with r singular values.

    Args:
        top: a fraction of r; k is the nearest integer, halves up.
        rank: a count, clamped to r. It goes before `top`.
    """
    if rank is not None:
        return min(rank, r)
    if top is None:
        raise ValueError("leading_count needs top or rank")
    return min(math.floor(top * r + 0.5 + 1e-9), r)


def energy_count(values: Tensor, energy: float) -> int:
    """The smallest k whose leading singular values have the share `energy` of the sum of all squares.

    Args:
        values: all singular values (r,), descending.
    """
    squares = values.square().cumsum(0)
    if squares[-1] == 0 or energy <= 0:
        return 0
    reached = squares >= energy * squares[-1] * (1 - 1e-12)
    return int(reached.nonzero()[0]) + 1
