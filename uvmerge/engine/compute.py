"""Edits and dtype conversions with torch, from stored bytes to stored bytes, one tensor at a time."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from typing import Any, TypeAlias

import torch
from torch import Tensor

from ..checkpoint.anatomy import View
from ..checkpoint.folder import Checkpoint
from ..errors import RunFailed
from ..plan.steps import Plan, Range, Step
from ..spectral.matrix import DenseOperand
from ..spectral.pieces import Piecewise
from ..spectral.precision import Precision, single_threaded
from ..spectral.recombine import Sum, rows_of
from .chain import Chain, Equality, equality_of
from .decomposed import Decomposed
from .factoring import Factoring
from .reading import (
    PANEL_ELEMENTS,
    TORCH_DTYPES,
    Reader,
    Span,
    all_finite,
    as_bytes,
    panels,
    refuse_nonfinite,
)
from .record import Change
from .rounding import round_once
from .settings import Phases, Settings

PANEL_ROWS = 64  # rows that are compared at a time

Load: TypeAlias = Callable[[str, View], Tensor]
Request: TypeAlias = tuple[int, Step]  # number of a plan, and one of its steps
Product: TypeAlias = tuple[Iterable[memoryview], dict[str, Any] | None]  # bytes; records by matrix


@contextmanager
def editor(
    plans: Sequence[Plan],
    checkpoints: Mapping[str, Checkpoint],
    settings: Settings,
    phases: Phases | None = None,
) -> Iterator[Editor]:
    """An `Editor`; inside the block torch uses one thread per matrix."""
    with single_threaded():
        yield Editor(plans, checkpoints, settings, phases or Phases())


class Editor(Reader):
    """Turns steps of plans into the bytes to write.

    Several plans differ in their recipes alone. Their edits of one tensor are computed together, from
    one decomposition of each matrix.
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
        """The bytes for each request, and the records of its matrices.

        A record is complete once the bytes have been read to their end.

        Args:
            requests: one conversion, or the edits of one tensor under several plans.

        Raises:
            NonfiniteOperand: an operand holds NaN or Inf. Reading the bytes of a product may raise it
                too.
            RunFailed: names the tensor: not enough memory, an operation that failed, or a result that
                is not finite.
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
                first.tensor,
                "there is not enough memory to edit it",
                "Try --workers 1, or a machine with more memory; the same command resumes.",
            ) from error
        products = self._edit(requests, "cpu")
        for _, record in products:
            for entry in (record or {}).values():
                entry["device"] = "cpu (out of GPU memory)"
        return products

    def nonfinite_tensors(self, steps: Iterable[Step]) -> list[str]:
        """Names of the tensors with an edit whose operands hold NaN or Inf."""
        spans = {span: step.tensor for step in steps for span in self._spans(step)}
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            finite = list(pool.map(self.is_finite, spans))
        return list(dict.fromkeys(n for n, good in zip(spans.values(), finite) if not good))

    def are_finite(self, steps: Iterable[Step]) -> bool:
        """Whether no operand of these edits holds NaN or Inf."""
        return all(map(self.is_finite, {span for step in steps for span in self._spans(step)}))

    def _spans(self, step: Step) -> Iterator[tuple[str, Span]]:
        """(role, span) of every operand of an edit."""
        for block in step.blocks:
            for role, view in block.operands:
                yield role, self.span(role, view)

    def _edit(self, requests: Sequence[Request], device: str) -> list[Product]:
        if requests[0][1].against is not None:
            return Factoring(self, requests, device).products()
        load = cache(self.load)  # several plans share the operands that they hold
        lazy = [self._in_pieces(*request, device, load) for request in requests]
        whole = [request for request, product in zip(requests, lazy) if product is None]
        computed = iter(self._edit_whole(whole, device) if whole else ())
        return [next(computed) if product is None else product for product in lazy]

    def _in_pieces(self, plan: int, step: Step, device: str, load: Load) -> Product | None:
        """An edit whose result is never in memory as a whole; None where that cannot be."""
        if self.plans[plan].streams(step):
            return self._stream(plan, step)
        passes = device == "cpu" and self.plans[plan].passes(step)
        return self._in_passes(plan, step, load) if passes else None

    def _edit_whole(self, requests: Sequence[Request], device: str) -> list[Product]:
        """Edits that need each of their blocks as a whole, on `device`."""
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

    def _stream(self, plan: int, step: Step) -> Product:
        """An edit in pieces that fit a processor cache; its record is complete after the last piece."""
        (block,) = step.blocks
        chain = Chain.of(self.plans[plan], step, block, torch.empty(0))

        def pieces() -> Iterator[memoryview]:
            change = Change()
            roles = [role for role, _ in block.operands]
            spans = (self.pieces(role, self.span(role, view)) for role, view in block.operands)
            for several in zip(*spans, strict=True):
                stored = dict(zip(roles, several))
                before = stored[block.own]
                refuse_nonfinite(stored)
                out = torch.empty(before.shape, dtype=TORCH_DTYPES[step.dtype])
                with self.phases.timed("recombine"):
                    _store(step, [self.on_tensors(chain, stored, equality_of(stored)).kept], out)
                    change.add(out, before)
                yield as_bytes(out)
            chain.entry.update(change.entry)

        return pieces(), {block.view.label: chain.entry}

    def _in_passes(self, plan: int, step: Step, load: Load) -> Product:
        """An edit that passes several times over its operands, which are held as a whole."""
        (block,) = step.blocks
        chain = Chain.of(self.plans[plan], step, block, torch.empty(0))
        with self.phases.timed("read"):
            stored = {role: load(role, view) for role, view in block.operands}
            refuse_nonfinite(stored)
        result = self._result(chain, stored)

        def pieces() -> Iterator[memoryview]:
            change, at, flat = Change(), 0, stored[block.own].reshape(-1)
            for piece in result:
                out = torch.empty(len(piece), dtype=TORCH_DTYPES[step.dtype])
                with self.phases.timed("recombine"):
                    _store(step, [piece], out)
                    change.add(out, flat[at : at + len(piece)])
                at += len(piece)
                yield as_bytes(out)
            chain.entry.update(change.entry)

        return pieces(), {block.view.label: chain.entry}

    def _result(self, chain: Chain, stored: Mapping[str, Tensor]) -> Iterable[Tensor]:
        """The result of a chain that decomposes nothing, as one vector, in pieces: rounded as it is
        stored, but for what an operation computes piece by piece, which is not in memory yet."""
        are_equal = equality_of(stored)
        if (role := chain.result_role(are_equal)) is not None:
            return stored[role].reshape(-1).split(PANEL_ELEMENTS)
        with self.phases.timed("recombine"):
            found = self.on_tensors(chain, stored, are_equal)
            if isinstance(found, Piecewise):
                return found.pieces()
            out = torch.empty(found.kept.shape, dtype=TORCH_DTYPES[chain.step.dtype])
            _store(chain.step, panels(found.kept), out)
        return out.view(-1).split(PANEL_ELEMENTS)

    def on_tensors(
        self, chain: Chain, stored: Mapping[str, Tensor], are_equal: Equality, device: str = "cpu"
    ) -> DenseOperand | Piecewise:
        """The result of a chain that decomposes nothing, on tensors or pieces of them, by role."""
        precision = self.precision_for(stored.values(), [chain.entry])
        operands = {
            role: DenseOperand(role, values.to(device), precision)
            for role, values in stored.items()
        }

        def wrap(values: Tensor) -> DenseOperand:
            return DenseOperand("result", values, precision)

        found: DenseOperand | Piecewise = chain.result(operands, are_equal, wrap, device=device)
        return found

    def _compute(
        self, requests: Sequence[Request], number: int, device: str
    ) -> list[tuple[Tensor, dict[str, Any]]]:
        """The result of each request's chain on one block, as it is stored, and its record."""
        blocks = [step.blocks[number] for _, step in requests]
        with self.phases.timed("read"):
            views = {role: view for block in blocks for role, view in block.operands}
            stored = {role: self.load(role, view) for role, view in views.items()}
            refuse_nonfinite(stored)
        before, view, are_equal = stored[blocks[0].own], blocks[0].view, equality_of(stored)
        outs = [torch.empty(before.shape, dtype=TORCH_DTYPES[step.dtype]) for _, step in requests]
        chains = [
            Chain.of(self.plans[plan], step, block, out)
            for (plan, step), block, out in zip(requests, blocks, outs)
        ]
        busy = []
        for chain in chains:
            if (role := chain.result_role(are_equal)) is not None:
                _store(chain.step, [stored[role]], chain.out)
            elif chain.on_matrices:
                busy.append(chain)
            else:
                with self.phases.timed("recombine"):
                    on = device if chain.block.is_whole else "cpu"
                    result = self.on_tensors(chain, stored, are_equal, on)
                    if isinstance(result, Piecewise):
                        _store(chain.step, result.pieces(), chain.out.view(-1))
                    else:
                        _store(chain.step, panels(result.kept), chain.out)
        self._on_matrices(busy, stored, are_equal, device)
        with self.phases.timed("recombine"):
            for chain in chains:
                change = Change()
                for after, piece in zip(chain.out.split(PANEL_ROWS), before.split(PANEL_ROWS)):
                    change.add(after, piece)
                chain.entry.update(change.entry)
        return [(chain.out.mT if view.transposed else chain.out, chain.entry) for chain in chains]

    def _on_matrices(
        self,
        chains: Sequence[Chain],
        stored: Mapping[str, Tensor],
        are_equal: Equality,
        device: str,
    ) -> None:
        """Compute chains with operations on whole matrices: decompose, then store row by row."""
        if not chains:
            return
        decomposed = Decomposed(self, chains, stored, are_equal, device)
        asked = self.precision_for(stored.values(), [chain.entry for chain in chains])
        groups: dict[Precision, list[tuple[Chain, Sum]]] = {}
        with self.phases.timed("decompose"):
            for chain in chains:
                result, precision = decomposed.result(chain, asked)
                groups.setdefault(precision, []).append((chain, result))
            decomposed.keep()
        with self.phases.timed("recombine"):
            for precision, group in groups.items():
                positions = [0] * len(group)
                for panels in rows_of([result for _, result in group], precision.combine):
                    for i, ((chain, _), panel) in enumerate(zip(group, panels)):
                        positions[i] += _store(chain.step, [panel], chain.out[positions[i] :])

    def _convert(self, step: Step, source: Range) -> Iterator[memoryview]:
        """The bytes of a tensor that is copied in another dtype, in panels."""
        stored, wanted = TORCH_DTYPES[source.dtype], TORCH_DTYPES[step.dtype]
        panel = PANEL_ELEMENTS * stored.itemsize
        for start in range(0, source.size_bytes, panel):
            size = min(panel, source.size_bytes - start)
            raw = self.checkpoints[source.checkpoint].read(source.file, source.offset + start, size)
            values = torch.frombuffer(raw, dtype=stored)
            result = round_once(values, wanted)
            if bool((values.isfinite() & ~result.isfinite()).any()):
                raise RunFailed(
                    step.tensor,
                    f"its values overflow {step.dtype}",
                    "Store it wider: --dtype bfloat16 or --dtype float32.",
                )
            yield as_bytes(result)


