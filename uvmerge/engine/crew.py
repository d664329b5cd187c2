"""Threads that do tasks within a memory budget."""

from __future__ import annotations

import os
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from itertools import chain
from typing import Any, Protocol

from ..errors import InputRefused, RunFailed, listed
from ..text import size
from .settings import Control, Settings

SMALL_BYTES = 1 << 14  # a task up to this size is more Python than arithmetic


class Task(Protocol):
    """What one thread does in one go.

    Attributes:
        name: of the tensor, for the progress bar.
        work: effort, in the units of `Step.work`.
        memory_bytes: its working set; 0 for a task that only moves bytes.
        size_bytes: bytes that the task writes or, if it writes nothing, reads.
    """

    @property
    def name(self) -> str: ...
    @property
    def work(self) -> float: ...
    @property
    def memory_bytes(self) -> int: ...
    @property
    def size_bytes(self) -> int: ...


def refuse_too_large(tasks: Sequence[Task], settings: Settings) -> None:
    """Refuse work whose largest task does not fit in memory, before anything is read for it.

    On the CPU a task has its working set there; on a GPU, at least what it reads and its result.

    Raises:
        InputRefused: names the task, with what it needs and what there is.
    """
    there = max(available_memory(), settings.memory_bytes)
    on_cpu = settings.device == "cpu"
    needed = {
        task.name: task.memory_bytes if on_cpu else min(task.memory_bytes, 2 * task.size_bytes)
        for task in tasks
    }
    largest = max(needed, key=lambda name: needed[name], default="")
    if largest and needed[largest] > there:
        raise InputRefused(
            largest,
            f"needs about {size(needed[largest])} of memory, {size(there)} are available",
            "Leave it out with --exclude, or use a larger machine; a --memory that holds it goes on"
            " all the same.",
        )


class Crew:
    """Threads that take tasks while the memory budget allows, until all are done or the run stops.

    One thread does the tasks that only move bytes; it reads and writes while the others compute. The
    others take the tasks with the most work first, so that all threads end at about the same time.
    Small tasks are left to one of them, because two threads would only wait for each other's Python.

    Args:
        do: does one task.
        prepare: called once in each thread that computes.
        settings: number of workers, and their memory budget.
        control: is told what is done, and stops the crew.
    """

    def __init__(
        self,
        do: Callable[[Any], None],
        prepare: Callable[[], None] | None,
        settings: Settings,
        control: Control,
    ) -> None:
        self.do, self.prepare, self.control = do, prepare, control
        self.count = settings.workers or self._useful_threads(settings)
        self.budget = settings.memory_bytes or available_memory() // 2
        self.in_use = 0
        self.failed = False
        self.done: Counter[int] = Counter()  # how often each task was done, by its identity
        self.turn = threading.Condition()

    def _useful_threads(self, settings: Settings) -> int:
        """One per core; two per GPU, so that one reads and writes while the other computes."""
        if settings.device == "cpu":
            return os.cpu_count() or 1
        return 2 * len(settings.devices)

    def work_off(self, moving: Sequence[Task], computing: Sequence[Task]) -> None:
        """Do every task once; what a task raises is raised here, when the other threads have ended.

        Raises:
            RunFailed: a task was left out or done twice, although nothing failed or stopped the run.
        """
        large, small = large_and_small(computing)
        shared = iter(large)
        queues = [shared] * (min(self.count, len(large)) - 1)
        if computing:
            queues.append(chain(shared, small))
        with ThreadPoolExecutor(1 + len(queues), thread_name_prefix="uvmerge") as pool:
            running = [pool.submit(self._take_turns, iter(moving))]
            running += [pool.submit(self._compute, queue) for queue in queues]
            try:
                while wait(running, timeout=0.2).not_done:  # signals are handled in between
                    pass
            except BaseException:  # KeyboardInterrupt where no handler is installed
                self.control.stop.set()
                raise
        for future in running:
            future.result()
        if not self.control.stop.is_set():
            self._refuse_gaps([*moving, *computing])

    def _refuse_gaps(self, tasks: Sequence[Task]) -> None:
        wrong = [task.name for task in tasks if self.done[id(task)] != 1]
        if wrong or self.done.total() != len(tasks):
            raise RunFailed(
                "engine",
                f"did not do every task once: {listed(wrong, 'task')}",
                "This is a mistake in uvmerge: please report it. Nothing was published.",
            )

    def _compute(self, queue: Iterator[Task]) -> None:
        if self.prepare is not None:
            self.prepare()
        self._take_turns(queue)

    def _take_turns(self, queue: Iterator[Task]) -> None:
        while (task := self._next(queue)) is not None:
            try:
                self.do(task)
            except BaseException:
                self.failed = True
                raise
            finally:
                with self.turn:
                    self.in_use -= task.memory_bytes
                    self.turn.notify_all()
            with self.turn:
                self.done[id(task)] += 1
            self.control.advance(task.name, task.work)

    def _next(self, queue: Iterator[Task]) -> Task | None:
        """The next task, once there is memory for it; a task larger than the budget runs alone."""
        with self.turn:
            if self.failed or self.control.stop.is_set():
                return None
            task = next(queue, None)
            if task is None:
                return None
            needed = task.memory_bytes
            while needed and self.in_use and self.in_use + needed > self.budget:
                self.turn.wait(0.2)
                if self.failed or self.control.stop.is_set():
                    return None
            self.in_use += needed
            return task


def large_and_small(tasks: Sequence[Task]) -> tuple[list[Task], list[Task]]:
    """(large, small) tasks, each list with the most work first: together every task, once."""
    ordered = sorted(tasks, key=lambda task: -task.work)
    large = [task for task in ordered if task.size_bytes > SMALL_BYTES]
    small = [task for task in ordered if task.size_bytes <= SMALL_BYTES]
    return large, small


def available_memory() -> int:
    """Bytes of memory that are free or reclaimable now."""
    try:
        with open("/proc/meminfo", encoding="ascii") as file:
            fields = dict(line.split(":") for line in file)
        return int(fields["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        return int(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")) // 2
