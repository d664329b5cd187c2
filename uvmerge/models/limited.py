"""Work on a checkpoint's data in a process of its own, with limits of time and memory.

A chat template is a program, and a tokenizer's rules can be made to take time and memory without end,
in compiled code that no signal handler interrupts.
"""

from __future__ import annotations

import faulthandler
import gc
import json
import os
import resource
import signal
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

START_S = 60.0  # before the first limit is set
LIMIT_S, NEXT_S = 3.0, 0.02  # for one task; for each further one, on average
CHARACTERS_S = 20_000  # characters for which a second more is given
MEMORY_BYTES = 2 * 2**30
_OUT_OF_MEMORY = 77  # exit code


class Exceeded(Exception):
    """The work was stopped at a limit, which the message names."""


def answers(work: Callable[[], Iterator[Any]]) -> Iterator[Any]:
    """What `work` yields in a child process, as JSON brings it here.

    The child has neither standard input nor output, and starts with a limit of `START_S`.

    Raises:
        Exceeded: the child was stopped, or broke off.
    """
    reading, writing = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Python's warning of threads
        child = os.fork()
    if not child:
        _work_and_exit(work, writing)
    os.close(writing)
    finished = False
    try:
        with os.fdopen(reading, "rb") as file:
            for line in file:
                if line.endswith(b"\n"):
                    yield json.loads(line)
        finished = True
    finally:
        if not finished:
            os.kill(child, signal.SIGKILL)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if code == -signal.SIGINT:
        raise KeyboardInterrupt
    if code == -signal.SIGALRM:
        raise Exceeded("does not end in time")
    memory = f"needs more than {MEMORY_BYTES // 2**30} GiB of memory"
    if code == _OUT_OF_MEMORY:
        raise Exceeded(memory)
    if code < 0:  # compiled code aborts where memory runs out
        raise Exceeded(f"{memory}, or breaks off ({signal.Signals(-code).name})")
    if code:
        raise Exceeded(f"breaks off (code {code})")


class Clock:
    """Stops this process where a task, or all tasks so far together, take too long."""

    def __init__(self) -> None:
        self.started, self.given_s = time.monotonic(), LIMIT_S

    def allow(self, characters: int) -> float:
        """Set the limit of the next task, and return its seconds.

        Args:
            characters: how long the text is on which the task works.
        """
        longer_s = characters / CHARACTERS_S
        left_s = self.given_s + longer_s - (time.monotonic() - self.started)
        self.given_s += NEXT_S + longer_s
        seconds = min(max(left_s, NEXT_S), LIMIT_S + longer_s)
        stop_after(seconds)
        return seconds


def stop_after(seconds: float) -> None:
    """End this process at once, whatever it does, after so many seconds."""
    signal.setitimer(signal.ITIMER_REAL, seconds)


def limit_memory() -> None:
    """Let this process grow by `MEMORY_BYTES` at most, where the system supports such a limit."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        most = pages * resource.getpagesize() + MEMORY_BYTES
        resource.setrlimit(resource.RLIMIT_AS, (most, most))
    except (OSError, ValueError):
        pass


def _work_and_exit(work: Callable[[], Iterator[Any]], writing: int) -> None:
    """In the child: write what `work` yields, a line each, and end without any clearing up, which would
    be that of the parent's objects."""
    code = 1
    try:
        gc.disable()
        faulthandler.disable()
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGALRM, signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_DFL)
        stop_after(START_S)
        nothing = os.open(os.devnull, os.O_RDWR)
        for descriptor in (0, 1, 2):
            os.dup2(nothing, descriptor)
        with os.fdopen(writing, "wb") as file:
            for answer in work():
                file.write(json.dumps(answer).encode() + b"\n")
                file.flush()
        code = 0
    except MemoryError:
        code = _OUT_OF_MEMORY
    finally:
        os._exit(code)
