"""What every saved tensor of a transformers model is, told by its module tree and nothing else.

The truth that a reading of names and shapes is compared with. transformers renames, splits and
joins parameters when it saves, so a saved tensor is traced to its parameters by probes: the model
is saved with every parameter full of its own number, then with every element holding its index
along one axis. Uses torch and transformers, and nothing of uvmerge.
"""

from __future__ import annotations

import re
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import nn

Tensors = dict[str, torch.Tensor]

# Parameters outside of torch's own layers: (class, parameter, what it is, axis of the outputs).
# Read off the forward of each class; the first row that matches wins. `expert` is a stack of the
# linear maps of experts, `blocks` another stack of linear maps, `table` is never multiplied as a map.
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
    (r"\w+", r"\w*(bias|biases|b[12]|scale|A_log|time_\w+|lambda\w*|embedding|emb\w*)\w*", "table", None),
    (r"SwiftFormer\w+", r"w_g", "table", None),
    (r"ZambaMambaMixer", "D", "table", None),
    (r"ParameterList", r"\d+", "position", None),
    (r"VitsElementwiseAffine", r"translate", "table", None),
)  # fmt: skip

_NORM = re.compile(r"Norm\d?d?$|Norm(?!al)\w*$|LayerNorm|RMSNorm|GroupNorm|BatchNorm|ScaledL2Clip")
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
            r"|LightningAttention|^SelfAttention$|mLSTM|LinearAttention|ForgetGate"
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
    ("mlp", re.compile(r"mlp|ffn?\d?|fc_?\d|feed_forward|intermediate|linear\d|dense")),
)
_GATE = re.compile(r"\.(shared_expert_gate|gate\.wg|router)$")
_TEXT = re.compile(
    r"(^|[._])(text|language)_?(model|encoder|decoder)|talker|thinker\.model\.layers"
)
_VISION = re.compile(r"visi|visual|image(?!_text)|video|vqmodel|sam_encoder|pixel", re.IGNORECASE)
_AUDIO = re.compile(
    r"audio|speech\w*_encoder(?!_decoder)|codec|mimi|acoustic|sound|vocoder|code2wav|token2wav",
    re.IGNORECASE,
)
_AUXILIARY = re.compile(
    r"q_?former|resampler|perceiver|talker|mtp|depth_decoder|connector|adapter|predictor|diffusion"
    r"|projector|patcher|local_(en|de)coder|t2u|flow|duration|protein|semantic|embed(_|$)|_head"
)


@dataclass
class Stack:
    """A list of repeated blocks: `name` is the parent's path and the list's own."""

    name: str
    depth: int
    lists: list[str]  # more than one where a block is spread over parallel lists
    inner: bool  # inside a block of another stack
    kind: str = "other"
    size: int = 0


@dataclass
class Parameter:
    """One parameter or buffer of the module tree, under one of its names."""

    name: str
    owner: str
    owner_class: str
    kind: str
    out_axis: int | None
    by_table: bool


def truth(model: Any, folder: Path) -> dict[str, Any]:
    """The truth about the tensors that `model` saved in `folder`, as plain JSON data."""
    saved = _saved(folder)
    probes = Probes(model)
    stacks = _stacks(model)
    _name_kinds(model, stacks)
    parameters = {p.name: p for p in _parameters(model)}
    ends = _ends(model)
    tensors = {}
    for name, tensor in sorted(saved.items()):
        found = probes.sources(name)
        sources = [parameters[s] for s in found if s in parameters]
        tensors[name] = {"shape": list(tensor.shape), "dtype": str(tensor.dtype).split(".")[1]}
        tensors[name] |= _tensor(model, name, tensor, sources, stacks, ends, probes)
    return {
        "architecture": type(model).__name__,
        "encoder_decoder": bool(getattr(model.config, "is_encoder_decoder", False)),
        "stacks": [_stack_record(s, tensors) for s in stacks],
        "main": _main_stacks(model, stacks),
        "tied": _tied(model, probes),
        "untraced": [n for n, t in tensors.items() if not t["parameters"]],
        "tensors": tensors,
    }


