"""What must hold before an edit may start, beyond what names and shapes can tell.

Nothing here imports torch: the look at the values is a sample of a few kilobytes.
"""

from __future__ import annotations

import math
import re
import struct
from array import array
from collections.abc import Mapping, Sequence

from ..checkpoint.anatomy import anatomy_of
from ..checkpoint.folder import Checkpoint, Tensor
from ..checkpoint.header import DTYPE_BITS
from ..checkpoint.quantisation import quantisation
from ..checkpoint.roles import BASE, mirrored, spelled
from ..checkpoint.stacks import Stack
from ..errors import InputRefused, listed
from ..measure.judgement import UNRELATED_COSINE
from .steps import Plan, Step

SAMPLED_MATRICES, SAMPLED_ELEMENTS = 16, 2048

_UNMERGED = re.compile(r"\.(lora_[AB]|lora_embedding_[AB]|lora_magnitude_vector|base_layer)(\.|$)")
_STRUCT_CODES = {"F16": "e", "F32": "f", "F64": "d"}


def refuse_unusable(checkpoint: Checkpoint, role: str) -> None:
    """Refuse a checkpoint in which an adapter was saved beside the weights that it belongs to."""
    inside = [name for name in checkpoint.tensors if _UNMERGED.search(name)]
    if inside:
        raise InputRefused(
            f"{role} ({checkpoint.label})", f"holds a LoRA that is not merged, in {listed(inside, 'tensor', 3)}",
            "Merge it first: model.merge_and_unload().save_pretrained(new_folder).",
        )  # fmt: skip


def refuse_packed(checkpoint: Checkpoint, role: str, names: Sequence[str]) -> None:
    """Refuse the packed weights among `names`, which a step would have to compute with."""
    found = quantisation(checkpoint)
    if packed := [name for name in names if name in found.packed]:
        raise InputRefused(
            f"{role} ({checkpoint.label})",
            f"is quantised (method {found.method}) in {listed(packed, 'selected tensor', 3)}",
            f"Dequantise it first: {found.how_to_undo}.",
        )  # fmt: skip


def refuse_other_depths(checkpoints: Mapping[str, Checkpoint]) -> None:
    """Refuse main stacks of different depths: a layer would be set beside the one of its number, which
    another one may have become. Layers that look unrelated in a sample are named."""
    own = mirrored(checkpoints)
    ours = {stack.name: stack for stack in anatomy_of(checkpoints[own]).main}
    for role, other in checkpoints.items():
        theirs = anatomy_of(other).main
        for stack, twin in zip(ours.values(), _twins(list(ours.values()), theirs)):
            if role == own or twin is None or twin.depth == stack.depth:
                continue
            strange = _strange_layers(checkpoints[own], stack, other, twin)
            apart = f"; layers {', '.join(map(str, strange))} look unrelated" if strange else ""
            raise InputRefused(
                f"{spelled(role)} and {spelled(own)}",
                f"differ in depth: {twin.depth} layers in {spelled(role)} ({twin.name}),"
                f" {stack.depth} in {spelled(own)}{apart}",
                "Say which layer is which with --layer-map FINETUNED:BASE (0-2:0-2,3-5:5-7), or go on"
                " with --force.",
            )  # fmt: skip


def _twins(ours: Sequence[Stack], theirs: Sequence[Stack]) -> list[Stack | None]:
    """For each of ours the stack of theirs with its name, or with the same end of it, or the only one."""
    by_end = {stack.name.rpartition("model.")[2]: stack for stack in theirs}
    only = theirs[0] if len(theirs) == len(ours) == 1 else None
    return [by_end.get(stack.name.rpartition("model.")[2], only) for stack in ours]


def _strange_layers(
    finetuned: Checkpoint, stack: Stack, base: Checkpoint, twin: Stack
) -> list[int]:
    """Layers of the fine-tuned whose largest matrix has nothing in common with the base's of its number."""
    anatomy, found = anatomy_of(finetuned), []
    largest: dict[int, Tensor] = {}
    for tensor in sorted(finetuned.tensors.values(), key=lambda tensor: tensor.size_bytes):
        place = anatomy.place(tensor)
        if place.stack == stack.name and place.layer is not None and len(tensor.shape) == 2:
            largest[place.layer] = tensor
    for layer, tensor in sorted(largest.items()):
        partner = base.tensors.get(twin.name + tensor.name[len(stack.name) :])
        if partner is not None and partner.shape == tensor.shape:
            cosine = sampled_cosine([(partner, tensor)], base, finetuned)
            if cosine is not None and cosine < UNRELATED_COSINE:
                found.append(layer)
    return found


