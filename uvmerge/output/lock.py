"""One run per output: a lock file that names its owner, which works on network file systems too.

The owner is a process: host, boot, process namespace, number and start time. A lock whose owner is
gone (killed, a zombie, or from before a reboot) is taken over. An owner on another host or in
another container cannot be looked at: its lock is refused, with a message that names it. The lock
is written beside its place and linked into it, so that it is never empty.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import re
import secrets
import socket
import stat
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import xxhash

from ..errors import InputRefused, Locked
from .tree import Tree, write_at

_LARGEST_BYTES = 4096  # of a lock file
_FIRST_NAMESPACE = "pid:[4026531836]"  # of every Linux machine, outside of containers
_NO_LINKS = (errno.EPERM, errno.ENOSYS, errno.EOPNOTSUPP, errno.EXDEV, errno.EMLINK)
_JUST_TAKEN = "another run has just taken this output"


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock file `path` inside the block.

    Raises:
        Locked: another process holds the lock; the message names it.
        InputRefused: something that is not a file is in its place.
    """
    content = json.dumps(owner()).encode()
    with Tree.at(path.parent) as parent:
        _take(parent, path, content)
        try:
            _remove_unfinished(parent, path)
            yield
        finally:
            if _content(parent, path) == content:
                os.unlink(path.name, dir_fd=parent.descriptor)


def lock_of(out: Path) -> Path:
    """Where the lock of OUT lies."""
    return out.with_name(f"{out.name}.uvmerge-lock")


def refuse_held(path: Path) -> None:
    """Refuse as `locked` would, without taking the lock: before work that would be in vain."""
    with Tree.at(path.parent) as parent:
        _refuse_no_file(parent, path)
        content = _content(parent, path)
        if content is not None:
            _refuse_alive(path, content)


def owner(pid: int | None = None) -> dict[str, Any]:
    """What identifies a process of this host, this one by default, also after its number has been given
    to another one."""
    pid = os.getpid() if pid is None else pid
    return {
        "host": socket.gethostname(), "boot": _boot(), "pid_namespace": _namespace(),
        "pid": pid, "started": _started(pid),
    }  # fmt: skip


def is_elsewhere(found: Mapping[str, Any]) -> bool:
    """Whether an owner lives where its process cannot be seen: another host or container."""
    if found["host"] != socket.gethostname():
        return True
    here = _namespace()
    if found.get("pid_namespace", here) != here:
        return True
    return _is_of_another_boot(found) and here not in (None, _FIRST_NAMESPACE)


def is_gone(found: Mapping[str, Any]) -> bool:
    """Whether the process of an owner that does not live elsewhere has ended."""
    if _is_of_another_boot(found):
        return True
    before, now = found.get("started"), _started(found["pid"])
    return now == "gone" or (before is not None and now is not None and before != now)


def _is_of_another_boot(found: Mapping[str, Any]) -> bool:
    before, now = found.get("boot"), _boot()
    return before is not None and now is not None and before != now


def signature() -> str:
    """What identifies this process, for the name of a file that it has not finished."""
    me = owner()
    return f"{_place(me)}-{me['pid']}-{me['started']}"


def is_abandoned(name: str) -> bool:
    """Whether `name` is the signature of a process of this host and container that has ended."""
    parts = name.split("-")
    if len(parts) != 3 or parts[0] != _place(owner()) or not parts[1].isdecimal():
        return False
    pid, started = int(parts[1]), parts[2] if parts[2].isdecimal() else None
    return 0 < pid < 2**31 and is_gone({"pid": pid, "started": started})


def _place(found: Mapping[str, Any]) -> str:
    return xxhash.xxh3_64_hexdigest(f"{found['host']} {found['pid_namespace']}".encode())


def _take(parent: Tree, path: Path, content: bytes) -> None:
    """Make the lock, in the place of a stale one if there is one."""
    beside = f"{path.name}.{secrets.token_hex(4)}"
    try:
        with parent.opened(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL) as descriptor:
            write_at(descriptor, memoryview(content), 0)
        for _ in range(10):  # the lock may come and go in between
            if _linked(parent, beside, path.name, content) or _taken_over(parent, beside, path):
                return
            time.sleep(0.01)
        raise Locked(path, _JUST_TAKEN)
    except FileNotFoundError:  # the owner has removed what was written beside
        raise Locked(path, _JUST_TAKEN) from None
    finally:
        parent.remove(beside)