class Probes:
    """Which parameters, and which of their axes, every saved tensor is made of."""

    def __init__(self, model: Any) -> None:
        state = model.state_dict()
        self.names = list(state)
        self._ids = _save_as(model, {n: _full(t, i + 1) for i, (n, t) in enumerate(state.items())})
        ranks = max((t.ndim for t in state.values()), default=0)
        self._axes = [
            _save_as(model, {n: _positions(t, axis) for n, t in state.items()})
            for axis in range(min(ranks, 3))
        ]

    def sources(self, saved: str) -> list[str]:
        """Names of the parameters inside the saved tensor, in their order in it."""
        if saved not in self._ids:
            return []
        values = dict.fromkeys(self._ids[saved].flatten().tolist())
        return [self.names[int(v) - 1] for v in values if v == int(v) and 0 < v <= len(self.names)]

    def saved_name(self, parameter: str) -> str | None:
        """The first saved tensor that holds `parameter`."""
        number = self.names.index(parameter) + 1
        return next((n for n, t in self._ids.items() if bool((t == number).any())), None)

    def varies(self, saved: str, axis: int) -> list[int]:
        """The saved axes along which the parameter's index on its own `axis` changes."""
        if axis >= len(self._axes) or saved not in self._axes[axis]:
            return []
        tensor = self._axes[axis][saved]
        return [a for a in range(tensor.ndim) if bool((tensor.diff(dim=a) != 0).any())]

    def index(self, saved: str, axis: int) -> int | None:
        """The one index on the parameter's `axis` that the saved tensor holds, if it is one."""
        if axis >= len(self._axes) or saved not in self._axes[axis]:
            return None
        values = self._axes[axis][saved].unique()
        return int(values[0]) if len(values) == 1 else None


def _saved(folder: Path) -> Tensors:
    return {n: t for path in folder.glob("*.safetensors") for n, t in load_file(path).items()}


def _save_as(model: Any, state: Tensors) -> Tensors:
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder, state_dict=state)
        return _saved(Path(folder))


def _full(tensor: torch.Tensor, number: int) -> torch.Tensor:
    return torch.full(tensor.shape, float(number), dtype=torch.float32)


def _positions(tensor: torch.Tensor, axis: int) -> torch.Tensor:
    if axis >= tensor.ndim:
        return torch.zeros(tensor.shape)
    shape = [1] * tensor.ndim
    shape[axis] = tensor.shape[axis]
    index = torch.arange(tensor.shape[axis], dtype=torch.float32).reshape(shape)
    return index.expand(tensor.shape).clone()


def _parameters(model: Any) -> Iterator[Parameter]:
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
    if _NORM.search(type(module).__name__):
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


def _stacks(model: Any) -> list[Stack]:
    """Lists of at least two like blocks, outer ones first; of one where a model has no other."""
    stacks = _lists_of_blocks(model, least=2) or _lists_of_blocks(model, least=1)
    stacks.sort(key=lambda s: s.lists[0].count("."))
    for stack in stacks:
        stack.inner = any(
            o is not stack and any(stack.lists[0].startswith(f"{p}.") for p in o.lists)
            for o in stacks
        )
    return stacks


def _lists_of_blocks(model: Any, least: int) -> list[Stack]:
    stacks: list[Stack] = []
    groups: dict[str, list[tuple[str, nn.Module]]] = defaultdict(list)
    for path, module in model.named_modules():
        if isinstance(module, nn.ModuleList | nn.Sequential) and path:
            groups[path.rpartition(".")[0]].append((path, module))
    for parent, lists in groups.items():
        blocks = [(path, m) for path, m in lists if _repeats(path, m, least)]
        for path, module in blocks:
            depth = len(list(module.children()))
            beside = [p for p, m in lists if _leaves(m) and len(m) == depth]
            rows = [p for p, m in blocks if len(m) == depth] + beside if beside else [path]
            ends = [row.rpartition(".")[2] for row in rows]
            name = f"{parent}.{'|'.join(ends)}" if len(rows) > 1 else path
            if not any(s.lists == rows for s in stacks):
                stacks.append(Stack(name, depth, rows, inner=False))
    return stacks


