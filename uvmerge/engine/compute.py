"""Edits and conversions with torch: from stored bytes to stored bytes, one tensor at a time."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..anatomy import View
from ..checkpoint import Checkpoint
from ..errors import RunFailed, UsageError
from ..plan import BASE, FINETUNED, Block, Plan, Range, Step
from ..spectral.dense import DenseMatrix, DenseOperand
from ..spectral.precision import POLICIES, single_threaded

if TYPE_CHECKING:
    from .local import Settings

TORCH_DTYPES = {
    "F16": torch.float16, "BF16": torch.bfloat16, "F32": torch.float32, "F64": torch.float64
}  # fmt: skip
PANEL_ELEMENTS = 1 << 20  # converted, rounded or compared at a time


@contextmanager
def editor(
    plan: Plan, checkpoints: Mapping[str, Checkpoint], settings: Settings
) -> Iterator[Editor]:
    """An `Editor`, with torch set to one thread per matrix while it lives."""
    with single_threaded():
        yield Editor(plan, checkpoints, settings)


def resolve_device(device: str) -> str:
    """`auto`, `cpu`, `cuda` or `cuda:N` as a device that is there."""
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cpu":
        return device
    kind, _, index = device.partition(":")
    if kind != "cuda" or (index and not index.isdecimal()):
        raise UsageError("--device", f"{device!r} is unknown", "Choose auto, cpu, cuda or cuda:N.")
    if int(index or 0) >= torch.cuda.device_count():
        raise UsageError(
            "--device", f"{device} is not there: torch {torch.__version__} sees"
            f" {torch.cuda.device_count()} CUDA devices", "Use --device cpu.",
        )  # fmt: skip
    return device


class Editor:
    """Turns a step of the plan into the bytes to write."""

    def __init__(
        self, plan: Plan, checkpoints: Mapping[str, Checkpoint], settings: Settings
    ) -> None:
        self.plan, self.checkpoints = plan, checkpoints
        self.device = settings.device
        self.precision = POLICIES[settings.precision]

    def prepare_thread(self) -> None:
        """To be called once in each thread that produces: its BLAS uses one thread."""
        torch.set_num_threads(1)

    def produce(self, step: Step) -> tuple[Iterable[memoryview], dict[str, Any] | None]:
        """The bytes of `step` in order, and what was done, by tensor (None for a conversion)."""
        if step.copy is not None:
            return self._convert(step, step.copy), None
        try:
            return self._edit(step, self.device)
        except torch.OutOfMemoryError:
            torch.cuda.empty_cache()
        pieces, record = self._edit(step, "cpu")
        for entry in record.values():
            entry["device"] = "cpu (out of GPU memory)"
        return pieces, record

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
        return all(bool(part.isfinite().all()) for part in values.split(PANEL_ELEMENTS))

    def _edit(self, step: Step, device: str) -> tuple[list[memoryview], dict[str, Any]]:
        results, record = [], {}
        for block in step.blocks:
            result, entry = self._compute(step, block, device)
            results.append(result)
            record[block.finetuned.label] = entry
        whole = results[0] if len(results) == 1 else _assemble(step, results)
        return [_bytes(whole)], record

    def _compute(self, step: Step, block: Block, device: str) -> tuple[Tensor, dict[str, Any]]:
        """One block through its chain: the result as stored, and what there is to say of it."""
        stored = {
            BASE: self._load(BASE, block.base).to(device),
            FINETUNED: self._load(FINETUNED, block.finetuned).to(device),
        }
        kind = DenseMatrix if len(block.finetuned.shape) == 2 else DenseOperand
        base = kind(f"{block.base.label} (base)", stored[BASE], self.precision)
        current = kind(block.finetuned.label, stored[FINETUNED], self.precision)
        unchanged = _equal(stored[BASE], stored[FINETUNED])
        ranks: list[int | None] = []
        operands = [base, current]
        for index, planned in zip(block.chain, block.ranks, strict=True):
            if unchanged:
                break
            if block.start == BASE and current is operands[1]:
                current = base
            recipe_step = self.plan.recipe.steps[index]
            extra = {"place": step.place} if recipe_step.operation.wants_place else {}
            result = recipe_step.operation.function(base, current, **recipe_step.options, **extra)
            ranks.append(planned if planned is not None else _last_cut(base, current))
            if isinstance(result, Tensor):
                self._check(step, current, result)
                current = kind(block.finetuned.label, result, self.precision)
                operands.append(current)
            else:
                current = result
        if not block.chain and block.start == BASE:
            current = base
        out = _round_once(current._stored, TORCH_DTYPES[step.dtype]).to("cpu")
        if not bool(out.isfinite().all()):
            raise RunFailed(
                step.tensor, f"the result overflows {step.dtype}",
                "Store it wider: --dtype bfloat16 or --dtype float32.",
            )  # fmt: skip
        entry = _describe(operands, ranks, stored[FINETUNED].cpu(), out)
        return (out.mT if block.finetuned.transposed else out), entry

    @staticmethod
    def _check(step: Step, operand: DenseOperand, result: Tensor) -> None:
        if tuple(result.shape) != operand.shape:
            raise RunFailed(
                step.tensor, f"the operation returned shape {list(result.shape)} instead of"
                f" {list(operand.shape)}")  # fmt: skip
        if not bool(result.isfinite().all()):
            raise RunFailed(step.tensor, "the operation returned NaN or Inf")

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

    torch converts float64 to the 16-bit types by way of float32, which rounds twice. Rounding to
    odd in float32 on the way keeps what the second rounding needs to know (Boldo & Melquiond 2008).
    """
    if values.dtype != torch.float64 or dtype.itemsize > 2:
        return values.to(dtype)
    values = values.contiguous()
    result = torch.empty_like(values, dtype=dtype)
    panels = zip(values.flatten().split(PANEL_ELEMENTS), result.view(-1).split(PANEL_ELEMENTS))
    for panel, rounded in panels:
        single = panel.to(torch.float32)
        back = single.to(torch.float64)
        bits = single.view(torch.int32)
        too_far = (back.abs() > panel.abs()) & single.isfinite()
        bits -= too_far.to(torch.int32)  # one step towards zero: truncation
        bits |= (back != panel).to(torch.int32)
        rounded.copy_(single)
    return result