def _linked(parent: Tree, beside: str, name: str, content: bytes) -> bool:
    """Whether the lock could be put into its place, where nothing was."""
    places = {"src_dir_fd": parent.descriptor, "dst_dir_fd": parent.descriptor}
    try:
        os.link(beside, name, **places, follow_symlinks=False)
        return True
    except FileExistsError:
        return False
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
    try:  # without hard links, the lock is empty for a moment
        with parent.opened(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL) as descriptor:
            write_at(descriptor, memoryview(content), 0)
    except FileExistsError:
        return False
    return True


def _taken_over(parent: Tree, beside: str, path: Path) -> bool:
    """Whether a stale lock was replaced; False where the lock has gone or changed meanwhile.

    Several runs may find one lock stale. The one that holds `flock` on it replaces it, the others
    then see another file under its name. All of them are on this host, so `flock` can be trusted.
    """
    _refuse_no_file(parent, path)
    try:
        with parent.opened(path.name, os.O_RDONLY) as descriptor:
            if not _may_replace(descriptor):
                return False
            now = parent.status(path.name)
            if now is None or now.st_ino != os.fstat(descriptor).st_ino:
                return False
            _refuse_alive(path, os.pread(descriptor, _LARGEST_BYTES, 0))
            parent.rename(beside, parent, path.name)
            return True
    except FileNotFoundError:
        return False


def _refuse_no_file(parent: Tree, path: Path) -> None:
    found = parent.status(path.name)
    if found is not None and not stat.S_ISREG(found.st_mode):
        raise InputRefused(
            path, "is in the place of the lock file, and no file", "Move it away and run again."
        )


def _may_replace(descriptor: int) -> bool:
    """Whether no other run is about to replace the lock."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # the file system has no such locks
        pass
    return True


def _refuse_alive(path: Path, content: bytes) -> None:
    """Raise `Locked` if the owner that a lock names may be alive."""
    found = _parsed(content)
    if found is None:
        raise Locked(
            path,
            "is a lock file that names no owner",
            "If no run is writing there, delete the file.",
        )
    pid, host = found["pid"], found["host"]
    if is_elsewhere(found):
        container = ", in another container," if host == socket.gethostname() else ""
        raise Locked(
            path,
            f"process {pid} on host {host}{container} is writing to this output",
            "If that run is gone, delete the lock file and run again.",
        )
    if not is_gone(found):
        raise Locked(path, f"process {pid} on this host is writing to this output", "Wait for it.")


def _parsed(content: bytes) -> dict[str, Any] | None:
    """The owner that a lock file names; None where it names none."""
    try:
        found = json.loads(content)
        host, pid = found["host"], found["pid"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    if type(pid) is not int or not 0 < pid < 2**31 or not isinstance(host, str):
        return None
    return found


def _content(parent: Tree, path: Path) -> bytes | None:
    try:
        with parent.opened(path.name, os.O_RDONLY) as descriptor:
            return os.pread(descriptor, _LARGEST_BYTES, 0)
    except (OSError, InputRefused):
        return None


def _remove_unfinished(parent: Tree, path: Path) -> None:
    """Remove what killed runs wrote beside the lock and did not link; only its owner may."""
    pattern = re.compile(re.escape(path.name) + r"\.[0-9a-f]{8}")
    for name in filter(pattern.fullmatch, parent.names()):
        content = _content(parent, path.with_name(name))
        if content is not None and (not content or _parsed(content) is not None):
            parent.remove(name)


def _boot() -> str | None:
    """What identifies the time since the machine was started; None where unknown."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return None


def _namespace() -> str | None:
    """What identifies the processes that this one can see; None where unknown."""
    try:
        return os.readlink("/proc/self/ns/pid")
    except OSError:
        return None


def _started(pid: int) -> str | None:
    """When a process started, in clock ticks since boot; `gone` if it is not alive, None if unknown."""
    with suppress(OSError, IndexError):
        if os.readlink("/proc/self") == str(os.getpid()):  # /proc shows this namespace
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            return "gone" if fields[0] in "ZXx" else fields[19]
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return "gone"
    except PermissionError:
        pass
    return None
