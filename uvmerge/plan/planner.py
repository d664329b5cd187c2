"""Recipe + headers → a frozen plan of what every byte of the output will be.

Pure: no weight is read. Operations are tried out on outlines that know only a shape; one that
returns an operand untouched (`k = 0`, `alpha 0`, `reset-layers`) becomes a copy of bytes, one that
asks for values becomes an edit. Most refusals happen here.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any

from ..checkpoint import header
from ..checkpoint.alignment import Subject, correspond
from ..checkpoint.anatomy import Anatomy, Place, View
from ..checkpoint.folder import Checkpoint, Tensor
from ..checkpoint.header import DTYPES, FLOATS
from ..checkpoint.roles import BASE, FINETUNED
from ..errors import InputRefused, RunFailed, listed
from ..recipe.recipe import Recipe
from ..spectral import Log
from .layout import OutputFile, layout
from .outline import Outline, try_out
from .roster import Consequences, Roster
from .steps import Block, Plan, Range, Step

_CONSEQUENCES = Consequences(own="copied", other="ignored", unlike="left as fine-tuned")


def build(
    recipe: Recipe,
    base: Checkpoint,
    finetuned: Checkpoint,
    *,
    max_shard_bytes: int | None = None,
    force: bool = False,
    left_alone: Collection[str] = (),
    notes: Sequence[str] = (),
) -> Plan:
    """The plan for `recipe` on this pair, final as it is; nothing else makes plans.

    Args:
        max_shard_bytes: reshard the output; by default it mirrors the fine-tuned checkpoint.
        force: go on although hardly any selected tensor has a partner in the base.
        left_alone: names of tensors to copy from the fine-tuned checkpoint although they are selected.
        notes: what the user should know beyond what headers tell.

    Raises:
        InputRefused, UsageError: what cannot be planned, in a sentence.
    """
    planner = _Planner(recipe, base, finetuned, frozenset(left_alone))
    pieces = planner.pieces()
    planner.refuse_mismatches(force)
    files, places = layout(finetuned, recipe.dtype, max_shard_bytes)
    steps = tuple(
        replace(piece, file=places[piece.tensor][0], offset=places[piece.tensor][1] + piece.offset)
        for piece in pieces
    )
    _refuse_gaps(files, steps)
    index = None
    if len(files) > 1 and (recipe.dtype or max_shard_bytes or finetuned.index is None):
        index = _index(finetuned, steps)
    inputs = {BASE: base.identity(), FINETUNED: finetuned.identity()}
    return Plan(recipe, inputs, files, steps, index, (*planner.notes(), *notes))


def _index(finetuned: Checkpoint, steps: Sequence[Step]) -> dict[str, Any]:
    """The index of an output whose tensors lie in other files than the fine-tuned ones."""
    metadata = {
        "total_parameters": sum(math.prod(t.shape) for t in finetuned.tensors.values()),
        "total_size": sum(step.size_bytes for step in steps),
    }
    return {"metadata": metadata, "weight_map": dict(sorted((s.tensor, s.file) for s in steps))}


def _refuse_gaps(files: Sequence[OutputFile], steps: Sequence[Step]) -> None:
    """Fail unless header and steps cover every byte of every file exactly once."""
    reached = {file.name: len(file.header) for file in files}
    for step in sorted(steps, key=lambda step: step.offset):
        if step.size_bytes and step.offset != reached[step.file]:
            raise RunFailed(step.tensor, f"is planned at byte {step.offset:,} of {step.file}, where"
                            f" {reached[step.file]:,} was to come")  # fmt: skip
        reached[step.file] += step.size_bytes
    for file in files:
        if reached[file.name] != file.size_bytes:
            raise RunFailed(file.name, f"{reached[file.name]:,} of its {file.size_bytes:,} bytes"
                            " are planned")  # fmt: skip


class _Planner:
    """Walks the fine-tuned tensors once and decides each one's fate."""

    def __init__(
        self,
        recipe: Recipe,
        base: Checkpoint,
        finetuned: Checkpoint,
        left_alone: Collection[str],
    ) -> None:
        self.recipe, self.left_alone = recipe, left_alone
        self.checkpoints = {BASE: base, FINETUNED: finetuned}
        self.anatomies = {role: Anatomy(each) for role, each in self.checkpoints.items()}
        self.depth = self.anatomies[FINETUNED].depth
        for step in recipe.steps:
            step.selection.check(self.depth)
        self.subjects = correspond(FINETUNED, self.anatomies)
        self.roster = Roster(FINETUNED, [BASE], self.subjects, _CONSEQUENCES)
        self.dtype = DTYPES[recipe.dtype] if recipe.dtype else None

    def pieces(self) -> list[Step]:
        """Every output tensor as steps; `offset` still counts from the tensor's own start."""
        ours = (subject for subject in self.subjects if subject.role == FINETUNED)
        return [piece for subject in ours for piece in self._pieces(subject)]

    def refuse_mismatches(self, force: bool) -> None:
        """Refuse a selection that is empty, or does not fit the base."""
        self.roster.refuse_empty(self.checkpoints)
        filters = [(step.selection, step.operation.matrices_only) for step in self.recipe.steps]
        self.roster.refuse_nothing_selected(filters, self.depth)
        self.roster.refuse_misfits(InputRefused, force=force)

    def notes(self) -> Iterator[str]:
        for checkpoint in self.checkpoints.values():
            yield from checkpoint.notes
        yield from self.anatomies[FINETUNED].notes
        yield from self.roster.notes()
        finetuned, anatomy = self.checkpoints[FINETUNED], self.anatomies[FINETUNED]
        if finetuned.config.get("tie_word_embeddings") is True:
            tensors = finetuned.tensors.values()
            if heads := [t.name for t in tensors if anatomy.place(t).module == "head"]:
                listing = listed(heads, "tensor")
                yield f"the config ties the head to the embeddings, yet stores {listing}"
        whole = [t.name for t in finetuned.tensors.values() if t.dtype not in FLOATS]
        if whole:
            yield f"not floating point, copied: {listed(whole, 'tensor', 3)}"

    def _pieces(self, subject: Subject) -> Iterable[Step]:
        tensor, place = subject.tensor, subject.place
        chosen = [
            i for i, step in enumerate(self.recipe.steps)
            if step.selection.picks(tensor.name, place, matrices_only=step.operation.matrices_only)
        ]  # fmt: skip
        whole = self._step(subject, self._range(FINETUNED, tensor, 0, tensor.size_bytes))
        by_name = any(self.recipe.steps[i].selection.names_module(place.module) for i in chosen)
        if not self.roster.admits(subject, bool(chosen), by_name):
            return [whole]
        blocks = self._blocks(subject, chosen)
        if tensor.dtype not in FLOATS and any(block.chain for block in blocks):
            return [whole]  # integers can be copied from either side, not computed with
        self.roster.matched += 1
        unmoved = all(not block.chain and block.start == FINETUNED for block in blocks)
        if unmoved or tensor.name in self.left_alone:
            return [whole]
        partner = subject.partners[BASE].tensor
        if partner and all(not block.chain and block.start == BASE for block in blocks):
            same = [b.base.transposed for b in blocks] == [b.finetuned.transposed for b in blocks]
            if same and partner.shape == tensor.shape:
                return [self._step(subject, self._range(BASE, partner, 0, partner.size_bytes))]
        return self._stretches(subject, blocks)

    def _blocks(self, subject: Subject, chosen: Sequence[int]) -> list[Block]:
        partners = (view for view in subject.partners[BASE].views if view is not None)
        return [
            self._block(view, partner, subject.place, chosen)
            for view, partner in zip(subject.views, partners, strict=True)
        ]

    def _block(self, view: View, partner: View, place: Place, chosen: Sequence[int]) -> Block:
        """Try the chosen steps on outlines and keep those that will have to compute."""
        log = Log()
        base = Outline(partner.label, partner.shape, log)
        current = Outline(view.label, view.shape, log)
        start = FINETUNED
        chain: list[int] = []
        ranks: list[int | None] = []
        for i in chosen:
            step = self.recipe.steps[i]
            if current is base and step.operation.leaves_equal_inputs_alone:
                continue
            log.step = i
            result = try_out(step, base, current, place)
            if result is base:
                start, chain, ranks, current = BASE, [], [], base
            elif result is not current:
                chain.append(i)
                ranks.append(log.ranks.get(i))
                current = Outline(view.label, view.shape, log)  # of what it will have computed
        return Block(view, partner, start, tuple(chain), tuple(ranks))

    def _stretches(self, subject: Subject, blocks: Sequence[Block]) -> Iterator[Step]:
        """Contiguous stretches of a tensor: whole, per expert, or per expert's gate and up."""
        tensor = subject.tensor
        if blocks[0].finetuned.expert is None:
            yield self._stretch(subject, blocks, 0, tensor.shape)
            return
        experts = tensor.shape[0]
        per_expert = len(blocks) // experts
        inner = tensor.shape[1:]
        apart = all(_range_in(tensor, block.finetuned) for block in blocks)
        size = 1 if apart else per_expert
        stored = (inner[0] // (per_expert if apart else 1), *inner[1:])
        for at in range(0, len(blocks), size):
            group = blocks[at : at + size]
            span = _range_in(tensor, group[0].finetuned) if apart else None
            start = span[0] if span else (at // per_expert) * tensor.size_bytes // experts
            yield self._stretch(subject, group, start, stored)

    def _stretch(
        self, subject: Subject, blocks: Sequence[Block], start: int, stored: tuple[int, ...]
    ) -> Step:
        tensor = subject.tensor
        out_bytes = header.size_bytes(self.dtype_of(tensor), stored)
        stored_bytes = header.size_bytes(tensor.dtype, stored)
        offset = start * out_bytes // stored_bytes
        source = None
        if not any(block.chain for block in blocks) and len(blocks) == 1:
            source = self._copy_range(tensor, blocks[0])
        if source is None:
            return self._step(subject, None, offset, stored, tuple(blocks))
        return self._step(subject, source, offset, stored)

    def _copy_range(self, tensor: Tensor, block: Block) -> Range | None:
        """The input bytes that are this block, if they lie together and in the same orientation."""
        view = block.base if block.start == BASE else block.finetuned
        owner = self.checkpoints[BASE].tensors[view.tensor] if block.start == BASE else tensor
        span = _range_in(owner, view)
        if span is None or view.transposed != block.finetuned.transposed:
            return None
        return self._range(block.start, owner, *span)

    def dtype_of(self, tensor: Tensor) -> str:
        """The dtype in which `tensor` will be stored."""
        return self.dtype if self.dtype and tensor.dtype in FLOATS else tensor.dtype

    def _step(
        self,
        subject: Subject,
        copy: Range | None,
        offset: int = 0,
        stored: tuple[int, ...] | None = None,
        blocks: tuple[Block, ...] = (),
    ) -> Step:
        tensor = subject.tensor
        stored = tensor.shape if stored is None else stored
        dtype = self.dtype_of(tensor)
        size = header.size_bytes(dtype, stored)
        return Step(tensor.name, "", offset, size, dtype, stored, subject.place, copy, blocks)

    @staticmethod
    def _range(checkpoint: str, tensor: Tensor, start: int, size_bytes: int) -> Range:
        return Range(checkpoint, tensor.file, tensor.offset + start, size_bytes, tensor.dtype)


def _range_in(tensor: Tensor, view: View) -> tuple[int, int] | None:
    """(start, size) in bytes of a view within its tensor, or None where it is scattered."""
    if view.expert is None:
        return 0, tensor.size_bytes
    stride = tensor.size_bytes // tensor.shape[0]
    if view.part is None:
        return view.expert * stride, stride
    start, stop, step = view.part
    if view.transposed or step != 1:
        return None
    row = stride // tensor.shape[1]
    return view.expert * stride + start * row, (stop - start) * row
