"""Where every tensor of the output goes: mirrored files, or new shards. Pure."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

from ..checkpoint import header
from ..checkpoint.folder import Checkpoint
from ..checkpoint.header import DTYPES, FLOATS
from ..checkpoint.weight_files import partition, shard_names


@dataclass(frozen=True)
class OutputFile:
    """One weight file of the output.

    Attributes:
        name: name of the file.
        header: the whole header section, length included.
        size_bytes: size of the whole file.
    """

    name: str
    header: bytes = field(repr=False)
    size_bytes: int

    @property
    def digest(self) -> str:
        """The first 16 hex digits of the header section's sha256."""
        return hashlib.sha256(self.header).hexdigest()[:16]


def layout(
    finetuned: Checkpoint, dtype: str | None, max_shard_bytes: int | None
) -> tuple[tuple[OutputFile, ...], dict[str, tuple[str, int]]]:
    """The output's files, and (file, offset in bytes) of every tensor by name.

    Args:
        finetuned: the checkpoint that the output mirrors.
        dtype: dtype in which floating-point tensors are stored, as `--dtype` names it; None keeps
            the dtype of each.
        max_shard_bytes: size limit of new shards; None mirrors the files of the checkpoint.
    """
    if not dtype and not max_shard_bytes and not finetuned.renamed:
        files = tuple(
            OutputFile(
                name, bytes(finetuned.read(name, 0, head.data_start)), finetuned.sources[name].size
            )
            for name, head in finetuned.headers.items()
        )
        return files, {t.name: (t.file, t.offset) for t in finetuned.tensors.values()}
    target = DTYPES[dtype] if dtype else None
    wanted = [
        (t.name, target if target and t.dtype in FLOATS else t.dtype, t.shape)
        for t in finetuned.tensors.values()
    ]
    metadata = next(iter(finetuned.headers.values())).metadata
    shards: dict[str, list[tuple[str, str, tuple[int, ...]]]] = {}
    if max_shard_bytes:
        groups = partition([header.size_bytes(d, s) for _, d, s in wanted], max_shard_bytes)
        names = shard_names(len(groups))
        shards = {name: [wanted[i] for i in group] for name, group in zip(names, groups)}
    else:
        for item in wanted:
            shards.setdefault(finetuned.tensors[item[0]].file, []).append(item)
    outputs, places = [], {}
    for name, tensors in shards.items():
        section, entries = header.build(tensors, metadata)
        outputs.append(OutputFile(name, section, len(section) + sum(e.size_bytes for e in entries)))
        places.update({entry.name: (name, entry.offset) for entry in entries})
    return tuple(outputs), places
