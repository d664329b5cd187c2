"""One tensor under several names: the head and the embeddings, and those of encoder and decoder.

A model that ties its head to the embeddings stores one matrix, or two equal ones. Equal tensors
have to stay equal, and the embeddings of a model that stores no head serve as its head.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from . import tie_table
from .anatomy import Anatomy
from .folder import Checkpoint, Tensor
from .modules import outside_module

_KEYS = ("tie_word_embeddings", "tie_embeddings", "tie_encoder_decoder")
_HAS_HEAD = re.compile(r"LM|Generation|MaskedLM|PreTraining|Seq2Seq")
_LM_HEAD = re.compile(
    r"^(?!.*(dense|transform)).*(lm_head|decoder\.weight$|logits|output|unembed|embed_out|proj_out|pred_layer|log_softmax)"
)
_NO_TOKENS = re.compile(r"position|token_type|wpe|segment|type_emb|projection", re.IGNORECASE)
_NUMBERED = re.compile(r"\.\d+(?=\.)")
# Pieces of a tensor that `equal_tensors` compares, and the levels bytes in a piece.
SAMPLES, SAMPLE_BYTES = 64, 4096


def config_ties_head(config: Mapping[str, Any], levels: int = 4) -> bool | None:
    """Whether a config ties the head, at any depth of nesting; None where it does not say."""
    said = [config[key] for key in _KEYS if isinstance(config.get(key), bool)]
    if said:
        return any(said)
    nested = (
        config_ties_head(v, levels - 1)
        for v in config.values()
        if isinstance(v, Mapping) and levels
    )
    return next((tied for tied in nested if tied is not None), None)


def token_embeddings(anatomy: Anatomy) -> list[Tensor]:
    """The tables of token embeddings, the largest first."""
    found = [
        tensor
        for tensor in anatomy.outside
        if len(tensor.shape) == 2
        and anatomy.place(tensor).module == "embeddings"
        and not _NO_TOKENS.search(tensor.name)
    ]
    return sorted(found, key=lambda tensor: -tensor.size_bytes)


def heads(anatomy: Anatomy) -> list[Tensor]:
    """The output heads over the vocabulary: matrices of the shape of the token embeddings."""
    shapes = {tensor.shape for tensor in token_embeddings(anatomy)}
    return [
        tensor
        for tensor in anatomy.outside
        if tensor.shape in shapes and anatomy.place(tensor).module == "head"
    ]


def is_tied(anatomy: Anatomy) -> bool:
    """Whether the model stores no head over the vocabulary and uses its embeddings as one.

    The table of tied names tells, and of an architecture that the table lacks config and name.
    """
    names = {tensor.name for tensor in token_embeddings(anatomy)}
    if not names or heads(anatomy):
        return False
    sets = tie_table.tied_sets(anatomy.config, anatomy.tensors)
    if any(own & names and any(map(_is_head_name, own - names)) for own in sets):
        return True
    if tie_table.never_ties(anatomy.config) or any(_is_head(tensor) for tensor in anatomy.outside):
        return False
    if named := tie_table.architectures(anatomy.config):
        return bool(_HAS_HEAD.search(named[0]))
    return config_ties_head(anatomy.config) is True


def _is_head(tensor: Tensor) -> bool:
    """Whether a tensor outside of layers is a head over a vocabulary of any size, by its name."""
    named = _LM_HEAD.search(tensor.name) is not None and _is_head_name(tensor.name)
    return named and len(tensor.shape) == 2


def _is_head_name(name: str) -> bool:
    return outside_module(_NUMBERED.sub(".", name)) == "head"


def stands_for_head(anatomy: Anatomy, shape: tuple[int, ...]) -> Tensor | None:
    """The embeddings that are the head of a tied model, where they have the given shape."""
    if not is_tied(anatomy):
        return None
    return next((t for t in token_embeddings(anatomy) if t.shape == shape), None)


def equal_tensors(checkpoint: Checkpoint, anatomy: Anatomy) -> list[list[str]]:
    """Groups of names that hold the same values, of embeddings and heads and of each tied set.

    The embeddings come first. `SAMPLES` pieces of each tensor are compared, together at most about
    a quarter of its bytes.
    """
    ends = [tensor.name for tensor in [*token_embeddings(anatomy), *heads(anatomy)]]
    ends = [name for name in ends if name not in checkpoint.apart]
    grouped = set(ends)
    sets = [ends]
    for own in tie_table.tied_sets(anatomy.config, anatomy.tensors):
        stored = sorted(name for name in own if name in anatomy.tensors)
        if len(stored) > 1 and grouped.isdisjoint(stored):
            grouped.update(stored)
            sets.append(stored)
    return [group for names in sets for group in _equal(checkpoint, names)]


def _equal(checkpoint: Checkpoint, names: Sequence[str]) -> Iterator[list[str]]:
    """Groups of two or more of the names, of one shape and dtype and with the same values."""
    alike: dict[tuple[object, ...], list[str]] = defaultdict(list)
    for name in names:
        tensor = checkpoint.tensors[name]
        alike[tensor.shape, tensor.dtype].append(name)
    for several in alike.values():
        for some in _alike(checkpoint, several, 1):  # most differ here, and no more is read
            yield from _alike(checkpoint, some, SAMPLES)


def _alike(checkpoint: Checkpoint, names: Sequence[str], pieces: int) -> list[list[str]]:
    """Groups of two or more of the names whose sampled pieces are equal."""
    by_content: dict[bytes, list[str]] = defaultdict(list)
    for name in names if len(names) > 1 else ():
        by_content[_sample(checkpoint, checkpoint.tensors[name], pieces)].append(name)
    return [group for group in by_content.values() if len(group) > 1]


def _sample(checkpoint: Checkpoint, tensor: Tensor, pieces: int) -> bytes:
    """Pieces of a tensor, spread evenly; of one piece, its start; of several, the last is its end."""
    count = min(SAMPLE_BYTES, max(16, tensor.size_bytes // (4 * SAMPLES)), tensor.size_bytes)
    last = tensor.size_bytes - count
    starts = sorted({last * i // max(SAMPLES - 1, 1) for i in range(pieces)})
    checkpoint.prepare((tensor, start, start + count) for start in starts)
    return b"".join(
        bytes(checkpoint.read(tensor.file, tensor.offset + start, count)) for start in starts
    )
