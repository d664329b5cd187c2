"""What must hold before an edit may start, beyond what names and shapes tell.

Nothing here imports torch: only a sample of a few kilobytes of values is read.
"""

from __future__ import annotations

import math
import re
import struct
from array import array
from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from statistics import median

from ..checkpoint.anatomy import anatomy_of
from ..checkpoint.folder import Checkpoint, Tensor
from ..checkpoint.header import DTYPE_BITS
from ..checkpoint.merged import MergedCheckpoint
from ..checkpoint.quantisation import quantisation
from ..checkpoint.roles import BASE, mirrored, spelled
from ..checkpoint.stacks import Stack
from ..errors import InputRefused, counted, listed
from ..measure.judgement import UNRELATED_COSINE
from ..text import brief
from .merges import folders_of
from .steps import Plan, Step

SAMPLED_MATRICES, SAMPLED_ELEMENTS = 16, 2048

_UNMERGED = re.compile(r"\.(lora_[AB]|lora_embedding_[AB]|lora_magnitude_vector|base_layer)(\.|$)")
_STRUCT_CODES = {"F16": "e", "F32": "f", "F64": "d"}


def refuse_unusable(checkpoint: Checkpoint, role: str) -> None:
    """Refuse a checkpoint that stores an adapter beside the weights that the adapter changes."""
    inside = [name for name in checkpoint.tensors if _UNMERGED.search(name)]
    if inside:
        raise InputRefused(
            f"{role} ({checkpoint.label})",
            f"holds a LoRA that is not merged, in {listed(inside, 'tensor', 3)}",
            "--merge-inner-adapters merges it as it is read; or merge it first:"
            " model.merge_and_unload().save_pretrained(new_folder).",
        )


def refuse_packed(checkpoint: Checkpoint, role: str, names: Sequence[str]) -> None:
    """Refuse packed weights among `names`, the tensors that a step would compute with."""
    found = quantisation(checkpoint)
    if packed := [name for name in names if name in found.packed]:
        raise InputRefused(
            f"{role} ({checkpoint.label})",
            f"is quantised (method {found.method}) in {listed(packed, 'selected tensor', 3)}",
            f"Dequantise it first: {found.how_to_undo}.",
        )


def refuse_other_depths(checkpoints: Mapping[str, Checkpoint]) -> None:
    """Refuse main stacks of different depths.

    Layers of the same number would be paired, although a layer may have moved to another number.
    The message names the layers that look unrelated in a sample.
    """
    own = mirrored(checkpoints)
    ours = {stack.name: stack for stack in anatomy_of(checkpoints[own]).main}
    for role, other in checkpoints.items():
        theirs = anatomy_of(other).main
        for stack, twin in zip(ours.values(), _counterpart_stacks(list(ours.values()), theirs)):
            if role == own or twin is None or twin.depth == stack.depth:
                continue
            where = f"{spelled(role)} and {spelled(own)}"
            kinds = [each.config.get("model_type", "") for each in (other, checkpoints[own])]
            if all(kinds) and kinds[0] != kinds[1]:
                raise InputRefused(
                    where,
                    f"are models of two kinds: {brief(str(kinds[0]))} with"
                    f" {counted(twin.depth, 'layer')}, {brief(str(kinds[1]))} with {stack.depth}",
                    "Is the base the model that was fine-tuned? --force goes on.",
                )
            found = _unrelated_layers(checkpoints[own], stack, other, twin)
            looks = "layer {} looks" if len(found) == 1 else "layers {} look"
            apart = f"; {looks.format(', '.join(map(str, found)))} unrelated" if found else ""
            raise InputRefused(
                where,
                f"differ in depth: {counted(twin.depth, 'layer')} in {spelled(role)} ({twin.name}),"
                f" {stack.depth} in {spelled(own)}{apart}",
                "Say which layer is which with --layer-map FINETUNED:BASE (0-2:0-2,3-5:5-7), or"
                " go on with --force.",
            )


def _counterpart_stacks(ours: Sequence[Stack], theirs: Sequence[Stack]) -> list[Stack | None]:
    """For each stack of ours the corresponding stack of theirs, or None.

    Stacks correspond if they have one name, else if their names end alike, or if each side has only
    one stack.
    """
    by_name = {stack.name: stack for stack in theirs}
    by_end = {stack.name.rpartition("model.")[2]: stack for stack in theirs}
    only = theirs[0] if len(theirs) == len(ours) == 1 else None
    return [
        by_name.get(stack.name, by_end.get(stack.name.rpartition("model.")[2], only))
        for stack in ours
    ]


def _unrelated_layers(
    finetuned: Checkpoint, stack: Stack, base: Checkpoint, twin: Stack
) -> list[int]:
    """Layers whose largest matrix is unrelated to that of the base's layer of the same number.

    None where values are on the Hub: a refusal reads no weights from there.
    """
    if finetuned.is_remote or base.is_remote:
        return []
    anatomy, found = anatomy_of(finetuned), []
    largest: dict[int, Tensor] = {}
    for tensor in sorted(finetuned.tensors.values(), key=lambda tensor: tensor.size_bytes):
        place = anatomy.place(tensor)
        if place.stack == stack.name and place.layer is not None and len(tensor.shape) == 2:
            largest[place.layer] = tensor
    for layer, tensor in sorted(largest.items()):
        partner = base.tensors.get(twin.name + tensor.name[len(stack.name) :])
        if partner is not None and partner.shape == tensor.shape:
            cosines = sampled_cosines([(partner, tensor)], base, finetuned)
            if any(cosine < UNRELATED_COSINE for cosine in cosines.values()):
                found.append(layer)
    return found


