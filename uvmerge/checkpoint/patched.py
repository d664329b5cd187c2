"""A file some of whose stretches are filled by something else than its own bytes."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from .source import Source


@dataclass(frozen=True)
class Stretch:
    """Bytes of a file that something else fills: `fill(offset in the stretch, buffer)`."""

    start: int
    stop: int
    fill: Callable[[int, memoryview], None]


class PatchedFile:
    """A source some of whose stretches are filled by something else (see `source.Source`).

    Args:
        size: bytes of the file, where the stretches are all of it.
    """

    def __init__(
        self, source: Source, stretches: Sequence[Stretch], *, size: int | None = None
    ) -> None:
        self._source = source
        self.name, self.state = source.name, source.state
        self.size = source.size if size is None else size
        self._stretches = sorted(stretches, key=lambda stretch: stretch.start)
        self._starts = [stretch.start for stretch in self._stretches]

    @property
    def is_remote(self) -> bool:
        return self._source.is_remote

    def prepare(self, spans: Iterable[tuple[int, int]]) -> None:
        self._source.prepare(spans)

    def read_into(self, offset: int, buffer: memoryview) -> None:
        at, stop = offset, offset + len(buffer)
        number = max(bisect_right(self._starts, offset) - 1, 0)
        for stretch in self._stretches[number:]:
            if stretch.start >= stop:
                break
            first, last = max(stretch.start, at), min(stretch.stop, stop)
            if first >= last:
                continue
            self._unchanged(at, first, offset, buffer)
            stretch.fill(first - stretch.start, buffer[first - offset : last - offset])
            at = last
        self._unchanged(at, stop, offset, buffer)

    def _unchanged(self, start: int, stop: int, offset: int, buffer: memoryview) -> None:
        if start < stop:
            self._source.read_into(start, buffer[start - offset : stop - offset])

    def has_changed(self) -> bool:
        return self._source.has_changed()

    def close(self) -> None:
        self._source.close()