def _repeats(path: str, module: nn.Module, least: int) -> bool:
    """Whether a list holds `least` blocks that are alike, each of several modules with weights."""
    children = list(module.children())
    if re.search(r"experts?$", path):
        return False
    inside = [c for c in children if next(c.children(), None) is not None]
    if sum(1 for c in inside if _linear_size(c) or _convolves(c)) < least:
        return False
    if least == 1:
        return bool(inside) and isinstance(module, nn.ModuleList)
    classes = Counter(type(c).__name__ for c in inside)
    names = Counter(frozenset(n for n, _ in c.named_children()) for c in inside)
    common = set.intersection(*(set(dict(c.named_children())) for c in inside))
    alike = classes.most_common(1)[0][1] >= 2 or names.most_common(1)[0][1] >= 2 or len(common) >= 2
    return alike and (isinstance(module, nn.ModuleList) or len(classes) == 1)


def _convolves(module: nn.Module) -> bool:
    return any(isinstance(m, nn.modules.conv._ConvNd) for m in module.modules())


def _leaves(module: nn.Module) -> bool:
    """Whether a list holds norms alone, as FlauBERT's do."""
    children = list(module.children())
    if not isinstance(module, nn.ModuleList):
        return False
    if not all(_NORM.search(type(c).__name__) for c in children):
        return False
    return len(children) > 1 and all(next(c.children(), None) is None for c in children)


def _name_kinds(model: Any, stacks: list[Stack]) -> None:
    modules = dict(model.named_modules())
    for stack in stacks:
        for path in stack.lists:
            stack.size += _linear_size(modules[path])
        ancestors = [modules[""]]
        parts = stack.lists[0].split(".")
        ancestors += [modules[".".join(parts[: i + 1])] for i in range(len(parts) - 1)]
        owner = [m for m in ancestors if hasattr(m, "config")][-1]
        stack.kind = _stack_kind(model, stack.lists[0], owner)


def _linear_size(blocks: nn.Module) -> int:
    """Elements of the linear maps; a stack of convolutions is no language model."""
    others = nn.Embedding | nn.modules.conv._ConvNd
    skipped = {id(p) for m in blocks.modules() if isinstance(m, others) for p in m.parameters()}
    return sum(p.numel() for p in blocks.parameters() if p.ndim in (2, 3) and id(p) not in skipped)


def _stack_kind(model: Any, path: str, owner: Any) -> str:
    config_class = re.sub(r"(?<!^)([A-Z])", r"_\1", type(owner.config).__name__)
    own_config = owner.config is not model.config
    if not _TEXT.search(path):
        for word, pattern in (("audio", _AUDIO), ("vision", _VISION)):
            if pattern.search(path) or (own_config and pattern.search(config_class)):
                return word
    if _AUXILIARY.search(path):
        return "other"
    whole, own = (getattr(m, "main_input_name", "input_ids") for m in (model, owner))
    if own == "pixel_values" and own_config:
        return "vision"
    if not _TEXT.search(path) and not _generates(model):
        if "pixel_values" in (whole, own):
            return "vision"
        if {"input_values", "input_features"} & {whole, own}:
            return "audio"
    if own in ("input_values", "input_features") and "decoder" not in path:
        return "audio"
    if getattr(model.config, "is_encoder_decoder", False):
        return "text decoder" if "decoder" in path else "text encoder"
    return "text decoder" if _generates(model) else "text encoder"


