"""Edits and conversions with torch: from stored bytes to stored bytes, one tensor at a time."""

from __future__ import annotations

import itertools
import math
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
import xxhash
from torch import Tensor

from ..anatomy import View
from ..checkpoint import Checkpoint
from ..errors import RunFailed, UsageError, UvmergeError
from ..plan import BASE, FINETUNED, Block, Plan, Range, Step
from ..spectral.dense import DenseMatrix, DenseOperand, rows_of
from ..spectral.precision import POLICIES, single_threaded
from .factors import FactorFolder
from .settings import Phases, Settings

TORCH_DTYPES = {
    "F16": torch.float16, "BF16": torch.bfloat16, "F32": torch.float32, "F64": torch.float64
}  # fmt: skip
PANEL_ELEMENTS, PANEL_ROWS = 1 << 18, 64  # converted, rounded or compared at a time

Request: TypeAlias = tuple[int, Step]  # which plan, and its step
Product: TypeAlias = tuple[Iterable[memoryview], dict[str, Any] | None]  # bytes; record by matrix


@contextmanager
def editor(
    plans: Sequence[Plan],
    checkpoints: Mapping[str, Checkpoint],
    settings: Settings,
    phases: Phases | None = None,
) -> Iterator[Editor]:
    """An `Editor`, with torch set to one thread per matrix while it lives."""
    with single_threaded():
        yield Editor(plans, checkpoints, settings, phases or Phases())


def resolve_devices(device: str) -> tuple[str, ...]:
    """The devices that `auto`, `cpu`, `cuda` (every GPU of this machine) or `cuda:N` means."""
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cpu":
        return (device,)
    kind, _, index = device.partition(":")
    if kind != "cuda" or (index and not index.isdecimal()):
        raise UsageError("--device", f"{device!r} is unknown", "Choose auto, cpu, cuda or cuda:N.")
    count = torch.cuda.device_count()
    if int(index or 0) >= count:
        raise UsageError(
            "--device", f"{device} is not there: torch {torch.__version__} sees {count} CUDA devices",
            "Use --device cpu.",
        )  # fmt: skip
    return (device,) if index else tuple(f"cuda:{i}" for i in range(count))


