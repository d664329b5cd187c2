"""How a run computes, and how it is watched and stopped."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Settings:
    """How to compute; none of it but `precision` and the kind of device changes the result.

    Attributes:
        device: `cpu`, `cuda` or `cuda:N`.
        precision: `exact` or `fast`.
        workers: matrices computed at once; 0 means one per core, as memory allows.
        memory_bytes: budget for the working sets of all edits together.
    """

    device: str = "cpu"
    precision: str = "exact"
    workers: int = 0
    memory_bytes: int = 0


@dataclass
class Control:
    """How a run is watched and stopped.

    Attributes:
        stop: set it, and the run ends after the tensors in hand.
        signal_number: the signal that set it, for the exit code.
        advance: called with the tensor's name and the work done, from any thread.
    """

    stop: threading.Event = field(default_factory=threading.Event)
    signal_number: int = signal.SIGINT
    advance: Callable[[str, float], None] = lambda name, work: None

    def listen(self) -> AbstractContextManager[None]:
        """Entered while the run can be stopped cleanly."""
        return nullcontext()