def _bytes(tensor: Tensor) -> memoryview:
    """The bytes of `tensor` in row-major order."""
    flat = tensor.contiguous().view(-1)
    if flat.numel() == 0:
        return memoryview(b"")
    return memoryview(flat.view(torch.uint8).numpy())


def _last_cut(*operands: DenseOperand) -> int | None:
    cuts = [k for operand in operands if isinstance(operand, DenseMatrix) for k in operand.cuts]
    return cuts[-1] if cuts else None


def _describe(
    operands: list[Any], ranks: list[int | None], before: Tensor, out: Tensor
) -> dict[str, Any]:
    """k of each step, gap at the cuts, methods, and how far the result moved."""
    entry: dict[str, Any] = {}
    if any(k is not None for k in ranks):
        entry["k"] = ranks
    methods: list[str] = []
    gaps: dict[str, dict[str, float | None]] = {}
    for role, operand in zip((BASE, FINETUNED), operands):
        if isinstance(operand, DenseMatrix):
            methods += [method for method in operand.methods if method not in methods]
            cuts = {str(k): gap and float(f"{gap:.3g}") for k, gap in sorted(operand.cuts.items())}
            if cuts:
                gaps[role] = cuts
    if gaps:
        entry["gap"] = gaps
    if methods:
        entry["method"] = methods
    entry["relative_change"] = float(f"{_relative_distance(out, before):.4g}")
    entry["changed"] = not torch.equal(out.to(before.dtype), before)
    return entry


def _relative_distance(a: Tensor, b: Tensor) -> float:
    """‖a − b‖_F / ‖b‖_F in float64, in panels."""
    distance = norm = 0.0
    pairs = zip(a.flatten().split(PANEL_ELEMENTS), b.flatten().split(PANEL_ELEMENTS), strict=True)
    for one, other in pairs:
        distance += float((one.double() - other.double()).square().sum())
        norm += float(other.double().square().sum())
    return math.sqrt(distance / norm) if norm else 0.0


__all__ = ["Editor", "editor", "resolve_device"]
