"""Jobs of a plan, put together so that handing one out costs little beside doing it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .local import Job
from .shares import cost

ENOUGH = 2e4  # effort, in the units of `Step.work`, beside which handing out is nothing: some 0.5 s
TURNS = 8  # batches for each worker, so that all workers end at about the same time
PROCESS_BYTES = 512 << 20  # a Python process with torch
MOST_JOBS = 500  # of a batch: what it returns stays small


@dataclass(frozen=True)
class Batch:
    """Jobs that one worker does, one after the other.

    Attributes:
        numbers: of the jobs.
        cost: effort of all of them, in the units of `Step.work`.
        memory_bytes: what the worker needs, itself included, rounded up to three binary digits, so that
            most batches ask for the same.
        computes: whether one of the jobs is an edit.
    """

    numbers: tuple[int, ...]
    cost: float
    memory_bytes: int
    computes: bool


def batches(pending: Sequence[Job], workers: int, most_bytes: int = 0) -> list[Batch]:
    """Every job once, the costliest batch first; small jobs of one file and kind are together.

    Args:
        workers: the number of workers there are.
        most_bytes: what a batch says it needs at most; 0 for no limit.
    """
    total = sum(map(cost, pending))
    enough = min(ENOUGH, total / (TURNS * max(workers, 1)))
    order = sorted(range(len(pending)), key=lambda i: _neighbours(pending[i]))
    found: list[list[int]] = []
    filled, before = 0.0, None
    for number in order:
        job = pending[number]
        kind = _neighbours(job)[:2]
        full = filled + cost(job) > enough or kind != before or len(found[-1]) == MOST_JOBS
        if full:
            found.append([])
            filled = 0.0
        found[-1].append(number)
        filled, before = filled + cost(job), kind
    made = [_batch([(n, pending[n]) for n in numbers], most_bytes) for numbers in found]
    return sorted(made, key=lambda batch: (-batch.cost, batch.numbers))


def _neighbours(job: Job) -> tuple[bool, int, str, int]:
    first = job.steps[0]
    return job.action == "edit", job.plans[0], first.file, first.offset


def _batch(several: Sequence[tuple[int, Job]], most_bytes: int) -> Batch:
    needed = PROCESS_BYTES + max(job.memory_bytes for _, job in several)
    unit = 1 << (needed.bit_length() - 3)
    declared = -(-needed // unit) * unit
    return Batch(
        tuple(number for number, _ in several),
        sum(cost(job) for _, job in several),
        min(declared, most_bytes) if most_bytes else declared,
        several[0][1].action == "edit",
    )