def _generates(model: Any) -> bool:
    words = re.search(r"Causal|LMHead|Conditional|Generation|Decoder", type(model).__name__)
    return bool(words) or bool(getattr(model, "can_generate", lambda: False)())


def _main_stacks(model: Any, stacks: list[Stack]) -> list[str]:
    """The language stacks: the decoder's, and the encoder's of an encoder-decoder model."""
    outer = [s for s in stacks if not s.inner]
    text = [s for s in outer if s.kind.startswith("text")] or outer
    if not text:
        return []
    if getattr(model.config, "is_encoder_decoder", False):
        decoders = [s for s in text if "decoder" in s.lists[0]]
        encoders = [s for s in text if "encoder" in s.lists[0] and s not in decoders]
        speech = [s for s in outer if "encoder" in s.lists[0] and s.kind == "audio"]
        return [_heaviest(half).name for half in (decoders, encoders or speech) if half]
    inside = _decoder_path(model) if _generates(model) else None
    own = [s for s in text if inside and s.lists[0].startswith(f"{inside}.")] or text
    best = _heaviest(own)
    twins = [s for s in own if s.size == best.size and s.lists[0].count(".") == 2 and s is not best]
    return [best.name, *(s.name for s in twins)]


def _heaviest(stacks: list[Stack]) -> Stack:
    return max(stacks, key=lambda s: s.size)


def _decoder_path(model: Any) -> str | None:
    decoder = getattr(model, "get_decoder", lambda: None)()
    return next((path for path, m in model.named_modules() if m is decoder), None)


def _ends(model: Any) -> dict[int, str]:
    """Input embeddings and heads, by the identity of their weight."""
    ends: dict[int, str] = {}
    for module in model.modules():
        if not hasattr(module, "get_input_embeddings"):
            continue
        for role, get in (
            ("head", "get_output_embeddings"),
            ("embeddings", "get_input_embeddings"),
        ):
            try:
                end = getattr(module, get)()
            except (AttributeError, NotImplementedError, TypeError):
                continue
            for parameter in end.parameters(recurse=False) if isinstance(end, nn.Module) else ():
                if role == "embeddings" and not isinstance(end, nn.Embedding):
                    continue
                ends[id(parameter)] = role
    return ends


def _tensor(
    model: Any,
    name: str,
    tensor: torch.Tensor,
    sources: list[Parameter],
    stacks: list[Stack],
    ends: dict[int, str],
    probes: Probes,
) -> dict[str, Any]:
    kinds = list(dict.fromkeys(s.kind for s in sources)) or ["untraced"]
    record: dict[str, Any] = {"parameters": [s.name for s in sources]}
    record["kind"] = kinds[0] if len(kinds) == 1 else "mixed"
    if any(s.by_table for s in sources):
        record["by_table"] = True
    if not sources:
        return record
    first = sources[0]
    record["class"] = first.owner_class
    record |= _standing(model, first, stacks)
    parameter = _get(model, first.name)
    if role := ends.get(id(parameter)):
        record["end"] = role
    record |= _linear(model, name, tensor, first, parameter, probes)
    return record


def _get(model: Any, name: str) -> torch.Tensor | None:
    owner, _, own = name.rpartition(".")
    return getattr(model.get_submodule(owner), own, None)


def _standing(model: Any, parameter: Parameter, stacks: list[Stack]) -> dict[str, Any]:
    """Stack, layer, inner stacks and module of a parameter."""
    record: dict[str, Any] = {"stack": None, "layer": None}
    inside: list[tuple[str, int]] = []
    for stack in stacks:
        for path in stack.lists:
            if parameter.name.startswith(f"{path}."):
                index = parameter.name[len(path) + 1 :].partition(".")[0]
                if index.isdecimal():
                    inside.append((stack.name, int(index)))
                    block = f"{path}.{index}"
                    if len(inside) == 1:
                        record |= {"stack": stack.name, "layer": int(index), "_block": block}
    if inside[1:]:
        record["inner"] = inside[1:]
    block = record.pop("_block", None)
    if block is not None:
        spread = any(s.name == record["stack"] and len(s.lists) > 1 for s in stacks)
        record["module"] = _module(model, parameter, len(block) - spread)
    return record


