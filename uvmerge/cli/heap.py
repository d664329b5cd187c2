"""How the C library's heap is set for a process that works in pieces of about two megabytes.

By default glibc raises its threshold for memory of its own (mmap) to the largest block ever freed. Then
either every piece is mapped and faulted in anew, which took a third of the time of `interpolate`, or
whole matrices end up in the heap and leave holes there.
"""

from __future__ import annotations

import ctypes

PIECES_BYTES, TRIM_BYTES = 2_200_000, 32 << 20
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8  # malloc.h


def set_thresholds() -> None:
    """Pieces come from one heap for all threads, larger blocks are given back when they are freed.
    Without glibc, nothing happens."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_TRIM_THRESHOLD, TRIM_BYTES)
        mallopt(_M_ARENA_MAX, 1)
        mallopt(_M_MMAP_THRESHOLD, PIECES_BYTES)
