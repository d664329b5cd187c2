"""Packed or scaled weights: how they are known, tensor by tensor, and what undoes it. Pure.

The tensors decide, not the config: a `quantization_config` beside plain floating weights is stale.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .folder import Checkpoint, Tensor
from .stacks import template

_PACKED = re.compile(
    r"\.(weight_scale(_inv)?|weight_packed|weight_shape|input_scale|qweight|qzeros|scales|g_idx"
    r"|absmax|quant_map|quant_state\..+|nested_absmax|SCB|weight_format)$|_(blocks|scales|scale_inv)$"
)
_SCALES = ("_scale_inv", "_scale", ".SCB", ".absmax", ".quant_state.bitsandbytes__nf4",
           ".quant_state.bitsandbytes__fp4")  # fmt: skip
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
        method: as the config calls it, or `unknown`.
        packed: names of packed weights, and of the scales and codes that belong to them.
        is_stale: whether the config names a method although all weights are plain.
    """

    method: str
    packed: frozenset[str]
    is_stale: bool

    @property
    def how_to_undo(self) -> str:
        """What a user can do about it."""
        other = "the tool that quantised it, or take the original weights"
        return _DEQUANTISE.get(self.method, other)


def quantisation(checkpoint: Checkpoint) -> Quantisation:
    """What is packed or scaled in a checkpoint."""
    method = _method(checkpoint.config)
    packed = frozenset(_packed(checkpoint.tensors))
    return Quantisation(method or "unknown", packed, method is not None and not packed)


def _method(config: Mapping[str, Any]) -> str | None:
    """The method that a config names, at the top or one level down."""
    parts = [config, *(value for value in config.values() if isinstance(value, dict))]
    found = next((p["quantization_config"] for p in parts if p.get("quantization_config")), None)
    return str(found.get("quant_method", "unknown")) if isinstance(found, dict) else None


def _packed(tensors: Mapping[str, Tensor]) -> list[str]:
    """Names of packed weights and of what belongs to them."""
    by_template: dict[str, bool] = {}
    found = []
    for tensor in tensors.values():
        key = template(tensor.name)
        if key not in by_template:
            by_template[key] = bool(_PACKED.search(tensor.name))
        has_scale = tensor.name.endswith("weight") and tensor.dtype in ("U8", "I8", "I32", "U32")
        if (
            by_template[key]
            or tensor.dtype.startswith(("F8_", "F6_", "F4"))
            or (has_scale and any(f"{tensor.name}{suffix}" in tensors for suffix in _SCALES))
        ):
            found.append(tensor.name)
    return found