def refuse_unrelated(plan: Plan, checkpoints: Mapping[str, Checkpoint]) -> None:
    """Refuse checkpoints that have nothing in common with the one that the output mirrors, by a
    sample of the matrices that the plan changes."""
    own = checkpoints[plan.own]
    for role, other in checkpoints.items():
        if role == plan.own:
            continue
        cosine = sampled_cosine(_changed_with(plan, role, other, own), other, own)
        if cosine is not None and cosine < UNRELATED_COSINE:
            raise InputRefused(
                f"{spelled(role)} and {spelled(plan.own)}", f"look unrelated: {unrelated(cosine)}",
                "Is the base the model that was fine-tuned, at the same revision? --force goes on."
                if role == BASE else "Were both fine-tuned from one model? --force goes on.",
            )  # fmt: skip


def unrelated(cosine: float) -> str:
    """What a cosine near 0 means, in words."""
    distance = math.sqrt(max(0.0, 2 - 2 * cosine))
    return (
        f"relative delta {distance:.2f} after scaling both to one size, where independent matrices"
        " have 1.41"
    )


def sampled_cosine(
    pairs: Sequence[tuple[Tensor, Tensor]], base: Checkpoint, finetuned: Checkpoint
) -> float | None:
    """Cosine of base and fine-tuned values, on a few kilobytes of up to `SAMPLED_MATRICES` of the
    pairs, spread evenly; None where they are all zero.

    The relative delta of unrelated matrices of one size is √2, which is a cosine of 0.
    """
    stride = max(1, len(pairs) // SAMPLED_MATRICES)
    dot = size_b = size_f = 0.0
    for tensor_b, tensor_f in pairs[::stride][:SAMPLED_MATRICES]:
        b, f = _values(base, tensor_b), _values(finetuned, tensor_f)
        if len(b) != len(f) or not all(map(math.isfinite, (sum(b), sum(f)))):
            continue
        dot += sum(x * y for x, y in zip(b, f))
        size_b += sum(x * x for x in b)
        size_f += sum(y * y for y in f)
    return dot / math.sqrt(size_b * size_f) if size_b and size_f else None


def _changed_with(
    plan: Plan, role: str, other: Checkpoint, own: Checkpoint
) -> list[tuple[Tensor, Tensor]]:
    """Plain matrices that the plan changes with the help of a role, each with that role's."""
    pairs = []
    for step in plan.changes:
        if step.place.is_matrix and len(step.elements) == 2:
            name, ours = _name_in(step, role), own.tensors[step.tensor]
            twin = None if name is None else other.tensors.get(name)
            if twin is not None and twin.shape == ours.shape:
                pairs.append((twin, ours))
    return pairs


def _name_in(step: Step, role: str) -> str | None:
    """The name of the tensor that a step reads of a role, if it reads one."""
    if step.copy is not None:
        return step.tensor if step.copy.checkpoint == role else None
    return next((view.tensor for r, view in step.blocks[0].operands if r == role), None)


def _values(checkpoint: Checkpoint, tensor: Tensor) -> list[float]:
    """`SAMPLED_ELEMENTS` values from the middle of a tensor."""
    element = DTYPE_BITS[tensor.dtype] // 8
    total = tensor.size_bytes // element
    count = min(total, SAMPLED_ELEMENTS)
    start = (total - count) // 2 * element
    raw = bytes(checkpoint.read(tensor.file, tensor.offset + start, count * element))
    if tensor.dtype == "BF16":
        wide = array("I", (half << 16 for half in struct.unpack(f"<{count}H", raw)))
        return list(memoryview(wide).cast("B").cast("f"))
    return list(struct.unpack(f"<{count}{_STRUCT_CODES[tensor.dtype]}", raw))
