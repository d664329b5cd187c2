"""Edits and conversions with torch: from stored bytes to stored bytes, one tensor at a time."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from ..anatomy import View
from ..checkpoint import Checkpoint
from ..errors import RunFailed, UsageError, UvmergeError
from ..plan import BASE, FINETUNED, Block, Plan, Range, Step
from ..spectral.dense import DenseMatrix, DenseOperand
from ..spectral.precision import POLICIES, single_threaded
from .settings import Settings

TORCH_DTYPES = {
    "F16": torch.float16, "BF16": torch.bfloat16, "F32": torch.float32, "F64": torch.float64
}  # fmt: skip
PANEL_ELEMENTS, PANEL_ROWS = 1 << 18, 64  # converted, rounded or compared at a time


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
        except (MemoryError, RuntimeError) as error:
            if isinstance(error, RuntimeError) and "allocate memory" not in str(error):
                raise
            raise RunFailed(
                step.tensor, "there is not enough memory to edit it",
                "Try --workers 1, or a machine with more memory; the same command resumes.",
            ) from error  # fmt: skip
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
        before = self._load(FINETUNED, block.finetuned)
        other = self._load(BASE, block.base)
        out = torch.empty(before.shape, dtype=TORCH_DTYPES[step.dtype])
        operations = [self.plan.recipe.steps[i].operation for i in block.chain]
        entry: dict[str, Any] = {}
        if _equal(other, before):
            self._store(step, before.split(PANEL_ROWS) if before.dim() else [before], out)
        elif any(operation.matrices_only for operation in operations):
            entry = self._chain_on_matrix(step, block, other.to(device), before.to(device), out)
        else:
            self._chain_by_element(step, block, other, before, out)
        entry["relative_change"] = float(f"{_relative_distance(out, before):.4g}")
        entry["changed"] = not torch.equal(out.to(before.dtype), before)
        return (out.mT if block.finetuned.transposed else out), entry

    def _chain_on_matrix(
        self, step: Step, block: Block, other: Tensor, before: Tensor, out: Tensor
    ) -> dict[str, Any]:
        """Operations that decompose: they get the whole matrix."""
        base = DenseMatrix(f"{block.base.label} (base)", other, self.precision)
        first = current = DenseMatrix(block.finetuned.label, before, self.precision)
        ranks: list[int | None] = []
        for index, planned in zip(block.chain, block.ranks, strict=True):
            base.k = current.k = None
            result = self._apply(index, base, current, step)
            chosen = base.k if base.k is not None else current.k
            ranks.append(planned if planned is not None else chosen)
            if isinstance(result, Tensor):
                current = DenseMatrix(block.finetuned.label, result, self.precision)
            else:
                current = result
        self._store(step, current.rows(), out)
        return _describe(base, first, ranks)

    def _chain_by_element(
        self, step: Step, block: Block, other: Tensor, before: Tensor, out: Tensor
    ) -> None:
        """Operations on single elements: they get pieces, so that no tensor is too large."""

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
                    result = self._apply(index, base, current, step)
                    if isinstance(result, Tensor):
                        result = DenseOperand("finetuned", result, self.precision)
                    current = result
                yield current._stored

        self._store(step, pieces(), out.view(-1))

    def _apply(self, index: int, base: Any, current: Any, step: Step) -> Any:
        recipe_step = self.plan.recipe.steps[index]
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

    @staticmethod
    def _store(step: Step, panels: Iterable[Tensor], out: Tensor) -> None:
        """Round panels of the result, one after the other, into `out`."""
        position = 0
        for panel in panels:
            if not bool(panel.isfinite().all()):
                raise RunFailed(step.tensor, "the operation returned NaN or Inf")
            rounded = _round_once(panel, out.dtype)
            if not bool(rounded.isfinite().all()):
                raise RunFailed(
                    step.tensor, f"the result overflows {step.dtype}",
                    "Store it wider: --dtype bfloat16 or --dtype float32.",
                )  # fmt: skip
            if out.dim() == 0:
                out.copy_(rounded)
                return
            out[position : position + len(panel)] = rounded.to(out.device)
            position += len(panel)

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

    torch converts float64 to the 16-bit types by way of float32, which rounds twice. Rounding to
    odd in float32 on the way keeps what the second rounding needs to know (Boldo & Melquiond 2008).
    """
    if values.dtype != torch.float64 or dtype.itemsize > 2:
        return values.to(dtype)
    single = values.to(torch.float32)
    back = single.to(torch.float64)
    bits = single.view(torch.int32)
    too_far = (back.abs() > values.abs()) & single.isfinite()
    bits -= too_far.to(torch.int32)  # one step towards zero: truncation
    bits |= ((back != values) & single.isfinite()).to(torch.int32)
    return single.to(dtype)


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