def same_files(checkpoints: Mapping[str, Checkpoint]) -> Iterator[str]:
    """A note for each two checkpoints that are one folder on this disk."""
    for (role, one), (other_role, other) in combinations(checkpoints.items(), 2):
        if folders_of(one) == folders_of(other):
            yield f"{spelled(role)} and {spelled(other_role)} are the same files ({one.label})"


def refuse_unrelated(plan: Plan, checkpoints: Mapping[str, Checkpoint]) -> list[str]:
    """Refuse checkpoints that are unrelated to the one that the output mirrors.

    A sample of the matrices that the plan changes decides, each matrix by itself.

    Returns:
        Names of the matrices in the sample that look unrelated although most do not.

    Raises:
        InputRefused: Most of the matrices in the sample look unrelated.
    """
    own = checkpoints[plan.own]
    strange: list[str] = []
    for role, other in checkpoints.items():
        if role == plan.own:
            continue
        cosines = sampled_cosines(_changed_with(plan, role, other, own), other, own)
        apart = {name: cosine for name, cosine in cosines.items() if cosine < UNRELATED_COSINE}
        if 2 * len(apart) > len(cosines):
            raise InputRefused(
                f"{spelled(role)} and {spelled(plan.own)}",
                f"look unrelated: {unrelated(median(apart.values()))}",
                "Is the base the model that was fine-tuned, at the same revision? --force goes on."
                if role == BASE
                else "Were both fine-tuned from one model? --force goes on.",
            )
        strange += apart
    return strange


def unrelated(cosine: float) -> str:
    """What a cosine near 0 means, in words."""
    distance = math.sqrt(max(0.0, 2 - 2 * cosine))
    return (
        f"relative delta {distance:.2f} after scaling both to one size, where independent matrices"
        " have 1.41"
    )


def sampled_cosines(
    pairs: Sequence[tuple[Tensor, Tensor]], base: Checkpoint, finetuned: Checkpoint
) -> dict[str, float]:
    """Cosine between base and fine-tuned values of a sample, by the name of the fine-tuned tensor.

    A matrix whose values are all zero has no cosine.

    The sample has `SAMPLED_ELEMENTS` values of up to `SAMPLED_MATRICES` pairs, spread evenly over
    `pairs` of (base tensor, fine-tuned tensor). The relative delta of unrelated matrices of one
    size is √2, which is a cosine of 0.
    """
    if isinstance(finetuned, MergedCheckpoint) and finetuned.base is base:
        return {}  # related by how it is made
    stride = max(1, len(pairs) // SAMPLED_MATRICES)
    chosen = pairs[::stride][:SAMPLED_MATRICES]
    base.prepare((tensor, *_middle(tensor)) for tensor, _ in chosen)
    finetuned.prepare((tensor, *_middle(tensor)) for _, tensor in chosen)
    cosines: dict[str, float] = {}
    for tensor_b, tensor_f in chosen:
        b, f = _values(base, tensor_b), _values(finetuned, tensor_f)
        if len(b) != len(f) or not all(map(math.isfinite, (sum(b), sum(f)))):
            continue
        sizes = math.sqrt(sum(x * x for x in b) * sum(y * y for y in f))
        if sizes:
            cosines[tensor_f.name] = sum(x * y for x, y in zip(b, f)) / sizes
    return cosines


def _changed_with(
    plan: Plan, role: str, other: Checkpoint, own: Checkpoint
) -> list[tuple[Tensor, Tensor]]:
    """(other's tensor, own tensor) of each matrix that the plan changes by reading `role`."""
    pairs = []
    for step in plan.changes:
        if step.place.is_matrix and len(step.elements) == 2:
            name, ours = _name_in(step, role), own.tensors[step.tensor]
            twin = None if name is None else other.tensors.get(name)
            if twin is not None and twin.shape == ours.shape:
                pairs.append((twin, ours))
    return pairs


def _name_in(step: Step, role: str) -> str | None:
    """Name of the tensor that a step reads from the checkpoint of `role`, or None."""
    if step.copy is not None:
        return step.tensor if step.copy.checkpoint == role else None
    return next((view.tensor for r, view in step.blocks[0].operands if r == role), None)


def _middle(tensor: Tensor) -> tuple[int, int]:
    """Where up to `SAMPLED_ELEMENTS` values in the middle of a tensor begin and end, in bytes."""
    element = DTYPE_BITS[tensor.dtype] // 8
    total = tensor.size_bytes // element
    count = min(total, SAMPLED_ELEMENTS)
    start = (total - count) // 2 * element
    return start, start + count * element


def _values(checkpoint: Checkpoint, tensor: Tensor) -> list[float]:
    """The values of `_middle`."""
    start, stop = _middle(tensor)
    raw = bytes(checkpoint.read(tensor.file, tensor.offset + start, stop - start))
    count = len(raw) * 8 // DTYPE_BITS[tensor.dtype]
    if tensor.dtype == "BF16":
        wide = array("I", (half << 16 for half in struct.unpack(f"<{count}H", raw)))
        return list(memoryview(wide).cast("B").cast("f"))
    return list(struct.unpack(f"<{count}{_STRUCT_CODES[tensor.dtype]}", raw))
