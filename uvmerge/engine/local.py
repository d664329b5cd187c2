"""The local engine: threads that copy and edit, within a memory budget."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import xxhash

from ..checkpoint import Checkpoint
from ..plan import Plan, Range, Step
from ..writer import CHUNK_BYTES, Staging
from .settings import Control, Settings

if TYPE_CHECKING:
    from .compute import Editor

COPY_RUN_BYTES = 64 << 20  # adjacent copies are joined up to this size


@dataclass(frozen=True)
class Job:
    """Steps done in one go: a single edit, or adjacent copies from adjacent bytes."""

    steps: tuple[Step, ...]

    @property
    def file(self) -> str:
        return self.steps[0].file

    @property
    def offset(self) -> int:
        return self.steps[0].offset

    @property
    def size_bytes(self) -> int:
        return sum(step.size_bytes for step in self.steps)

    @property
    def memory_bytes(self) -> int:
        return max(step.matrix_bytes for step in self.steps)

    @property
    def work(self) -> float:
        return sum(step.work for step in self.steps)


def jobs(plan: Plan) -> Iterator[Job]:
    """The plan's steps as jobs, in output order; the grouping depends on the plan alone."""
    group: list[Step] = []
    filled = 0
    for step in plan.steps:
        if step.size_bytes == 0:
            continue
        if group and not (_adjoins(group[-1], step) and filled + step.size_bytes <= COPY_RUN_BYTES):
            yield Job(tuple(group))
            group, filled = [], 0
        group.append(step)
        filled += step.size_bytes
    if group:
        yield Job(tuple(group))


def run(
    plan: Plan,
    checkpoints: Mapping[str, Checkpoint],
    staging: Staging,
    settings: Settings,
    control: Control,
) -> dict[str, Any]:
    """Write every weight file of `plan` into `staging`; returns what was done to each edited tensor.

    Stops early, without an error, when `control.stop` is set.
    """
    for file in plan.files:
        staging.create_file(file.name, file.header, file.size_bytes)
    with ExitStack() as stack:
        editor = None
        if plan.needs_torch:
            from . import compute

            editor = stack.enter_context(compute.editor(plan, checkpoints, settings))
        pending = list(jobs(plan))
        crew = _Crew(_Worker(checkpoints, staging, editor), settings, control)
        crew.work_off(pending)
    records: dict[str, Any] = {}
    for line in staging.journal.values():
        records.update(line.get("record") or {})
    return records


class _Worker:
    """Does one job."""

    def __init__(
        self, checkpoints: Mapping[str, Checkpoint], staging: Staging, editor: Editor | None
    ) -> None:
        self.checkpoints, self.staging, self.editor = checkpoints, staging, editor

    def do(self, job: Job) -> None:
        if self.staging.is_done(job.file, job.offset, job.size_bytes):
            return
        first = job.steps[0]
        record = None
        if first.action == "copy":
            assert first.copy is not None
            digest = self._copy(first.copy, job)
        else:
            assert self.editor is not None
            hasher, offset = xxhash.xxh3_128(), job.offset
            pieces, record = self.editor.produce(first)
            for piece in pieces:
                hasher.update(piece)
                self.staging.write(job.file, offset, piece)
                offset += len(piece)
            digest = hasher.hexdigest()
        self.staging.finish(job.file, job.offset, job.size_bytes, digest, record)

    def _copy(self, source: Range, job: Job) -> str:
        hasher = xxhash.xxh3_128()
        reader = self.checkpoints[source.checkpoint].sources[source.file]
        size = job.size_bytes
        buffer = memoryview(bytearray(min(CHUNK_BYTES, max(size, 1))))
        for start in range(0, size, CHUNK_BYTES):
            chunk = buffer[: min(CHUNK_BYTES, size - start)]
            reader.read_into(source.offset + start, chunk)
            hasher.update(chunk)
            self.staging.write(job.file, job.offset + start, chunk)
        return hasher.hexdigest()


class _Crew:
    """Threads that take jobs in order while the memory budget allows, until done or stopped."""

    def __init__(self, worker: _Worker, settings: Settings, control: Control) -> None:
        self.worker, self.control = worker, control
        self.count = settings.workers or self._useful_threads(settings.device)
        self.budget = settings.memory_bytes or available_memory() // 2
        self.in_use = 0
        self.failed = False
        self.turn = threading.Condition()

    def _useful_threads(self, device: str) -> int:
        """One per core for edits on the CPU; copies alone only get in each other's way."""
        edits_here = self.worker.editor is not None and device == "cpu"
        return os.cpu_count() or 1 if edits_here else 1

    def work_off(self, pending: list[Job]) -> None:
        queue = iter(pending)
        with ThreadPoolExecutor(self.count, thread_name_prefix="uvmerge") as pool:
            tasks = [pool.submit(self._take_turns, queue) for _ in range(self.count)]
            try:
                while wait(tasks, timeout=0.2).not_done:  # wakes up, so that signals are handled
                    pass
            except BaseException:  # KeyboardInterrupt where no handler is installed
                self.control.stop.set()
                raise
        for task in tasks:
            task.result()

    def _take_turns(self, queue: Iterator[Job]) -> None:
        if self.worker.editor is not None:
            self.worker.editor.prepare_thread()
        while (job := self._next(queue)) is not None:
            try:
                self.worker.do(job)
            except BaseException:
                self.failed = True
                raise
            finally:
                with self.turn:
                    self.in_use -= job.memory_bytes
                    self.turn.notify_all()
            self.control.advance(job.steps[-1].tensor, job.work)

    def _next(self, queue: Iterator[Job]) -> Job | None:
        """The next job, once its memory is free; a job larger than the budget runs alone."""
        with self.turn:
            if self.failed or self.control.stop.is_set():
                return None
            job = next(queue, None)
            if job is None:
                return None
            while self.in_use and self.in_use + job.memory_bytes > self.budget:
                self.turn.wait(0.2)
                if self.failed or self.control.stop.is_set():
                    return None
            self.in_use += job.memory_bytes
            return job


def available_memory() -> int:
    """Bytes of memory that are free or reclaimable now."""
    try:
        with open("/proc/meminfo", encoding="ascii") as file:
            fields = dict(line.split(":") for line in file)
        return int(fields["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        return int(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")) // 2


def _adjoins(before: Step, after: Step) -> bool:
    """Whether two copies continue each other in both the input and the output."""
    a, b = before.copy, after.copy
    return (
        a is not None and b is not None
        and before.action == after.action == "copy"
        and (before.file, before.offset + before.size_bytes) == (after.file, after.offset)
        and (a.checkpoint, a.file, a.offset + a.size_bytes) == (b.checkpoint, b.file, b.offset)
    )  # fmt: skip
