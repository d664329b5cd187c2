"""The stacks of repeated layers in a checkpoint, inferred from names and the config. Pure.

Names form a tree. Numbered siblings under one parent are a stack if each of them is a block with
modules of its own. Several numbered lists with the same numbers under one parent (`attentions.N`,
`ffns.N`) are together one stack. Of nested lists (`blocks.N.M`, `layers.N.experts.M`) the outer
one is the stack.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, NamedTuple

from ..errors import counted

KINDS = ("text", "vision", "audio", "prediction", "other")
_KIND_WORDS = {  # words in the name of a stack
    "prediction": r"mtp|nextn|medusa|eagle",
    "audio": r"audio|speech(?!t5)|wav|talker|vocoder|code_predictor|codec|depth_decoder|acoustic"
    r"|semantic_(model|tokenizer)|feature_(extractor|encoder)\.conv|perception"
    r"|(duration|energy|pitch)_predictor|diffusion_head|flow_(head|net)|(^|\.)flow\.",
    "vision": r"visi|visual|image|vit(_|\.|$)|siglip|sam_|pixel|video|vqmodel",
    "other": r"projector|connector|merger|resampler|qformer|perceiver|adapter|adaptor|aligner"
    r"|neck|fpn|protein|patcher|local_(en|de)coder",
}
_KIND_OF = {kind: re.compile(words) for kind, words in _KIND_WORDS.items()}
_ATTENTION = re.compile(r"attn|attention|mixer|mamba|mlstm|slstm|rg_lru|operator", re.IGNORECASE)
_MIXES = re.compile(f"{_ATTENTION.pattern}|conv", re.IGNORECASE)  # positions with each other
_TABLE = re.compile(r"relative_attention_bias|codebook")
_LANGUAGE = re.compile(r"language|text|llm")
_DEPTH_KEY = re.compile(
    r"(num_|n_)?((hidden_|text_|encoder_|decoder_)?layers?(_per_stack)?|blocks)"
    r"|(encoder|decoder)_layers|num_(encoder|decoder)_layers|depths?"
)
_NUMBER = re.compile(r"(?<![^.])\d{1,9}(?![^.])")
_EXPERT = re.compile(r"(experts\.)\d+(?=\.)")
Members = list[tuple[str, str, str]]  # (name, number, rest) of each tensor in a numbered list


@dataclass(frozen=True, slots=True)
class Stack:
    """A stack of layers.

    Attributes:
        name: what precedes the layer's number in names, like `model.layers` or `encoder.block`.
        depth: number of layers.
        kind: what the layers work on, one of `KINDS`.
        size_bytes: bytes of all tensors in the stack.
    """

    name: str
    depth: int
    kind: str
    size_bytes: int

    def __str__(self) -> str:
        return f"{self.name} ({counted(self.depth, f'{self.kind} layer')})"


def layer_counts(depths: Iterable[int]) -> str:
    """`28 layers`; of several stacks `4 + 2 layers`."""
    depths = list(depths)
    return (
        counted(depths[0], "layer")
        if len(depths) == 1
        else (f"{' + '.join(map(str, depths))} layers" if depths else "no layers")
    )


class Position(NamedTuple):
    """Where a tensor stands: its stack and layer, and the rest of its name with `*` for numbers."""

    stack: str
    layer: int
    rest: str


def template(name: str) -> str:
    """A name with every number in it replaced by `*`."""
    return _NUMBER.sub("*", name)


def one_name(name: str, layer: int) -> str:
    """The name that a tensor of a layer shares with those of all layers and all experts."""
    return _EXPERT.sub(r"\1*", name.replace(f".{layer}.", ".*.", 1))


class Stacks:
    """The stacks of a checkpoint, heaviest first, and where each tensor stands.

    Args:
        sizes: bytes of each tensor, by name.
        config: the parsed config.json.

    Attributes:
        all: every stack, heaviest first.
        by_name: the same stacks by name.
        notes: what the config says that the weights contradict, as sentences.
    """

    def __init__(self, sizes: Mapping[str, int], config: Mapping[str, Any]) -> None:
        self.notes: list[str] = []
        positions = dict(_positions(sizes, {}))
        depths: dict[str, int] = defaultdict(int)
        weights: dict[str, int] = defaultdict(int)
        for name, (stack, layer, _) in positions.items():
            depths[stack] = max(depths[stack], layer + 1)
            weights[stack] += sizes[name]
        stacks = [Stack(name, depths[name], kind_of(name), weights[name]) for name in depths]
        stacks = list(_with_towers_apart(stacks, config))
        stacks.sort(key=lambda stack: -stack.size_bytes)
        self.all = tuple(self._as_deep_as_stated(stacks, config))
        self.by_name = {stack.name: stack for stack in self.all}
        depths = {stack.name: stack.depth for stack in self.all}
        self._positions = {n: at for n, at in positions.items() if at.layer < depths[at.stack]}

    def position(self, name: str) -> Position | None:
        """The position of the tensor `name`; None outside of every stack."""
        return self._positions.get(name)

    def default(self) -> tuple[str, ...]:
        """Names of the stacks that operations work on by default, heaviest first.

        These are all text stacks, encoder and decoder alike; in a model without a text stack, all
        stacks of the heaviest stack's kind.
        """
        kinds = {stack.kind for stack in self.all}
        kind = "text" if "text" in kinds or not self.all else self.all[0].kind
        return tuple(stack.name for stack in self.all if stack.kind == kind)

    def _as_deep_as_stated(
        self, stacks: Sequence[Stack], config: Mapping[str, Any]
    ) -> Iterator[Stack]:
        """The stacks, the heaviest text stack cut to the depth that the config states.

        A stack keeps its depth where the config states none or several for it, or where another one
        of that kind or of no kind has the stated depth. (DeepSeek stores its prediction layer
        behind the last decoder layer.) Where the config contradicts a tower, a note says so.
        """
        depths, seen_kinds = dict(config_depths(config)), set[str]()
        for stack in stacks:
            meant = {value for path, value in depths.items() if _states_depth_of(path, stack)}
            others = {other.depth for other in stacks if other.kind in (stack.kind, "other")}
            is_first = stack.kind not in seen_kinds
            seen_kinds.add(stack.kind)
            if not is_first or meant & others or len(meant) != 1:
                yield stack
                continue
            (stated,) = meant
            contradicts = (
                f"the config says {counted(stated, 'layer')}, the weights have {stack.depth}"
            )
            shares = f"{counted(stated, 'layer')} share the weights of {stack.depth}, an edit changes all"
            of_albert = config.get("num_hidden_groups") == stack.depth
            self.notes.append(f"{shares if of_albert else contradicts} ({stack.name})")
            yield replace(stack, depth=min(stated, stack.depth)) if stack.kind == "text" else stack


def _with_towers_apart(stacks: Sequence[Stack], config: Mapping[str, Any]) -> Iterator[Stack]:
    """The stacks; those whose names tell no kind get that of the part of the config they stand for.

    Where the config has a part for the language beside others, as vision-language models do, the
    language's stacks are told by their names, else by the depth that the part states.
    """
    parts = {key: part for key, part in config.items() if isinstance(part, Mapping)}
    language = [part for key, part in parts.items() if _LANGUAGE.search(key) and "config" in key]
    text = [stack for stack in stacks if stack.kind == "text"]
    deep = {depth for part in language for _, depth in config_depths(part)}
    own = [s for s in text if _LANGUAGE.search(s.name)] or [s for s in text if s.depth in deep]
    if config.get("is_encoder_decoder") or not language or not own:
        own = text
    for stack in stacks:
        if stack.kind != "text" or stack in own:
            yield stack
        else:
            kinds = {
                kind_of(key)
                for key, part in parts.items()
                if stack.depth in {depth for _, depth in config_depths(part)}
            }
            kind = kinds.pop() if len(kinds) == 1 else "other"
            yield replace(stack, kind="other" if kind == "text" else kind)


def kind_of(name: str) -> str:
    """What the layers of a stack work on, by the words in its name."""
    return next((kind for kind, words in _KIND_OF.items() if words.search(name.lower())), "text")


def config_depths(
    config: Mapping[str, Any], path: str = "", levels: int = 12
) -> Iterator[tuple[str, int]]:
    """(dotted key, depth) of every depth that the config and its nested configs state."""
    for key, value in config.items():
        where = f"{path}.{key}" if path else str(key)
        if isinstance(value, Mapping) and levels:
            yield from config_depths(value, where, levels - 1)
        elif type(value) is int and 0 < value < 10**6 and _DEPTH_KEY.fullmatch(str(key)):
            yield where, value


def depth_keys(config: Mapping[str, Any], stack: Stack) -> list[str]:
    """The dotted keys of a config that state the depth of a stack.

    Of an encoder-decoder, a key that names the stack's side counts before one that names none.
    """
    stated = [path for path, depth in config_depths(config) if depth == stack.depth]
    found = [path for path in stated if _states_depth_of(path, stack)]
    side = next((word for word in ("encoder", "decoder") if word in stack.name), "")
    own = [path for path in found if side and side in path.rpartition(".")[2]]
    return own or found


def _states_depth_of(path: str, stack: Stack) -> bool:
    """Whether a key of the config states the depth of this stack rather than of another part."""
    scope, _, key = path.rpartition(".")
    if kind_of(scope) != stack.kind:
        return False
    side = next((word for word in ("encoder", "decoder") if word in stack.name), "")
    other = {"encoder": "decoder", "decoder": "encoder"}.get(side, "encoder")
    return other not in key


def _positions(names: Iterable[str], starts: Mapping[str, int]) -> Iterator[tuple[str, Position]]:
    """(name, position) of every tensor in a stack.

    Args:
        starts: where the search for the layer's number begins in a name, if not at its start.
    """
    lists, within = _numbered_lists(names, starts), []
    parallel = _parallel_lists(lists)
    for parent, members in lists.items():
        if parent in parallel:
            stem = parent.rpartition(".")[0]
            last = parent.rpartition(".")[2]
            for name, number, rest in members:
                yield name, Position(stem, int(number), f"{last}.{rest}")
        elif _holds_a_stack(parent, members):
            within += members
        elif _is_stack(members):
            for name, number, rest in members:
                yield name, Position(parent, int(number), rest)
    if within:
        inner = _after_numbers(within, starts)
        yield from _positions(inner, inner)


def _numbered_lists(names: Iterable[str], starts: Mapping[str, int]) -> dict[str, Members]:
    """The lists by what precedes their numbers: the first number of each name that has children."""
    alike = lru_cache(maxsize=None)(template)  # every layer repeats the same rests
    lists: dict[str, Members] = defaultdict(list)
    for name in names:
        found = _NUMBER.search(name, starts.get(name, 0))
        if found and found.start() and name[found.end() : found.end() + 1] == ".":
            rest = alike(name[found.end() + 1 :])
            lists[name[: found.start() - 1]].append((name, found[0], rest))
    return lists


def _after_numbers(members: Members, starts: Mapping[str, int]) -> dict[str, int]:
    """For each name of a list where the search for the next number begins."""
    found = {}
    for name, number, _ in members:
        at = name.index(f".{number}.", max(starts.get(name, 0) - 1, 0))
        found[name] = at + len(number) + 2
    return found


def _holds_a_stack(parent: str, members: Members, levels: int = 3) -> bool:
    """Whether the list has one number, and its one block is no layer but holds a stack of layers.

    (The encoder of RT-DETR is a list of encoders, of which there is one: `encoder.0.layers.N`.)
    """
    if not levels or len({number for _, number, _ in members}) > 1:
        return False
    after = _after_numbers(members, {name: len(parent) for name, _, _ in members})
    inner = _numbered_lists(after, after)
    return any(
        _are_whole_blocks(own) or _holds_a_stack(name, own, levels - 1)
        for name, own in inner.items()
    )


def _are_whole_blocks(members: Members) -> bool:
    """Whether the list has several members, each a whole block."""
    by_number: dict[str, Members] = defaultdict(list)
    for member in members:
        by_number[member[1]].append(member)
    return len(by_number) > 1 and all(map(_is_whole_block, by_number.values()))


def _is_stack(members: Members) -> bool:
    """Whether the members of a numbered list are blocks: modules with weights, not plain weights.

    A list with a single number is a stack only where its modules have modules inside them.
    """
    several = len({number for _, number, _ in members}) > 1
    return any(
        rest.count(".") >= (1 if several else 2) and not _TABLE.search(rest)
        for _, _, rest in members
    )


def _parallel_lists(lists: Mapping[str, Members]) -> set[str]:
    """Names of the numbered lists that are together one stack.

    Three or more such lists stand under one parent and have the same numbers, and none of them
    holds whole blocks.
    """
    by_parent: dict[tuple[str, frozenset[str]], list[str]] = defaultdict(list)
    for name, members in lists.items():
        numbers = frozenset(number for _, number, _ in members)
        if len(numbers) > 1:
            by_parent[name.rpartition(".")[0], numbers].append(name)
    return {
        name
        for (parent, _), names in by_parent.items()
        if parent
        and len(names) > 2
        and any(_attends(name, lists[name]) for name in names)
        and not any(_is_whole_block(lists[name]) for name in names)
        for name in names
    }


def _attends(parent: str, members: Members) -> bool:
    return any(_ATTENTION.search(f"{parent.rpartition('.')[2]}.{rest}") for _, _, rest in members)


def _is_whole_block(members: Members) -> bool:
    """Whether the members hold a module that mixes positions, like attention, and another one."""
    rests = {rest for _, _, rest in members}
    mixes = {rest for rest in rests if _MIXES.search(rest)}
    return bool(mixes) and len(rests) > len(mixes)
