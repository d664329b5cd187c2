"""What must hold before an edit may start, beyond what headers can tell alone.

Nothing here imports torch: the look at the values is a sample of a few kilobytes.
"""

from __future__ import annotations

import math
import re
import struct
from array import array
from collections.abc import Sequence

from ..checkpoint.folder import Checkpoint, Tensor
from ..checkpoint.header import DTYPE_BITS
from ..errors import InputRefused, listed
from ..measure.judgement import UNRELATED_COSINE
from .planner import BASE, FINETUNED, Plan, Step

SAMPLED_MATRICES, SAMPLED_ELEMENTS = 16, 2048

_STRUCT_CODES = {"F16": "e", "F32": "f", "F64": "d"}
_PACKED = re.compile(
    r"\.(weight_scale(_inv)?|weight_packed|weight_shape|input_scale|qweight|qzeros|scales|g_idx"
    r"|absmax|quant_map|quant_state\..+|nested_absmax|SCB|weight_format)$|_(blocks|scales|scale_inv)$"
)
_DEQUANTISE = {
    "fp8": "AutoModelForCausalLM.from_pretrained(folder, dtype='bfloat16') with"
    " FineGrainedFP8Config(dequantize=True), then save_pretrained(new_folder)",
    "mxfp4": "AutoModelForCausalLM.from_pretrained(folder, dtype='bfloat16') with"
    " Mxfp4Config(dequantize=True), then save_pretrained(new_folder)",
    "bitsandbytes": "model.dequantize(), then save_pretrained(new_folder)",
}


def quantisation(checkpoint: Checkpoint) -> tuple[str, list[str]] | None:
    """(method, tensor names) where the checkpoint stores packed or scaled weights, else None."""
    parts = [checkpoint.config, *(v for v in checkpoint.config.values() if isinstance(v, dict))]
    config = next((p["quantization_config"] for p in parts if p.get("quantization_config")), None)
    packed = [
        t.name for t in checkpoint.tensors.values()
        if t.dtype.startswith(("F8_", "F6_", "F4")) or _PACKED.search(t.name)
    ]  # fmt: skip
    if not packed and not isinstance(config, dict):
        return None
    method = str(config.get("quant_method", "unknown")) if isinstance(config, dict) else "unknown"
    return method, packed


def refuse_unusable(checkpoint: Checkpoint, role: str) -> None:
    """Refuse quantised weights, and tensors that were saved empty."""
    if found := quantisation(checkpoint):
        method, names = found
        how = _DEQUANTISE.get(method, "the tool that quantised it, or take the original weights")
        tensors = f" in {listed(names, 'tensor', 3)}" if names else ""
        raise InputRefused(
            f"{role} ({checkpoint.label})", f"is quantised (method {method}){tensors}",
            f"Dequantise it first: {how}.",
        )  # fmt: skip


def refuse_unrelated(plan: Plan, checkpoints: dict[str, Checkpoint]) -> float | None:
    """Refuse a pair whose matrices have nothing in common; returns the cosine that was found, on a
    sample of the matrices that the plan changes."""
    pairs = _changed(plan, checkpoints)
    cosine = sampled_cosine(pairs, checkpoints[BASE], checkpoints[FINETUNED])
    if cosine is not None and cosine < UNRELATED_COSINE:
        raise InputRefused(
            "base and fine-tuned", f"look unrelated: {unrelated(cosine)}",
            "Is the base the model that was fine-tuned, at the same revision? --force goes on.",
        )  # fmt: skip
    return cosine


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


def _changed(plan: Plan, checkpoints: dict[str, Checkpoint]) -> list[tuple[Tensor, Tensor]]:
    """Pairs of plain matrices that the plan changes."""
    base, finetuned = checkpoints[BASE].tensors, checkpoints[FINETUNED].tensors
    pairs = []
    for step in plan.steps:
        if step.changes and step.place.is_matrix and len(step.elements) == 2:
            twin = base.get(_base_name(step))
            ours = finetuned[step.tensor]
            if twin is not None and twin.shape == ours.shape:
                pairs.append((twin, ours))
    return pairs


def _base_name(step: Step) -> str:
    return step.blocks[0].base.tensor if step.blocks else step.tensor


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
