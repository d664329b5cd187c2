"""Ctrl-C and SIGTERM: the first signal stops a run cleanly, the second ends the process at once."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from ..engine.settings import Control
from .stopping import SIGNALS, leave, say, stop_at_once


@contextmanager
def stopping_at_once() -> Iterator[None]:
    """Inside the block a signal ends the process, unless a `SignalControl` listens."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in SIGNALS}
    stop_at_once()
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


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
            leave(number, frame)
        self.signal_number = number
        self.stop.set()
        say("stopping after the tensors in hand; again to stop at once")
