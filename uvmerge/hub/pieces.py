"""A file of which only pieces are there: a sparse file of full size, and a journal of its pieces.

A line of the journal is the start and the stop of a piece and the hash of its bytes. A piece of an
earlier process counts as there once its bytes have been read and have this hash, so nothing needs to be
flushed to the disk: what a loss of power or another program took away is fetched again.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import xxhash

from ..checkpoint.source import changed
from ..output.disk import disk_errors
from .spans import Span, merged, without

PIECE_BYTES = 4 << 20  # at most; what a kill loses of each connection


class Pieces:
    """The pieces of one file.

    Args:
        path: of the sparse file, which is made where it is not there.
        journal: the file that names the pieces.
        name: of the file in messages.
    """

    def __init__(self, path: Path, journal: Path, size: int, name: str) -> None:
        self.path, self.journal, self.size, self.name = path, journal, size, name
        self._filled: list[Span] = []
        self._claimed: list[tuple[int, int, str]] = []  # by earlier processes
        self._mutex = threading.Lock()
        with disk_errors(path, path.parent):
            path.parent.mkdir(parents=True, exist_ok=True)
            journal.parent.mkdir(parents=True, exist_ok=True)
            if not path.is_file() or path.stat().st_size != size:
                journal.unlink(missing_ok=True)
                _make_sparse(path, size)
            self._inode = path.stat().st_ino
            if journal.is_file():
                self._claimed = list(_lines(journal.read_text(errors="replace"), size))

    def missing(self, spans: Sequence[Span]) -> list[Span]:
        """What of the spans is not there."""
        wanted = merged(spans)
        with self._mutex:
            left = without(wanted, self._filled)
            if left and self._claimed:
                self._confirm(left)
                left = without(wanted, self._filled)
        return left

    def read_into(self, offset: int, buffer: memoryview) -> None:
        """Fill `buffer` with bytes that are there."""
        with self._opened(os.O_RDONLY) as descriptor:
            done = 0
            while done < len(buffer):
                count = os.preadv(descriptor, [buffer[done:]], offset + done)
                if count == 0:
                    raise changed(self.name, f"it ends at byte {offset + done:,}")
                done += count

    @contextmanager
    def writing(self, start: int) -> Iterator[PieceWriter]:
        """A writer of bytes from `start` on; what was written counts, also after an error."""
        with self._opened(os.O_WRONLY) as descriptor:
            writer = PieceWriter(self, descriptor, start)
            try:
                yield writer
            finally:
                writer.finish()

    def is_in_place(self) -> bool:
        """Whether the file is still the one that was opened."""
        with suppress(OSError):
            found = os.stat(self.path)
            return (found.st_ino, found.st_size) == (self._inode, self.size)
        return False

    def add(self, start: int, stop: int, digest: str) -> None:
        """Note a piece that was written."""
        with self._mutex, self.journal.open("a") as file:
            file.write(f"{start} {stop} {digest}\n")
            self._filled = merged([*self._filled, (start, stop)])

    @contextmanager
    def _opened(self, flags: int) -> Iterator[int]:
        try:
            descriptor = os.open(self.path, flags)
        except FileNotFoundError:
            raise changed(self.name, "its pieces are not there any more") from None
        try:
            found = os.fstat(descriptor)
            if (found.st_ino, found.st_size) != (self._inode, self.size):
                raise changed(self.name, "another file is in the place of its pieces")
            yield descriptor
        finally:
            os.close(descriptor)

    def _confirm(self, wanted: Sequence[Span]) -> None:
        """Read the claimed pieces that overlap `wanted`, and count those with the right bytes."""
        later, found = [], []
        with self._opened(os.O_RDONLY) as descriptor:
            for start, stop, digest in self._claimed:
                if without([(start, stop)], wanted) == [(start, stop)]:
                    later.append((start, stop, digest))
                elif xxhash.xxh3_64_hexdigest(os.pread(descriptor, stop - start, start)) == digest:
                    found.append((start, stop))
        self._claimed = later
        self._filled = merged([*self._filled, *found])


class PieceWriter:
    """Writes one stretch of a file, and notes it in pieces."""

    def __init__(self, pieces: Pieces, descriptor: int, start: int) -> None:
        self._pieces, self._descriptor = pieces, descriptor
        self._start = self.position = start
        self._hasher = xxhash.xxh3_64()

    def write(self, content: bytes) -> None:
        """Write the next bytes."""
        with disk_errors(self._pieces.path, self._pieces.path.parent):
            view = memoryview(content)
            while view:
                count = os.pwrite(self._descriptor, view, self.position)
                self._hasher.update(view[:count])
                self.position += count
                view = view[count:]
        if self.position - self._start >= PIECE_BYTES:
            self.finish()

    def finish(self) -> None:
        """Note what was written since the last piece."""
        if self.position > self._start:
            self._pieces.add(self._start, self.position, self._hasher.hexdigest())
            self._start, self._hasher = self.position, xxhash.xxh3_64()


def _make_sparse(path: Path, size: int) -> None:
    """Make a sparse file at once; one that another process has just made is left as it is."""
    beside = path.with_name(f".{os.getpid()}-{threading.get_ident()}")
    try:
        with beside.open("wb") as file:
            file.truncate(size)
        if path.exists() and path.stat().st_size != size:
            path.unlink()
        with suppress(FileExistsError):
            os.link(beside, path)
    finally:
        beside.unlink(missing_ok=True)


def _lines(text: str, size: int) -> Iterator[tuple[int, int, str]]:
    """The pieces that a journal names; a line that a kill cut short names none."""
    for line in text.splitlines():
        words = line.split(" ")
        if (
            len(words) == 3
            and words[0].isdecimal()
            and words[1].isdecimal()
            and len(words[2]) == 16
        ):
            start, stop = int(words[0]), int(words[1])
            if start < stop <= min(size, start + 2 * PIECE_BYTES):
                yield start, stop, words[2]
