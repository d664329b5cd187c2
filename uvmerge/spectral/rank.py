"""From what the user asks for to an integer rank k."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def leading_count(r: int, *, top: float | None = None, rank: int | None = None) -> int:
    """k of r singular triplets: `top` is a fraction of r (nearest integer, halves up), `rank` a
    count, clamped to r."""
    if rank is not None:
        return min(rank, r)
    if top is None:
        raise ValueError("leading_count needs top or rank")
    return min(math.floor(top * r + 0.5 + 1e-9), r)


def energy_count(values: Tensor, energy: float) -> int:
    """The smallest k whose leading singular values have this share of the sum of all squares.

    Args:
        values: all of them (r,), descending.
    """
    squares = values.square().cumsum(0)
    if squares[-1] == 0 or energy <= 0:
        return 0
    reached = squares >= energy * squares[-1] * (1 - 1e-12)
    return int(reached.nonzero()[0]) + 1
