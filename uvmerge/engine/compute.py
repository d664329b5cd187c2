"""Edits and conversions with torch: from stored bytes to stored bytes, one tensor at a time."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

from ..checkpoint.folder import Checkpoint
from ..errors import RunFailed
from ..plan.steps import Plan, Range, Step
from ..spectral import Log
from ..spectral.matrix import DenseOperand
from ..spectral.precision import single_threaded
from ..spectral.recombine import Sum, rows_of
from .chain import Alike, Chain, alike_by
from .reading import PANEL_ELEMENTS, TORCH_DTYPES, Reader, Span, all_finite, as_bytes
from .record import Change, decompositions
from .settings import Phases, Settings

PANEL_ROWS = 64  # rounded or compared at a time

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


class Editor(Reader):
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
        super().__init__(checkpoints, settings, phases)
        self.plans = plans

    def produce(self, requests: Sequence[Request]) -> list[Product]:
        """What each request's stretch of its output holds.

        Args:
            requests: one conversion, or edits of the same stretch under several plans.
        """
        _, first = requests[0]
        if first.copy is not None:
            return [(self._convert(first, first.copy), None)]
        try:
            return self._edit(requests, self.device)
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
        """Names of edited tensors that hold NaN or Inf in any of their operands."""
        spans: dict[tuple[str, Span], str] = {}
        for step in steps:
            for block in step.blocks:
                for role, view in block.operands:
                    spans[role, self.span(role, view)] = step.tensor
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            finite = list(pool.map(lambda at: self._is_finite(*at), spans))
        return list(dict.fromkeys(n for n, good in zip(spans.values(), finite) if not good))

    def _is_finite(self, role: str, span: Span) -> bool:
        torch.set_num_threads(1)
        return all(all_finite(piece) for piece in self.pieces(role, span))

    def _edit(self, requests: Sequence[Request], device: str) -> list[Product]:
        streamed = [self._streams(plan, step) for plan, step in requests]
        whole = [request for request, streams in zip(requests, streamed) if not streams]
        computed = iter(self._edit_whole(whole, device) if whole else ())
        return [
            self._stream(*request) if streams else next(computed)
            for request, streams in zip(requests, streamed)
        ]

    def _edit_whole(self, requests: Sequence[Request], device: str) -> list[Product]:
        """Edits of whole matrices, and of what is scattered in its tensor."""
        results: list[list[Tensor]] = [[] for _ in requests]
        records: list[dict[str, Any]] = [{} for _ in requests]
        for number, block in enumerate(requests[0][1].blocks):
            for i, (result, entry) in enumerate(self._compute(requests, number, device)):
                results[i].append(result)
                records[i][block.view.label] = entry
        products: list[Product] = []
        for (_, step), parts, record in zip(requests, results, records):
            whole = parts[0] if len(parts) == 1 else _assemble(step, parts)
            products.append(([as_bytes(whole)], record))
        return products

    def _streams(self, plan: int, step: Step) -> bool:
        """Whether the edit works element by element on what lies together in every input."""
        if len(step.blocks) != 1:
            return False
        (block,) = step.blocks
        operations = [self.plans[plan].recipe.steps[i].operation for i in block.chain]
        together = all(not v.transposed and v.part is None for _, v in block.operands)
        return together and not any(operation.matrices_only for operation in operations)

    def _stream(self, plan: int, step: Step) -> Product:
        """An edit in pieces that fit a processor cache; its record is there after the last one."""
        (block,) = step.blocks
        entry: dict[str, Any] = {}
        chain = Chain(self.plans[plan], step, block, torch.empty(0), entry)

        def pieces() -> Iterator[memoryview]:
            change = Change()
            roles = [role for role, _ in block.operands]
            spans = (self.pieces(role, self.span(role, view)) for role, view in block.operands)
            for several in zip(*spans, strict=True):
                stored = dict(zip(roles, several))
                before = stored[block.own]
                out = torch.empty(before.shape, dtype=TORCH_DTYPES[step.dtype])
                with self.phases.timed("recombine"):
                    _store(step, [self._by_element(chain, stored, alike_by(stored))], out)
                    change.add(out, before)
                yield as_bytes(out)
            entry.update(change.entry)

        return pieces(), {block.view.label: entry}

    def _by_element(self, chain: Chain, stored: Mapping[str, Tensor], alike: Alike) -> Tensor:
        """A chain of operations on tensors of any shape, or pieces of them, by role."""
        operands = {role: DenseOperand(role, V, self.precision) for role, V in stored.items()}
        result = chain.through(
            operands, alike, lambda values: DenseOperand("result", values, self.precision)
        )
        return result.stored

    def _compute(
        self, requests: Sequence[Request], number: int, device: str
    ) -> list[tuple[Tensor, dict[str, Any]]]:
        """One block through each request's chain: the result as stored, and what to say of it."""
        blocks = [step.blocks[number] for _, step in requests]
        with self.phases.timed("read"):
            views = {role: view for block in blocks for role, view in block.operands}
            stored = {role: self.load(role, view) for role, view in views.items()}
        before, view, alike = stored[blocks[0].own], blocks[0].view, alike_by(stored)
        outs = [torch.empty(before.shape, dtype=TORCH_DTYPES[step.dtype]) for _, step in requests]
        chains = [
            Chain(self.plans[plan], step, block, out, {})
            for (plan, step), block, out in zip(requests, blocks, outs)
        ]
        busy = []
        for chain in chains:
            if (role := chain.settled(alike)) is not None:
                _store(chain.step, [stored[role]], chain.out)
            elif chain.on_matrices:
                busy.append(chain)
            else:
                with self.phases.timed("recombine"):
                    _store(chain.step, [self._by_element(chain, stored, alike)], chain.out)
        self._on_matrices(busy, stored, alike, device)
        with self.phases.timed("recombine"):
            for chain in chains:
                change = Change()
                for after, piece in zip(chain.out.split(PANEL_ROWS), before.split(PANEL_ROWS)):
                    change.add(after, piece)
                chain.entry.update(change.entry)
        return [(each.out.mT if view.transposed else each.out, each.entry) for each in chains]

    def _on_matrices(
        self, chains: Sequence[Chain], stored: Mapping[str, Tensor], alike: Alike, device: str
    ) -> None:
        """Operations that decompose, and then the rows of their results."""
        if not chains:
            return
        results = self._results(chains, stored, alike, device)
        with self.phases.timed("recombine"):
            positions = [0] * len(chains)
            for panels in rows_of(results, self.precision.combine):
                for i, (chain, panel) in enumerate(zip(chains, panels)):
                    positions[i] += _store(chain.step, [panel], chain.out[positions[i] :])

    def _results(
        self, chains: Sequence[Chain], stored: Mapping[str, Tensor], alike: Alike, device: str
    ) -> list[Sum]:
        """What each chain makes of the matrices, which remember what they computed until all chains
        are through."""
        views = {role: view for chain in chains for role, view in chain.block.operands}
        own, log, results, matrices = chains[0].block.own, Log(), [], {}
        for role, view in views.items():
            name = view.label if role == own else f"{view.label} ({role})"
            matrices[role] = self.matrix(name, stored[role], device, log, role)
        with self.phases.timed("decompose"):
            for chain in chains:
                log.begin()
                result = chain.through(matrices, alike, matrices[own].with_values, log)
                results.append(result.sum)
                of_several = len(chain.plan.recipe.steps) > 1
                chain.entry.update(decompositions(log, chain.block.chain, of_several))
            for matrix in matrices.values():
                matrix.keep()
        return results

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
            yield as_bytes(result)


