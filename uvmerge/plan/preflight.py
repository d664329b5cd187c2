"""What must hold before an edit may start, beyond what names and shapes can tell.

Nothing here imports torch: the look at the values is a sample of a few kilobytes.
"""

from __future__ import annotations

import math
import struct
from array import array
from collections.abc import Mapping, Sequence

from ..checkpoint.folder import Checkpoint, Tensor
from ..checkpoint.header import DTYPE_BITS
from ..checkpoint.quantisation import how_to_dequantise, quantisation
from ..checkpoint.roles import BASE, spelled
from ..errors import InputRefused, listed
from ..measure.judgement import UNRELATED_COSINE
from .steps import Plan, Step

SAMPLED_MATRICES, SAMPLED_ELEMENTS = 16, 2048

_STRUCT_CODES = {"F16": "e", "F32": "f", "F64": "d"}


def refuse_unusable(checkpoint: Checkpoint, role: str) -> None:
    """Refuse quantised weights."""
    if found := quantisation(checkpoint):
        method, names = found
        tensors = f" in {listed(names, 'tensor', 3)}" if names else ""
        raise InputRefused(
            f"{role} ({checkpoint.label})", f"is quantised (method {method}){tensors}",
            f"Dequantise it first: {how_to_dequantise(method)}.",
        )  # fmt: skip


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
