"""Turns the blocks of a tensor into the stretches of the output that they fill. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from ..checkpoint import header
from ..checkpoint.alignment import Subject
from ..checkpoint.anatomy import View
from ..checkpoint.folder import Checkpoint, Tensor
from ..checkpoint.header import FLOATS
from .steps import Block, Range, Step


class Stretches:
    """Cuts tensors of the mirrored checkpoint into steps.

    Args:
        own: role of the mirrored checkpoint.
        checkpoints: every checkpoint of the run, by role.
        dtype: dtype in which floating-point tensors are stored; None keeps the dtype of each.
        places: (output file, offset in bytes) of each tensor by name.
    """

    def __init__(
        self,
        own: str,
        checkpoints: Mapping[str, Checkpoint],
        dtype: str | None,
        places: Mapping[str, tuple[str, int]],
    ) -> None:
        self.own, self.checkpoints, self.dtype = own, checkpoints, dtype
        self.places = places

    def copy(self, subject: Subject) -> list[Step]:
        """The one step that copies a tensor as it is."""
        tensor = subject.tensor
        return [self._step(subject, _range(self.own, tensor, 0, tensor.size_bytes))]

    def edit(self, subject: Subject, blocks: Sequence[Block]) -> list[Step]:
        """The steps that compute or copy the parts of a tensor."""
        return self._copied_whole(subject, blocks) or list(self._stretches(subject, blocks))

    def _copied_whole(self, subject: Subject, blocks: Sequence[Block]) -> list[Step]:
        """One copy of the tensor, where every block is an untouched part of it; else no step."""
        roles = {None if block.chain else block.start_role for block in blocks}
        role = roles.pop()
        if role is None or roles:
            return []
        tensor = subject.tensor if role == self.own else subject.partners[role].tensor
        turned = any(dict(b.operands)[role].transposed != b.view.transposed for b in blocks)
        if tensor is None or tensor.shape != subject.tensor.shape or turned:
            return []
        return [self._step(subject, _range(role, tensor, 0, tensor.size_bytes))]

    def _stretches(self, subject: Subject, blocks: Sequence[Block]) -> Iterator[Step]:
        """One step per contiguous stretch: a tensor, an expert, or an expert's gate or up."""
        tensor = subject.tensor
        if blocks[0].view.expert is None:
            yield self._stretch(subject, blocks, 0, tensor.shape)
            return
        experts = blocks[0].view.experts_in(tensor.shape)
        per_expert = len(blocks) // experts
        inner = blocks[0].view.stored
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
        out_bytes = header.size_bytes(self._dtype_of(tensor), stored)
        stored_bytes = header.size_bytes(tensor.dtype, stored)
        offset = start * out_bytes // stored_bytes
        source = None
        if not any(block.chain for block in blocks) and len(blocks) == 1:
            source = self._copy_range(blocks[0])
        if source is None:
            return self._step(subject, None, offset, stored, tuple(blocks))
        return self._step(subject, source, offset, stored)

    def _copy_range(self, block: Block) -> Range | None:
        """The input bytes of the block, if they are contiguous and in the same orientation."""
        assert block.start is not None
        role, view = block.operands[block.start]
        owner = self.checkpoints[role].tensors[view.tensor]
        span = _range_in(owner, view)
        if span is None or view.transposed != block.view.transposed:
            return None
        return _range(role, owner, *span)

    def _dtype_of(self, tensor: Tensor) -> str:
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
        dtype = self._dtype_of(tensor)
        size = header.size_bytes(dtype, stored)
        file, start = self.places[tensor.name]
        return Step(
            tensor.name, file, start + offset, size, dtype, stored, subject.place, copy, blocks
        )


def _range(checkpoint: str, tensor: Tensor, start: int, size_bytes: int) -> Range:
    return Range(checkpoint, tensor.file, tensor.offset + start, size_bytes, tensor.dtype)


def _range_in(tensor: Tensor, view: View) -> tuple[int, int] | None:
    """(start, size) in bytes of a view within its tensor, or None where its bytes are scattered."""
    if view.expert is None:
        return 0, tensor.size_bytes
    stride = tensor.size_bytes // view.experts_in(tensor.shape)
    if view.part is None:
        return view.expert * stride, stride
    start, stop, step = view.part
    if view.transposed or step != 1:
        return None
    row = stride // view.stored[0]
    return view.expert * stride + start * row, (stop - start) * row
