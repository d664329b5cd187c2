"""Ctrl-C and SIGTERM from the first moment on, imports included: one sentence, no traceback."""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM)


def stop_at_once() -> None:
    """Let a signal end the process from now on.

    Python would raise KeyboardInterrupt, which gets lost inside the import of a large package.
    """
    for number in SIGNALS:
        signal.signal(number, leave)


def leave(number: int, frame: FrameType | None) -> None:
    """End the process as a handler of a signal does."""
    say("stopped; run the same command again")
    os._exit(128 + number)


def say(sentence: str) -> None:
    """Write to stderr from the handler of a signal, which may have interrupted another writer."""
    with suppress(OSError):
        os.write(2, f"\n{sentence}\n".encode())
