"""How long the edits of plans take on this machine: one edit of each kind is timed in a small size.

An edit of a matrix with a shorter side beyond `SIDE` is timed on two smaller ones of the same proportions,
of noise, and scaled up by its multiply-adds. Of these, half of the reduction to tridiagonal form are
products of a matrix with a vector, which run at the speed of the memory: their rate is measured by size.
What makes a large part of the whole is timed in its own size, where that takes seconds: other processes
slow a large matrix down by more than a small one, through the caches and the memory that all share.
"""

from __future__ import annotations

import math
import time
import zlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, cast

import torch

from ..checkpoint.anatomy import View
from ..checkpoint.folder import Checkpoint, Tensor
from ..checkpoint.roles import BASE
from ..plan.steps import Block, Plan, Step
from ..spectral.precision import single_threaded
from .compute import Editor, editor
from .local import Job
from .reading import TORCH_DTYPES, as_bytes, converted
from .settings import Settings

SIDE = 1024  # longest shorter side of a matrix that is timed
ELEMENTS = 1 << 21  # of a tensor that is timed and is no matrix
MATRIX_ELEMENTS = 1 << 24  # of a matrix that is timed
# A kind of edits that makes such a part of the whole is timed in its own size, if one of them is estimated at
# so many seconds, and has so many elements, at most.
LARGE_PART, LONGEST_S, WHOLE_ELEMENTS = 0.1, 10.0, 1 << 26
NOISE = 0.01  # standard deviation by which the other checkpoints differ from the base, which has 1
PRODUCT_SIDE = 1024  # of the product whose rate is measured
VECTOR_SIDES = (512, 1024, 2048, 4096)  # of the products with a vector
VECTOR_WORK = 1 << 27  # multiply-adds of these for a measurement
Kind = tuple[Any, ...]
_RANKS = ("rank", "tail_rank")  # options of operations that count triplets


@dataclass(frozen=True)
class Work:
    """Multiply-adds of an edit.

    Attributes:
        products: of matrices with matrices, and element by element.
        vectors: of matrices with vectors.
        side: of a full matrix with as many bytes as those that are multiplied with vectors.
    """

    products: float
    vectors: float
    side: int

    @property
    def total(self) -> float:
        """All of them."""
        return self.products + self.vectors


