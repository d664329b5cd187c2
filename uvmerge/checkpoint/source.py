"""Where the bytes of one weight file come from, and the state of the file when it was opened.

A file on disk is opened once, and each read names its position, so that a file that is replaced is
never read half old and half new. Its state is taken before its header is read: whatever changes the
file later is seen by comparing the states.
"""

from __future__ import annotations

import errno
import os
import resource
import stat
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple, Protocol

from ..errors import InputRefused, RunFailed
from .bounded import AGAIN

MOST_IDLE = 64  # descriptors that stay open while nothing is read; of those allowed, an eighth
_RESTART = "Wait until the file is final, then run the same command again."


class FileState(NamedTuple):
    """What changes when the content of a file changes, or when another file takes its place."""

    size: int
    mtime_ns: int
    inode: int
    ctime_ns: int

    @classmethod
    def of(cls, path: Path | int) -> FileState:
        """The state of a file by its path, links followed, or by an open descriptor."""
        found = os.stat(path)
        return cls(found.st_size, found.st_mtime_ns, found.st_ino, found.st_ctime_ns)

    def holds(self, path: Path) -> bool:
        """Whether the file at `path` is there and has this state."""
        try:
            return FileState.of(path) == self
        except OSError:
            return False


class Watched:
    """Files of a folder that are read as a whole, each with its state when it was first asked for.

    Args:
        paths: files in the folder that are asked for at once, as far as they are there.
    """

    def __init__(self, paths: Iterable[Path] = ()) -> None:
        self._states: dict[str, tuple[Path, FileState]] = {}
        for path in paths:
            if path.exists():
                self.state(path.name, path)

    def state(self, name: str, path: Path) -> FileState:
        """The state of a file when it was first asked for, which is now unless it was before."""
        if name not in self._states:
            self._states[name] = path, FileState.of(path)
        return self._states[name][1]

    def read(self, name: str, path: Path) -> bytes:
        """The content of a file.

        Raises:
            RunFailed: the file is not what it was when it was first asked for.
        """
        try:
            state = self.state(name, path)
            content = path.read_bytes()
        except OSError as error:
            raise RunFailed(path, f"cannot be read: {error.strerror}") from error
        if not state.holds(path):
            raise changed(path, "another file is in its place, or its content is another")
        return content

    def changed(self) -> list[str]:
        """Names of the files that are no longer what they were when they were first asked for."""
        return [name for name, (path, state) in self._states.items() if not state.holds(path)]


class Source(Protocol):
    """Where the bytes of one weight file come from; `size` counts them.

    `state` is that of the file before anything was read of it. Of a source that `is_remote`, what is
    read first comes over a network.
    """

    name: str
    size: int
    state: FileState

    @property
    def is_remote(self) -> bool: ...

    def prepare(self, spans: Iterable[tuple[int, int]]) -> None:
        """Have spans of the file, from start to stop, at hand for reads that follow."""
        ...

    def read_into(self, offset: int, buffer: memoryview) -> None:
        """Fill `buffer` with the bytes from `offset` on; thread-safe."""
        ...

    def has_changed(self) -> bool:
        """Whether the file is no longer what it was when it was opened."""
        ...

    def close(self) -> None: ...


class LocalFile:
    """A file on disk, read by position through one descriptor (see `_Descriptors`).

    Raises:
        InputRefused: there is no file at `path`, or it cannot be opened.
    """

    is_remote = False

    def __init__(self, path: Path) -> None:
        self.name = f"{path.absolute().parent.name}/{path.name}"
        self.path = path
        if not path.is_file():
            raise InputRefused(self.name, "is not a file", AGAIN)
        try:
            self.descriptor: int | None = _opened(path)
        except OSError as error:
            raise InputRefused(self.name, f"cannot be read: {error.strerror}") from None
        self.users = 0
        self.state = FileState.of(self.descriptor)
        self.size = self.state.size
        _DESCRIPTORS.add(self)

    def prepare(self, spans: Iterable[tuple[int, int]]) -> None:
        """Nothing: a file on disk is at hand."""

    def read_into(self, offset: int, buffer: memoryview) -> None:
        done = 0
        with _DESCRIPTORS.descriptor(self) as descriptor:
            while done < len(buffer):
                try:
                    count = os.preadv(descriptor, [buffer[done:]], offset + done)
                except OSError as error:
                    raise RunFailed(self.path, f"cannot be read: {error.strerror}") from error
                if count == 0:
                    raise changed(self.name, f"it ends at byte {offset + done:,}")
                done += count

    def has_changed(self) -> bool:
        return not self.state.holds(self.path)

    def close(self) -> None:
        _DESCRIPTORS.close(self)

    def reopen(self) -> int:
        """A new descriptor of the file that was opened first.

        Raises:
            RunFailed: the file is not there any more, or another one is in its place.
        """
        try:
            descriptor = _opened(self.path)
        except FileNotFoundError:
            raise changed(self.name, "it is not there any more") from None
        except OSError as error:
            raise RunFailed(self.path, f"cannot be read: {error.strerror}") from error
        if FileState.of(descriptor) != self.state:
            os.close(descriptor)
            raise changed(self.name, "another file is in its place, or its content is another")
        return descriptor


class _Descriptors:
    """The open descriptors of all input files: those being read, and the `MOST_IDLE` read last.

    No number of shards is too many: a descriptor that was closed is opened again for the next read.
    """

    def __init__(self) -> None:
        self._idle: dict[LocalFile, None] = {}  # the one read longest ago first
        self._mutex = threading.Lock()

    def add(self, file: LocalFile) -> None:
        """Take over a file that was opened and is not being read."""
        with self._mutex:
            self._rest(file)

    @contextmanager
    def descriptor(self, file: LocalFile) -> Iterator[int]:
        """The descriptor of `file`, which stays open inside the block."""
        with self._mutex:
            if file.descriptor is None:
                file.descriptor = file.reopen()
            self._idle.pop(file, None)
            file.users += 1
            descriptor = file.descriptor
        try:
            yield descriptor
        finally:
            with self._mutex:
                file.users -= 1
                if not file.users:
                    self._rest(file)

    def close(self, file: LocalFile) -> None:
        """Close the descriptor of a file that is not being read."""
        with self._mutex:
            if file in self._idle:
                self._shut(file)

    def _rest(self, file: LocalFile) -> None:
        self._idle[file] = None
        allowed, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        most = MOST_IDLE if allowed == resource.RLIM_INFINITY else min(MOST_IDLE, allowed // 8)
        while len(self._idle) > most:
            self._shut(next(iter(self._idle)))

    def _shut(self, file: LocalFile) -> None:
        del self._idle[file]
        assert file.descriptor is not None
        os.close(file.descriptor)
        file.descriptor = None


_DESCRIPTORS = _Descriptors()


def _opened(path: Path) -> int:
    """A descriptor of a regular file; opening what is none never waits."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "it is not a file")
    return descriptor


def changed(name: str | Path, how: str) -> RunFailed:
    """The error for an input file that is not, while a run reads it, what it was at the start."""
    return RunFailed(name, f"changed while running: {how}", _RESTART)