def _module(model: Any, parameter: Parameter, lowest: int) -> str | None:
    """What a parameter inside a block belongs to, by the innermost class that tells."""
    if parameter.kind == "norm":
        return "norm"
    path = parameter.owner
    family = re.match(r"(\w+?)(Text)?(For[A-Z]|LMHead|Model|With|Decoder$)", type(model).__name__)
    own_name = family[1] if family else ""
    while len(path) > lowest:
        found = type(model.get_submodule(path)).__name__.removeprefix(own_name).removeprefix("Text")
        for module, pattern in _MODULES:
            if pattern.search(found):
                if module == "mlp" and _GATE.search(parameter.owner):
                    return "router"
                return module
        path = path.rpartition(".")[0]
    for segment in reversed(parameter.owner[lowest:].split(".")):
        for module, pattern in _WORDS:
            if segment and pattern.search(segment):
                return module
    return None


def _linear(
    model: Any,
    name: str,
    tensor: torch.Tensor,
    first: Parameter,
    parameter: torch.Tensor | None,
    probes: Probes,
) -> dict[str, Any]:
    """Orientation and experts of a linear map."""
    record: dict[str, Any] = {}
    if first.out_axis is None or parameter is None or parameter.ndim < 2:
        return record
    in_axis = {0: 1, 1: 0 if parameter.ndim == 2 else 2, 2: 1}[first.out_axis]
    out, inner = probes.varies(name, first.out_axis), probes.varies(name, in_axis)
    if out and inner and out[-1] != inner[-1]:
        record["in_out"] = out[-1] > inner[-1]
    module = model.get_submodule(first.owner)
    if first.kind == "expert":
        axis = probes.varies(name, 0)
        record["expert_axis" if tensor.ndim == 3 else "expert"] = (
            (axis[0] if axis else 0) if tensor.ndim == 3 else probes.index(name, 0)
        )
        if re.search(r"gate_up|input_linear", first.name) and tensor.ndim == 3:
            record["parts"] = (
                "halves" if getattr(module, "is_concatenated", True) else "alternating"
            )
    if first.kind == "flat experts":
        record["flat_experts"] = int(parameter.shape[0] // module.ffn_hidden_size)
    return record


def _stack_record(stack: Stack, tensors: dict[str, Any]) -> dict[str, Any]:
    record = {"name": stack.name, "depth": stack.depth, "kind": stack.kind, "inner": stack.inner}
    record["lists"] = stack.lists
    prefixes: Counter[str] = Counter()
    for name, tensor in tensors.items():
        if tensor.get("stack") == stack.name:
            prefixes.update(_prefixes(name, tensor["layer"]))
    own = [p for p, n in prefixes.items() if n == max(prefixes.values())]
    record["saved"] = min(own, key=len) if own else None
    return record


def _prefixes(name: str, layer: int) -> list[str]:
    parts = name.split(".")
    return [".".join(parts[:i]) for i, part in enumerate(parts) if part == str(layer)]


def _tied(model: Any, probes: Probes) -> list[dict[str, list[str]]]:
    """Sets of names of one parameter: as the state dict has them and as they would be saved."""
    same: dict[tuple[int, tuple[int, ...]], list[str]] = defaultdict(list)
    for name, tensor in model.state_dict().items():
        if tensor.numel():
            same[tensor.data_ptr(), tuple(tensor.shape)].append(name)
    sets = []
    for names in same.values():
        if len(names) > 1:
            saved = [probes.saved_name(n) for n in names]
            sets.append({"names": names, "saved": sorted({s for s in saved if s})})
    return sets