def _store(step: Step, panels: Iterable[Tensor], out: Tensor) -> int:
    """Round consecutive row panels of the result into `out`; returns their number of rows.

    Raises:
        RunFailed: a value is NaN or Inf, or overflows the dtype of the output.
    """
    position = 0
    for panel in panels:
        rounded = round_once(panel, out.dtype)
        if not all_finite(rounded):
            if not all_finite(panel):
                raise RunFailed(step.tensor, "the operation returned NaN or Inf")
            raise RunFailed(
                step.tensor,
                f"the result overflows {step.dtype}",
                "Store it wider: --dtype bfloat16 or --dtype float32.",
            )
        if out.dim() == 0:
            out.copy_(rounded)
            return 1
        out[position : position + len(panel)] = rounded.to(out.device)
        position += len(panel)
    return position


def _assemble(step: Step, results: list[Tensor]) -> Tensor:
    """The parts of one expert, such as gate and up, put back into one tensor as it is stored."""
    whole = torch.empty(step.elements, dtype=results[0].dtype)
    for block, result in zip(step.blocks, results, strict=True):
        assert block.view.part is not None
        start, stop, stride = block.view.part
        rows = whole.mT if block.view.transposed else whole
        rows[start:stop:stride] = result.mT if block.view.transposed else result
    return whole
