"""A disk that is full or cannot be written: found before a run where possible, told in words else."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from ..errors import InputRefused, RunFailed
from ..text import size


@contextmanager
def disk_errors(where: str | Path, folder: Path, *, resumes: bool = True) -> Iterator[None]:
    """Turn an `OSError` inside the block into `RunFailed`, which says what to do.

    Args:
        where: the file or folder that the message names.
        folder: where the disk is asked for its free space.
        resumes: whether the same command, run again, resumes.
    """
    try:
        yield
    except OSError as error:
        what, first = f"cannot be written: {error.strerror}", "mend the cause"
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            what, first = f"the disk is full ({size(free_bytes(folder))} free)", "make room"
        elif error.errno == errno.EFBIG:
            what, first = "files may not become so large here", "raise the limit (`ulimit -f`)"
        do = f"What is finished is kept: {first} and run the same command again to resume."
        again = f"{first.capitalize()} and run the same command again."
        raise RunFailed(where, what, do if resumes else again) from error


def free_bytes(out: Path) -> int:
    """The free space of the disk that holds a file or folder, or would hold it."""
    there = next(path for path in (out, *out.absolute().parents) if path.is_dir())
    return shutil.disk_usage(there).free


def taken_bytes(paths: Iterable[Path]) -> int:
    """Bytes that files already take of the disk; what is no file, or not there, takes none."""
    return sum(path.stat().st_blocks * 512 for path in paths if path.is_file())


def refuse_full(out: Path, wanted: int, there: int) -> None:
    """Refuse an output for which the disk has no room.

    Args:
        wanted: bytes of the whole output.
        there: bytes of it that an earlier run has written.
    """
    short = wanted - there - free_bytes(out)
    if short > 0:
        raise InputRefused(
            out.parent, f"the output needs {size(wanted)} ({wanted:,} bytes), the disk is"
            f" {short:,} bytes short", "Make room, or choose another disk.",
        )  # fmt: skip