class Editor:
    """Turns steps of plans into the bytes to write.

    Several plans differ in their recipes alone; what they do to one tensor is computed together,
    from one decomposition of each matrix.
    """

    def __init__(
        self,
        plans: Sequence[Plan],
        checkpoints: Mapping[str, Checkpoint],
        settings: Settings,
        phases: Phases,
    ) -> None:
        self.plans, self.checkpoints, self.phases = plans, checkpoints, phases
        self.devices = settings.devices
        self.precision = POLICIES[settings.precision]
        self.memory = (
            None if settings.factors is None else FactorFolder(settings.factors, settings.device)
        )
        self._threads = itertools.count()
        self._mine = threading.local()

    def prepare_thread(self) -> None:
        """To be called once in each thread that produces: its BLAS uses one thread, and the threads
        take turns among the devices, each with a CUDA stream of its own."""
        torch.set_num_threads(1)
        self._mine.device = device = self.devices[next(self._threads) % len(self.devices)]
        if device != "cpu":
            torch.cuda.set_device(device)
            torch.cuda.set_stream(torch.cuda.Stream(device))

    def produce(self, requests: Sequence[Request]) -> list[Product]:
        """What each request's stretch of its output holds.

        Args:
            requests: one conversion, or edits of the same stretch under several plans.
        """
        _, first = requests[0]
        if first.copy is not None:
            return [(self._convert(first, first.copy), None)]
        try:
            return self._edit(requests, getattr(self._mine, "device", self.devices[0]))
        except torch.OutOfMemoryError:
            torch.cuda.empty_cache()
        except (MemoryError, RuntimeError) as error:
            if isinstance(error, RuntimeError) and "allocate memory" not in str(error):
                raise
            raise RunFailed(
                first.tensor, "there is not enough memory to edit it",
                "Try --workers 1, or a machine with more memory; the same command resumes.",
            ) from error  # fmt: skip
        products = self._edit(requests, "cpu")
        for _, record in products:
            for entry in (record or {}).values():
                entry["device"] = "cpu (out of GPU memory)"
        return products

    def find_nonfinite(self, steps: Iterable[Step]) -> list[str]:
        """Names of edited tensors that hold NaN or Inf on either side."""
        found = []
        for step in steps:
            views = [(FINETUNED, b.finetuned) for b in step.blocks]
            views += [(BASE, b.base) for b in step.blocks]
            if not all(self._is_finite(role, view) for role, view in views):
                found.append(step.tensor)
        return list(dict.fromkeys(found))

    def _is_finite(self, role: str, view: View) -> bool:
        values = self._load(role, view).flatten()
        return all(_all_finite(part) for part in values.split(PANEL_ELEMENTS))

    def _edit(self, requests: Sequence[Request], device: str) -> list[Product]:
        results: list[list[Tensor]] = [[] for _ in requests]
        records: list[dict[str, Any]] = [{} for _ in requests]
        for number, block in enumerate(requests[0][1].blocks):
            for i, (result, entry) in enumerate(self._compute(requests, number, device)):
                results[i].append(result)
                records[i][block.finetuned.label] = entry
        products: list[Product] = []
        for (_, step), parts, record in zip(requests, results, records):
            whole = parts[0] if len(parts) == 1 else _assemble(step, parts)
            products.append(([_bytes(whole)], record))
        return products

    def _compute(
        self, requests: Sequence[Request], number: int, device: str
    ) -> list[tuple[Tensor, dict[str, Any]]]:
        """One block through each request's chain: the result as stored, and what to say of it."""
        views = requests[0][1].blocks[number]
        with self.phases.timed("read"):
            before = self._load(FINETUNED, views.finetuned)
            other = self._load(BASE, views.base)
        outs = [torch.empty(before.shape, dtype=TORCH_DTYPES[step.dtype]) for _, step in requests]
        entries: list[dict[str, Any]] = [{} for _ in requests]
        if _equal(other, before):
            for (_, step), out in zip(requests, outs):
                _store(step, before.split(PANEL_ROWS) if before.dim() else [before], out)
        else:
            jobs = [
                _Chain(self.plans[plan], step, step.blocks[number], out, entry)
                for (plan, step), out, entry in zip(requests, outs, entries)
            ]
            self._chains_on_matrices(
                [job for job in jobs if job.on_matrices], other, before, device
            )
            for job in jobs:
                if not job.on_matrices:
                    with self.phases.timed("recombine"):
                        self._chain_by_element(job, other, before)
        with self.phases.timed("recombine"):
            for out, entry in zip(outs, entries):
                entry["relative_change"] = float(f"{_relative_distance(out, before):.4g}")
                entry["changed"] = not torch.equal(out.to(before.dtype), before)
        turned = views.finetuned.transposed
        return [(out.mT if turned else out, entry) for out, entry in zip(outs, entries)]

    def _chains_on_matrices(
        self, jobs: Sequence[_Chain], other: Tensor, before: Tensor, device: str
    ) -> None:
        """Operations that decompose: they get whole matrices, which remember what they computed."""
        if not jobs:
            return
        views = jobs[0].block
        base = self._matrix(f"{views.base.label} (base)", other, device)
        first = self._matrix(views.finetuned.label, before, device)
        results = []
        with self.phases.timed("decompose"):
            for job in jobs:
                base.begin()
                first.begin()
                current, ranks = first, []
                for index, planned in zip(job.block.chain, job.block.ranks, strict=True):
                    base.k = current.k = None
                    result = _apply(job, index, base, current)
                    chosen = base.k if base.k is not None else current.k
                    ranks.append(planned if planned is not None else chosen)
                    if isinstance(result, Tensor):
                        result = DenseMatrix(views.finetuned.label, result, self.precision)
                    current = result
                results.append(current)
                job.entry.update(_describe(base, first, ranks))
            base.keep()
            first.keep()
        with self.phases.timed("recombine"):
            positions = [0] * len(jobs)
            for panels in rows_of(results):
                for i, (job, panel) in enumerate(zip(jobs, panels)):
                    positions[i] += _store(job.step, [panel], job.out[positions[i] :])

    def _matrix(self, name: str, stored: Tensor, device: str) -> DenseMatrix:
        content = None
        if self.memory is not None:
            content = (
                f"{xxhash.xxh3_128_hexdigest(_bytes(stored))}-{'x'.join(map(str, stored.shape))}"
            )
        if device != "cpu":
            stored = stored.pin_memory().to(device, non_blocking=True)
        return DenseMatrix(name, stored, self.precision, (), self.memory, content)

    def _chain_by_element(self, job: _Chain, other: Tensor, before: Tensor) -> None:
        """Operations on single elements: they get pieces, so that no tensor is too large."""
        block = job.block

        def pieces() -> Iterator[Tensor]:
            starts = other if block.start == BASE else before
            flat = (t.reshape(-1).split(PANEL_ELEMENTS) for t in (other, starts))
            for piece, start in zip(*flat, strict=True):
                base = DenseOperand("base", piece, self.precision)
                current = (
                    base
                    if block.start == BASE
                    else DenseOperand("finetuned", start, self.precision)
                )
                for index in block.chain:
                    result = _apply(job, index, base, current)
                    if isinstance(result, Tensor):
                        result = DenseOperand("finetuned", result, self.precision)
                    current = result
                yield current._stored

        _store(job.step, pieces(), job.out.view(-1))

    def _load(self, role: str, view: View) -> Tensor:
        """The values of `view` in (out, in) orientation and in the dtype they are stored in."""
        checkpoint = self.checkpoints[role]
        tensor = checkpoint.tensors[view.tensor]
        shape, offset, size = tensor.shape, tensor.offset, tensor.size_bytes
        if view.expert is not None:
            size //= shape[0]
            shape, offset = shape[1:], offset + view.expert * size
        raw = checkpoint.read(tensor.file, offset, size)
        values = torch.frombuffer(raw, dtype=TORCH_DTYPES[tensor.dtype]).view(shape)
        if view.transposed:
            values = values.mT
        if view.part is not None:
            start, stop, stride = view.part
            values = values[start:stop:stride]
        return values

    def _convert(self, step: Step, source: Range) -> Iterator[memoryview]:
        """The bytes of a copy in another dtype, in panels."""
        stored, wanted = TORCH_DTYPES[source.dtype], TORCH_DTYPES[step.dtype]
        panel = PANEL_ELEMENTS * stored.itemsize
        for start in range(0, source.size_bytes, panel):
            size = min(panel, source.size_bytes - start)
            raw = self.checkpoints[source.checkpoint].read(source.file, source.offset + start, size)
            values = torch.frombuffer(raw, dtype=stored)
            result = _round_once(values, wanted)
            if bool((values.isfinite() & ~result.isfinite()).any()):
                raise RunFailed(
                    step.tensor, f"its values overflow {step.dtype}",
                    "Store it wider: --dtype bfloat16 or --dtype float32.",
                )  # fmt: skip
            yield _bytes(result)


