"""Packed or scaled weights: which tensors they are, and how a user dequantises them. Pure.

The tensors decide, not the config: a `quantization_config` beside plain floating-point weights is
stale.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .folder import Checkpoint, Tensor

_PACKED = re.compile(
    r"\.(weight_scale(_inv)?|weight_packed|weight_shape|input_scale|qweight|qzeros|scales|g_idx"
    r"|absmax|quant_map|quant_state\..+|nested_absmax|SCB|weight_format)$"
    r"|_(blocks|scales|scale_inv)$"
)
# How the names of scales go on where that of their codes ends: `….weight`, or `….` for `SCB`.
_SCALES = (
    "weight_scale_inv",
    "weight_scale",
    "SCB",
    "weight.SCB",
    "weight.absmax",
    "weight.quant_state.bitsandbytes__nf4",
    "weight.quant_state.bitsandbytes__fp4",
)
_CODES = ("U8", "I8", "I32", "U32")
_DEQUANTISE = {
    "fp8": "AutoModelForCausalLM.from_pretrained(folder, dtype='bfloat16') with"
    " FineGrainedFP8Config(dequantize=True), then save_pretrained(new_folder)",
    "mxfp4": "AutoModelForCausalLM.from_pretrained(folder, dtype='bfloat16') with"
    " Mxfp4Config(dequantize=True), then save_pretrained(new_folder)",
    "bitsandbytes": "model.dequantize(), then save_pretrained(new_folder)",
}


@dataclass(frozen=True)
class Quantisation:
    """What a checkpoint stores packed or scaled.

    Attributes:
        method: name of the method in the config, or `unknown`.
        packed: names of the packed weights, and of the scales and codes that belong to them.
        is_stale: whether the config names a method although all weights are plain.
    """

    method: str
    packed: frozenset[str]
    is_stale: bool

    @property
    def how_to_undo(self) -> str:
        """The call or tool that dequantises the checkpoint, for a message."""
        other = "the tool that quantised it, or take the original weights"
        return _DEQUANTISE.get(self.method, other)


def quantisation(checkpoint: Checkpoint) -> Quantisation:
    """Which tensors of a checkpoint are packed or scaled, and by which method."""
    method = _method(checkpoint.config)
    packed = frozenset(_packed_names(checkpoint.tensors))
    return Quantisation(method or "unknown", packed, method is not None and not packed)


def _method(config: Mapping[str, Any]) -> str | None:
    """The method that a config names, at the top or one level down."""
    parts = [config, *(value for value in config.values() if isinstance(value, dict))]
    found = next((p["quantization_config"] for p in parts if p.get("quantization_config")), None)
    return str(found.get("quant_method", "unknown")) if isinstance(found, dict) else None


def _packed_names(tensors: Mapping[str, Tensor]) -> list[str]:
    """Names of packed weights, and of the scales and codes that belong to them."""
    dtypes = {tensor.dtype for tensor in tensors.values()}
    narrow = {dtype for dtype in dtypes if dtype.startswith(("F8_", "F6_", "F4"))}
    found = []
    for tensor in tensors.values():
        may_be_codes = tensor.dtype in _CODES and tensor.name.endswith("weight")
        module = tensor.name.removesuffix("weight")
        if (
            tensor.dtype in narrow
            or _PACKED.search(tensor.name)
            or (may_be_codes and any(f"{module}{scale}" in tensors for scale in _SCALES))
        ):
            found.append(tensor.name)
    return found
