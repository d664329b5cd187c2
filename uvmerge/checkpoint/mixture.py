"""A mixture of experts as a checkpoint: everything of a base, and the feed-forward blocks of several models."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import InputRefused, listed
from ..text import brief
from .composed import Beside, ComposedCheckpoint, Fill, Part, same, stored
from .folder import Checkpoint, Tensor
from .header import DTYPE_BITS, FLOATS, size_bytes
from .tokenizer_json import as_bytes

_BLOCK = re.compile(r"(model\.layers\.(\d+)\.)mlp\.(gate|up|down)_proj\.weight")
_DROPPED = re.compile(r".*rotary_emb\.inv_freq")  # a loader makes it itself
_OUTSIDE = r"model\.embed_tokens\.weight|model\.norm\.weight|lm_head\.weight"
_NORMS = r"input_layernorm\.weight|post_attention_layernorm\.weight"
_DTYPES = {"F16": "float16", "BF16": "bfloat16", "F32": "float32", "F64": "float64"}


@dataclass(frozen=True)
class Layout:
    """How an architecture names the parts of a mixture.

    Attributes:
        name: its `model_type`.
        architecture: its model class.
        dense: model types of the dense models that it can be made of.
        block: name of the feed-forward block.
        projections: what the projections of an expert are called, by their names in a dense model.
        others: the other tensors in a layer, as a regular expression.
        has_shared: whether every token passes a further, shared expert.
        count: key of the config for the number of experts.
    """

    name: str
    architecture: str
    dense: tuple[str, ...]
    block: str
    projections: Mapping[str, str]
    others: str
    has_shared: bool
    count: str

    def router(self, layer: str) -> str:
        """The name of a layer's router."""
        return f"{layer}{self.block}.gate.weight"


_QKVO = r"self_attn\.[qkvo]_proj\.weight"
_SAME = {name: f"{name}_proj" for name in ("gate", "up", "down")}
LAYOUTS = {
    each.name: each
    for each in (
        Layout(
            "mixtral", "MixtralForCausalLM", ("llama", "mistral"), "block_sparse_moe",
            {"gate": "w1", "down": "w2", "up": "w3"}, f"{_NORMS}|{_QKVO}", False,
            "num_local_experts",
        ),
        Layout(
            "qwen2_moe", "Qwen2MoeForCausalLM", ("qwen2",), "mlp", _SAME,
            rf"{_NORMS}|{_QKVO}|self_attn\.[qkv]_proj\.bias", True, "num_experts",
        ),
        Layout(
            "qwen3_moe", "Qwen3MoeForCausalLM", ("qwen3",), "mlp", _SAME,
            rf"{_NORMS}|{_QKVO}|self_attn\.[qk]_norm\.weight", False, "num_experts",
        ),
    )
}  # fmt: skip


@dataclass(frozen=True)
class Member:
    """A model that gives an expert, and the factor on the expert's output."""

    checkpoint: Checkpoint
    scale: float = 1.0


def layout_of(base: Checkpoint, name: str | None) -> Layout:
    """The layout of a mixture on a base.

    Args:
        name: `model_type` of the layout; None for the one that takes such a base.

    Raises:
        InputRefused: no layout, or not the one that is named, takes such a base.
    """
    kind = str(base.config.get("model_type"))
    fits = [each for each in LAYOUTS.values() if kind in each.dense and name in (None, each.name)]
    if not fits:
        known = "; ".join(f"{each.name} takes {', '.join(each.dense)}" for each in LAYOUTS.values())
        what = (
            f"is a model of the type {brief(kind)!r}, of which no {name or 'known'} mixture is made"
        )
        raise InputRefused(base.label, what, f"{known[:1].upper()}{known[1:]}.")
    return fits[0]


def routers_of(base: Checkpoint, layout: Layout) -> list[str]:
    """The names of the routers, in the order of the layers."""
    layers = {int(m[2]): m[1] for name in base.tensors if (m := _BLOCK.fullmatch(name))}
    return [layout.router(layers[number]) for number in sorted(layers)]