@dataclass(frozen=True)
class _Chain:
    """What one plan does to one block: where the result goes, and what is said of it."""

    plan: Plan
    step: Step
    block: Block
    out: Tensor
    entry: dict[str, Any]

    @property
    def on_matrices(self) -> bool:
        return any(self.plan.recipe.steps[i].operation.matrices_only for i in self.block.chain)


def _apply(job: _Chain, index: int, base: Any, current: Any) -> Any:
    step, recipe_step = job.step, job.plan.recipe.steps[index]
    extra = {"place": step.place} if recipe_step.operation.wants_place else {}
    try:
        result = recipe_step.operation.function(base, current, **recipe_step.options, **extra)
    except torch.linalg.LinAlgError as error:  # type: ignore[attr-defined]  # its own algebra
        raise RunFailed(
            step.tensor, f"{recipe_step.operation.command} did not converge: {error}",
            "Leave the tensor out with --exclude and report the matrix.",
        ) from error  # fmt: skip
    except (UvmergeError, MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        if isinstance(error, RuntimeError) and "allocate memory" in str(error):
            raise
        raise RunFailed(
            step.tensor, f"{recipe_step.operation.command} failed: {type(error).__name__}: {error}",
            "UVMERGE_DEBUG=1 shows where.",
        ) from error  # fmt: skip
    if tuple(result.shape) != current.shape:
        raise RunFailed(
            step.tensor, f"{recipe_step.operation.command} returned shape {list(result.shape)}"
            f" instead of {list(current.shape)}")  # fmt: skip
    return result


def _store(step: Step, panels: Iterable[Tensor], out: Tensor) -> int:
    """Round panels of the result, one after the other, into `out`; returns how many rows."""
    position = 0
    for panel in panels:
        if not _all_finite(panel):
            raise RunFailed(step.tensor, "the operation returned NaN or Inf")
        rounded = _round_once(panel, out.dtype)
        if not _all_finite(rounded):
            raise RunFailed(
                step.tensor, f"the result overflows {step.dtype}",
                "Store it wider: --dtype bfloat16 or --dtype float32.",
            )  # fmt: skip
        if out.dim() == 0:
            out.copy_(rounded)
            return 1
        out[position : position + len(panel)] = rounded.to(out.device)
        position += len(panel)
    return position


def converted(raw: bytearray | bytes | memoryview, stored: str, wanted: str) -> memoryview:
    """Bytes of the dtype `stored` as bytes of the dtype `wanted`, rounded once."""
    return _bytes(
        _round_once(torch.frombuffer(raw, dtype=TORCH_DTYPES[stored]), TORCH_DTYPES[wanted])
    )


def _assemble(step: Step, results: list[Tensor]) -> Tensor:
    """The parts of one expert, gate and up, back in one stored tensor."""
    whole = torch.empty(step.elements, dtype=results[0].dtype)
    for block, result in zip(step.blocks, results, strict=True):
        assert block.finetuned.part is not None
        start, stop, stride = block.finetuned.part
        rows = whole.mT if block.finetuned.transposed else whole
        rows[start:stop:stride] = result.mT if block.finetuned.transposed else result
    return whole


def _equal(base: Tensor, finetuned: Tensor) -> bool:
    """Whether both hold the same values; an operation on a pair then leaves them as they are."""
    if base.dtype != finetuned.dtype:
        base, finetuned = base.double(), finetuned.double()
    return torch.equal(base, finetuned)


def _round_once(values: Tensor, dtype: torch.dtype) -> Tensor:
    """`values` rounded to the nearest `dtype`, ties to even, in one rounding.

    torch converts float64 to the 16-bit types by way of float32, which rounds twice. That differs
    where the first rounding lands on a tie of the second. There, the float32 is moved one step
    towards the value it came from.
    """
    if values.dtype != torch.float64 or dtype.itemsize > 2:
        return values.to(dtype)
    single = values.to(torch.float32)
    bits = single.view(torch.int32)
    if dtype == torch.bfloat16:
        tie = (bits & 0xFFFF) == 0x8000
    else:  # float16 has evenly spaced numbers, 2^-24 apart, under 2^-14
        small = single.abs() < 2.0**-14
        tie = torch.where(small, single.abs() * 2.0**25 % 2 == 1, (bits & 0x1FFF) == 0x1000)
    at = tie.nonzero(as_tuple=True)
    if len(at[0]):
        exact, near = values[at], single[at].double()
        step = (near.abs() < exact.abs()).int() - (near.abs() > exact.abs()).int()
        bits[at] += torch.where(near.isfinite() & (near != 0), step, 0)
    return single.to(dtype)


def _all_finite(values: Tensor) -> bool:
    """Whether there is no NaN or Inf: a finite sum says so at once, any other has to be looked at."""
    wide = torch.float64 if values.dtype == torch.float64 else torch.float32
    return bool(values.sum(dtype=wide).isfinite()) or bool(values.isfinite().all())


def _bytes(tensor: Tensor) -> memoryview:
    """The bytes of `tensor` in row-major order."""
    flat = tensor.contiguous().view(-1)
    if flat.numel() == 0:
        return memoryview(b"")
    return flat.view(torch.uint8).numpy().data


def _describe(base: DenseMatrix, finetuned: DenseMatrix, ranks: list[int | None]) -> dict[str, Any]:
    """k of each step, relative gap at the cuts, and the decompositions used."""
    entry: dict[str, Any] = {"k": ranks} if any(k is not None for k in ranks) else {}
    found = {BASE: base.cuts, FINETUNED: finetuned.cuts, "delta": finetuned.delta_cuts}
    for role, cuts in found.items():
        if cuts:
            gaps = {str(k): gap and float(f"{gap:.3g}") for k, gap in sorted(cuts.items())}
            entry.setdefault("gap", {})[role] = gaps
    methods = sorted({*base.methods, *finetuned.methods})
    return entry | ({"method": methods} if methods else {})


def _relative_distance(a: Tensor, b: Tensor) -> float:
    """‖a − b‖_F / ‖b‖_F in float64, in panels."""
    distance = norm = 0.0
    pairs = zip(a.flatten().split(PANEL_ELEMENTS), b.flatten().split(PANEL_ELEMENTS), strict=True)
    for one, other in pairs:
        distance += float((one.double() - other.double()).square().sum())
        norm += float(other.double().square().sum())
    return math.sqrt(distance / norm) if norm else 0.0
