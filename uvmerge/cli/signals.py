"""Ctrl-C and SIGTERM: the first signal stops a run cleanly, the second ends the process at once."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from ..engine.settings import Control

SIGNALS = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def stopping_at_once() -> Iterator[None]:
    """Inside the block a signal ends the process, unless a `SignalControl` listens.

    Python would raise KeyboardInterrupt, which gets lost inside the import of a large package.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, _leave) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _leave(number: int, frame: FrameType | None) -> None:
    print("\nstopped; run the same command again", file=sys.stderr, flush=True)
    os._exit(128 + number)


class SignalControl(Control):
    """A `Control` that Ctrl-C and SIGTERM stop while it listens."""

    @contextmanager
    def listen(self) -> Iterator[None]:
        before = {number: signal.signal(number, self._stop) for number in SIGNALS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _stop(self, number: int, frame: FrameType | None) -> None:
        if self.stop.is_set():
            _leave(number, frame)
        self.signal_number = number
        self.stop.set()
        print(
            "\nstopping after the tensors in hand; again to stop at once",
            file=sys.stderr,
            flush=True,
        )