def mixture(
    base: Checkpoint,
    layout: Layout,
    experts: Sequence[Member],
    shared: Member | None,
    *,
    router: Callable[[str, int, str], bytes],
    router_dtype: str | None,
    per_token: int,
    about: Mapping[str, Any],
) -> ComposedCheckpoint:
    """The mixture; its tensors are in the files of the base.

    Args:
        router: the bytes of a router (experts, width), by its name, for so many experts, in a dtype.
        router_dtype: dtype of the routers; None for that of the base.
        per_token: how many experts a token passes.
        about: what tells the mixture apart, for its identity.

    Raises:
        InputRefused: the base has a tensor that the layout has not, or an expert does not fit.
    """
    _refuse_strange(base, layout)
    members = [*experts, *([shared] if shared else [])]
    for member in members:
        _refuse_misfit(base, member.checkpoint, mixed=router_dtype is not None)
    _refuse_other_sizes(experts)
    maker = _Maker(base, layout, experts, shared, router, router_dtype)
    files = {
        file: [part for entry in head.entries for part in maker.parts(base.tensors[entry.name])]
        for file, head in base.headers.items()
    }
    config = _config(base, layout, experts, shared, per_token)
    parents = [base, *(m.checkpoint for m in members)]
    return ComposedCheckpoint.of(
        list({id(parent): parent for parent in parents}.values()),
        {file: parts for file, parts in files.items() if parts},
        Beside(config, about, {"config.json": as_bytes(config)}),
    )


@dataclass(frozen=True)
class _Maker:
    """Makes the parts of a mixture that stand in the place of one tensor of the base."""

    base: Checkpoint
    layout: Layout
    experts: Sequence[Member]
    shared: Member | None
    router: Callable[[str, int, str], bytes]
    router_dtype: str | None

    def parts(self, tensor: Tensor) -> Iterator[Part]:
        """The tensor itself, or that of every expert; the routers come with the gates."""
        found = _BLOCK.fullmatch(tensor.name)
        if found is None:
            if not _DROPPED.fullmatch(tensor.name):
                yield same(self.base, tensor)
            return
        block = f"{found[1]}{self.layout.block}"
        if found[3] == "gate":
            width = tensor.shape[1]
            yield self._router(self.layout.router(found[1]), len(self.experts), width, tensor.dtype)
            if self.shared:
                yield self._router(f"{block}.shared_expert_gate.weight", 1, width, tensor.dtype)
        inner = self.layout.projections[found[3]]
        for number, member in enumerate(self.experts):
            yield _part(member, tensor.name, f"{block}.experts.{number}.{inner}.weight", found[3])
        if self.shared:
            name = f"{block}.shared_expert.{inner}.weight"
            yield _part(self.shared, tensor.name, name, found[3])

    def _router(self, name: str, rows: int, width: int, dtype: str) -> Part:
        dtype = self.router_dtype or dtype
        count = size_bytes(dtype, (rows, width))

        def fill(offset: int, buffer: memoryview) -> None:
            content = self.router(name, rows, dtype)
            assert len(content) == count, name
            buffer[:] = content[offset : offset + len(buffer)]

        return Part(name, dtype, (rows, width), fill)


def _part(member: Member, name: str, new: str, projection: str) -> Part:
    """A projection of an expert; the last one carries the factor on the expert's output."""
    tensor = member.checkpoint.tensors[name]
    if projection != "down" or member.scale == 1:
        return same(member.checkpoint, tensor, new)
    return Part(new, tensor.dtype, tensor.shape, _scaled(member, tensor))


def _scaled(member: Member, tensor: Tensor) -> Fill:
    """The values of a tensor times the factor of its expert, rounded once."""
    plain, element = stored(member.checkpoint, tensor), DTYPE_BITS[tensor.dtype] // 8

    def fill(offset: int, buffer: memoryview) -> None:
        import torch

        start, stop = offset // element * element, -(-(offset + len(buffer)) // element) * element
        raw = bytearray(stop - start)
        plain(start, memoryview(raw))
        dtype = getattr(torch, _DTYPES[tensor.dtype])
        values = (torch.frombuffer(raw, dtype=dtype).double() * member.scale).to(dtype)
        content = values.view(torch.uint8).numpy().data
        buffer[:] = content[offset - start : offset - start + len(buffer)]

    return fill


