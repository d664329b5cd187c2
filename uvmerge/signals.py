"""Ctrl-C and SIGTERM for the command line: the first stops cleanly, the second at once."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from .engine.settings import Control

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class SignalControl(Control):
    """A `Control` that signals stop while it listens."""

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
            os._exit(128 + number)
        self.signal_number = number
        self.stop.set()
        print(
            "\nstopping after the tensors in hand; again to stop at once",
            file=sys.stderr,
            flush=True,
        )