def work_of(block: Block) -> Work:
    """The multiply-adds of the chain of one block, were each of its operands decomposed once.

    Of a matrix (m, n) with r = min(m, n), l = max(m, n) and k leading triplets these are, for each
    operand, half a Gram matrix (l r²/2), the reduction to tridiagonal form (2 r³/3, half of it with
    vectors), the vectors back (2 r² k) and the other side (l r k); and for the result two terms of
    l r k. A rank that values decide, as an energy does, counts as r/5. Of a tensor that is not
    decomposed each value of each operand is one.
    """
    if not _decomposes(block):
        return Work(float(len(block.operands) * math.prod(block.view.shape)), 0.0, 0)
    r, long = sorted(block.view.shape)
    known = [k for k in block.ranks if k is not None]
    k = max(known, default=r // 5)
    reduction = 2 / 3 * r**3
    count = len(block.operands)
    products = count * (long * r * r / 2 + reduction / 2 + 2 * r * r * k + long * r * k)
    # Of a symmetric matrix that shrinks, one half is read: on average, as many bytes as of (r/2, r/2).
    return Work(products + 2 * long * r * k, count * reduction / 2, r // 2)


def _decomposes(block: Block) -> bool:
    """Whether the chain of a block may decompose its operands: it asks them for triplets."""
    return len(block.view.shape) == 2 and any(k != 0 for k in block.ranks)


def multiply_adds(step: Step) -> float:
    """The multiply-adds of an edit (see `work_of`); 0 of a copy."""
    return sum(work_of(block).total for block in step.blocks)


def seconds_of(plans: Sequence[Plan], jobs: Sequence[Job], settings: Settings) -> list[float]:
    """Estimated seconds of one worker for each job, without reading and writing; 0 for a copy.

    Jobs of one kind are timed together. Kept factors are neither used nor made.
    """
    kinds = [_kind(plans, job) if job.action == "edit" else None for job in jobs]
    examples = {kind: job for kind, job in zip(kinds, jobs) if kind is not None}
    seconds = _seconds_by_kind(plans, examples, Counter(kinds), replace(settings, factors=None))
    return [
        _conversion_seconds(job) if kind is None else seconds[kind]
        for kind, job in zip(kinds, jobs)
    ]


def _conversion_seconds(job: Job) -> float:
    """Seconds of a copy in another dtype; 0 of one in its own."""
    step = job.steps[0]
    if step.copy is None or step.action == "copy":
        return 0.0
    values = job.size_bytes / TORCH_DTYPES[step.dtype].itemsize
    return values * _conversion(step.copy.dtype, step.dtype)


def _seconds_by_kind(
    plans: Sequence[Plan],
    examples: Mapping[Kind, Job],
    counts: Mapping[Kind | None, int],
    settings: Settings,
) -> dict[Kind, float]:
    """Seconds of an edit of each kind.

    Args:
        examples: one job of each kind.
        counts: how many jobs there are of each kind.
    """
    found = {
        kind: _timed([plans[plan] for plan in job.plans], job.steps, settings)
        for kind, job in examples.items()
    }
    whole = sum(spent * counts[kind] for kind, spent in found.items())
    for kind, job in examples.items():
        blocks = [block for step in job.steps for block in step.blocks]
        is_large_part = found[kind] * counts[kind] >= LARGE_PART * whole
        is_short = found[kind] <= LONGEST_S and math.prod(blocks[0].view.shape) <= WHOLE_ELEMENTS
        if is_large_part and is_short and min(map(_factor, blocks)) < 1:
            of_job = [plans[plan] for plan in job.plans]
            found[kind], _ = shrunk_time(of_job, job.steps, settings, 1.0, rounds=1)
    return found


def _kind(plans: Sequence[Plan], job: Job) -> Kind:
    """What jobs whose edits take the same time have in common."""
    return tuple(_kind_of_edit(plans[plan], step) for plan, step in zip(job.plans, job.steps))


def _kind_of_edit(plan: Plan, step: Step) -> Any:
    """What edits of one plan that take the same time have in common."""
    return step.dtype, tuple(
        (
            block.view.shape, block.view.transposed, block.view.part, block.ranks,
            block.start_role, tuple(role for role, _ in block.operands),
            tuple((i, plan.recipe.steps[i].operation.command) for i in block.chain),
            str([sorted(options.items()) for options in block.options]),
        )
        for block in step.blocks
    )  # fmt: skip


def _timed(plans: Sequence[Plan], steps: Sequence[Step], settings: Settings) -> float:
    """Seconds of the edits of one tensor. Of a large tensor two smaller ones are timed and scaled up:
    their difference tells what grows with the multiply-adds from what does not."""
    factor = min(_factor(block) for step in steps for block in step.blocks)
    large, rated = shrunk_time(plans, steps, settings, factor)
    if factor == 1:
        return large
    small, less = shrunk_time(plans, steps, settings, factor / 2)
    slope = max(0.0, (large - small) / (rated - less))
    return large + slope * (at_rates(steps, settings) - rated)


def shrunk_time(
    plans: Sequence[Plan],
    steps: Sequence[Step],
    settings: Settings,
    factor: float,
    rounds: int = 2,
) -> tuple[float, float]:
    """Seconds that edits take whose sides are smaller by a factor, and those of their multiply-adds at
    the measured rates.

    Args:
        rounds: how often they are timed; where that is several times, they are done once before, which
            loads libraries.
    """
    small = [shrunk(step, factor) for step in steps]
    operands = {role: None for step in small for block in step.blocks for role, _ in block.operands}
    inputs = {role: _Noise(role, small) for role in operands}
    smaller = [replace(plan, steps=(step,)) for plan, step in zip(plans, small)]
    with editor(smaller, cast("dict[str, Checkpoint]", inputs), settings) as running:
        if rounds > 1:
            _once(running, small)
        taken = min(_once(running, small) for _ in range(rounds))
    return taken, at_rates(small, settings)


def _once(running: Editor, steps: Sequence[Step]) -> float:
    start = _clock(running.device)
    for pieces, _ in running.produce([*enumerate(steps)]):
        for _piece in pieces:
            pass
    return _clock(running.device) - start


def _clock(device: str) -> float:
    """Seconds of this thread on a CPU, which other processes do not lengthen; of the clock on a GPU."""
    if device == "cpu":
        return time.thread_time()
    torch.cuda.synchronize(device)
    return time.perf_counter()


def _factor(block: Block) -> float:
    """By what the sides of a block are multiplied while it is timed."""
    shape = block.view.shape
    if _decomposes(block):
        return min(1.0, SIDE / min(shape), math.sqrt(MATRIX_ELEMENTS / math.prod(shape)))
    return min(1.0, math.sqrt(ELEMENTS / math.prod(shape)))


def shrunk(step: Step, factor: float) -> Step:
    """The same edit of a smaller tensor: one expert alone, and of what is no matrix a row of values."""

    def side(length: int) -> int:
        return max(1, round(length * factor))

    def view(of: View) -> View:
        if len(of.shape) != 2:
            return replace(of, shape=(max(1, round(math.prod(of.shape) * factor**2)),), expert=None)
        shape, part = (side(of.shape[0]), side(of.shape[1])), of.part
        if part is not None and part[2] == 1:  # the first or the second half of the rows
            start = shape[0] if part[0] else 0
            part = (start, start + shape[0], 1)
        elif part is not None:
            part = (part[0], 2 * shape[0], part[2])
        return replace(of, shape=shape, part=part, expert=None)

    blocks = tuple(
        replace(
            block,
            operands=tuple((role, view(each)) for role, each in block.operands),
            ranks=tuple(k if k is None else max(min(k, 1), round(k * factor)) for k in block.ranks),
            options=tuple(_shrunk_options(each, factor) for each in block.options),
        )
        for block in step.blocks
    )
    elements = blocks[0].view.stored if len(blocks[0].view.shape) == 2 else blocks[0].view.shape
    size = math.prod(elements) * TORCH_DTYPES[step.dtype].itemsize
    return replace(step, blocks=blocks, elements=elements, size_bytes=size)


def _shrunk_options(options: Mapping[str, Any], factor: float) -> dict[str, Any]:
    """Options with numbers of triplets for matrices that are smaller by a factor."""
    return {
        name: max(1, round(value * factor)) if value and name in _RANKS else value
        for name, value in options.items()
    }


class _Noise:
    """A checkpoint whose tensors are noise: the base's, or for other roles that and a little more."""

    def __init__(self, role: str, steps: Sequence[Step]) -> None:
        self.role, self.dtype = role, steps[0].dtype
        blocks = [block for step in steps for block in step.blocks]
        views = {view.tensor: view for each in blocks for r, view in each.operands if r == role}
        itemsize = TORCH_DTYPES[self.dtype].itemsize
        self.tensors = {}
        for name, view in views.items():
            shape = view.stored if len(view.shape) == 2 else view.shape
            size = math.prod(shape) * itemsize
            self.tensors[name] = Tensor(name, self.dtype, shape, name, 0, size)
        self._content = {name: self._made(each.shape) for name, each in self.tensors.items()}

    def read(self, file: str, offset: int, size_bytes: int) -> bytearray:
        """Bytes of a tensor, whose name is that of its file."""
        return bytearray(self._content[file][offset : offset + size_bytes])

    def _made(self, shape: Sequence[int]) -> memoryview:
        values = torch.randn(*shape, generator=torch.Generator().manual_seed(0))
        if self.role != BASE:
            more = torch.Generator().manual_seed(zlib.crc32(self.role.encode()))
            values += NOISE * torch.randn(*shape, generator=more)
        return as_bytes(values.to(TORCH_DTYPES[self.dtype]))


@cache
def _conversion(stored: str, wanted: str) -> float:
    """Seconds for each value that is converted from one dtype to another."""
    raw = as_bytes(torch.ones(ELEMENTS, dtype=TORCH_DTYPES[stored]))
    converted(raw, stored, wanted)
    return _taken(lambda: converted(raw, stored, wanted), "cpu") / ELEMENTS


def at_rates(steps: Sequence[Step], settings: Settings) -> float:
    """Seconds of multiply-adds at the measured rates. What matters is their proportion: further edits
    of the same operands share the decompositions, and count as if they did not."""
    device = settings.devices[0]
    works = [work_of(block) for step in steps for block in step.blocks]
    return sum(
        work.products / product_rate(device)
        + (work.vectors / vector_rate(work.side, device) if work.vectors else 0.0)
        for work in works
    )


@cache
def product_rate(device: str = "cpu") -> float:
    """Multiply-adds per second of a product of matrices in float64, on one thread or a GPU."""
    A = torch.randn(PRODUCT_SIDE, PRODUCT_SIDE, dtype=torch.float64, device=device)
    return PRODUCT_SIDE**3 / min(_taken(lambda: A @ A, device) for _ in range(3))


def vector_rate(side: int, device: str = "cpu") -> float:
    """Multiply-adds per second of a float64 matrix of about this side and a vector."""
    return _vector_rate(min(VECTOR_SIDES, key=lambda each: abs(each - side)), device)


@cache
def _vector_rate(side: int, device: str) -> float:
    A = torch.randn(side, side, dtype=torch.float64, device=device)
    x = torch.randn(side, dtype=torch.float64, device=device)
    calls = max(1, VECTOR_WORK // side**2)
    taken = min(_taken(lambda: [A @ x for _ in range(calls)], device) for _ in range(3))
    return calls * side**2 / taken


def _taken(call: Callable[[], object], device: str) -> float:
    """Seconds of a call, without what its first use of libraries takes on a GPU."""
    with single_threaded():
        if device != "cpu":
            call()
        start = _clock(device)
        call()
        return max(_clock(device) - start, 1e-9)
