"""Whose rows the embeddings of a merge get, token by token. Pure.

Tokens are the same if their strings are: an id means one token in one model and another in the next.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

# The rows that one row is made of, each a (role, row): none is a row of zeros, several their mean.
Origin = tuple[tuple[str, int], ...]


@dataclass(frozen=True)
class Known:
    """The tokens of one checkpoint.

    Attributes:
        tokens: id by token.
        rows: rows of its embeddings; tokens whose id is beyond them have none.
    """

    tokens: Mapping[str, int]
    rows: int

    def row(self, token: str) -> int | None:
        """The row of a token; None where the checkpoint has none."""
        row = self.tokens.get(token)
        return row if row is not None and row < self.rows else None


@dataclass(frozen=True)
class Named:
    """Where the row of one token comes from, as a rule names it.

    Attributes:
        origin: a row of a model, or no row: zeros.
        force: whether it also replaces the row of models that have the token.
    """

    origin: Origin
    force: bool


def origins(
    tokens: Mapping[str, int],
    known: Mapping[str, Known],
    named: Mapping[str, Named],
    base: str | None,
) -> dict[str, list[Origin]]:
    """By role, what each row of the aligned embeddings is made of.

    A model keeps the row of a token that it has. Of a token that it lacks, it gets the row that a rule
    names; else that of the only model that has the token; else the base's; else the mean of those that
    have it; zeros where none has it.

    Args:
        tokens: the tokens of the output, id by token.
        known: by role, the tokens of each model.
        named: by token, what the rule says.
        base: role of the base; None where there is none.
    """
    count = max(tokens.values(), default=-1) + 1
    found: dict[str, list[Origin]] = {role: [()] * count for role in known}
    for token, number in tokens.items():
        rows = {role: row for role, each in known.items() if (row := each.row(token)) is not None}
        rule = named.get(token)
        lacking = _lacking(rows, base) if rule is None else rule.origin
        forced = rule is not None and rule.force
        for role, each in found.items():
            own = role in rows and not forced
            each[number] = ((role, rows[role]),) if own else lacking
    return found


def _lacking(rows: Mapping[str, int], base: str | None) -> Origin:
    """The row that models without a token get, from the rows of those with it."""
    if base is not None and base in rows and len(rows) > 1:
        return ((base, rows[base]),)
    return tuple(rows.items())


def united(vocabularies: Mapping[str, Mapping[str, int]]) -> tuple[dict[str, int], dict[str, str]]:
    """The tokens of several vocabularies: the ids of the first stay, others follow by vocabulary and id.

    Returns:
        (id by token, the role that a token which the first lacks comes from).
    """
    first, *others = vocabularies
    ids, came = dict(vocabularies[first]), {}
    free = max(ids.values(), default=-1) + 1
    for role in others:
        for token in sorted(vocabularies[role], key=vocabularies[role].__getitem__):
            if token not in ids:
                ids[token], came[token] = free, role
                free += 1
    return ids, came


def differences(one: Mapping[str, int], other: Mapping[str, int]) -> Iterator[str]:
    """Tokens that have another id in the other vocabulary, and those whose id is another token there."""
    if one == other:
        return
    by_id = {number: token for token, number in other.items()}
    for token, number in one.items():
        there = other.get(token)
        if (number in by_id) if there is None else there != number:
            yield token
