"""Jobs of a plan, or tasks of a comparison, put together so that handing one out costs little beside doing it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

ENOUGH = 2e4  # effort, in the units of `Step.work`, beside which handing out is nothing: some 0.5 s
TURNS = 8  # batches for each worker, so that all workers end at about the same time
PROCESS_BYTES = 512 << 20  # a Python process with torch
MOST_JOBS = 500  # of a batch: what it returns stays small


class Item(Protocol):
    """A job of a plan, or a task of a comparison.

    Attributes:
        name: of its tensor.
        work: effort, in the units of `Step.work`.
        memory_bytes: its working set.
        place: whether it computes, what it belongs to, and where it is there.
    """

    @property
    def name(self) -> str: ...
    @property
    def work(self) -> float: ...
    @property
    def memory_bytes(self) -> int: ...
    @property
    def place(self) -> tuple[Any, ...]: ...


@dataclass(frozen=True)
class Batch:
    """Jobs that one worker does, one after the other.

    Attributes:
        numbers: of the jobs.
        cost: effort of all of them, in the units of `Step.work`.
        memory_bytes: what the worker needs, itself included, rounded up to three binary digits, so that
            most batches ask for the same.
        computes: whether its jobs compute.
    """

    numbers: tuple[int, ...]
    cost: float
    memory_bytes: int
    computes: bool


def batches(pending: Sequence[Item], workers: int, most_bytes: int = 0) -> list[Batch]:
    """Every job once, the costliest batch first; small neighbours of one kind are together.

    Args:
        workers: the number of workers there are.
        most_bytes: what a batch says it needs at most; 0 for no limit.
    """
    total = sum(item.work for item in pending)
    enough = min(ENOUGH, total / (TURNS * max(workers, 1)))
    order = sorted(range(len(pending)), key=lambda i: pending[i].place)
    found: list[list[int]] = []
    filled, before = 0.0, None
    for number in order:
        item = pending[number]
        kind = item.place[:2]
        full = filled + item.work > enough or kind != before or len(found[-1]) == MOST_JOBS
        if full:
            found.append([])
            filled = 0.0
        found[-1].append(number)
        filled, before = filled + item.work, kind
    made = [_batch([(n, pending[n]) for n in numbers], most_bytes) for numbers in found]
    return sorted(made, key=lambda batch: (-batch.cost, batch.numbers))


def _batch(several: Sequence[tuple[int, Item]], most_bytes: int) -> Batch:
    needed = PROCESS_BYTES + max(item.memory_bytes for _, item in several)
    unit = 1 << (needed.bit_length() - 3)
    declared = -(-needed // unit) * unit
    return Batch(
        tuple(number for number, _ in several),
        sum(item.work for _, item in several),
        min(declared, most_bytes) if most_bytes else declared,
        several[0][1].place[0],
    )
