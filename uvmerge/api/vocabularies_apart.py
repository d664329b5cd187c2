"""Whether the models of a merge without a rule for the vocabulary have one vocabulary."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from ..checkpoint.folder import Checkpoint
from ..checkpoint.revocabulary import vocabulary_tensors
from ..checkpoint.roles import mirrored, spelled
from ..checkpoint.vocabulary import differences
from ..errors import InputRefused, listed
from ..models import vocabularies as reading
from ..models.vocabularies import FILE

_CHOOSE = "Say whose tokens the output has: --tokenizer base, union, or one of the models."


def refuse_other_vocabularies(checkpoints: Mapping[str, Checkpoint], force: bool) -> Iterator[str]:
    """Refuse models whose tokens differ, since rows of different tokens would be mixed.

    Args:
        force: go on where the embeddings have one shape.

    Yields:
        A note where one tokenizer has tokens more than another, or where `force` goes on.

    Raises:
        InputRefused: names shapes and numbers of tokens.
    """
    own = mirrored(checkpoints)
    for role, other in checkpoints.items():
        if role == own:
            continue
        ours, theirs = (vocabulary_tensors(c)["embeddings"] for c in (checkpoints[own], other))
        tokens = _tokens_of(checkpoints[own], other)
        told = " (" + " and ".join(f"{len(t):,}" for t in tokens) + " tokens)" if tokens else ""
        where = f"{spelled(role)} and {spelled(own)}"
        if ours and theirs and ours[0].shape[0] != theirs[0].shape[0]:
            shapes = " and ".join(f"{t.name} {list(t.shape)}" for t in (theirs[0], ours[0]))
            raise InputRefused(where, f"have vocabularies that differ: {shapes}{told}", _CHOOSE)
        if not tokens:
            continue
        if apart := list(differences(*tokens)):
            what = f"number {listed(map(repr, apart), 'token', 3)} differently{told}"
            if not force:
                raise InputRefused(where, what, f"{_CHOOSE} --force mixes their rows.")
            yield f"{where} {what}: their rows are mixed"
        elif tokens[0] != tokens[1]:
            yield f"{where} have not all tokens in common{told}: the rows are merged as they are"


def _tokens_of(own: Checkpoint, other: Checkpoint) -> list[dict[str, int]]:
    """The tokens of another checkpoint and of ours; none where they are the same or cannot be read."""
    both = [other, own]
    if not all(FILE in each.side_names() for each in both):
        return []
    if other.side_bytes(FILE) == own.side_bytes(FILE):
        return []
    try:
        return [reading.vocabulary_of(each).tokens for each in both]
    except InputRefused:
        return []
