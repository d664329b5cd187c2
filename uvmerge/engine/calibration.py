"""How long the edits of plans take on this machine: one edit of each kind is timed in a small size.

An edit of a matrix with a shorter side beyond `SIDE` is timed on a smaller one of the same proportions, of
noise, and scaled up by its multiply-adds. Of these, half of the reduction to tridiagonal form are products
of a matrix with a vector, which run at the speed of the memory: their rate is measured by size.
"""

from __future__ import annotations

import math
import time
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, cast

import torch

from ..checkpoint.anatomy import View
from ..checkpoint.folder import Checkpoint, Tensor
from ..checkpoint.roles import BASE
from ..plan.steps import Block, Plan, Step
from .compute import Editor, editor
from .local import Job
from .reading import TORCH_DTYPES, as_bytes
from .settings import Settings

SIDE = 1024  # longest shorter side of a matrix that is timed
ELEMENTS = 1 << 21  # of a tensor that is timed and is no matrix
NOISE = 0.01  # of the fine-tuned matrix, relative to the base
_PRODUCT, _VECTORS = 1024, (512, 1024, 2048, 4096)  # sides of the products whose rates are measured


@dataclass(frozen=True)
class Work:
    """Multiply-adds of an edit.

    Attributes:
        products: of matrices with matrices, and element by element.
        vectors: of matrices with vectors.
        side: of the matrices that are multiplied with vectors.
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

    Of a matrix (m, n) with r = min(m, n), l = max(m, n) and k leading triplets: half a Gram matrix
    l r²/2, the reduction 2 r³/3, the vectors back 2 r² k, the other side l r k; and two terms l r k of
    the result. An energy, which values decide, counts as k = r/5.
    """
    elements = float(math.prod(block.view.shape))
    if len(block.view.shape) != 2 or not any(k != 0 for k in block.ranks):
        return Work(len(block.operands) * elements, 0.0, 0)
    r, long = sorted(block.view.shape)
    known = [k for k in block.ranks if k is not None]
    k = max(known, default=r // 5)
    reduction = 2 / 3 * r**3
    count = len(block.operands)
    products = count * (long * r * r / 2 + reduction / 2 + 2 * r * r * k + long * r * k)
    return Work(products + 2 * long * r * k, count * reduction / 2, r)


def multiply_adds(step: Step) -> float:
    """The multiply-adds of an edit."""
    return sum(work_of(block).total for block in step.blocks)


def seconds_of(plans: Sequence[Plan], jobs: Sequence[Job], settings: Settings) -> list[float]:
    """Estimated seconds of one worker for the edit of each job; 0 for a copy."""
    known: dict[Any, float] = {}
    found = []
    for job in jobs:
        if job.action != "edit":
            found.append(0.0)
            continue
        keys = [_kind(step) for step in job.steps]
        for plan, step, key in zip(job.plans, job.steps, keys):
            if key not in known:
                known[key] = _timed(plans[plan], step, settings)
        # Further edits of the same matrices share the decomposition: only the products are new.
        found.append(known[keys[0]] + sum(known[key] / 4 for key in keys[1:]))
    return found


def _kind(step: Step) -> Any:
    """What edits that take the same time have in common."""
    return step.dtype, tuple(
        (
            block.view.shape, block.view.transposed, block.view.part, block.chain, block.ranks,
            len(block.operands),
        )
        for block in step.blocks
    )  # fmt: skip


def _timed(plan: Plan, step: Step, settings: Settings) -> float:
    """Seconds of an edit; of a large one, those of two smaller ones, scaled up: what does not grow with
    the multiply-adds is told from what does."""
    factor = min(map(_factor, step.blocks))
    large, small = (_shrunk_time(plan, step, settings, factor / part) for part in (1, 2))
    if factor == 1:
        return large[0]
    whole = sum(_seconds(work_of(block)) for block in step.blocks)
    slope = max(0.0, (large[0] - small[0]) / (large[1] - small[1]))
    return large[0] + slope * (whole - large[1])


def _shrunk_time(plan: Plan, step: Step, settings: Settings, factor: float) -> tuple[float, float]:
    """Seconds that an edit takes whose sides are smaller by a factor, and those of its multiply-adds at
    the measured rates."""
    small = _shrunk(step, factor)
    inputs = {role: _Noise(role, small) for role, _ in small.blocks[0].operands}
    shrunk = replace(plan, recipe=_shrunk_recipe(plan, factor), steps=(small,))
    with editor([shrunk], cast("dict[str, Checkpoint]", inputs), settings) as running:
        _once(running, small)  # libraries are loaded
        taken = min(_once(running, small) for _ in range(2))
    return taken, sum(_seconds(work_of(block)) for block in small.blocks)


def _once(running: Editor, step: Step) -> float:
    start = _clock(running.device)
    for pieces, _ in running.produce([(0, step)]):
        for _piece in pieces:
            pass
    return _clock(running.device) - start


def _clock(device: str) -> float:
    """Seconds of this thread on a CPU, which other processes do not lengthen; of the clock on a GPU."""
    if device == "cpu":
        return time.thread_time()
    torch.cuda.synchronize()
    return time.perf_counter()


def _factor(block: Block) -> float:
    """By what the sides of a block are multiplied."""
    shape = block.view.shape
    if len(shape) == 2 and any(k != 0 for k in block.ranks):
        return min(1.0, SIDE / min(shape))
    return min(1.0, math.sqrt(ELEMENTS / math.prod(shape)))


def _shrunk(step: Step, factor: float) -> Step:
    """The same edit of a smaller tensor."""

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
        )
        for block in step.blocks
    )
    elements = blocks[0].view.stored if len(blocks[0].view.shape) == 2 else blocks[0].view.shape
    size = math.prod(elements) * TORCH_DTYPES[step.dtype].itemsize
    return replace(step, blocks=blocks, elements=elements, size_bytes=size)


