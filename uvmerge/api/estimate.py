"""What a plan will take on this machine, and on several like it."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..checkpoint.folder import Checkpoint
from ..engine import shares
from ..engine.local import Job, jobs
from ..engine.settings import Settings
from ..output.places import nearest_folder
from ..plan.steps import Plan
from ..text import duration, size, table

PROBE_BYTES = 64 << 20  # written and read to measure the disk
WORKERS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)


@dataclass(frozen=True)
class Estimate:
    """What plans on the same inputs will take.

    Attributes:
        bytes_in, bytes_out: read from all inputs (once for all plans), and written.
        multiply_adds: of all edits.
        memory_bytes: of one worker: the working set of the largest edit.
        seconds: of one worker on this machine, by phase: `read`, `edit`, `write`, `verify`.
        by_workers: by the number of workers, the seconds of the slowest, if each had a disk and a
            processor like this machine's.
        job_seconds: of each job's edit, in the order of `engine.local.jobs`.
    """

    bytes_in: int
    bytes_out: int
    multiply_adds: float
    memory_bytes: int
    seconds: Mapping[str, float]
    by_workers: Mapping[int, float]
    job_seconds: Sequence[float]

    def as_data(self) -> dict[str, Any]:
        """The estimate as JSON-able data."""
        return {
            "bytes_in": self.bytes_in, "bytes_out": self.bytes_out,
            "multiply_adds": float(f"{self.multiply_adds:.4g}"),
            "memory_bytes_per_worker": self.memory_bytes,
            "seconds": {name: round(spent, 2) for name, spent in self.seconds.items()},
            "seconds_by_workers": {str(n): round(spent, 2) for n, spent in self.by_workers.items()},
        }  # fmt: skip

    def __str__(self) -> str:
        """The estimate as a table."""
        phases = ", ".join(f"{name} {duration(spent)}" for name, spent in self.seconds.items())
        lines = [
            f"reads {size(self.bytes_in)}, writes {size(self.bytes_out)},"
            f" {self.multiply_adds:.3g} multiply-adds",
            f"about {size(self.memory_bytes)} of memory for each worker",
            f"one worker of this machine: {phases}",
        ]
        rows = [(f"{n:,}", duration(spent)) for n, spent in self.by_workers.items()]
        return "\n".join([*lines, table(("workers", "time"), rows, right="workers")])


def estimate(
    plans: Sequence[Plan], checkpoints: Mapping[str, Checkpoint], settings: Settings, out: Path
) -> Estimate:
    """Time a short calibration on this machine, and count what the plans do.

    Args:
        out: the disk is measured in the nearest folder above it that is there.
    """
    from ..engine import calibration  # imports torch

    pending = jobs(plans)
    edits = calibration.seconds_of(plans, pending, settings)
    writing, reading = disk_rates(nearest_folder(out))
    coming = input_rate(checkpoints) or reading
    bytes_out = sum(plan.bytes_out for plan in plans)
    read = [_bytes_in(job) for job in pending]
    costs = [
        edit + taken / coming + job.size_bytes / writing
        for edit, taken, job in zip(edits, read, pending)
    ]
    bytes_in, verified = sum(read), bytes_out / reading
    return Estimate(
        bytes_in, bytes_out,
        sum(calibration.multiply_adds(step) for plan in plans for step in plan.edits),
        max((plan.working_set_bytes for plan in plans), default=0),
        {
            "read": bytes_in / coming, "edit": sum(edits),
            "write": bytes_out / writing, "verify": verified,
        },
        {n: _slowest(pending, costs, n) + verified for n in WORKERS if n <= max(1, len(pending))},
        edits,
    )  # fmt: skip


def _bytes_in(job: Job) -> int:
    """Bytes that a job reads: every input of an edit, once for all plans."""
    first = job.steps[0]
    return first.inputs * first.size_bytes if job.action == "edit" else job.size_bytes


def _slowest(pending: Sequence[Job], costs: Sequence[float], count: int) -> float:
    """Seconds of the rank that has most to do, of `count` ranks."""
    return max(sum(costs[job] for job in share) for share in shares.shares(pending, count, costs))


def disk_rates(folder: Path) -> tuple[float, float]:
    """Bytes per second that are written and flushed, and read back, in a folder."""
    content = os.urandom(1 << 20)
    with tempfile.TemporaryFile(dir=folder) as file:

        def write() -> None:
            for _ in range(PROBE_BYTES >> 20):
                file.write(content)
            file.flush()
            os.fsync(file.fileno())

        def read() -> None:
            file.seek(0)
            while file.read(1 << 20):
                pass

        return PROBE_BYTES / _taken(write), PROBE_BYTES / _taken(read)


def input_rate(checkpoints: Mapping[str, Checkpoint]) -> float | None:
    """Bytes per second that are read from the largest file of the inputs; None where it is small."""
    files = [
        (source.size, source) for each in checkpoints.values() for source in each.sources.values()
    ]
    length, source = max(files, key=lambda each: each[0])
    if length < PROBE_BYTES or source.is_remote:
        return None
    buffer = memoryview(bytearray(1 << 20))
    start = (length - PROBE_BYTES) // 2

    def read() -> None:
        for at in range(start, start + PROBE_BYTES, len(buffer)):
            source.read_into(at, buffer)

    return PROBE_BYTES / _taken(read)


def _taken(call: Callable[[], None]) -> float:
    start = time.perf_counter()
    call()
    return max(time.perf_counter() - start, 1e-6)
