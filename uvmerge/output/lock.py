"""One run per output: a lock file made with O_EXCL, which works on network file systems too.

The lock file names its owner: host, process and start time of the process. On the same host, a lock
that a killed run left behind is therefore recognised and taken over. A lock of another host is
refused, with a message that names the owner.
"""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..errors import Locked


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock file `path` inside the block.

    Raises:
        Locked: another process holds the lock; the message names it.
    """
    content = json.dumps(_owner(os.getpid()))
    if not _create(path, content):
        _remove_if_stale(path)
        if not _create(path, content):
            raise Locked(path, "another run has just taken this output")
    try:
        yield
    finally:
        path.unlink(missing_ok=True)


def _create(path: Path, content: str) -> bool:
    try:
        descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666)
    except FileExistsError:
        return False
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(content)
    except OSError:
        path.unlink()
        raise
    return True


def _remove_if_stale(path: Path) -> None:
    """Remove the lock if the process that made it is gone; raise `Locked` if that may be alive."""
    try:
        content = path.read_text()
        owner = json.loads(content)
        host, pid = owner["host"], owner["pid"]
        if type(pid) is not int or not 0 < pid < 2**31 or not isinstance(host, str):
            raise ValueError("no owner")
    except FileNotFoundError:
        return
    except OSError as error:
        raise Locked(path, f"stands in the place of the lock file: {error.strerror}") from None
    except (ValueError, KeyError, TypeError):
        raise Locked(
            path,
            "is a lock file that names no owner",
            "If no run is writing there, delete the file.",
        ) from None
    if host != socket.gethostname():
        raise Locked(
            path,
            f"process {pid} on host {host} is writing to this output",
            "If that run is gone, delete the lock file and run again.",
        )
    if _owner(pid) == owner:
        raise Locked(path, f"process {pid} on this host is writing to this output", "Wait for it.")
    # Two runs may both have found the lock stale, and the other one may have made a new lock since:
    # so move the file away first, and look at what was moved.
    aside = path.with_name(f"{path.name}.{os.getpid()}")
    try:
        os.rename(path, aside)
    except FileNotFoundError:
        return
    if aside.read_text() != content:
        os.rename(aside, path)
        raise Locked(path, "another run has just taken this output")
    aside.unlink()


def _owner(pid: int) -> dict[str, object]:
    """What identifies a process; the start time is part of it, because process ids are reused."""
    return {"host": socket.gethostname(), "pid": pid, "started": _started(pid)}


def _started(pid: int) -> str | None:
    """When a process started, in clock ticks since boot; `gone` if it is not alive, None if unknown."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
        return stat.rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        pass
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return "gone"
    except PermissionError:
        pass
    return None
