"""Packs the context of a hole."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from .task import KINDS, Pack, Piece, Place

BUDGET = 2000
DEPTH = 4


def count_tokens(text: str) -> int:
    """An estimate of tokens that needs no tokenizer: three bytes of UTF-8 each, rounded up."""
    return -(-len(text.encode()) // 3)


def shown(pieces: Sequence[Piece]) -> str:
    """The pieces as a model sees them."""
    parts = []
    for kind in KINDS:
        texts = [piece.text for piece in pieces if piece.kind == kind]
        if texts:
            parts.append("\n".join([f"[{kind}]", *texts]))
    return "\n".join(parts)


class Index:
    """A Java project, read once: its types, tables, libraries and comments."""

    def pack(
        self,
        file: str | Path,
        hole: Place | None = None,
        *,
        text: str | None = None,
        budget: int = BUDGET,
        without: Iterable[str] = (),
        depth: int = DEPTH,
    ) -> Pack:
        """The context of the hole in a file of the project.

        Args:
            hole: where it is; by default at the marker `/*HOLE*/`.
            text: the text of the file, by default what the file holds.
        """
        raise NotImplementedError


def open_index(
    root: str | Path, *, schema: Sequence[str | Path] = (), classpath: Sequence[str | Path] = ()
) -> Index:
    """Read a project's sources, DDL files, and jars, class folders or sources of its class path."""
    raise NotImplementedError


def pack(
    file: str | Path,
    hole: Place | None = None,
    *,
    root: str | Path | None = None,
    schema: Sequence[str | Path] = (),
    classpath: Sequence[str | Path] = (),
    budget: int = BUDGET,
    without: Iterable[str] = (),
    depth: int = DEPTH,
) -> Pack:
    """The context of the hole in a file."""
    index = open_index(root or Path(file).parent, schema=schema, classpath=classpath)
    return index.pack(file, hole, budget=budget, without=without, depth=depth)
