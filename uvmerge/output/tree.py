"""A folder held by its descriptor: what lies in it is reached by name, and never through a link.

Names are relative to the folder, with `/` between the parts. A link in the place of a file or folder
is refused, so that nothing outside is read, written or removed.
"""

from __future__ import annotations

import ctypes
import errno
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

from ..errors import InputRefused

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
FLUSHED_BYTES = 64 << 20  # flushed at once
_WRITE, _WAIT = 2, 1 | 4  # of sync_file_range: begin writing; wait before it and after it
Advance = Callable[[int], None]  # is called with the number of bytes just done
_FILE = os.O_NOFOLLOW | os.O_NONBLOCK  # a pipe in the place of a file does not stop the run


class Tree:
    """A folder and what lies in it.

    Attributes:
        path: where the folder was when it was opened, for messages.
        descriptor: of the folder.
    """

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path, self.descriptor = path, descriptor

    @classmethod
    def at(cls, path: Path) -> Tree:
        """The folder at `path`, which may be reached through links as any path may."""
        return cls(path, os.open(path, os.O_RDONLY | os.O_DIRECTORY))

    def folder(self, name: str, mode: int = 0o777, *, create: bool = False) -> Tree:
        """The folder with this name directly below; made with `mode` if it is not there."""
        if create:
            with suppress(FileExistsError):
                os.mkdir(name, mode, dir_fd=self.descriptor)
        try:
            return Tree(self.path / name, os.open(name, _FOLDER, dir_fd=self.descriptor))
        except OSError as error:
            raise self._judged(error, name) from None

    @contextmanager
    def opened(self, name: str, flags: int) -> Iterator[int]:
        """A descriptor of a file for one access: one for each shard could exceed the limit."""
        descriptor = self._open(name, flags)
        try:
            yield descriptor
        finally:
            os.close(descriptor)

    @contextmanager
    def created(self, name: str, flags: int) -> Iterator[int]:
        """`opened` for a file that is made if it is not there, with the folders above it.

        Raises:
            InputRefused: in its place is something that is not a file of this folder alone.
        """
        first, _, rest = name.partition("/")
        if rest:
            with self.folder(first, create=True) as below, below.created(rest, flags) as descriptor:
                yield descriptor
            return
        with self.opened(name, flags | os.O_CREAT) as descriptor:
            found = os.fstat(descriptor)
            if not stat.S_ISREG(found.st_mode) or found.st_nlink != 1:
                raise _strange(self.path / name)
            yield descriptor

    def write_whole(self, name: str, content: bytes, *, sync: bool = True) -> None:
        """Write a file so that it is never there in part: beside its place, then renamed.

        Args:
            sync: whether the content has to be on the disk before the file is there under its name,
                so that it outlasts a loss of power.
        """
        beside = f"{name}.new"
        with suppress(FileNotFoundError):
            os.unlink(beside, dir_fd=self.descriptor)
        try:
            with self.opened(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL) as descriptor:
                write_at(descriptor, memoryview(content), 0)
                if sync:
                    os.fsync(descriptor)
            os.replace(beside, name, src_dir_fd=self.descriptor, dst_dir_fd=self.descriptor)
        except OSError:
            with suppress(OSError):
                os.unlink(beside, dir_fd=self.descriptor)
            raise

    @contextmanager
    def reading(self, name: str) -> Iterator[BinaryIO]:
        """A file, open for reading."""
        with (
            self.opened(name, os.O_RDONLY) as descriptor,
            open(descriptor, "rb", closefd=False) as file,
        ):
            yield file

    def read(self, name: str) -> bytes:
        """The content of a file."""
        with self.reading(name) as file:
            return file.read()

    def status(self, name: str) -> os.stat_result | None:
        """The state of what has this name, of a link itself; None where there is nothing."""
        try:
            return os.stat(name, dir_fd=self.descriptor, follow_symlinks=False)
        except FileNotFoundError:
            return None

    def names(self) -> list[str]:
        """Names of what lies directly in the folder, sorted."""
        return sorted(os.listdir(self.descriptor))

    def files(self) -> list[str]:
        """Names of everything below that is not a folder."""
        return [name for name, is_folder in self._walk("") if not is_folder]

    def remove(self, name: str) -> None:
        """Remove what has this name directly below, a folder with all it holds; never through a link."""
        found = self.status(name)
        if found is None:
            return
        if not stat.S_ISDIR(found.st_mode):
            os.unlink(name, dir_fd=self.descriptor)
            return
        with self.folder(name) as below:
            for each in below.names():
                below.remove(each)
        os.rmdir(name, dir_fd=self.descriptor)

    def remove_file(self, name: str) -> None:
        """Remove a file or link anywhere below; the folders above it stay."""
        first, _, rest = name.partition("/")
        if rest:
            with self.folder(first) as below:
                below.remove_file(rest)
        else:
            os.unlink(first, dir_fd=self.descriptor)

    def rename(self, name: str, other: Tree, new: str) -> None:
        """Move what has this name directly below to `new` directly below `other`."""
        os.rename(name, new, src_dir_fd=self.descriptor, dst_dir_fd=other.descriptor)

    def sync(self) -> None:
        """Flush the folder's own entries to the disk."""
        os.fsync(self.descriptor)

    def sync_all(self, advance: Advance) -> None:
        """Flush every file and folder below to the disk, and then the folder.

        Args:
            advance: called with the number of bytes just flushed.
        """
        for name, is_folder in self._walk(""):
            with self.opened(name, os.O_RDONLY | (os.O_DIRECTORY if is_folder else 0)) as found:
                if is_folder:
                    os.fsync(found)
                else:
                    flush(found, advance)
        self.sync()

    def close(self) -> None:
        """Close the descriptor."""
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1

    def __enter__(self) -> Tree:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _walk(self, above: str) -> Iterator[tuple[str, bool]]:
        """Everything below with `above` before its name, and whether it is a folder; folders last."""
        with os.scandir(self.descriptor) as found:
            entries = sorted((each.name, each.is_dir(follow_symlinks=False)) for each in found)
        for name, is_folder in entries:
            if is_folder:
                with self.folder(name) as below:
                    yield from below._walk(f"{above}{name}/")
            yield above + name, is_folder

    def _open(self, name: str, flags: int) -> int:
        first, _, rest = name.partition("/")
        if rest:
            with self.folder(first) as below:
                return below._open(rest, flags)
        try:
            return os.open(name, flags | _FILE, 0o666, dir_fd=self.descriptor)
        except OSError as error:
            raise self._judged(error, name) from None

    def _judged(self, error: OSError, name: str) -> Exception:
        """The refusal of something else in the place of a file or folder; or else the error."""
        if error.errno in (errno.ELOOP, errno.ENOTDIR, errno.EISDIR, errno.ENXIO):
            return _strange(self.path / name)
        return error


