"""What each parameter of a model is, by the class of the module that owns it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

# Parameters outside of torch's own layers: (class, parameter, what it is, axis of the outputs).
# Read off the forward of each class; the first row that matches wins. `expert` is a stack of the
# linear maps of experts, `blocks` another stack of linear maps, `table` is no linear map.
TABLE: tuple[tuple[str, str, str, int | None], ...] = (
    (r"Conv1D", "weight", "linear", 1),
    (r"QuantLinear|MultiheadAttention", r"(in_proj_)?weight", "linear", 0),
    (r"QuantEmbedding", "weight", "embedding", None),
    (r"Dbrx\w*GLU", r"w1|v1", "flat experts", 0),
    (r"Dbrx\w*GLU", r"w2", "flat experts", 1),
    (r"Llama4TextExperts|GptOssExperts|AriaGroupedExperts\w*", r"(gate_up|down)_proj", "expert", 2),
    (r"AriaGroupedExpertsGemm", "weight", "expert", 2),
    (r"\w*Experts", r"(gate_up|gate|up|down)_proj|weight", "expert", 1),
    (r"\w*(Top[Kk]|Hash)Router|\w*Gate", "weight", "linear", 0),
    (r"\w*HyperConnection|\w*HyperHead", r"(hc_)?fn", "linear", 0),
    (r"\w*MultiModalProjector", "mm_input_projection_weight", "linear", 1),
    (r"ZambaMambaMixer", r"(x|dt)_proj_weight", "blocks", 1),
    (r"CsmCodebooksHead", "weight", "blocks", 2),
    (r"Glm5NextTextIndexer", "index_kpool_compress_gate", "linear", 0),
    (r"Glm5NextTextIndexer", "index_kpool_compress_ape", "position", None),
    (r"RecurrentGemmaRglru", r"\w*gate_weight", "blocks", 2),
    (r"FunnelRelMultiheadAttention", "r_kernel", "blocks", None),
    (r"XLNetRelativeAttention", r"[qkvor]", "blocks", None),
    (r"\w*RelativeLogits|\w*RelativePositionBias", "proj", "table", None),
    (r"\w+DynamicShortConvolution|Phi4\w+ImageEmbedding|ConvNextV2GRN", r"\w+", "table", None),
    (r"\w+", r"\w*(token|tokens|latents?|query|quer(y|ies)|probe|cls_emb)", "table", None),
    (r"\w+", r"\w*(pos|position)\w*", "position", None),
    (r"\w+", r"\w*(bias|biases|b[12]|scale|A_log|time_\w+|lambda\w*|emb\w*)\w*", "table", None),
    (r"SwiftFormer\w+", r"w_g", "table", None),
    (r"ZambaMambaMixer", "D", "table", None),
    (r"ParameterList", r"\d+", "position", None),
    (r"Mega\w+", r"\w+", "table", None),
    (r"VitsElementwiseAffine", r"translate", "table", None),
)  # fmt: skip

NORM = re.compile(r"Norm\d?d?$|Norm(?!al)\w*$|LayerNorm|RMSNorm|GroupNorm|BatchNorm|ScaledL2Clip")
# The innermost class, from a parameter up to its block, that tells what it belongs to; the
# family's own name is taken off the class first (`KimiLinear` is no linear attention).
_MODULES = (
    ("other", re.compile(r"HyperConnection|AltUp|Laurel")),
    ("router", re.compile(r"Router|TopKGating|M[oO][eE](V\d)?Gate$")),
    ("experts", re.compile(r"(?<!Shared)Experts?$|ExpertGLU|ParallelExperts")),
    ("mlp", re.compile(r"SharedExperts?MLP")),
    (
        "mixer",
        re.compile(
            r"Mixer(?!Layer)|Mamba|SSM|Rglru|RecurrentBlock|ShortConv$|Delta(Net|Attention)"
            r"|LightningAttention|RwkvSelfAttention|mLSTM|LinearAttention|ForgetGate"
        ),
    ),
    ("attention", re.compile(r"Attention|Attn|SelfOutput|CrossAtt|ShortConv")),
    (
        "mlp",
        re.compile(
            r"MLP|Mlp|FeedForward|FFN|Dense\w*Dense|Intermediate$|[a-z]Output$|MoE|Moe\w*Block|MoE$"
            r"|SparseMoe|Moe$|Ffn|SwiGLU|GLU$"
        ),
    ),
)
_WORDS = (
    ("norm", re.compile(r"norm|(^|_)ln(_|\d|$)", re.IGNORECASE)),
    ("attention", re.compile(r"attn|attention|[qkvo]_proj|query|key|value", re.IGNORECASE)),
    ("mlp", re.compile(r"mlp|ffn?\d?|fc_?\d|feed_forward|intermediate|linear\d")),
)
_GATE = re.compile(r"\.(shared_expert_gate|gate|gate\.wg|router)$")
_MIXTURE = re.compile(r"M[oO][eE]|Sparse|TopK")


@dataclass
class Parameter:
    """One parameter or buffer of the module tree, under one of its names."""

    name: str
    owner: str
    owner_class: str
    kind: str
    out_axis: int | None
    by_table: bool


def parameters(model: Any) -> Iterator[Parameter]:
    """Every parameter and buffer, a shared one under each of its names."""
    modules = dict(model.named_modules(remove_duplicate=False))
    for name, tensor in model.state_dict().items():
        owner, _, own = name.rpartition(".")
        if owner not in modules:
            continue
        if "parametrizations" in owner:  # weight norm: the module that owns the parametrised weight
            owner, _, own = owner.partition(".parametrizations")[0], "", "weight"
        module = modules[owner]
        is_buffer = own in dict(module.named_buffers(recurse=False))
        kind, axis, by_table = ("buffer", None, False) if is_buffer else _kind(module, own, tensor)
        yield Parameter(name, owner, type(module).__name__, kind, axis, by_table)


def _kind(module: nn.Module, own: str, tensor: torch.Tensor) -> tuple[str, int | None, bool]:
    """(what the parameter is, axis of the outputs of a linear map, whether by the table)."""
    if isinstance(module, nn.Embedding):
        return "embedding", None, False
    if isinstance(module, nn.modules.conv._ConvNd) or "Conv1d" in type(module).__name__:
        return "convolution" if tensor.ndim > 1 else "vector", None, False
    if isinstance(module, nn.Linear) and own == "weight":
        return "linear", 0, False
    if isinstance(module, nn.RNNBase) and own.startswith("weight"):
        return "recurrent", 0, False
    if NORM.search(type(module).__name__):
        return "norm", None, False
    if tensor.ndim < 2:
        return "vector", None, False
    for class_pattern, name_pattern, kind, axis in TABLE:
        if re.fullmatch(class_pattern, type(module).__name__) and re.fullmatch(name_pattern, own):
            if kind == "expert" and tensor.ndim != 3:
                continue
            if kind == "expert" and getattr(module, "is_transposed", False):
                axis = 2
            return kind, axis, True
    return "unknown", None, True


def module_of(model: Any, parameter: Parameter, lowest: int) -> str | None:
    """What a parameter inside a block belongs to, by the innermost class that tells.

    The first `lowest` characters of its owner's path are the block's own.
    """
    if parameter.kind == "norm":
        return "norm"
    path = parameter.owner
    family = re.match(r"(\w+?)(Text)?(For[A-Z]|LMHead|Model|With|Decoder$)", type(model).__name__)
    own_name = family[1] if family else ""
    while len(path) > lowest:
        found = type(model.get_submodule(path)).__name__
        if own_name != "Rwkv":
            found = found.removeprefix(own_name).removeprefix("Text")
        told = next((module for module, pattern in _MODULES if pattern.search(found)), None)
        if told == "mlp" and _MIXTURE.search(found) and _GATE.search(parameter.owner):
            return "router"
        if told is not None:
            return told
        path = path.rpartition(".")[0]
    for segment in reversed(parameter.owner[lowest:].split(".")):
        for module, pattern in _WORDS:
            if segment and pattern.search(segment):
                return module
    return None
