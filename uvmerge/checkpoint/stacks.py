"""The stacks of repeated layers in a checkpoint, inferred from names and the config. Pure.

Names form a tree. Numbered siblings under one parent are a stack if each of them is a block with
modules of its own. Several numbered lists with the same numbers under one parent (`attentions.N`,
`ffns.N`) are together one stack. Of nested lists (`blocks.N.M`, `layers.N.experts.M`) the outer
one is the stack.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, NamedTuple

KINDS = ("text", "vision", "audio", "prediction", "other")
_KIND_WORDS = {  # words in the name of a stack
    "prediction": r"mtp|nextn|medusa|eagle",
    "audio": r"audio|speech|wav|talker|vocoder|code_predictor|codec|depth_decoder|acoustic"
    r"|semantic_(model|tokenizer)|feature_(extractor|encoder)\.conv|perception"
    r"|(duration|energy|pitch)_predictor|diffusion_head|flow_(head|net)",
    "vision": r"visi|visual|image|vit(_|\.|$)|siglip|sam_|pixel|video|vqmodel",
    "other": r"projector|connector|merger|resampler|qformer|perceiver|adapter|adaptor|aligner"
    r"|neck|fpn",
}
_KIND_OF = {kind: re.compile(words) for kind, words in _KIND_WORDS.items()}
_ATTENTION = re.compile(
    r"attn|attention|mixer|mamba|mlstm|slstm|rg_lru|conv|operator", re.IGNORECASE
)
_DEPTH_KEY = re.compile(
    r"(num_|n_)?((hidden_|text_|encoder_|decoder_)?layers?(_per_stack)?|blocks)"
    r"|(encoder|decoder)_layers|num_(encoder|decoder)_layers|depths?"
)
_NUMBER = re.compile(r"(?<![^.])\d{1,9}(?![^.])")
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
        return f"{self.name} ({self.depth} {self.kind} layer{'s' if self.depth != 1 else ''})"


class Position(NamedTuple):
    """Where a tensor stands: its stack and layer, and the rest of its name with `*` for numbers."""

    stack: str
    layer: int
    rest: str


def template(name: str) -> str:
    """A name with every number in it replaced by `*`."""
    return _NUMBER.sub("*", name)


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
        self._positions = dict(_positions(sizes))
        depths: dict[str, int] = defaultdict(int)
        weights: dict[str, int] = defaultdict(int)
        for name, (stack, layer, _) in self._positions.items():
            depths[stack] = max(depths[stack], layer + 1)
            weights[stack] += sizes[name]
        stacks = [Stack(name, depths[name], kind_of(name), weights[name]) for name in depths]
        stacks.sort(key=lambda stack: -stack.size_bytes)
        self.all = tuple(self._as_deep_as_stated(stacks, dict(config_depths(config))))
        self.by_name = {stack.name: stack for stack in self.all}

    def position(self, name: str) -> Position | None:
        """The position of the tensor `name`; None outside of every stack."""
        found = self._positions.get(name)
        if found is None or found.layer < self.by_name[found.stack].depth:
            return found
        return None

    def default(self) -> tuple[str, ...]:
        """Names of the stacks that operations work on by default, heaviest first.

        These are all text stacks, encoder and decoder alike; in a model without a text stack, all
        stacks of the heaviest stack's kind.
        """
        kinds = {stack.kind for stack in self.all}
        kind = "text" if "text" in kinds or not self.all else self.all[0].kind
        return tuple(stack.name for stack in self.all if stack.kind == kind)

    def _as_deep_as_stated(
        self, stacks: Sequence[Stack], depths: Mapping[str, int]
    ) -> Iterator[Stack]:
        """The stacks, the heaviest of each kind cut to the depth that the config states.

        A stack keeps its depth where the config states none or several for it, or where a stack of
        that kind has the stated depth. (DeepSeek stores its prediction layer behind the last
        decoder layer.)
        """
        seen_kinds: set[str] = set()
        for stack in stacks:
            meant = {value for path, value in depths.items() if _states_depth_of(path, stack)}
            others = {other.depth for other in stacks if other.kind == stack.kind}
            if stack.kind in seen_kinds or meant & others or len(meant) != 1:
                seen_kinds.add(stack.kind)
                yield stack
                continue
            seen_kinds.add(stack.kind)
            (stated,) = meant
            self.notes.append(
                f"the config says {stated} layers, the weights have {stack.depth} ({stack.name})"
            )
            yield replace(stack, depth=min(stated, stack.depth))


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


def _states_depth_of(path: str, stack: Stack) -> bool:
    """Whether a key of the config states the depth of this stack rather than of another part."""
    scope, _, key = path.rpartition(".")
    if kind_of(scope) != stack.kind:
        return False
    side = next((word for word in ("encoder", "decoder") if word in stack.name), "")
    other = {"encoder": "decoder", "decoder": "encoder"}.get(side, "encoder")
    return other not in key


def _positions(sizes: Mapping[str, int]) -> Iterator[tuple[str, Position]]:
    """(name, position) of every tensor in a stack."""
    alike = lru_cache(maxsize=None)(template)  # every layer repeats the same rests
    lists: dict[str, Members] = defaultdict(list)  # by parent
    for name in sizes:
        found = _NUMBER.search(name)
        if found and found.start() and name[found.end() : found.end() + 1] == ".":
            rest = alike(name[found.end() + 1 :])
            lists[name[: found.start() - 1]].append((name, found[0], rest))
    parallel = _parallel_lists(lists)
    for parent, members in lists.items():
        if parent in parallel:
            stem = parent.rpartition(".")[0]
            last = parent.rpartition(".")[2]
            for name, number, rest in members:
                yield name, Position(stem, int(number), f"{last}.{rest}")
        elif _is_stack(members):
            for name, number, rest in members:
                yield name, Position(parent, int(number), rest)


def _is_stack(members: Members) -> bool:
    """Whether the members of a numbered list are blocks: modules with weights, not plain weights.

    A list with a single number is a stack only where its modules have modules inside them.
    """
    several = len({number for _, number, _ in members}) > 1
    return any(rest.count(".") >= (1 if several else 2) for _, _, rest in members)


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
        if parent and len(names) > 2 and not any(_is_whole_block(lists[name]) for name in names)
        for name in names
    }


def _is_whole_block(members: Members) -> bool:
    """Whether the members hold a module that mixes positions, like attention, and another one."""
    rests = {rest for _, _, rest in members}
    mixes = {rest for rest in rests if _ATTENTION.search(rest)}
    return bool(mixes) and len(rests) > len(mixes)