def _store(step: Step, panels: Iterable[Tensor], out: Tensor) -> int:
    """Round panels of the result, one after the other, into `out`; returns how many rows."""
    position = 0
    for panel in panels:
        rounded = _round_once(panel, out.dtype)
        if not all_finite(rounded):
            if not all_finite(panel):
                raise RunFailed(step.tensor, "the operation returned NaN or Inf")
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
    return as_bytes(
        _round_once(torch.frombuffer(raw, dtype=TORCH_DTYPES[stored]), TORCH_DTYPES[wanted])
    )


def _assemble(step: Step, results: list[Tensor]) -> Tensor:
    """The parts of one expert, gate and up, back in one stored tensor."""
    whole = torch.empty(step.elements, dtype=results[0].dtype)
    for block, result in zip(step.blocks, results, strict=True):
        assert block.view.part is not None
        start, stop, stride = block.view.part
        rows = whole.mT if block.view.transposed else whole
        rows[start:stop:stride] = result.mT if block.view.transposed else result
    return whole


def _round_once(values: Tensor, dtype: torch.dtype) -> Tensor:
    """`values` rounded to the nearest `dtype`, ties to even, in one rounding.

    torch converts float64 to the 16-bit types by way of float32, which rounds twice. That differs
    where the first rounding lands on a tie of the second. There, the float32 is moved one step
    towards the value it came from.
    """
    if values.dtype != torch.float64 or dtype.itemsize > 2:
        return values.to(dtype)
    values = values.contiguous()
    single = values.to(torch.float32)
    bits = single.view(torch.int32)
    if dtype == torch.bfloat16:
        tie = (bits & 0xFFFF) == 0x8000
    else:  # float16 has evenly spaced numbers, 2^-24 apart, under 2^-14
        small = single.abs() < 2.0**-14
        tie = torch.where(small, single.abs() * 2.0**25 % 2 == 1, (bits & 0x1FFF) == 0x1000)
    if int(tie.count_nonzero()) > tie.numel() // 64:  # half-way between two 16-bit numbers, say
        tie &= single.to(torch.float64) != values
    if tie.is_cpu:  # where numpy is 20 times as fast
        at = torch.from_numpy(np.flatnonzero(tie.numpy()))
    else:
        at = tie.view(-1).nonzero().view(-1)
    if len(at):
        exact, near = values.view(-1)[at].abs(), single.view(-1)[at].double().abs()
        step = (near < exact).int() - (near > exact).int()
        bits.view(-1)[at] += torch.where(near.isfinite() & (near != 0), step, 0)
    return single.to(dtype)
