"""Which bytes of the inputs plans read. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ..checkpoint.anatomy import View
from ..checkpoint.folder import Checkpoint
from .steps import Plan

Spans = dict[str, list[tuple[int, int]]]


def spans(plans: Sequence[Plan], checkpoints: Mapping[str, Checkpoint]) -> dict[str, Spans]:
    """By role and weight file, the stretches from start to stop (bytes) that the plans read.

    A stretch that several steps read is there once.
    """
    found: dict[str, dict[str, dict[tuple[int, int], None]]] = {role: {} for role in checkpoints}
    for step in (step for plan in plans for step in plan.steps):
        if step.copy is not None:
            source = step.copy
            span = (source.offset, source.offset + source.size_bytes)
            found[source.checkpoint].setdefault(source.file, {})[span] = None
        for role, view in (operand for block in step.blocks for operand in block.operands):
            file, start, stop = _place(checkpoints[role], view)
            found[role].setdefault(file, {})[start, stop] = None
    return {role: {file: [*each] for file, each in files.items()} for role, files in found.items()}


def _place(checkpoint: Checkpoint, view: View) -> tuple[str, int, int]:
    """The file of a view's tensor, and where in it the tensor is; of fused experts, the one expert."""
    tensor = checkpoint.tensors[view.tensor]
    start, count = tensor.offset, tensor.size_bytes
    if view.expert is not None:
        count //= view.experts_in(tensor.shape)
        start += view.expert * count
    return tensor.file, start, start + count