def unseen(count_bytes: int) -> None:
    """The `Advance` of a run that nobody watches."""


def flush(descriptor: int, advance: Advance) -> None:
    """Flush a file to the disk; where the system can do so piece by piece, and so tell how far it is."""
    size_bytes = os.fstat(descriptor).st_size
    told = 0
    for start in range(0, size_bytes, FLUSHED_BYTES) if size_bytes > FLUSHED_BYTES else ():
        # While one piece is waited for, the next one is on its way.
        ahead = _flush_range(descriptor, start + FLUSHED_BYTES, _WRITE)
        if not ahead or not _flush_range(descriptor, start, _WAIT | _WRITE):
            break
        count = min(FLUSHED_BYTES, size_bytes - start)
        told += count
        advance(count)
    os.fsync(descriptor)  # what is left: the file's size and place, and the disk's own cache
    advance(size_bytes - told)


def _flush_range(descriptor: int, start: int, flags: int) -> bool:
    """Flush a piece of a file; False where the system or the disk has no such call.

    Raises:
        OSError: the piece cannot be written.
    """
    call = getattr(ctypes.CDLL(None, use_errno=True), "sync_file_range", None)
    if call is None:
        return False
    place = (ctypes.c_int64(start), ctypes.c_int64(FLUSHED_BYTES))
    if call(descriptor, *place, ctypes.c_uint(flags)) == 0:
        return True
    number = ctypes.get_errno()
    if number in (errno.ENOSYS, errno.EINVAL, errno.ESPIPE, errno.EOPNOTSUPP):
        return False
    raise OSError(number, os.strerror(number))


def write_at(descriptor: int, data: memoryview, offset: int) -> None:
    """Write all of `data` at `offset` of a file."""
    while data:
        count = os.pwrite(descriptor, data, offset)
        data, offset = data[count:], offset + count


def _strange(path: Path) -> InputRefused:
    return InputRefused(
        path,
        "is a link, or nothing that uvmerge put there",
        "Look at it, move it away, and run again; uvmerge neither follows nor removes it.",
    )
