"""Which parameters of a model being trained are the anchored matrices, and which cannot be anchored."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from ..checkpoint.matching import MOST_CANDIDATES, differing_prefixes
from ..checkpoint.wrappers import unwrapped
from ..errors import InputRefused, listed
from .shards import is_sharded

_PEFT = "base_model.model."
_PACKED = ("qweight", "weight_packed")  # what GPTQ, AWQ and compressed-tensors have for a weight
_PLAIN_LORA = {"Linear", "Embedding"}
_LEAVE_OUT = "Leave it out of the anchor: uvmerge anchor build --layers, --modules or --exclude."


@dataclass(frozen=True)
class Adapter:
    """The trained factors of W₀ + s·BA.

    Attributes:
        B, A: parameters, (m, r) and (r, n) for a weight (m, n) as torch's Linear stores it.
        scale: s.
        transposed: whether the weight is stored as (BA)ᵀ: embeddings, Conv1D.
    """

    B: nn.Parameter
    A: nn.Parameter
    scale: float
    transposed: bool


@dataclass(frozen=True)
class Found:
    """A parameter of the model.

    Attributes:
        name: as the model has it, with what wrappers put in.
        parameter: the weight.
        adapter: what is trained in its place; None where the weight itself is trained, or nothing.
    """

    name: str
    parameter: nn.Parameter
    adapter: Adapter | None

    @property
    def trained(self) -> bool:
        """Whether training changes the matrix."""
        return self.adapter is not None or self.parameter.requires_grad


def find(model: nn.Module, wanted: Collection[str], anchor: str) -> dict[str, Found]:
    """The parameters of a model that a checkpoint calls `wanted`, in this order.

    What torch.compile, DistributedDataParallel, activation checkpointing and PEFT put into the names
    is left out of account, as is one prefix (`model.`) in which checkpoint and model differ.

    Args:
        model: the model, wrapped or not.
        wanted: names of matrices.
        anchor: where the names are from, for messages.

    Raises:
        InputRefused: a matrix is not in the model, is quantised, or has an adapter that is not LoRA;
            or the model is trained in a way that the penalty cannot take part in.
    """
    refuse_engines(model)
    present = _weights(model)
    names = _aligned(wanted, present)
    lost = [name for name in wanted if name not in names]
    if lost:
        _refuse_packed(model, lost)
        what = f"the model lacks {listed(lost, 'matrix')}"
        raise InputRefused(anchor, what, "Build the anchor from the base of this model.")
    modules = dict(model.named_modules(remove_duplicate=False))
    parameters = dict(model.named_parameters(remove_duplicate=False))
    found = {}
    for name in wanted:
        here = present[names[name]]
        refuse_quantised(name, parameters[here])
        owner = here.removesuffix(".base_layer.weight")
        adapter = None if owner == here else _adapter(name, modules[owner])
        found[name] = Found(here, parameters[here], adapter)
    return found


def refuse_engines(model: nn.Module) -> None:
    """Refuse a model whose gradients belong to DeepSpeed, or whose parameters are flat (FSDP1).

    Raises:
        InputRefused: says what to take instead.
    """
    kinds = {kind for module in model.modules() for kind in type(module).__mro__}
    if any(kind.__module__.startswith("deepspeed.") for kind in kinds) or any(
        hasattr(parameter, "ds_id") for parameter in model.parameters()
    ):
        raise deepspeed_refused()
    if any(kind.__name__ == "FullyShardedDataParallel" for kind in kinds):
        what = "is wrapped in FullyShardedDataParallel (FSDP1), which flattens its parameters"
        raise InputRefused("the model", what, "Use FSDP2: fully_shard, or fsdp_version: 2.")


def deepspeed_refused() -> InputRefused:
    """The refusal of DeepSpeed."""
    what = "DeepSpeed owns the gradients, and the penalty would not reach them"
    return InputRefused("the trainer", what, "Use FSDP2 (fully_shard; fsdp_version: 2) instead.")


def refuse_quantised(name: str, parameter: nn.Parameter) -> None:
    """Refuse a parameter whose values are codes, or are not there.

    Raises:
        InputRefused: names the tensor.
    """
    kind = type(parameter.data)
    codes = not parameter.is_floating_point() or parameter.element_size() < 2
    if codes or (kind is not torch.Tensor and not is_sharded(parameter)):
        stored = kind.__name__ if kind is not torch.Tensor else str(parameter.dtype)
        raise _quantised(name, stored)
    if parameter.is_meta:
        raise InputRefused(name, "is on the meta device", "Load the weights before training.")


def _quantised(name: str, stored: str) -> InputRefused:
    what = f"is quantised ({stored}); the penalty needs the weights that the anchor was built from"
    return InputRefused(name, what, "Load the model without quantisation.")


def _refuse_packed(model: nn.Module, lost: Collection[str]) -> None:
    """Refuse a model that has packed codes in the place of a weight."""
    tensors = {name for name, _ in model.named_buffers()}
    tensors |= {name for name, _ in model.named_parameters()}
    for name in lost:
        stem = name.removesuffix("weight")
        packed = next((end for end in _PACKED if f"{stem}{end}" in tensors), None)
        if packed:
            raise _quantised(name, packed)


def _weights(model: nn.Module) -> dict[str, str]:
    """The model's name of each weight by its name in a checkpoint."""
    names = [name for name, _ in model.named_parameters(remove_duplicate=False)]
    plain, _ = unwrapped(names)
    shorts = {name: plain.get(name, name) for name in names}
    if all(short.startswith(_PEFT) for short in shorts.values()):
        shorts = {name: short.removeprefix(_PEFT) for name, short in shorts.items()}
    kept = ((name, _without_peft(short.split("."))) for name, short in shorts.items())
    return {short: name for name, short in kept if short}


