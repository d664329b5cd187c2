"""A checkpoint put together of tensors of others, each read where it lies or made when it is read."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import xxhash

from . import header
from .folder import SINGLE_FILE, Checkpoint, Tensor
from .header import Entry, Header
from .patched import PatchedFile, Stretch
from .source import Source

Fill = Callable[[int, memoryview], None]  # fills a buffer with the bytes from an offset on


@dataclass(frozen=True)
class Part:
    """A tensor of a composed checkpoint; `fill` gives its bytes, from any thread."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    fill: Fill = field(repr=False)

    @property
    def size_bytes(self) -> int:
        return header.size_bytes(self.dtype, self.shape)


def stored(checkpoint: Checkpoint, tensor: Tensor) -> Fill:
    """The bytes of a tensor of a checkpoint, as they are."""
    source, start = checkpoint.sources[tensor.file], tensor.offset
    return lambda offset, buffer: source.read_into(start + offset, buffer)


def same(checkpoint: Checkpoint, tensor: Tensor, name: str = "") -> Part:
    """A tensor of a checkpoint as it is, under its own name or another one."""
    return Part(name or tensor.name, tensor.dtype, tensor.shape, stored(checkpoint, tensor))


def constant(content: bytes) -> Fill:
    """The bytes of `content`."""

    def fill(offset: int, buffer: memoryview) -> None:
        buffer[:] = content[offset : offset + len(buffer)]

    return fill


@dataclass(frozen=True)
class Beside:
    """What a composed checkpoint has beside its tensors.

    Attributes:
        config: the content of its config.json; `sides` holds the bytes.
        about: what tells it from its first parent, for its identity.
        sides: by name, the content of side files that are not as in the first parent; None where the
            file is left out.
        notes: sentences for the plan, besides those of the first parent.
    """

    config: Mapping[str, Any]
    about: Mapping[str, Any]
    sides: Mapping[str, bytes | None]
    notes: Sequence[str] = ()


@dataclass(eq=False)
class ComposedCheckpoint(Checkpoint):
    """A checkpoint of parts; see `Checkpoint` for what it does. Whoever opened its parents closes them.

    Attributes:
        parents: the checkpoints that it is made of; the first has the side files.
        beside: what it has beside its tensors.
    """

    parents: tuple[Checkpoint, ...] = field(kw_only=True)
    beside: Beside = field(kw_only=True)

    @classmethod
    def of(
        cls,
        parents: Sequence[Checkpoint],
        files: Mapping[str, Sequence[Part]],
        beside: Beside,
        apart: Collection[str] = (),
    ) -> ComposedCheckpoint:
        """A checkpoint with these parts.

        Args:
            files: the parts by weight file, in the order of their bytes. A file that the first parent
                has too gets its metadata from there.
            apart: see `Checkpoint`.
        """
        own = parents[0]
        headers: dict[str, Header] = {}
        sources: dict[str, Source] = {}
        for file, parts in files.items():
            name = file if len(files) > 1 else SINGLE_FILE
            like = file if file in own.headers else next(iter(own.headers))
            metadata = own.headers[like].metadata
            section, entries = header.build([(p.name, p.dtype, p.shape) for p in parts], metadata)
            digest = xxhash.xxh3_128_hexdigest(section)
            headers[name] = Header(tuple(entries), metadata, len(section), digest)
            sources[name] = _file(own.sources[like], section, parts, entries)
        return cls(
            own.label, own.on_disk(), own.commit, headers, sources, dict(beside.config), None,
            [*own.notes, *beside.notes], frozenset(own.sources), apart=frozenset(apart),
            parents=tuple(parents), beside=beside,
        )  # fmt: skip

    def identity(self) -> dict[str, Any]:
        """That of the first parent, and what tells it from that one."""
        return self.parents[0].identity() | dict(self.beside.about)

    def states(self) -> dict[str, list[Any]]:
        """Those of the parents, and how its tensors lie in its files."""
        first, *others = self.parents
        more = (
            {f"{number}/{name}": state for name, state in other.states().items()}
            for number, other in enumerate(others, 1)
        )
        parts = (first.states(), *more, self.layout())
        return {name: state for each in parts for name, state in each.items()}

    def layout(self) -> dict[str, list[Any]]:
        """Size and header digest of each of its files, which are nowhere stored, as of `states`."""
        return {
            f"composed/{name}": [self.sources[name].size, 0, head.digest]
            for name, head in self.headers.items()
        }

    def changed_files(self) -> list[str]:
        once = {id(parent): parent for parent in self.parents}
        return [name for parent in once.values() for name in parent.changed_files()]

    def side_names(self) -> list[str]:
        left = {name for name, content in self.beside.sides.items() if content is None}
        return sorted(({*self.parents[0].side_names()} - left) | (self.beside.sides.keys() - left))

    def side_size(self, name: str) -> int:
        content = self.beside.sides.get(name)
        return self.parents[0].side_size(name) if content is None else len(content)

    def side_bytes(self, name: str) -> bytes:
        content = self.beside.sides.get(name)
        return self.parents[0].side_bytes(name) if content is None else content

    def side_start(self, name: str, most: int) -> bytes:
        content = self.beside.sides.get(name)
        return self.parents[0].side_start(name, most) if content is None else content[:most]

    def close(self) -> None:
        """Nothing: whoever opened the parents closes them."""


def _file(source: Source, section: bytes, parts: Sequence[Part], entries: list[Entry]) -> Source:
    """A weight file with a new header section and these parts."""
    stretches = [Stretch(0, len(section), constant(section))]
    for part, entry in zip(parts, entries, strict=True):
        stretches.append(Stretch(entry.offset, entry.offset + entry.size_bytes, part.fill))
    return _ComposedFile(source, stretches, size=stretches[-1].stop)


class _ComposedFile(PatchedFile):
    """A file none of whose bytes are those of the same place in a stored one."""

    def prepare(self, spans: Iterable[tuple[int, int]]) -> None:
        """Nothing: what lies on the Hub is fetched when it is read."""