def _shrunk_recipe(plan: Plan, factor: float) -> Any:
    """The recipe with ranks for matrices that are smaller by a factor."""
    steps = tuple(
        replace(
            step, options={**step.options, "rank": max(1, round(step.options["rank"] * factor))}
        )
        if isinstance(step.options.get("rank"), int)
        else step
        for step in plan.recipe.steps
    )
    return replace(plan.recipe, steps=steps)


class _Noise:
    """A checkpoint whose tensors are noise: the base's, or for other roles that and a little more."""

    def __init__(self, role: str, step: Step) -> None:
        self.role, self.dtype = role, step.dtype
        views = {v.tensor: v for block in step.blocks for r, v in block.operands if r == role}
        itemsize = TORCH_DTYPES[step.dtype].itemsize
        self.tensors = {}
        for name, view in views.items():
            shape = view.stored if len(view.shape) == 2 else view.shape
            size = math.prod(shape) * itemsize
            self.tensors[name] = Tensor(name, step.dtype, shape, name, 0, size)
        self._content = {name: self._made(name, each.shape) for name, each in self.tensors.items()}

    def read(self, file: str, offset: int, size_bytes: int) -> bytearray:
        """Bytes of a tensor, whose name is that of its file."""
        return bytearray(self._content[file][offset : offset + size_bytes])

    def _made(self, name: str, shape: Sequence[int]) -> memoryview:
        generator = torch.Generator().manual_seed(zlib.crc32(name.rpartition(".")[0].encode()))
        values = torch.randn(*shape, generator=generator)
        if self.role != BASE:
            more = torch.Generator().manual_seed(zlib.crc32(self.role.encode()))
            values += NOISE * torch.randn(*shape, generator=more)
        stored = values.to(TORCH_DTYPES[self.dtype]).contiguous()
        return as_bytes(stored)


def _seconds(work: Work) -> float:
    """Seconds of multiply-adds at the measured rates; what matters is their proportion."""
    return work.products / product_rate() + work.vectors / vector_rate(work.side)


@cache
def product_rate() -> float:
    """Multiply-adds per second of a product of matrices in float64, on one thread."""
    A = torch.randn(_PRODUCT, _PRODUCT, dtype=torch.float64)
    return _PRODUCT**3 / min(_taken(lambda: A @ A) for _ in range(3))


def vector_rate(side: int) -> float:
    """Multiply-adds per second of a matrix of this side and a vector, in float64, on one thread."""
    known = _vector_rates()
    return known[min(known, key=lambda each: abs(each - side))] if side else math.inf


@cache
def _vector_rates() -> dict[int, float]:
    found = {}
    for side in _VECTORS:
        A = torch.randn(side, side, dtype=torch.float64)
        x = torch.randn(side, dtype=torch.float64)
        calls = max(1, (1 << 24) // side**2)
        taken = min(_taken(lambda: [A @ x for _ in range(calls)]) for _ in range(3))  # noqa: B023
        found[side] = calls * side**2 / taken
    return found


def _taken(call: Any) -> float:
    torch.set_num_threads(1)
    start = time.thread_time()
    call()
    return max(time.thread_time() - start, 1e-9)
