"""From what the user asks for to an integer rank k."""

from __future__ import annotations

import math


def leading_count(r: int, *, top: float | None = None, rank: int | None = None) -> int:
    """k of r singular triplets: `top` is a fraction of r (nearest integer, halves up), `rank` a
    count, clamped to r."""
    if rank is not None:
        return min(rank, r)
    if top is None:
        raise ValueError("leading_count needs top or rank")
    return min(math.floor(top * r + 0.5 + 1e-9), r)
