"""A LoRA that was saved inside a checkpoint (`base_layer`, `lora_A.NAME`): read as if it were merged.

`X.base_layer.weight` becomes `X.weight`, and the factors are no tensors of the checkpoint any more.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from copy import copy
from dataclasses import dataclass, field
from typing import Any

import xxhash

from ..errors import InputRefused, listed
from . import header
from .adapter import CONFIG, Adapter, changes_of
from .adapter_config import settings_of
from .adapter_targets import merges_of
from .bounded import CONFIG_BYTES, parse_json
from .folder import Checkpoint
from .header import Entry, Header
from .merged import Merger, Results, patched
from .patched import PatchedFile, Stretch
from .source import Source

_FACTOR = re.compile(
    r".+\.(?:lora_[AB]|lora_embedding_[AB]|lora_magnitude_vector)\.(\w+?)(?:\.weight)?"
)
_BASE_LAYER = re.compile(r"\.base_layer(?=\.\w+$)")


@dataclass(eq=False)
class InnerAdapter(Adapter):
    """An adapter whose tensors are those of a checkpoint."""

    checkpoint: Checkpoint = field(kw_only=True)

    def read(self, entry: Entry) -> bytearray:
        tensor = self.checkpoint.tensors[entry.name]
        return self.checkpoint.read(tensor.file, tensor.offset, tensor.size_bytes)


def has_inner_adapter(checkpoint: Checkpoint) -> bool:
    """Whether a checkpoint stores the factors of a LoRA."""
    return any(_FACTOR.fullmatch(name) for name in checkpoint.tensors)


def merged_inside(checkpoint: Checkpoint, make: Merger) -> Checkpoint:
    """A checkpoint with the LoRA that it stores merged; it takes over the files, and closes them.

    Raises:
        InputRefused: there are several adapters, or no config says alpha.
    """
    matches = {name: _FACTOR.fullmatch(name) for name in checkpoint.tensors}
    factors = {name: match[1] for name, match in matches.items() if match}
    plain = _plain(checkpoint, set(factors))
    adapter = _adapter(checkpoint, factors)
    results = Results(adapter, merges_of(adapter, plain), plain, make)
    plain.notes.append(f"merged on the fly: a LoRA inside of {checkpoint.label}")
    found = copy(plain)  # `plain` itself goes on to read what is on disk
    found.sources = patched(plain, results)
    return found


def _adapter(checkpoint: Checkpoint, factors: dict[str, str]) -> InnerAdapter:
    """The adapter whose factors have these names; the values are the adapter's names."""
    names = sorted(set(factors.values()))
    if len(names) > 1:
        what = f"holds {listed(names, 'LoRA')} in one checkpoint"
        raise InputRefused(checkpoint.label, what, "Merge one of them with PEFT first.")
    tensors = (checkpoint.tensors[name] for name in factors)
    entries = tuple(Entry(t.name, t.dtype, t.shape, t.offset, t.size_bytes) for t in tensors)
    head = Header(entries, {}, 0, "")
    config = _config(checkpoint, names[0])
    settings = settings_of(checkpoint.on_disk() / CONFIG, config)
    changes, copies = changes_of(checkpoint.label, head, settings)
    source = next(iter(checkpoint.sources.values()))
    return InnerAdapter(
        checkpoint.on_disk(), checkpoint.label, checkpoint.commit, config, settings, head, source,
        changes, copies, checkpoint=checkpoint,
    )  # fmt: skip


def _config(checkpoint: Checkpoint, name: str) -> dict[str, Any]:
    """What says rank and alpha: `adapter_config.json` beside the weights, or `NAME_lora` in the config."""
    if CONFIG in checkpoint.side_names():
        raw = checkpoint.side_start(CONFIG, CONFIG_BYTES)
        return parse_json(raw, CONFIG, "it")
    found = checkpoint.config.get(f"{name}_lora")
    if not isinstance(found, dict):
        raise InputRefused(
            checkpoint.label,
            f"holds a LoRA, and no {CONFIG} or {name}_lora in its config says its lora_alpha",
            f"Put the {CONFIG} of the LoRA beside the weights.",
        )
    known = {
        key: found[key] for key in ("r", "lora_alpha", "use_rslora", "use_dora") if key in found
    }
    return {"peft_type": "LORA"} | known


def _plain(checkpoint: Checkpoint, factors: set[str]) -> Checkpoint:
    """The checkpoint under plain names and without the factors, its values unchanged."""
    by_file: dict[str, list[Entry]] = {}
    for t in checkpoint.tensors.values():
        if t.name not in factors:
            name = _BASE_LAYER.sub("", t.name)
            entry = Entry(name, t.dtype, t.shape, t.offset, t.size_bytes)
            by_file.setdefault(t.file, []).append(entry)
    headers, sources = {}, {}
    for file, kept in by_file.items():
        section, entries = header.build(
            [(e.name, e.dtype, e.shape) for e in kept], checkpoint.headers[file].metadata
        )
        digest = xxhash.xxh3_128_hexdigest(section)
        metadata = checkpoint.headers[file].metadata
        headers[file] = Header(tuple(entries), metadata, len(section), digest)
        sources[file] = _moved(checkpoint.sources[file], section, kept, entries)
    return Checkpoint(
        checkpoint.label, checkpoint.on_disk(), checkpoint.commit, headers, sources,
        checkpoint.config, None, checkpoint.notes, frozenset(checkpoint.sources),
    )  # fmt: skip


def _moved(source: Source, section: bytes, before: list[Entry], after: list[Entry]) -> Source:
    """A file with a new header section, whose tensors are those of `source` in other places."""
    stretches = [Stretch(0, len(section), _constant(section))]
    for old, new in zip(before, after, strict=True):
        stop = new.offset + new.size_bytes
        stretches.append(Stretch(new.offset, stop, _at(source, old.offset)))
    return PatchedFile(source, stretches, size=stretches[-1].stop)


def _constant(content: bytes) -> Callable[[int, memoryview], None]:
    def fill(offset: int, buffer: memoryview) -> None:
        buffer[:] = content[offset : offset + len(buffer)]

    return fill


def _at(source: Source, start: int) -> Callable[[int, memoryview], None]:
    return lambda offset, buffer: source.read_into(start + offset, buffer)
