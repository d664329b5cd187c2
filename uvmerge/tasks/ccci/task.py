"""What packer, completers and judge hand to one another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

KINDS = ("scope", "tables", "objects", "relations", "libraries", "comments")
"""The kinds of context, in the order in which a pack shows them."""

BUDGET = 2000
"""Tokens of context, unless told otherwise."""

DEPTH = 4
"""Steps of context from the variables in scope, unless told otherwise."""

MARKER = "/*HOLE*/"
"""What stands in a file in place of the code that is to be completed."""


@dataclass(frozen=True)
class Place:
    """A position in a file: line and column from 1; the hole is before the character there.

    Columns count characters. Without a column the hole is at the end of the line.
    """

    line: int
    column: int | None = None


@dataclass(frozen=True)
class Piece:
    """One piece of context, with the place that it was read from.

    Attributes:
        kind: one of `KINDS`.
        text: what is shown, one line or several; inert, whatever the source holds.
        file: relative to the folder of the project, or to the entry of the class path; POSIX.
        line: from 1; of a class in a jar, 1.
        distance: steps from the variables in scope, which are at 0.
        priority: pieces are taken whole in rising order of it until the budget is used up.
        quotes: a word of the source that stands on this line of this file; empty for a jar.
    """

    kind: str
    text: str
    file: str
    line: int
    distance: int
    priority: int
    quotes: str = ""


def count_tokens(text: str) -> int:
    """An estimate of tokens that needs no tokenizer: three bytes of UTF-8 each, rounded up."""
    return -(-len(text.encode()) // 3)


def shown(pieces: Sequence[Piece]) -> str:
    """The pieces as a model sees them: each kind under a heading."""
    parts = []
    for kind in KINDS:
        texts = [piece.text for piece in pieces if piece.kind == kind]
        if texts:
            parts.append("\n".join([f"[{kind}]", *texts]))
    return "\n".join(parts)


@dataclass(frozen=True)
class Pack:
    """The context of one hole.

    Attributes:
        pieces: by kind in the order of `KINDS`, then by priority.
        budget: tokens that `text` may have.
        tokens: tokens that `text` has, as `count_tokens` estimates them.
        left_out: pieces for which there was no room.
        notes: what could not be read or is unknown, a sentence each.
    """

    pieces: tuple[Piece, ...]
    budget: int
    tokens: int
    left_out: int = 0
    notes: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        """The pieces as a model sees them: a heading for each kind; empty without pieces."""
        return shown(self.pieces)

    def __str__(self) -> str:
        return self.text

    def as_dict(self) -> dict[str, Any]:
        """JSON-able data: `pieces`, `budget`, `tokens`, `left_out`, `notes` and `text`."""
        return {**asdict(self), "text": self.text}


@dataclass(frozen=True)
class Infilling:
    """The tokens of a model that was trained to fill in the middle; each is one token's text."""

    prefix: str
    suffix: str
    middle: str


@dataclass(frozen=True)
class Prompt:
    """What a completer is asked.

    Attributes:
        text: the whole prompt; the completion follows its end.
        prefix, suffix: the code of the file before and after the hole.
        style: `infill`, `instruct` or `plain`.
    """

    text: str
    prefix: str
    suffix: str
    style: str


@dataclass(frozen=True)
class Hole:
    """One task of the benchmark.

    Attributes:
        id: unique, and stable between releases.
        file: relative to the sources of the project; POSIX.
        place: where the hole begins in `prefix + suffix`.
        gold: the code that was there.
        needs: kinds of context without which the code cannot be known.
        tests: name of the class that tests it, with its package.
        prefix, suffix: the file before and after the hole.
        domain: of business, such as `warehouse`.
    """

    id: str
    file: str
    place: Place
    gold: str
    needs: tuple[str, ...]
    tests: str
    prefix: str = ""
    suffix: str = ""
    domain: str = ""