def _refuse_strange(base: Checkpoint, layout: Layout) -> None:
    """Refuse a base with a tensor that no model of the layout has."""
    allowed = re.compile(rf"{_OUTSIDE}|model\.layers\.\d+\.({layout.others})")
    strange = [
        name for name in base.tensors
        if not any(rule.fullmatch(name) for rule in (allowed, _BLOCK, _DROPPED))
    ]  # fmt: skip
    if strange:
        what = f"has {listed(strange, 'tensor', 3)}, for which a {layout.name} mixture has no place"
        raise InputRefused(base.label, what, "Take a base without them.")
    if not routers_of(base, layout):
        what = "has no layers named like model.layers.0.mlp.gate_proj.weight"
        raise InputRefused(base.label, what, "Take a dense decoder.")


def _blocks(checkpoint: Checkpoint) -> dict[str, Tensor]:
    """The projections of a dense model's feed-forward blocks, by name."""
    return {n: t for n, t in checkpoint.tensors.items() if _BLOCK.fullmatch(n)}


def _refuse_misfit(base: Checkpoint, other: Checkpoint, *, mixed: bool) -> None:
    """Refuse an expert of another depth or width than the base, or of another dtype unless `mixed`."""
    ours, theirs = _blocks(base), _blocks(other)
    if ours.keys() != theirs.keys():
        what = f"is of another depth than {base.label}: {listed(sorted(ours.keys() ^ theirs.keys()), 'tensor', 2)}"
        raise InputRefused(other.label, what, "Take experts that were fine-tuned from the base.")
    for name, tensor in theirs.items():
        axis = 0 if name.endswith("down_proj.weight") else 1
        if len(tensor.shape) != 2 or tensor.shape[axis] != ours[name].shape[axis]:
            what = f"{name} is {list(tensor.shape)}, {list(ours[name].shape)} in {base.label}"
            raise InputRefused(other.label, what, "Take experts as wide as the base.")
        if tensor.dtype not in FLOATS:
            raise InputRefused(other.label, f"{name} holds {tensor.dtype}", "Dequantise it.")
        if tensor.dtype != ours[name].dtype and not mixed:
            what = f"holds {tensor.dtype}, {base.label} {ours[name].dtype}"
            raise InputRefused(other.label, what, "Add `dtype: bfloat16` to the config.")


def _refuse_other_sizes(experts: Sequence[Member]) -> None:
    """Refuse experts whose feed-forward blocks differ in size."""
    first = experts[0].checkpoint
    like = _blocks(first)
    for other in (member.checkpoint for member in experts):
        for name, tensor in _blocks(other).items():
            if tensor.shape != like[name].shape:
                what = f"{name} is {list(tensor.shape)}, {list(like[name].shape)} in {first.label}"
                raise InputRefused(other.label, what, "All experts must have one size.")


def _config(
    base: Checkpoint,
    layout: Layout,
    experts: Sequence[Member],
    shared: Member | None,
    per_token: int,
) -> dict[str, Any]:
    """The config of the mixture: that of the base, with what the layout needs."""
    name = next(name for name in base.tensors if _BLOCK.fullmatch(name) and "gate" in name)
    size = experts[0].checkpoint.tensors[name].shape[0]
    config = {key: value for key, value in base.config.items() if key != "auto_map"}
    config |= {"architectures": [layout.architecture], "model_type": layout.name}
    config |= {layout.count: len(experts), "num_experts_per_tok": per_token}
    if layout.name == "mixtral":
        return config | {"intermediate_size": size}
    config |= {"moe_intermediate_size": size, "norm_topk_prob": True}
    config |= {"decoder_sparse_step": 1, "mlp_only_layers": []}
    if shared:
        inner = shared.checkpoint.tensors[name].shape[0]
        config |= {"shared_expert_intermediate_size": inner}
    return config
