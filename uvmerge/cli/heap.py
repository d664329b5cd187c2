"""Thresholds of the C library's heap, for a process that works in pieces of about two megabytes.

By default glibc raises the size from which a block is mapped on its own (M_MMAP_THRESHOLD) to that
of the largest mapped block ever freed. While the threshold is low, every piece is mapped and
faulted in anew, which took a third of the time of `interpolate`; once it is high, whole matrices
are in the heap and leave holes there when they are freed.
"""

from __future__ import annotations

import ctypes

PIECES_BYTES, TRIM_BYTES = 2_200_000, 32 << 20
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8  # malloc.h


def set_thresholds() -> None:
    """Take pieces from one heap for all threads, and give larger blocks back when they are freed.

    Without glibc, nothing happens.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_TRIM_THRESHOLD, TRIM_BYTES)
        mallopt(_M_ARENA_MAX, 1)
        mallopt(_M_MMAP_THRESHOLD, PIECES_BYTES)
