"""Layers of several checkpoints, put one after the other, as one checkpoint.

The layers stand under the numbers of the output, in files that are never written: a tensor is read from
where its model stores it. So a stack of layers of any models, with layers left out or repeated, is planned,
edited and written like any other checkpoint.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import permutations
from typing import Any

from ..errors import InputRefused, listed
from .anatomy import Anatomy, anatomy_of
from .composed import Beside, ComposedCheckpoint, Part as Stored, same
from .folder import Checkpoint, Tensor
from .restacked_config import Layer, restacked_config
from .stacks import Stack
from .weight_files import SINGLE_FILE, partition, shard_names

CONFIG = "config.json"
BEHIND = ("final-norm", "head")  # modules of tensors that stand behind all layers


@dataclass(frozen=True)
class Piece:
    """Layers of a checkpoint that follow each other in the output.

    Attributes:
        checkpoint: the checkpoint; None where the output's layers are made without it.
        stack: the stack of that checkpoint; None of a part without layers.
        first, stop: the first layer, and the one behind the last.
    """

    checkpoint: Checkpoint | None
    stack: Stack | None
    first: int
    stop: int


@dataclass(frozen=True)
class Part:
    """A part of the model: pieces of its stack, and which tensors outside of layers belong to it.

    Attributes:
        pieces: in the order of the output; tensors before all layers are the first piece's, those
            behind all layers the last one's.
        names: by checkpoint, the names of the part's tensors that stand in none of its layers.
    """

    pieces: tuple[Piece, ...]
    names: Mapping[Checkpoint, frozenset[str]]

    @property
    def first(self) -> Piece:
        """The first piece with a checkpoint."""
        return next(piece for piece in self.pieces if piece.checkpoint is not None)


def restacked(parts: Sequence[Part], donor: Checkpoint) -> ComposedCheckpoint:
    """A checkpoint that has these parts.

    Args:
        donor: whose side files it has, and whose config but for what is said of layers.

    Raises:
        InputRefused: a piece is of another kind of model than the donor.
    """
    notes: list[str] = []
    config = _config_of(parts, donor, notes)
    notes += _differences(parts)
    sides = {}
    if config != donor.config:
        sides[CONFIG] = (json.dumps(config, indent=2, ensure_ascii=False) + "\n").encode()
    used = [p.checkpoint for part in parts for p in part.pieces if p.checkpoint is not None]
    parents = list(dict.fromkeys([donor, *used]))
    taken = [
        [each.checkpoint.label, each.first, each.stop]
        for part in parts for each in part.pieces if each.checkpoint is not None
    ]  # fmt: skip
    beside = Beside(config, {"layers_of": taken}, sides, notes)
    return ComposedCheckpoint.of(parents, _files(_tensors(parts, donor), donor), beside)


def _tensors(parts: Sequence[Part], donor: Checkpoint) -> list[Stored]:
    """The tensors of the output in order: those before all layers, in the layers, and behind them."""
    before: list[Stored] = []
    layers: list[Stored] = []
    behind: list[Stored] = []
    for part in parts:
        before += _outside(part, part.pieces[0], is_behind=False)
        number, there = 0, part.first
        for piece in part.pieces:
            if piece.checkpoint is not None:
                _refuse_other_kind(piece.checkpoint, donor)
            layers += _layers(piece, there, number)
            number += piece.stop - piece.first
        behind += _outside(part, part.pieces[-1], is_behind=True)
    return [*before, *layers, *behind]


def _outside(part: Part, piece: Piece, *, is_behind: bool) -> Iterable[Stored]:
    """The tensors of a part that stand before its layers, or behind them."""
    if piece.checkpoint is None:
        return
    anatomy = anatomy_of(piece.checkpoint)
    for name, tensor in piece.checkpoint.tensors.items():
        place = anatomy.place(tensor)
        if name in part.names[piece.checkpoint] and (place.module in BEHIND) == is_behind:
            yield same(piece.checkpoint, tensor)


def _layers(piece: Piece, there: Piece, number: int) -> Iterable[Stored]:
    """The tensors of a piece's layers under the numbers of the output, named like the first piece's.

    Args:
        number: the number of the first layer in the output.
    """
    checkpoint, stack = piece.checkpoint, piece.stack
    if checkpoint is None or stack is None or there.stack is None:
        return
    by_layer = _by_layer(anatomy_of(checkpoint), stack)
    for layer in range(piece.first, piece.stop):
        for tensor in by_layer.get(layer, ()):
            new = renumbered(tensor.name, stack.name, layer, number + layer - piece.first)
            yield same(checkpoint, tensor, there.stack.name + new[len(stack.name) :])


def _differences(parts: Sequence[Part]) -> Iterator[str]:
    """A sentence for each two models whose layers have other tensors."""
    for part in parts:
        known: dict[Checkpoint, set[str]] = {}
        for piece in part.pieces:
            if piece.checkpoint and piece.stack and piece.checkpoint not in known:
                layers = _by_layer(anatomy_of(piece.checkpoint), piece.stack)
                known[piece.checkpoint] = {
                    tensor.name.partition(f".{layer}.")[2]
                    for layer, tensors in layers.items() for tensor in tensors
                }  # fmt: skip
        for (one, own), (other, theirs) in permutations(known.items(), 2):
            if missing := own - theirs:
                told = listed(sorted(missing), "tensor", 2)
                yield f"layers of {other.label} lack what those of {one.label} have: {told}"


def _by_layer(anatomy: Anatomy, stack: Stack) -> dict[int, list[Tensor]]:
    found: dict[int, list[Tensor]] = {}
    for tensor in anatomy.tensors.values():
        place = anatomy.place(tensor)
        if place.stack == stack.name and place.layer is not None:
            found.setdefault(place.layer, []).append(tensor)
    return found


def renumbered(name: str, stack: str, layer: int, number: int) -> str:
    """The name of a tensor of a layer with another number for the layer."""
    before = f".{layer}."
    at = name.find(before, len(stack))  # not always at once: of several lists that are one stack
    return f"{name[:at]}.{number}.{name[at + len(before) :]}"


def _refuse_other_kind(checkpoint: Checkpoint, donor: Checkpoint) -> None:
    """Refuse layers of another kind of model, or of another width."""
    for key in ("model_type", "hidden_size"):
        own, other = (each.config.get(key) for each in (checkpoint, donor))
        if own is not None and other is not None and own != other:
            raise InputRefused(
                f"{checkpoint.label} and {donor.label}",
                f"are models of two kinds ({key} {own} and {other}), whose layers do not fit",
                "Take layers of models of one architecture and size.",
            )


def _files(tensors: Sequence[Stored], donor: Checkpoint) -> dict[str, list[Stored]]:
    """The tensors by file; where the donor has several, none is larger than its largest."""
    if len(donor.sources) == 1:
        return {SINGLE_FILE: list(tensors)}
    most = max(source.size for source in donor.sources.values())
    groups = partition([tensor.size_bytes for tensor in tensors], most)
    names = shard_names(len(groups))
    return {name: [tensors[i] for i in group] for name, group in zip(names, groups, strict=True)}


def _config_of(parts: Sequence[Part], donor: Checkpoint, notes: list[str]) -> dict[str, Any]:
    """The donor's config with the depths of all parts."""
    config = dict(donor.config)
    stacks = anatomy_of(donor).stacks.by_name
    for part in parts:
        stack = part.first.stack
        own = stacks.get(stack.name) if stack else None
        if own is None:
            continue
        layers: list[Layer] = []
        for piece in part.pieces:
            of = piece.checkpoint or donor
            layers += [(of.config, number) for number in range(piece.first, piece.stop)]
        config = restacked_config(config, own, layers, notes)
    return config
