"""One tensor under several names: the head and the embeddings, and those of encoder and decoder.

A model that ties its head to the embeddings stores one matrix, or two equal ones. Equal tensors
have to stay equal, and the embeddings of a model that stores no head serve as its head.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping
from typing import Any

from . import tie_table
from .anatomy import Anatomy
from .folder import Checkpoint, Tensor
from .modules import outside_module

_KEYS = ("tie_word_embeddings", "tie_embeddings", "tie_encoder_decoder")
_HAS_HEAD = re.compile(r"LM|Generation|MaskedLM|PreTraining|Seq2Seq")
_LM_HEAD = re.compile(
    r"lm_head|decoder\.weight$|logits|output|unembed|embed_out|proj_out|pred_layer|log_softmax"
)
_POSITIONS = re.compile(r"position|token_type|wpe|segment|type_emb", re.IGNORECASE)
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
    """Whether the model stores no head over the vocabulary and uses its embeddings as one.

    The table of tied names tells, and of an architecture that the table lacks config and name.
    """
    names = {tensor.name for tensor in token_embeddings(anatomy)}
    if not names or heads(anatomy):
        return False
    sets = tie_table.tied_sets(anatomy.config, anatomy.tensors)
    if any(own & names and any(map(_is_head_name, own - names)) for own in sets):
        return True
    if tie_table.never_ties(anatomy.config) or any(
        _is_head(anatomy, tensor) for tensor in anatomy.tensors.values()
    ):
        return False
    named = " ".join(tie_table.architectures(anatomy.config)[:1])
    return config_ties_head(anatomy.config) is True or bool(_HAS_HEAD.search(named))


def _is_head(anatomy: Anatomy, tensor: Tensor) -> bool:
    """Whether a tensor is a head over a vocabulary of any size, one that the name calls so."""
    return (
        len(tensor.shape) == 2
        and bool(_LM_HEAD.search(tensor.name))
        and anatomy.place(tensor).layer is None
        and _is_head_name(tensor.name)
    )


def _is_head_name(name: str) -> bool:
    return outside_module(_NUMBERED.sub(".", name)) == "head"


def stands_for_head(anatomy: Anatomy, shape: tuple[int, ...]) -> Tensor | None:
    """The embeddings that are the head of a tied model, where they have the given shape."""
    if not is_tied(anatomy):
        return None
    return next((t for t in token_embeddings(anatomy) if t.shape == shape), None)


def equal_tensors(checkpoint: Checkpoint, anatomy: Anatomy) -> list[list[str]]:
    """Groups of names of embeddings and heads that hold the same values, embeddings first.

    `SAMPLES` pieces of each tensor are compared, together at most about a quarter of its bytes.
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
    """Pieces of a tensor, spread evenly; the last piece is its end."""
    count = min(SAMPLE_BYTES, max(16, tensor.size_bytes // (4 * SAMPLES)), tensor.size_bytes)
    last = tensor.size_bytes - count
    starts = sorted({last * i // max(SAMPLES - 1, 1) for i in range(SAMPLES)})
    return b"".join(
        bytes(checkpoint.read(tensor.file, tensor.offset + start, count)) for start in starts
    )
