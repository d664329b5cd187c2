"""Which module a tensor belongs to, by the words of its name and by its neighbours. Pure.

The innermost words of the name count first.
"""

from __future__ import annotations

import re
from collections.abc import Set as AbstractSet

MODULES = (
    "attention", "mlp", "mixer", "router", "norm", "embeddings", "head", "final-norm", "other",
)  # fmt: skip

_NORM = re.compile(r"norm|(^|_)ln(_|\d|$)|(^|_)bn\d?$", re.IGNORECASE)
_ROUTER = re.compile(r"router|^(gate|wg|gate_network|shared_expert_gate|gate_weight)$")
_STRONG = {  # a segment of a name that decides for everything inside it
    "attention": re.compile(r"attn|attention|^att$", re.IGNORECASE),
    "mlp": re.compile(
        r"(?<!bias_)mlp|ffn?s?$|^ff_|feed_?forward|experts?|moe|DenseReluDense|intermediate",
        re.IGNORECASE,
    ),
    "mixer": re.compile(
        r"mamba|ssm|rwkv|time_mix|retention|lstm|rg_lru|recurrent|^conv$|short_conv|hyena",
        re.IGNORECASE,
    ),
}
# A block that is one module in one layer and another in the next: its content decides.
_BLOCK = re.compile(r"^(mixer|temporal_block|block|operator|layer_block)$|sub_?layer$")
_WEAK = {  # the name of a projection, where no block around it decides
    "attention": re.compile(
        r"^(c_attn|[qkvo]|[qkv]_?lin|out_lin|Wqkv|in_proj_weight)$"
        r"|(^|_)(q|k|v|qk|kv|qkv|o)_(proj|a|b|head)"
        r"|^(query|key|value)(_|$)|qkv|^to_(q|k|v|kv|out)$|^w[qkvo]$", re.IGNORECASE),
    "mixer": re.compile(r"^(x_proj|dt_proj|in_proj|A_log|D|dt_bias|conv1d|linear_[xy]|b_proj)$"),
}  # fmt: skip

_TOWERS = re.compile(
    r"visi|visual|image|audio|speech(?!t5)|multi_modal|connector|(?<!vocab_)projector|merger"
    r"|resampler|feature_projection|(^|\.)conv\."
)
_EMBEDDINGS = re.compile(
    r"embed|(^|\.)w[tp]e\.|(^|\.)(model\.)?shared\.weight$|^(transformer\.)?w\.weight$"
)
_HEAD = re.compile(
    r"head|classifier|score|pooler|(^|\.)cls\.|(^|\.)output\.(weight|bias)$"
    r"|unembed|embed_out|proj_out|output_projection"
    r"|(^|\.)predictions\.|generator_(lm_)?|qa_outputs|(^|\.)decoder\.(weight|bias)$|pred_layer"
    r"|log_softmax|vocab_(transform|layer_norm|projector)|logits_bias"
)


def inside_module(rest: str, axes: int, neighbours: AbstractSet[str]) -> str:
    """The module of a tensor in a layer, one of `MODULES`.

    Args:
        rest: the tensor's name after its layer's number, with `*` for numbers.
        axes: number of axes of the tensor.
        neighbours: the `rest` of every tensor in the same layer.
    """
    segments = [s for s in rest.split(".") if s != "*"]
    if segments[-1] in ("weight", "bias") and len(segments) > 1:
        segments.pop()
    own = segments[-1]
    if _NORM.search(own) and not _STRONG["attention"].fullmatch(own):
        return "norm"
    if any(_ROUTER.search(s) for s in segments) and _has_experts(neighbours, segments):
        return "router"
    for segment in reversed(segments):
        for module, words in _STRONG.items():
            if words.search(segment) and not (_NORM.search(segment) and segment != own):
                return module
        if _BLOCK.search(segment):
            return _by_content(rest, segment, neighbours)
        if (axes == 1 or own == "linear") and _NORM.search(segment):
            return "norm"
    weak = (
        m for segment in reversed(segments) for m, words in _WEAK.items() if words.search(segment)
    )
    return next(weak, "attention" if _ends_attention(rest, own, neighbours) else "mlp")


def outside_module(name: str) -> str:
    """The module of the tensor `name`, which stands outside of every stack: one of `MODULES`."""
    if _TOWERS.search(name) or re.search(r"\.\d+\.", name):
        return "other"
    if _HEAD.search(name) and not (re.search(r"(^|\.)embed(_tokens|dings?)?\.", name)):
        return "head"
    if _EMBEDDINGS.search(name):
        return "embeddings"
    if _NORM.search(name.rpartition(".")[0].rpartition(".")[2] or name):
        return "final-norm"
    return "other"


def module_of_word(word: str) -> str | None:
    """The module that a part of a tensor's name, such as `self_attn` or `lm_head`, speaks of."""
    for module, words in (*_STRONG.items(), *_WEAK.items(), ("norm", _NORM)):
        if words.search(word):
            return module
    found = outside_module(word)
    return None if found == "other" else found


def _ends_attention(rest: str, own: str, neighbours: AbstractSet[str]) -> bool:
    """Whether a module is the output projection beside query, key and value."""
    block = rest[: rest.index(own)]
    beside = {other[len(block) :].split(".")[0] for other in neighbours if other.startswith(block)}
    return own == "out_proj" and any(_WEAK["attention"].search(other) for other in beside)


def _has_experts(neighbours: AbstractSet[str], segments: list[str]) -> bool:
    """Whether the layer, or the block around a gate, has experts to choose among."""
    return any("expert" in rest or ".moe." in f".{rest}" for rest in neighbours) or any(
        "moe" in segment or "expert" in segment for segment in segments
    )


def _by_content(rest: str, segment: str, neighbours: AbstractSet[str]) -> str:
    """The module of a block whose content changes between layers, by the names inside it."""
    start = rest[: rest.index(segment) + len(segment) + 1]
    inner = {other[len(start) :].split(".")[0] for other in neighbours if other.startswith(start)}
    if any(
        _STRONG["mixer"].search(s) or s in ("A_log", "conv1d", "conv_1d", "dt_bias", "D", "dt_proj")
        for s in inner
    ):
        return "mixer"
    if any(_WEAK["attention"].search(s) for s in inner):
        return "attention"
    if inner & {"up_proj", "down_proj", "experts", "gate", "shared_experts", "fc1", "fc2"}:
        return "mlp"
    return "mixer" if segment == "mixer" else "mlp"
