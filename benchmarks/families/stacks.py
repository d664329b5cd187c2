"""The stacks of repeated blocks in a module tree, what they work on, and the language's own."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from dataclasses import dataclass
from typing import Any

from torch import nn

from .parameters import NORM

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
    """A list of repeated blocks.

    Attributes:
        name: path of the list; of parallel ones their parent's, and their names.
        depth: number of blocks.
        lists: paths; more than one where a block is spread over parallel lists.
        inner: whether it stands inside a block of another stack.
        kind: text decoder, text encoder, vision, audio or other.
        size: elements of the linear maps in it.
    """

    name: str
    depth: int
    lists: list[str]
    inner: bool
    kind: str = "other"
    size: int = 0


def stacks_of(model: Any) -> list[Stack]:
    """Lists of at least two like blocks, outer ones first; of one where a model has no other."""
    stacks = _lists_of_blocks(model, least=2) or _lists_of_blocks(model, least=1)
    stacks.sort(key=lambda s: s.lists[0].count("."))
    for stack in stacks:
        stack.inner = any(
            o is not stack and any(stack.lists[0].startswith(f"{p}.") for p in o.lists)
            for o in stacks
        )
    _name_kinds(model, stacks)
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
    if not all(NORM.search(type(c).__name__) for c in children):
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
    whole, own = model.main_input_name, getattr(owner, "main_input_name", model.main_input_name)
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


def main_stacks(model: Any, stacks: list[Stack]) -> list[str]:
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
