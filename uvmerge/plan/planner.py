"""Recipe + headers → a frozen plan of what every byte of the output will be.

Pure: no weight is read. Operations are tried out on outlines that know only a shape; one that
returns an operand untouched (`k = 0`, `alpha 0`, `reset-layers`) becomes a copy of bytes, one that
asks for values becomes an edit. Most refusals happen here.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from ..checkpoint import header
from ..checkpoint.alignment import Subject, correspond
from ..checkpoint.anatomy import Anatomy, View
from ..checkpoint.folder import Checkpoint, Tensor
from ..checkpoint.header import DTYPES, FLOATS
from ..checkpoint.roles import mirrored, spelled
from ..errors import InputRefused, RunFailed, listed
from ..recipe.recipe import Recipe
from .layout import OutputFile, layout
from .outline import try_chain
from .roster import Consequences, Roster
from .steps import Block, Plan, Range, Step


def build(
    recipe: Recipe,
    checkpoints: Mapping[str, Checkpoint],
    *,
    max_shard_bytes: int | None = None,
    force: bool = False,
    left_alone: Collection[str] = (),
    notes: Sequence[str] = (),
) -> Plan:
    """The plan for `recipe` on these checkpoints, final as it is; nothing else makes plans.

    Args:
        checkpoints: by role; `roles.mirrored` says which of them the output mirrors.
        max_shard_bytes: reshard the output; by default it mirrors that checkpoint's files.
        force: go on although hardly any selected tensor has a partner, or a merge lacks some.
        left_alone: names of tensors to copy from that checkpoint although they are selected.
        notes: what the user should know beyond what headers tell.

    Raises:
        InputRefused, UsageError: what cannot be planned, in a sentence.
    """
    recipe.refuse_other_roles(checkpoints)
    planner = _Planner(recipe, checkpoints, frozenset(left_alone))
    pieces = planner.pieces()
    planner.refuse_mismatches(force)
    own = checkpoints[planner.own]
    files, places = layout(own, recipe.dtype, max_shard_bytes)
    steps = tuple(
        replace(piece, file=places[piece.tensor][0], offset=places[piece.tensor][1] + piece.offset)
        for piece in pieces
    )
    _refuse_gaps(files, steps)
    index = None
    if len(files) > 1 and (recipe.dtype or max_shard_bytes or own.index is None):
        index = _index(own, steps)
    inputs = {role: checkpoint.identity() for role, checkpoint in checkpoints.items()}
    return Plan(recipe, inputs, files, steps, index, (*planner.notes(), *notes))


def _index(own: Checkpoint, steps: Sequence[Step]) -> dict[str, Any]:
    """The index of an output whose tensors lie in other files than those it mirrors."""
    metadata = {
        "total_parameters": sum(math.prod(t.shape) for t in own.tensors.values()),
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
    """Walks the tensors of the mirrored checkpoint once and decides each one's fate."""

    def __init__(
        self, recipe: Recipe, checkpoints: Mapping[str, Checkpoint], left_alone: Collection[str]
    ) -> None:
        self.recipe, self.checkpoints, self.left_alone = recipe, checkpoints, left_alone
        self.own = mirrored(checkpoints)
        anatomies = {role: Anatomy(each) for role, each in checkpoints.items()}
        self.anatomy = anatomies[self.own]
        for step in recipe.steps:
            step.selection.check(self.anatomy.depth)
        self.subjects = correspond(self.own, anatomies)
        others = [role for role in checkpoints if role != self.own]
        consequences = Consequences("copied", "ignored", f"left as {spelled(self.own)}")
        self.roster = Roster(self.own, others, self.subjects, consequences)
        self.dtype = DTYPES[recipe.dtype] if recipe.dtype else None

    def pieces(self) -> list[Step]:
        """Every output tensor as steps; `offset` still counts from the tensor's own start."""
        ours = (subject for subject in self.subjects if subject.role == self.own)
        return [piece for subject in ours for piece in self._pieces(subject)]

    def refuse_mismatches(self, force: bool) -> None:
        """Refuse a selection that is empty, or does not fit the other checkpoints."""
        steps = self.recipe.steps
        self.roster.refuse_empty(self.checkpoints)
        filters = [(step.selection, step.operation.matrices_only) for step in steps]
        self.roster.refuse_nothing_selected(filters, self.anatomy.depth)
        self.roster.refuse_misfits(InputRefused, force=force)
        if not force and not all(step.operation.edits for step in steps):
            self.roster.refuse_lacking()

    def notes(self) -> Iterator[str]:
        """What the user should know, as far as headers tell."""
        for checkpoint in self.checkpoints.values():
            yield from checkpoint.notes
        yield from self.anatomy.notes
        yield from self.roster.notes()
        own = self.checkpoints[self.own]
        if own.config.get("tie_word_embeddings") is True:
            tensors = own.tensors.values()
            if heads := [t.name for t in tensors if self.anatomy.place(t).module == "head"]:
                listing = listed(heads, "tensor")
                yield f"the config ties the head to the embeddings, yet stores {listing}"
        whole = [t.name for t in own.tensors.values() if t.dtype not in FLOATS]
        if whole:
            yield f"not floating point, copied: {listed(whole, 'tensor', 3)}"

    def _pieces(self, subject: Subject) -> Iterable[Step]:
        tensor, place = subject.tensor, subject.place
        chosen = [
            i for i, step in enumerate(self.recipe.steps)
            if step.selection.picks(tensor.name, place, matrices_only=step.operation.matrices_only)
        ]  # fmt: skip
        whole = self._step(subject, self._range(self.own, tensor, 0, tensor.size_bytes))
        by_name = any(self.recipe.steps[i].selection.names_module(place.module) for i in chosen)
        roles = self._roles(chosen)
        if not self.roster.admits(subject, roles if chosen else None, by_name):
            return [whole]
        blocks = [self._block(subject, roles, n, chosen) for n in range(len(subject.views))]
        if tensor.dtype not in FLOATS and any(block.chain for block in blocks):
            return [whole]  # integers can be copied from any side, not computed with
        self.roster.matched += 1
        if tensor.name in self.left_alone:
            return [whole]
        return self._copied_whole(subject, blocks) or self._stretches(subject, blocks)

    def _roles(self, chosen: Sequence[int]) -> list[str]:
        """The other roles that the chosen steps take."""
        operations = [self.recipe.steps[i].operation for i in chosen]
        taken = {role for each in operations for role in each.roles_among(self.checkpoints)}
        return [role for role in self.roster.others if role in taken]

    def _block(
        self, subject: Subject, roles: Sequence[str], number: int, chosen: Sequence[int]
    ) -> Block:
        """The view `number` of a subject, with the steps that will have to compute."""
        operands = [(self.own, subject.views[number])]
        for role in roles:
            view = subject.partners[role].views[number]
            assert view is not None  # the roster admits nothing else
            operands.append((role, view))
        steps = {i: self.recipe.steps[i] for i in chosen}
        return Block(tuple(operands), *try_chain(operands, steps, subject.place))

    def _copied_whole(self, subject: Subject, blocks: Sequence[Block]) -> list[Step]:
        """One copy of a tensor, where every block is an untouched part of it; else nothing."""
        roles = {None if block.chain else block.start_role for block in blocks}
        role = roles.pop()
        if role is None or roles:
            return []
        tensor = subject.tensor if role == self.own else subject.partners[role].tensor
        turned = any(dict(b.operands)[role].transposed != b.view.transposed for b in blocks)
        if tensor is None or tensor.shape != subject.tensor.shape or turned:
            return []
        return [self._step(subject, self._range(role, tensor, 0, tensor.size_bytes))]

    def _stretches(self, subject: Subject, blocks: Sequence[Block]) -> Iterator[Step]:
        """Contiguous stretches of a tensor: whole, per expert, or per expert's gate and up."""
        tensor = subject.tensor
        if blocks[0].view.expert is None:
            yield self._stretch(subject, blocks, 0, tensor.shape)
            return
        experts = tensor.shape[0]
        per_expert = len(blocks) // experts
        inner = tensor.shape[1:]
        apart = all(_range_in(tensor, block.view) for block in blocks)
        size = 1 if apart else per_expert
        stored = (inner[0] // (per_expert if apart else 1), *inner[1:])
        for at in range(0, len(blocks), size):
            group = blocks[at : at + size]
            span = _range_in(tensor, group[0].view) if apart else None
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
            source = self._copy_range(blocks[0])
        if source is None:
            return self._step(subject, None, offset, stored, tuple(blocks))
        return self._step(subject, source, offset, stored)

    def _copy_range(self, block: Block) -> Range | None:
        """The input bytes that are this block, if they lie together and in the same orientation."""
        assert block.start is not None
        role, view = block.operands[block.start]
        owner = self.checkpoints[role].tensors[view.tensor]
        span = _range_in(owner, view)
        if span is None or view.transposed != block.view.transposed:
            return None
        return self._range(role, owner, *span)

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
