"""Which bytes of the inputs plans and comparisons read. Pure.

Everything is by role and weight file: stretches from start to stop, in bytes. A stretch that is read
several times is there once.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from ..checkpoint.anatomy import View
from ..checkpoint.folder import Checkpoint, Tensor
from .pairing import Pairing
from .steps import Plan

Spans = dict[str, list[tuple[int, int]]]
_Stretch = tuple[str, int, int]  # file, start, stop


def spans(plans: Sequence[Plan], checkpoints: Mapping[str, Checkpoint]) -> dict[str, Spans]:
    """What plans read."""
    found: dict[str, list[_Stretch]] = {role: [] for role in checkpoints}
    for step in (step for plan in plans for step in plan.steps):
        if step.copy is not None:
            source = step.copy
            stretch = source.file, source.offset, source.offset + source.size_bytes
            found[source.checkpoint].append(stretch)
        for role, view in (operand for block in step.blocks for operand in block.operands):
            found[role].append(_place(checkpoints[role], view))
    return {role: _by_file(each) for role, each in found.items()}


def of_pairing(pairing: Pairing, checkpoints: Mapping[str, Checkpoint]) -> dict[str, Spans]:
    """What a comparison reads of the base and of the others, which `checkpoints` has in this order."""

    def places(number: int, checkpoint: Checkpoint) -> Iterator[_Stretch]:
        for match in pairing.matches:
            view = match.others[number - 1] if number else match.base
            if view is not None:
                yield _place(checkpoint, view)
        for at, partners in enumerate(pairing.partners, 1):
            if number in (0, at):
                for ours, theirs, _ in partners.rest:
                    yield _whole(theirs if number else ours)

    found = enumerate(checkpoints.items())
    return {role: _by_file(places(number, each)) for number, (role, each) in found}


def of_tensors(role: str, tensors: Iterable[Tensor]) -> dict[str, Spans]:
    """Whole tensors of one checkpoint."""
    return {role: _by_file(_whole(tensor) for tensor in tensors)}


def _by_file(stretches: Iterable[_Stretch]) -> Spans:
    found: dict[str, dict[tuple[int, int], None]] = {}
    for file, start, stop in stretches:
        found.setdefault(file, {})[start, stop] = None
    return {file: [*each] for file, each in found.items()}


def _whole(tensor: Tensor) -> _Stretch:
    return tensor.file, tensor.offset, tensor.offset + tensor.size_bytes


def _place(checkpoint: Checkpoint, view: View) -> _Stretch:
    """The file of a view's tensor, and where in it the tensor is; of fused experts, the one expert."""
    tensor = checkpoint.tensors[view.tensor]
    start, count = tensor.offset, tensor.size_bytes
    if view.expert is not None:
        count //= view.experts_in(tensor.shape)
        start += view.expert * count
    return tensor.file, start, start + count
