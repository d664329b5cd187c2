"""The stacks of repeated layers in a checkpoint, inferred from names and the config. Pure.

Names are read as a tree. Numbered siblings under one parent are a stack where each of them is a block
with modules of its own; several numbered lists under one parent with one count (`attentions.N`,
`ffns.N`) are one stack. Of lists within lists (`blocks.N.M`, `layers.N.experts.M`) the outer one counts.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, NamedTuple

KINDS = ("text", "vision", "audio", "prediction", "other")
_KIND_WORDS = {  # in the name of a stack's parent
    "prediction": r"mtp|nextn|medusa|eagle",
    "audio": r"audio|speech|wav|talker|vocoder|code_predictor|codec|depth_decoder|acoustic|semantic_model",
    "vision": r"visi|visual|image|vit(_|\.|$)|siglip|sam_|pixel|video",
    "other": r"projector|connector|merger|resampler|qformer|perceiver|adapter|adaptor|aligner|neck|fpn",
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


@dataclass(frozen=True, slots=True)
class Stack:
    """A stack of layers.

    Attributes:
        name: the parent of its numbers, like `model.layers` or `encoder.block`.
        depth: how many layers it has.
        kind: one of `KINDS`: what its layers work on.
        size_bytes: of all its tensors.
    """

    name: str
    depth: int
    kind: str
    size_bytes: int

    def __str__(self) -> str:
        return f"{self.name} ({self.depth} {self.kind} layer{'s' if self.depth != 1 else ''})"


class Position(NamedTuple):
    """Where a name stands: in which stack and layer, and the rest of the name with `*` for numbers."""

    stack: str
    layer: int
    rest: str


def template(name: str) -> str:
    """A name with every number in it replaced by `*`."""
    return _NUMBER.sub("*", name)


class Stacks:
    """The stacks of a checkpoint, heaviest first, and where each name stands.

    Attributes:
        notes: what the config says that the weights contradict.
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
        """Where a tensor stands; None outside every stack."""
        found = self._positions.get(name)
        if found is None or found.layer < self.by_name[found.stack].depth:
            return found
        return None

    def default(self) -> tuple[str, ...]:
        """The stacks that operations work on unless told otherwise: those of text, encoder and decoder
        alike; of a model without any, those of the heaviest stack's kind."""
        kinds = {stack.kind for stack in self.all}
        kind = "text" if "text" in kinds or not self.all else self.all[0].kind
        return tuple(stack.name for stack in self.all if stack.kind == kind)

    def _as_deep_as_stated(
        self, stacks: Sequence[Stack], depths: Mapping[str, int]
    ) -> Iterator[Stack]:
        """The stacks; the heaviest of a kind is no deeper than the config says, where no stack of that
        kind has a depth that the config states. (Beyond the last layer DeepSeek keeps its predictor.)"""
        told: set[str] = set()
        for stack in stacks:
            meant = {value for path, value in depths.items() if _speaks_of(path, stack)}
            others = {other.depth for other in stacks if other.kind == stack.kind}
            if stack.kind in told or meant & others or len(meant) != 1:
                told.add(stack.kind)
                yield stack
                continue
            told.add(stack.kind)
            (stated,) = meant
            self.notes.append(
                f"the config says {stated} layers, the weights have {stack.depth} ({stack.name})"
            )
            yield replace(stack, depth=min(stated, stack.depth))


def kind_of(name: str) -> str:
    """What the layers of a stack work on, by the words in its name."""
    return next((kind for kind, words in _KIND_OF.items() if words.search(name.lower())), "text")


def config_depths(
    config: Mapping[str, Any], path: str = "", most: int = 12
) -> Iterator[tuple[str, int]]:
    """(dotted key, number) of every depth that the config states, in nested configs too."""
    for key, value in config.items():
        where = f"{path}.{key}" if path else str(key)
        if isinstance(value, Mapping) and most:
            yield from config_depths(value, where, most - 1)
        elif type(value) is int and 0 < value < 10**6 and _DEPTH_KEY.fullmatch(str(key)):
            yield where, value


def _speaks_of(path: str, stack: Stack) -> bool:
    """Whether a key of the config tells the depth of this stack rather than of another part."""
    scope, _, key = path.rpartition(".")
    if kind_of(scope) != stack.kind:
        return False
    side = next((word for word in ("encoder", "decoder") if word in stack.name), "")
    other = {"encoder": "decoder", "decoder": "encoder"}.get(side, "encoder")
    return other not in key


def _positions(sizes: Mapping[str, int]) -> Iterator[tuple[str, Position]]:
    """(name, position) of every tensor in a stack."""
    alike = lru_cache(maxsize=None)(template)  # the same rests come again in each layer
    lists: dict[str, list[tuple[str, str, str]]] = defaultdict(list)  # of (name, number, rest)
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


Members = list[tuple[str, str, str]]


def _is_stack(members: Members) -> bool:
    """Whether the members are blocks: modules of their own with weights, not a sequence of weights. Of one
    member alone, modules within its modules are asked for."""
    several = len({number for _, number, _ in members}) > 1
    return any(rest.count(".") >= (1 if several else 2) for _, _, rest in members)


def _parallel_lists(lists: Mapping[str, Members]) -> set[str]:
    """Lists that stand side by side under one parent with the same numbers, none of which holds whole
    blocks: together they are one stack."""
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
    """Whether the members hold both something that mixes positions, and something else."""
    rests = {rest for _, _, rest in members}
    mixes = {rest for rest in rests if _ATTENTION.search(rest)}
    return bool(mixes) and len(rests) > len(mixes)
