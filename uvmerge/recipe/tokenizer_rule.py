"""What a recipe says about the vocabulary of a merge: whose tokens, and whose rows where a model lacks one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

UNION, BASE = "union", "base"


@dataclass(frozen=True)
class TokenRow:
    """Where the row of one token comes from, in models that lack it.

    Attributes:
        model: reference of the model whose row it is; None for a row of zeros.
        token: the token of that model, as text or as its id; None for the token itself.
        force: whether the row also replaces that of models that have the token.
        where: file and line, for messages; empty where it stands in none.
    """

    model: str | None = None
    token: str | int | None = None
    force: bool = False
    where: str = field(default="", compare=False)


@dataclass(frozen=True)
class TokenizerRule:
    """The tokens of the output, and how their rows are found.

    Attributes:
        source: `union`, `base` (the model that gives the config), or the reference of a model.
        tokens: by token, where its row comes from; a value None leaves that to the usual order.
        pad_to_multiple_of: rows of the embeddings are filled up to a multiple of this; None for
            none.
        where: file and line, for messages; empty where it stands in none.
    """

    source: str = UNION
    tokens: Mapping[str, TokenRow | None] = field(default_factory=dict)
    pad_to_multiple_of: int | None = None
    where: str = field(default="", compare=False)

    @property
    def places(self) -> dict[str, str]:
        """By model that the rule names, where it does so first."""
        rows = [row for row in self.tokens.values() if row is not None and row.model is not None]
        named = [(self.source, self.where), *((str(row.model), row.where) for row in rows)]
        return dict(reversed(named))
