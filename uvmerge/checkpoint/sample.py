"""A hash of samples of a checkpoint's weights, which tells it from another one of the same shapes."""

from __future__ import annotations

import xxhash

from .folder import Checkpoint

TENSORS, WINDOW_BYTES = 512, 256  # at most so many tensors, of each so many bytes of its middle


def sample_digest(checkpoint: Checkpoint) -> str:
    """xxh3-128 of a window in the middle of each tensor; of evenly chosen tensors where many are.

    A few hundred reads tell the results of two fine-tunings apart, since these change all of a
    tensor. The hash proves nothing about values outside of the windows.
    """
    tensors = [tensor for tensor in checkpoint.tensors.values() if tensor.size_bytes]
    digest = xxhash.xxh3_128()
    for tensor in tensors[:: max(1, -(-len(tensors) // TENSORS))]:
        size_bytes = min(WINDOW_BYTES, tensor.size_bytes)
        start = tensor.offset + (tensor.size_bytes - size_bytes) // 2
        digest.update(checkpoint.read(tensor.file, start, size_bytes))
    return digest.hexdigest()
