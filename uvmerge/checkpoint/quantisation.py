"""Checkpoints that store packed or scaled weights: how they are known, and what undoes it."""

from __future__ import annotations

import re

from .folder import Checkpoint

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


def how_to_dequantise(method: str) -> str:
    """What a user can do about weights that `method` has quantised."""
    return _DEQUANTISE.get(method, "the tool that quantised it, or take the original weights")
