"""How a run computes, and how it is watched and stopped."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path

from ..errors import InputRefused


@dataclass(frozen=True)
class Settings:
    """How to compute. Of these settings, only `precision` and the kind of device change the result.

    Attributes:
        devices: `cpu`, or CUDA devices `cuda:N` among which the workers take turns.
        precision: `exact` or `fast`.
        workers: matrices computed at once; 0 means one per core, as memory allows.
        memory_bytes: budget for the working sets of all edits together; 0 means half of the free
            memory.
        factors: folder in which decompositions are kept between runs.
        keeps_whole_factors: whether all vectors are kept there, not only as many as a run needs.
    """

    devices: tuple[str, ...] = ("cpu",)
    precision: str = "exact"
    workers: int = 0
    memory_bytes: int = 0
    factors: Path | None = None
    keeps_whole_factors: bool = False

    @property
    def device(self) -> str:
        """The kind of device: `cpu` or `cuda`."""
        return self.devices[0].partition(":")[0]


class Phases:
    """Seconds spent in each phase, by its name, summed over threads."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._mutex = threading.Lock()

    @contextmanager
    def timed(self, name: str) -> Iterator[None]:
        started = time.perf_counter()
        try:
            yield
        finally:
            with self._mutex:
                spent = time.perf_counter() - started
                self.seconds[name] = self.seconds.get(name, 0.0) + spent

    def add(self, seconds: Mapping[str, float]) -> None:
        """Count what was spent elsewhere."""
        with self._mutex:
            for name, spent in seconds.items():
                self.seconds[name] = self.seconds.get(name, 0.0) + spent


@dataclass
class Control:
    """How a run is watched and stopped.

    Attributes:
        stop: once this event is set, the run ends after the tensors that threads work on.
        signal_number: the signal that set `stop`, for the exit code.
        advance: called from any thread, with a tensor's name and the work done on it.
    """

    stop: threading.Event = field(default_factory=threading.Event)
    signal_number: int = signal.SIGINT
    advance: Callable[[str, float], None] = lambda name, work: None

    def listen(self) -> AbstractContextManager[None]:
        """A context that is entered while the run can be stopped cleanly."""
        return nullcontext()


class NonfiniteRefused(InputRefused):
    """Tensors to edit hold NaN or Inf."""


class NonfiniteOperand(Exception):
    """An edit met NaN or Inf in an operand and was given up; no user sees this exception."""
