"""One tensor under several names: the head and the embeddings, and those of encoder and decoder.

A model that ties its head stores one matrix, or two that are equal. What was equal has to stay equal, and
the embeddings of a model that stores no head stand for it.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping
from typing import Any

from .anatomy import Anatomy
from .folder import Checkpoint, Tensor

_KEYS = ("tie_word_embeddings", "tie_embeddings", "tie_encoder_decoder")
_HAS_HEAD = re.compile(r"LM|Generation|MaskedLM|PreTraining|Seq2Seq")
_POSITIONS = re.compile(r"position|token_type|wpe|segment|type_emb", re.IGNORECASE)
SAMPLES, SAMPLE_BYTES = (
    64,
    4096,
)  # pieces of two tensors that are compared, at most a quarter of each


def ties_of(config: Mapping[str, Any], most: int = 4) -> bool | None:
    """Whether a config says that the head is tied, at any depth; None where it does not say."""
    said = [config[key] for key in _KEYS if isinstance(config.get(key), bool)]
    if said:
        return any(said)
    nested = (ties_of(v, most - 1) for v in config.values() if isinstance(v, Mapping) and most)
    return next((each for each in nested if each is not None), None)


def token_embeddings(anatomy: Anatomy) -> list[Tensor]:
    """The tables of token embeddings, the largest first."""
    found = [
        tensor
        for tensor in anatomy.tensors.values()
        if len(tensor.shape) == 2
        and anatomy.place(tensor).module == "embeddings"
        and not _POSITIONS.search(tensor.name)
    ]
    return sorted(found, key=lambda tensor: -tensor.size_bytes)


def heads(anatomy: Anatomy) -> list[Tensor]:
    """The output heads over the vocabulary: matrices of the shape of the token embeddings."""
    shapes = {tensor.shape for tensor in token_embeddings(anatomy)}
    return [
        tensor
        for tensor in anatomy.tensors.values()
        if tensor.shape in shapes and anatomy.place(tensor).module == "head"
    ]


def is_tied(anatomy: Anatomy) -> bool:
    """Whether the model has a head over the vocabulary and stores none: its embeddings serve as it."""
    if not token_embeddings(anatomy) or heads(anatomy):
        return False
    names = anatomy.config.get("architectures")
    named = names[0] if isinstance(names, list) and names and isinstance(names[0], str) else ""
    return ties_of(anatomy.config) is True or bool(_HAS_HEAD.search(named))


def stands_for_head(anatomy: Anatomy, shape: tuple[int, ...]) -> Tensor | None:
    """The embeddings of a tied model that are its head, where their shape is the one asked for."""
    if not is_tied(anatomy):
        return None
    return next((t for t in token_embeddings(anatomy) if t.shape == shape), None)


def equal_tensors(checkpoint: Checkpoint, anatomy: Anatomy) -> list[list[str]]:
    """Names of embeddings and heads that hold the same values, group by group, embeddings first.

    Sixty-four pieces of each are read and compared, not every byte.
    """
    alike: dict[tuple[object, ...], list[str]] = defaultdict(list)
    for tensor in [*token_embeddings(anatomy), *heads(anatomy)]:
        alike[tensor.shape, tensor.dtype].append(tensor.name)
    groups = []
    for names in alike.values():
        by_content: dict[bytes, list[str]] = defaultdict(list)
        for name in names if len(names) > 1 else ():
            by_content[_sample(checkpoint, checkpoint.tensors[name])].append(name)
        groups += [group for group in by_content.values() if len(group) > 1]
    return groups


def _sample(checkpoint: Checkpoint, tensor: Tensor) -> bytes:
    """Pieces of a tensor, spread evenly, its end among them."""
    count = min(SAMPLE_BYTES, max(16, tensor.size_bytes // (4 * SAMPLES)), tensor.size_bytes)
    last = tensor.size_bytes - count
    starts = sorted({last * i // max(SAMPLES - 1, 1) for i in range(SAMPLES)})
    return b"".join(
        bytes(checkpoint.read(tensor.file, tensor.offset + start, count)) for start in starts
    )
