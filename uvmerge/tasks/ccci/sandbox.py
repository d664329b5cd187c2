"""Where programs that nobody has read are run: walls around them, and limits on what they use.

With `bwrap` a program has a file system of its own that holds Java and its classes, read-only, and a
small `/tmp`; it has no network, no other processes, no environment, and no privilege. Where `bwrap` is
missing or may not make namespaces, `unshare` still takes the network and the sight of others away.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

BWRAP, UNSHARE, NONE = "bwrap", "unshare", "none"
_SCRATCH = "/tmp"  # the one folder that a program can write to
CPU_S, WALL_S = 4, 30.0
MOST_THREADS, MOST_BYTES = 150, 512 << 20
_FILE_BLOCKS = 2048  # of 512 bytes, the most that a file may hold
_TMP_BYTES = 16 << 20
_POLL_S = 0.03
_PASS_BYTES = 4096  # what is read of an output
_LIMITS = f'ulimit -c 0; ulimit -t {CPU_S}; ulimit -f {_FILE_BLOCKS}; exec "$@"'


@dataclass(frozen=True)
class Java:
    """A Java that is installed.

    Attributes:
        home: its folder, without links.
    """

    home: Path

    @property
    def program(self) -> str:
        """The launcher."""
        return str(self.home / "bin" / "java")

    @property
    def folders(self) -> list[Path]:
        """What has to be readable: its own folder, and folders outside that links in it lead to."""
        links = [*(self.home / "conf").glob("**/*"), *(self.home / "lib").glob("*")]
        targets = {path.resolve().parent for path in links if path.is_symlink() and path.exists()}
        folders = [self.home]
        for target in sorted(target for target in targets if target.parts[1:2] == ("etc",)):
            if not target.is_relative_to(folders[-1]):
                folders.append(target)
        return folders


@dataclass(frozen=True)
class Ended:
    """How a program ended.

    Attributes:
        output: the beginning of what it printed.
        stopped: why it was stopped; empty where it ended by itself.
    """

    output: bytes
    stopped: str = ""


def walls(kind: str, java: Java, readable: Sequence[Path]) -> list[str]:
    """The words before a program's own that put it behind walls.

    Args:
        kind: `bwrap`, `unshare` or `none`.
        readable: folders that the program may read, besides Java.
    """
    if kind == NONE:
        return []
    if kind == UNSHARE:
        return [shutil.which(UNSHARE) or UNSHARE, "-rnpf", "--kill-child=KILL"]
    words = [shutil.which(BWRAP) or BWRAP, "--unshare-all", "--unshare-user", "--uid", "65534", "--gid", "65534",
             "--cap-drop", "ALL", "--die-with-parent", "--new-session", "--clearenv",
             "--setenv", "LD_LIBRARY_PATH", f"{java.home / 'lib'}:{java.home / 'lib' / 'server'}"]  # fmt: skip
    words += ["--dev", "/dev", "--size", str(_TMP_BYTES), "--tmpfs", _SCRATCH]
    for folder in map(Path, ("/usr/lib", "/usr/lib64", "/lib", "/lib64")):
        if folder.is_symlink():
            words += ["--symlink", os.readlink(folder), str(folder)]
        elif folder.exists():
            words += ["--ro-bind", str(folder), str(folder)]
    for folder in [*java.folders, *readable]:
        words += ["--ro-bind", str(folder), str(folder)]
    return [*words, "--remount-ro", "/", "--chdir", _SCRATCH]


@lru_cache
def best_walls(java: Java) -> str:
    """`bwrap` or `unshare`, whichever works here first; `none` where neither does."""
    for kind in (BWRAP, UNSHARE):
        if shutil.which(kind) is None:
            continue
        words = [*walls(kind, java, []), java.program, "-Xmx16m", "-version"]
        with suppress(OSError, subprocess.TimeoutExpired):
            quiet = subprocess.DEVNULL
            done = subprocess.run(words, stdin=quiet, stdout=quiet, stderr=quiet, timeout=60)
            if done.returncode == 0:
                return kind
    return NONE


def run(words: Sequence[str], given: bytes, wall_s: float = WALL_S) -> Ended:
    """Run a program inside the limits, and stop it with everything that it started.

    Args:
        given: its standard input.
        wall_s: seconds after which it is stopped.
    """
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen(
            ["/bin/sh", "-c", _LIMITS, "sh", *words], stdin=subprocess.PIPE, stdout=output,
            stderr=subprocess.DEVNULL, start_new_session=True, env={}, cwd="/",
        )  # fmt: skip
        stopped = ""
        try:
            assert process.stdin is not None
            with suppress(BrokenPipeError):
                process.stdin.write(given)
                process.stdin.close()
            stopped = _watched(process, wall_s)
        finally:
            _kill(process)
        output.seek(0)
        return Ended(output.read(_PASS_BYTES), stopped)


def _watched(process: subprocess.Popen[bytes], wall_s: float) -> str:
    """Wait for the end of a process; the reason why it has to be stopped before, or nothing."""
    end = time.monotonic() + wall_s
    # Its number is not given back, so that what it leaves behind can be stopped by it.
    flags = os.WEXITED | os.WNOHANG | os.WNOWAIT
    while os.waitid(os.P_PID, process.pid, flags) is None:
        time.sleep(_POLL_S)
        if time.monotonic() > end:
            return f"ran longer than {wall_s:.0f} s"
        threads, resident = 0, 0
        for pid in [process.pid, *descendants(process.pid)]:
            added = _used(pid)
            threads, resident = threads + added[0], resident + added[1]
        if threads > MOST_THREADS:
            return f"started more than {MOST_THREADS} threads"
        if resident > MOST_BYTES:
            return f"used more than {MOST_BYTES >> 20} MiB"
    return ""


def descendants(pid: int) -> Iterator[int]:
    """The processes that a process started, and those that these started, where the kernel tells."""
    try:
        threads = os.listdir(f"/proc/{pid}/task")
        told = [Path(f"/proc/{pid}/task/{thread}/children").read_text() for thread in threads]
    except OSError:
        return
    for child in " ".join(told).split():
        yield int(child)
        yield from descendants(int(child))


def _used(pid: int) -> tuple[int, int]:
    """Threads and resident bytes of a process; zeros where it is gone."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0, 0
    told = dict(line.split(":", 1) for line in lines if ":" in line)
    return int(told.get("Threads", "0")), int(told.get("VmRSS", "0 kB").split()[0]) << 10


def _kill(process: subprocess.Popen[bytes]) -> None:
    """End a process, its group and what it started."""
    others = list(descendants(process.pid))
    for kill, number in [(os.killpg, process.pid), *((os.kill, pid) for pid in others)]:
        with suppress(ProcessLookupError, PermissionError):
            kill(number, signal.SIGKILL)
    process.wait()
