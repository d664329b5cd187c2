"""Layers of several checkpoints, put one after the other, as one checkpoint.

`RestackedCheckpoint` has the layers under the numbers of the output, in files of its own that are never
written: a tensor is read from where its model stores it. So a stack of layers of any models, with layers
left out or repeated, is planned, edited and written like any other checkpoint.
"""

from __future__ import annotations

import json
from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import xxhash

from ..errors import InputRefused
from . import header
from .anatomy import Anatomy, anatomy_of
from .folder import Checkpoint, Tensor
from .header import Entry, Header
from .restacked_config import Layer, restacked_config
from .source import FileState, Source
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
        pieces: in the order of the output; those outside of layers are the first piece's, and behind
            all layers the last one's.
        names: by checkpoint, the names of the part's tensors that stand in none of its layers.
    """

    pieces: tuple[Piece, ...]
    names: Mapping[Checkpoint, frozenset[str]]

    @property
    def first(self) -> Piece:
        """The first piece with a checkpoint."""
        return next(piece for piece in self.pieces if piece.checkpoint is not None)


@dataclass(frozen=True)
class _Copy:
    """A tensor of the output, and the one of an input that it is."""

    name: str
    checkpoint: Checkpoint
    tensor: Tensor


class Assembled:
    """A weight file that is put together of pieces of others (see `source.Source`).

    Args:
        start: the header section.
        pieces: (start in this file, source, start in that source), in order and without a gap.
    """

    def __init__(
        self, name: str, start: bytes, pieces: Sequence[tuple[int, Source, int]], size: int
    ) -> None:
        self.name, self.size = name, size
        self._start, self._pieces = start, pieces
        self._begins = [begin for begin, _, _ in pieces]
        self._sources = list({id(source): source for _, source, _ in pieces}.values())
        newest = max((source.state.mtime_ns for source in self._sources), default=0)
        self.state = FileState(size, newest, 0, 0)

    @property
    def is_remote(self) -> bool:
        return any(source.is_remote for source in self._sources)

    def prepare(self, spans: Iterable[tuple[int, int]]) -> None:
        wanted: dict[int, list[tuple[int, int]]] = {}
        for start, stop in spans:
            for source, at, size, _ in self._within(start, stop):
                wanted.setdefault(id(source), []).append((at, at + size))
        for source in self._sources:
            if id(source) in wanted:
                source.prepare(wanted[id(source)])

    def read_into(self, offset: int, buffer: memoryview) -> None:
        head = self._start[offset : offset + len(buffer)]
        buffer[: len(head)] = head
        for source, at, size, begin in self._within(offset, offset + len(buffer)):
            source.read_into(at, buffer[begin - offset : begin - offset + size])

    def has_changed(self) -> bool:
        return any(source.has_changed() for source in self._sources)

    def close(self) -> None:
        """Nothing: whoever opened the checkpoints closes their files."""

    def _within(self, start: int, stop: int) -> Iterable[tuple[Source, int, int, int]]:
        """(source, start in it, bytes, start here) of the pieces between two places of this file."""
        for i in range(max(bisect_right(self._begins, start) - 1, 0), len(self._pieces)):
            begin, source, at = self._pieces[i]
            end = self._begins[i + 1] if i + 1 < len(self._pieces) else self.size
            first, last = max(begin, start), min(end, stop)
            if begin >= stop:
                return
            if first < last:
                yield source, at + first - begin, last - first, first


@dataclass(eq=False)
class RestackedCheckpoint(Checkpoint):
    """A checkpoint whose layers are those of others; see `Checkpoint` for what it does.

    Attributes:
        donor: whose side files it has, and whose config but for what is said of layers.
        origins: by role, the checkpoints that it is put together of; whoever opened them closes them.
    """

    donor: Checkpoint = field(kw_only=True)
    origins: Mapping[str, Checkpoint] = field(kw_only=True)
    _config: bytes = field(kw_only=True)

    @classmethod
    def of(
        cls, parts: Sequence[Part], donor: Checkpoint, origins: Mapping[str, Checkpoint]
    ) -> RestackedCheckpoint:
        """The checkpoint that has these parts.

        Raises:
            InputRefused: a piece is of another kind of model than the donor.
        """
        files = _files(_copies(parts, donor), donor)
        headers = {name: head for name, (head, _) in files.items()}
        sources: dict[str, Source] = {name: source for name, (_, source) in files.items()}
        notes = [f"{each.label}: {note}" for each in origins.values() for note in each.notes]
        config = _config_of(parts, donor, notes)
        raw = donor.side_bytes(CONFIG) if CONFIG in donor.side_names() else b""
        if config != donor.config:
            raw = (json.dumps(config, indent=2, ensure_ascii=False) + "\n").encode()
        label = " + ".join(dict.fromkeys(each.label for each in origins.values()))
        return cls(
            label, donor.on_disk(), None, headers, sources, config, None, notes,
            donor=donor, origins=origins, _config=raw,
        )  # fmt: skip

    @property
    def has_right_index(self) -> bool:
        return False

    def changed_files(self) -> list[str]:
        return [name for each in self.origins.values() for name in each.changed_files()]

    def side_names(self) -> list[str]:
        return self.donor.side_names()

    def side_size(self, name: str) -> int:
        return len(self._config) if name == CONFIG else self.donor.side_size(name)

    def side_bytes(self, name: str) -> bytes:
        return self._config if name == CONFIG else self.donor.side_bytes(name)

    def side_start(self, name: str, most: int) -> bytes:
        return self._config[:most] if name == CONFIG else self.donor.side_start(name, most)

    def close(self) -> None:
        """Nothing: whoever opened the checkpoints closes them."""


def originals(checkpoints: Mapping[str, Checkpoint]) -> dict[str, Checkpoint]:
    """By role, the checkpoints that were opened, where some are put together of others."""
    found: dict[str, Checkpoint] = {}
    for role, each in checkpoints.items():
        found |= each.origins if isinstance(each, RestackedCheckpoint) else {role: each}
    return found


def _copies(parts: Sequence[Part], donor: Checkpoint) -> list[_Copy]:
    """The tensors of the output in order: those before all layers, in the layers, and behind them."""
    before: list[_Copy] = []
    layers: list[_Copy] = []
    behind: list[_Copy] = []
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


def _outside(part: Part, piece: Piece, *, is_behind: bool) -> Iterable[_Copy]:
    """The tensors of a part that stand before its layers, or behind them."""
    if piece.checkpoint is None:
        return
    anatomy = anatomy_of(piece.checkpoint)
    for name, tensor in piece.checkpoint.tensors.items():
        place = anatomy.place(tensor)
        if name in part.names[piece.checkpoint] and (place.module in BEHIND) == is_behind:
            yield _Copy(name, piece.checkpoint, tensor)


def _layers(piece: Piece, there: Piece, number: int) -> Iterable[_Copy]:
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
            yield _Copy(there.stack.name + new[len(stack.name) :], checkpoint, tensor)


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


def _files(copies: Sequence[_Copy], donor: Checkpoint) -> dict[str, tuple[Header, Assembled]]:
    """Header and source of each file, as large as the donor's largest file at most."""
    sizes = [copy.tensor.size_bytes for copy in copies]
    several = len(donor.sources) > 1
    most = max(source.size for source in donor.sources.values()) if several else sum(sizes) + 1
    groups = partition(sizes, most)
    names = shard_names(len(groups)) if several else [SINGLE_FILE]
    metadata = next(iter(donor.headers.values())).metadata
    return {
        name: _file(name, [copies[i] for i in group], metadata)
        for name, group in zip(names, groups, strict=True)
    }


def _file(name: str, copies: Sequence[_Copy], metadata: dict[str, str]) -> tuple[Header, Assembled]:
    section, entries = header.build(
        [(copy.name, copy.tensor.dtype, copy.tensor.shape) for copy in copies], metadata
    )
    pieces = [
        (entry.offset, copy.checkpoint.sources[copy.tensor.file], copy.tensor.offset)
        for entry, copy in zip(entries, copies, strict=True)
        if entry.size_bytes
    ]
    size = _end(entries, len(section))
    digest = xxhash.xxh3_128_hexdigest(section)
    return Header(tuple(entries), metadata, len(section), digest), Assembled(
        name, section, pieces, size
    )


def _end(entries: Sequence[Entry], start: int) -> int:
    return max((entry.offset + entry.size_bytes for entry in entries), default=start)


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
