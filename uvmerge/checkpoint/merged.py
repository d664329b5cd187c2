"""A base with an adapter merged into it, as a checkpoint: tensors are merged when they are read.

`MergedCheckpoint` has the base's names, files and dtypes; a tensor that the adapter changes is computed
when it is read. So an adapter is accepted wherever a fine-tuned checkpoint is, and no merged model is
ever whole in memory or on disk.
"""

from __future__ import annotations

import re
import threading
from collections import defaultdict, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

import xxhash

from .adapter import CONFIG, Adapter
from .adapter_targets import Merge, merges_of, refuse_no_sum
from .bounded import CONFIG_BYTES, read_small
from .folder import Checkpoint, Tensor
from .patched import PatchedFile, Stretch
from .source import Source, Watched

KEPT_BYTES = 16 << 20  # of merged tensors that no thread is reading
Read = Callable[[Tensor], bytearray]
# Makes the bytes of tensors of the base that belong together, by name.
Merger = Callable[..., Mapping[str, memoryview]]  # (adapter, merges, tensors, read, scale=1)
# Files of a tokenizer, which are taken from one folder only.
TOKENIZER_FILES = re.compile(
    r"tokenizer.*|special_tokens_map\.json|added_tokens\.json|vocab.*|merges\.txt"
    r"|chat_template.*|.*\.(model|tiktoken|jinja)"
)


class Made(dict[str, memoryview]):
    """The bytes of tensors that are merged together, by name; can be referred to weakly."""


class Results:
    """Merged tensors: each is computed once it is read.

    Every thread keeps what it read last, since tensors are mostly read piece by piece; beyond that
    `KEPT_BYTES` are kept. One tensor is merged at a time.

    Args:
        merges: what the adapter does; merges that share a tensor are done together.
        make: does merges that belong together.
    """

    def __init__(
        self,
        adapter: Adapter,
        merges: Sequence[Merge],
        base: Checkpoint,
        make: Merger,
    ) -> None:
        self._adapter, self._base, self._make = adapter, base, make
        self.groups = _groups(merges)
        self._mine = threading.local()
        self._there: WeakValueDictionary[str, Made] = WeakValueDictionary()
        self._kept: deque[Made] = deque()
        self._mutex = threading.Lock()

    def content(self, name: str) -> memoryview:
        """The bytes of a merged tensor."""
        made: Made | None = getattr(self._mine, "made", None)
        if made is None or name not in made:
            self._mine.made = made = None  # its memory is free before the next one is made
            with self._mutex:
                self._mine.made = made = self._there.get(name) or self._new(name)
        return made[name]

    def _new(self, name: str) -> Made:
        group = self.groups[name]
        tensors = {n: self._base.tensors[n] for merge in group for n in merge.tensors}
        made = Made(self._make(self._adapter, group, tensors, self._read))
        self._there.update(dict.fromkeys(made, made))
        self._kept.append(made)
        while sum(sum(map(len, each.values())) for each in self._kept) > KEPT_BYTES:
            self._kept.popleft()
        return made

    def _read(self, tensor: Tensor) -> bytearray:
        return self._base.read(tensor.file, tensor.offset, tensor.size_bytes)


def _groups(merges: Sequence[Merge]) -> dict[str, list[Merge]]:
    """By tensor, the merges that make it, in their order."""
    found: dict[str, list[Merge]] = defaultdict(list)
    for merge in merges:
        for name in merge.tensors:
            found[name].append(merge)
    return dict(found)