def _without_peft(segments: list[str]) -> str:
    """The name without what PEFT put in; empty for what a checkpoint does not have."""
    if "original_module" in segments or any(s.startswith("lora_") for s in segments):
        return ""
    if "modules_to_save" in segments:  # followed by the name of the adapter
        at = segments.index("modules_to_save")
        del segments[at : at + 2]
    return ".".join(s for s in segments if s not in ("base_layer", "token_adapter"))


def _aligned(wanted: Collection[str], present: Collection[str]) -> dict[str, str]:
    """The name in `present` of each of `wanted`: the same, or with another prefix for all others."""
    exact = {name: name for name in wanted if name in present}
    others = [name for name in wanted if name not in exact]
    free = set(present) - exact.keys()
    if not others or not free:
        return exact
    ways = {}
    for ours, theirs in _prefixes(others[0], free):
        way = {n: theirs + n[len(ours) :] for n in others if n.startswith(ours)}
        if len(way) == len(others) and free.issuperset(way.values()):
            ways[ours, theirs] = way
    return exact | next(iter(ways.values())) if len(ways) == 1 else exact


def _prefixes(name: str, others: Collection[str]) -> Iterator[tuple[str, str]]:
    """The prefixes in which `name` and each of `others` that ends alike differ."""
    segments = name.split(".")
    at = next((i for i, segment in enumerate(segments) if segment.isdecimal()), 1)
    tail = ".".join(segments[max(at - 1, 0) :])
    alike = [other for other in others if f".{other}".endswith(f".{tail}")]
    for other in sorted(alike)[:MOST_CANDIDATES]:
        yield differing_prefixes(name, other)


def _adapter(name: str, layer: Any) -> Adapter | None:
    """The one active LoRA adapter of a PEFT layer.

    Raises:
        InputRefused: names the tensor, and what trains it.
    """
    kind = type(layer)
    if not kind.__module__.startswith("peft.tuners.lora.") or kind.__name__ not in _PLAIN_LORA:
        raise _other_adapter(name, kind.__name__)
    factors: Mapping[str, Any] = {**layer.lora_A, **layer.lora_embedding_A}
    active = [each for each in layer.active_adapters if each in factors]
    if not active or layer.disable_adapters:
        return None
    if len(active) > 1:
        raise _other_adapter(name, f"{len(active)} adapters at once")
    variants: Mapping[str, Any] = getattr(layer, "lora_variant", {})
    variant = type(variants[active[0]]).__name__ if active[0] in variants else ""
    if variant or layer.use_dora.get(active[0]):
        raise _other_adapter(name, variant.split("Linear")[0] or "DoRA")
    if layer.merged:
        what = "has its adapter merged into the weight"
        raise InputRefused(name, what, "Unmerge it before training: model.unmerge_adapter().")
    return _lora(name, layer, active[0])


def _lora(name: str, layer: Any, active: str) -> Adapter:
    is_embedding = active in layer.lora_embedding_A
    if is_embedding:
        B, A = layer.lora_embedding_B[active], layer.lora_embedding_A[active]
    else:
        B, A = layer.lora_B[active].weight, layer.lora_A[active].weight
    if not (A.requires_grad and B.requires_grad):
        raise frozen(name, "its adapter is frozen", "Load the adapter with is_trainable=True.")
    if layer.get_base_layer().weight.requires_grad:
        raise _other_adapter(name, "the weight and an adapter at once")
    return Adapter(B, A, float(layer.scaling[active]), is_embedding or bool(layer.fan_in_fan_out))


def frozen(name: str, what: str = "is frozen", do: str = _LEAVE_OUT) -> InputRefused:
    """The refusal of a matrix that training cannot change."""
    return InputRefused(name, f"{what}, so there is nothing to anchor", do)


def _other_adapter(name: str, what: str) -> InputRefused:
    return InputRefused(
        name,
        f"is trained by {what}; the penalty knows full weights and plain LoRA",
        "Use LoRA without variants (no DoRA), one adapter at a time.",
    )


def has_adapters(model: nn.Module) -> bool:
    """Whether the model has layers of PEFT."""
    return any(type(module).__module__.startswith("peft.tuners.") for module in model.modules())


def is_sharded_model(model: nn.Module) -> bool:
    """Whether `fully_shard` (FSDP2) is in charge of a module of the model."""
    kinds = {kind for module in model.modules() for kind in type(module).__mro__}
    return any(kind.__name__ == "FSDPModule" for kind in kinds)
