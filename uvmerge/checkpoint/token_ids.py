"""The config of a merge with another vocabulary: its size, ids of special tokens, ties. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

_IDS = re.compile(r"(.+_)?token_(id|ids|index)")
VOCABULARY, TIE = "vocab_size", "tie_word_embeddings"


def resized(config: Mapping[str, Any], before: int, rows: int) -> dict[str, Any]:
    """A config whose `vocab_size` is `rows`, at any depth where it was `before`."""
    return {
        key: rows if key == VOCABULARY and value == before
        else resized(value, before, rows) if isinstance(value, Mapping) else value
        for key, value in config.items()
    }  # fmt: skip


def untied(config: Mapping[str, Any]) -> dict[str, Any]:
    """A config that says, at the top and wherever it says it, that the head is no copy of the embeddings."""
    inner = {
        key: untied(value) if TIE in value else value
        for key, value in config.items()
        if isinstance(value, Mapping)
    }
    return {**config, **inner, TIE: False}


def renumbered(
    config: Mapping[str, Any], theirs: Mapping[str, Any], ids: Mapping[int, int]
) -> dict[str, Any]:
    """A config whose token ids are those of another vocabulary.

    Args:
        theirs: the config of the model with that vocabulary, whose ids count first.
        ids: the id of the same token there, by the id here; a token that is not there becomes null.
    """
    found: dict[str, Any] = {}
    for key, value in config.items():
        there = theirs.get(key)
        if isinstance(value, Mapping):
            inner = there if isinstance(there, Mapping) else {}
            found[key] = renumbered(value, inner, ids)
        elif not _IDS.fullmatch(key):
            found[key] = value
        else:
            found[key] = there if key in theirs else _numbered(value, ids)
    return found


def _numbered(value: Any, ids: Mapping[int, int]) -> Any:
    if isinstance(value, list):
        return [ids[each] for each in value if each in ids]
    return ids.get(value) if type(value) is int else value