@dataclass(eq=False)
class MergedCheckpoint(Checkpoint):
    """A base with an adapter in it; see `Checkpoint` for what it does.

    Attributes:
        base: the base; whoever opened it closes it, unless `owns_base`.
        adapter: the adapter.
        scale: what its change is multiplied by.
        changed: names of the tensors that it, or an adapter below it, changes.
    """

    base: Checkpoint = field(kw_only=True)
    adapter: Adapter = field(kw_only=True)
    owns_base: bool = field(kw_only=True)
    scale: float = field(kw_only=True, default=1.0)
    changed: frozenset[str] = field(kw_only=True, default=frozenset())
    _config: Watched = field(kw_only=True)

    @classmethod
    def of(
        cls,
        base: Checkpoint,
        adapter: Adapter,
        make: Merger,
        *,
        owns_base: bool,
        scale: float = 1.0,
    ) -> MergedCheckpoint:
        """The checkpoint that PEFT would make of a base and an adapter.

        Args:
            make: does the arithmetic; called from any thread, for one tensor at a time.
            scale: what the adapter's change is multiplied by.

        Raises:
            InputRefused: the adapter does not fit the base.
        """
        merges = merges_of(adapter, base)
        below = base.changed if isinstance(base, MergedCheckpoint) else frozenset()
        refuse_no_sum(adapter, merges, below, scale)
        make = make if scale == 1 else partial(make, scale=scale)
        results = Results(adapter, merges, base, make)
        notes = [f"merged on the fly: the adapter {adapter.label} into {base.label}", *base.notes]
        notes += _notes_of_copies(adapter, base)
        return cls(
            adapter.label, adapter.folder, adapter.commit, base.headers, patched(base, results), base.config,
            base.index, notes, frozenset(base.sources), base=base, adapter=adapter,
            owns_base=owns_base, scale=scale, changed=below.union(*(m.tensors for m in merges)),
            _config=Watched([adapter.folder / CONFIG]),
        )  # fmt: skip

    @property
    def has_right_index(self) -> bool:
        return self.base.has_right_index

    def identity(self) -> dict[str, Any]:
        """That of a checkpoint, with the adapter's files, its base, and the PEFT that merges it."""
        own, config = super().identity(), read_small(self.adapter.folder / CONFIG, CONFIG_BYTES)
        source, head, prefix = self.adapter.source, self.adapter.header, self._prefix
        files = self.base.identity()["files"] | {
            prefix + CONFIG: {"bytes": len(config), "xxh3_128": xxhash.xxh3_128_hexdigest(config)},
            prefix + Path(source.name).name: {"bytes": source.size, "header_xxh3_128": head.digest},
        }
        of = f"{self.base.label}@{self.base.commit}" if self.base.commit else self.base.label
        scale = {} if self.scale == 1 else {"scale": self.scale}
        return own | {"files": files, "adapter_of": of, "peft": version("peft"), **scale}

    def states(self) -> dict[str, list[Any]]:
        source, head, prefix = self.adapter.source, self.adapter.header, self._prefix
        config = self._config.read(CONFIG, self.adapter.folder / CONFIG)
        own = {
            prefix + Path(source.name).name: [
                source.state.size,
                source.state.mtime_ns,
                head.digest,
            ],
            prefix + CONFIG: [len(config), 0, xxhash.xxh3_128_hexdigest(config)],
        }
        return {**self.base.states(), **own}

    def changed_files(self) -> list[str]:
        changed = [self.adapter.source.name] if self.adapter.source.has_changed() else []
        return [
            *self.base.changed_files(),
            *changed,
            *self._config.changed(),
            *self._watched.changed(),
        ]

    @property
    def _prefix(self) -> str:
        """What the names of the adapter's files begin with, so that adapters of a sum are apart."""
        depth, below = 0, self.base
        while isinstance(below, MergedCheckpoint):
            depth, below = depth + 1, below.base
        return f"{depth + 1}:" if depth else ""

    @property
    def root(self) -> Checkpoint:
        """The base below every adapter."""
        return self.base.root if isinstance(self.base, MergedCheckpoint) else self.base

    def side_names(self) -> list[str]:
        return sorted({*self.base.side_names(), *self._own_sides()} - self._left_of_base())

    def side_size(self, name: str) -> int:
        own = name in self._own_sides()
        return super().side_size(name) if own else self.base.side_size(name)

    def side_bytes(self, name: str) -> bytes:
        own = name in self._own_sides()
        return super().side_bytes(name) if own else self.base.side_bytes(name)

    def side_start(self, name: str, most: int) -> bytes:
        own = name in self._own_sides()
        return super().side_start(name, most) if own else self.base.side_start(name, most)

    def close(self) -> None:
        self.adapter.source.close()
        if self.owns_base:
            self.base.close()

    def _own_sides(self) -> list[str]:
        """Files of the adapter's folder that stand for those of the base: no config, no adapter."""
        names = super().side_names()
        return [
            name for name in names
            if not name.startswith("adapter_") and name != "config.json" and "/" not in name
        ]  # fmt: skip

    def _left_of_base(self) -> set[str]:
        """The base's files of a tokenizer, where the adapter brings a tokenizer of its own."""
        own = set(self._own_sides())
        if "tokenizer_config.json" not in own:
            return set()
        return {name for name in self.base.side_names() if TOKENIZER_FILES.fullmatch(name)} - own


def patched(base: Checkpoint, results: Results) -> dict[str, Source]:
    """The files of a base with merged tensors in them."""
    return {
        file: PatchedFile(source, _stretches(base, file, results))
        for file, source in base.sources.items()
    }


def _stretches(base: Checkpoint, file: str, results: Results) -> list[Stretch]:
    """The tensors of one file of the base that are merged."""
    tensors = (base.tensors[name] for name in results.groups)
    return [
        Stretch(t.offset, t.offset + t.size_bytes, _filler(results, t.name))
        for t in tensors
        if t.file == file
    ]


def _filler(results: Results, name: str) -> Callable[[int, memoryview], None]:
    def fill(offset: int, buffer: memoryview) -> None:
        buffer[:] = results.content(name)[offset : offset + len(buffer)]

    return fill


def _notes_of_copies(adapter: Adapter, base: Checkpoint) -> list[str]:
    """A warning for each copy of a base's weight in the adapter that is not the base's."""
    notes = []
    for name, entry in adapter.copies.items():
        tensor = base.tensors.get(name)
        same = tensor is None or (
            entry.shape == tensor.shape
            and (entry.dtype != tensor.dtype or _same_samples(adapter, entry, base, tensor))
        )
        if not same:
            notes.append(
                f"the adapter holds a copy of {name} that differs from {base.label}'s;"
                " the copy is not used"
            )
    return notes


def _same_samples(adapter: Adapter, entry: Any, base: Checkpoint, tensor: Tensor) -> bool:
    """Whether 64 pieces of 4 KB, spread evenly, are the same."""
    count = min(4096, entry.size_bytes)
    last = entry.size_bytes - count
    for i in range(64):
        start = last * i // 63
        ours = bytearray(count)
        adapter.source.read_into(entry.offset + start, memoryview(ours))
        if ours != base.read(tensor.file, tensor.offset + start, count):
            return False
    return True
