"""Ranges of bytes as (start, stop), in lists that are sorted and do not overlap. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

Span = tuple[int, int]


def merged(spans: Iterable[Span], gap: int = 0) -> list[Span]:
    """The spans sorted and joined, also across gaps of up to `gap` bytes."""
    found: list[Span] = []
    for start, stop in sorted(span for span in spans if span[0] < span[1]):
        if found and start <= found[-1][1] + gap:
            found[-1] = found[-1][0], max(found[-1][1], stop)
        else:
            found.append((start, stop))
    return found


def without(spans: Sequence[Span], others: Sequence[Span]) -> list[Span]:
    """What of `spans` lies outside of `others`; both as `merged` returns them."""
    left: list[Span] = []
    rest = iter(others)
    other = next(rest, None)
    for start, stop in spans:
        while other is not None and other[1] <= start:
            other = next(rest, None)
        while other is not None and other[0] < stop:
            if start < other[0]:
                left.append((start, other[0]))
            start = other[1]
            if start >= stop:
                break
            other = next(rest, None)
        if start < stop:
            left.append((start, stop))
    return left


def cut(spans: Iterable[Span], most: int) -> Iterator[Span]:
    """The spans in parts of up to `most` bytes."""
    for start, stop in spans:
        for at in range(start, stop, most):
            yield at, min(at + most, stop)


def total(spans: Iterable[Span]) -> int:
    """Bytes in all spans together."""
    return sum(stop - start for start, stop in spans)
