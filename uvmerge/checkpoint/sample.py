"""A hash of samples of a checkpoint's weights, which tells it from another one of the same shapes."""

from __future__ import annotations

import xxhash

from .composed import ComposedCheckpoint
from .folder import Checkpoint
from .header import Header
from .merged import MergedCheckpoint
from .source import Source

TENSORS, WINDOW_BYTES = 512, 256  # at most so many tensors, of each so many bytes of its middle


def sample_digest(checkpoint: Checkpoint) -> str:
    """xxh3-128 of a window in the middle of each tensor; of evenly chosen tensors where many are.

    A few hundred reads tell the results of two fine-tunings apart, since these change all of a
    tensor. Of a merged adapter, base and adapter are sampled; of what is put together, all that it is
    made of. The hash proves nothing about values outside of the windows.
    """
    stored = [(source, e) for head, source in _stored(checkpoint) for e in head.entries]
    tensors = [(source, entry) for source, entry in stored if entry.size_bytes]
    digest = xxhash.xxh3_128()
    for source, entry in tensors[:: max(1, -(-len(tensors) // TENSORS))]:
        window = bytearray(min(WINDOW_BYTES, entry.size_bytes))
        start = entry.offset + (entry.size_bytes - len(window)) // 2
        source.read_into(start, memoryview(window))
        digest.update(window)
    return digest.hexdigest()


def _stored(checkpoint: Checkpoint) -> list[tuple[Header, Source]]:
    """Header and source of every file on disk that the weights are made from."""
    if isinstance(checkpoint, ComposedCheckpoint):
        return [pair for parent in checkpoint.parents for pair in _stored(parent)]
    if isinstance(checkpoint, MergedCheckpoint):
        return [*_stored(checkpoint.base), (checkpoint.adapter.header, checkpoint.adapter.source)]
    return [(head, checkpoint.sources[name]) for name, head in checkpoint.headers.items()]


def hold_alike(one: Checkpoint, other: Checkpoint) -> bool:
    """Whether two checkpoints have tensors of the same names, dtypes and shapes, and samples agree.

    The files in which the tensors are may differ. Windows of up to `TENSORS` tensors are compared.
    """
    ours, theirs = one.tensors, other.tensors
    kinds = [{n: (t.dtype, t.shape) for n, t in each.items()} for each in (ours, theirs)]
    if kinds[0] != kinds[1]:
        return False
    for name in list(ours)[:: max(1, -(-len(ours) // TENSORS))]:
        size = min(WINDOW_BYTES, ours[name].size_bytes)
        pieces = [
            each.read(t.file, t.offset + (t.size_bytes - size) // 2, size)
            for each, t in ((one, ours[name]), (other, theirs[name]))
        ]
        if pieces[0] != pieces[1]:
            return False
    return True
