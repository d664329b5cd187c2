"""Packs the context of a hole: what is reached from it, ranked, and cut to a budget.

The flow: project → index; file and hole → site → types and tables reached → pieces of each kind →
ranking → budget. The same input gives the same bytes, wherever the project lies and in whatever order
its files are named.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from ...errors import InputRefused, UsageError
from ...text import brief
from . import comments, libraries, objects, relations, scope, tables
from .ddl import read_schema
from .hole import parted, read_source, site
from .index import TypeIndex
from .reach import View, reach
from .task import BUDGET, DEPTH, KINDS, Pack, Piece, Place, count_tokens, shown
from .typing import Typing

_MODULES = {
    "scope": scope, "tables": tables, "objects": objects, "relations": relations,
    "libraries": libraries, "comments": comments,
}  # fmt: skip
_RANK = ("scope", "objects", "relations", "tables", "libraries", "comments")


class Index:
    """A Java project, read once: its types, tables, libraries and comments.

    Args:
        root: the folder of its sources.
        schema: DDL files.
        classpath: jars, and folders of classes or sources.

    Raises:
        InputRefused: a file that is named cannot be read.
        UsageError: a package of the extra `ccci` is missing.
    """

    def __init__(
        self,
        root: str | Path,
        *,
        schema: Sequence[str | Path] = (),
        classpath: Sequence[str | Path] = (),
    ) -> None:
        self.root = Path(root)
        if not self.root.is_dir():
            do = "Name the folder of the project's sources."
            raise InputRefused(brief(root), "is no folder", do)
        self.types = TypeIndex(self.root, classpath)
        self.schema = read_schema([(self.types.label(Path(p)), Path(p)) for p in schema])

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
            file: its path, absolute or from the working folder; it need not be in the index.
            hole: where it is; by default at the marker `/*HOLE*/`.
            text: the text of the file; by default what the file holds.
            budget: tokens that the pack may have, as `count_tokens` estimates them.
            without: kinds to leave out; the pieces of the others stay the same.
            depth: steps from the variables in scope.

        Raises:
            InputRefused: the file has no hole in a method, or cannot be read.
            UsageError: a kind is unknown, or the budget holds no piece.
        """
        left_out = _kinds(without)
        if depth < 0:
            raise UsageError("--depth", f"{depth} is less than 0", "Count steps from 0.")
        name = self.types.label(Path(file))
        whole = read_source(Path(file)) if text is None else text
        around = site(*parted(whole, hole, name), name)
        view = reach(Typing(self.types, around), self.schema, depth)
        ranked = _ranked(view)
        taken = _within(ranked, budget)
        if ranked and not taken and len(left_out) < len(KINDS):
            least = count_tokens(shown(ranked[:1]))
            what = f"{budget:,} tokens hold no piece of context; the first needs {least:,}"
            raise UsageError("--budget", what, f"Pass more, such as --budget {BUDGET}.")
        kept = [piece for piece in taken if piece.kind not in left_out]
        lost = sum(piece.kind not in left_out for piece in ranked) - len(kept)
        kept.sort(key=lambda piece: (KINDS.index(piece.kind), piece.priority))
        notes = (*self.types.all_notes(), *self.schema.notes)
        return Pack(tuple(kept), budget, count_tokens(shown(kept)), lost, notes)


def open_index(
    root: str | Path, *, schema: Sequence[str | Path] = (), classpath: Sequence[str | Path] = ()
) -> Index:
    """Read a project's sources, DDL files, and jars, class folders or sources of its class path."""
    return Index(root, schema=schema, classpath=classpath)


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
    """The context of the hole in a Java file.

    Args:
        file: the file.
        hole: where the hole is; by default at the marker `/*HOLE*/`.
        root: the folder of the sources; by default that which holds the file's package.
        schema: DDL files.
        classpath: jars, and folders of classes or sources.
        budget: tokens that the pack may have, as `count_tokens` estimates them.
        without: kinds to leave out.
        depth: steps from the variables in scope.

    Raises:
        InputRefused: the file has no hole in a method, or a file cannot be read.
        UsageError: a kind is unknown, the budget holds no piece, or a package is missing.
    """
    without = _kinds(without)
    text = read_source(Path(file))
    parted(text, hole, Path(file).name)  # refused before a project is read
    folder = Path(root) if root is not None else source_root(Path(file), text)
    index = open_index(folder, schema=schema, classpath=classpath)
    return index.pack(file, hole, budget=budget, without=without, depth=depth)


def source_root(file: Path, text: str) -> Path:
    """The folder that holds the packages of a file: `src` of `src/shop/Order.java`."""
    folder = file.resolve().parent
    found = re.search(r"^\s*package\s+([\w.]+)\s*;", text, re.MULTILINE)
    parts = found[1].split(".") if found else []
    if tuple(parts) == folder.parts[len(folder.parts) - len(parts) :]:
        return folder.parents[len(parts) - 1] if parts else folder
    return folder


def _kinds(without: Iterable[str]) -> set[str]:
    found = {without} if isinstance(without, str) else set(without)
    for kind in sorted(found - set(KINDS)):
        do = f"The kinds are {', '.join(KINDS)}."
        raise UsageError("--without", f"there is no kind {brief(kind)!r}", do)
    return found


def _ranked(view: View) -> list[Piece]:
    """Every piece once, in the order in which the budget is spent."""
    found = [piece for kind in _RANK for piece in _MODULES[kind].pieces(view)]
    found.sort(key=lambda piece: piece.distance)  # keeps the order within a distance
    once = {(piece.kind, piece.text): piece for piece in reversed(found)}
    unique = [piece for piece in found if once[piece.kind, piece.text] is piece]
    return [replace(piece, priority=number) for number, piece in enumerate(unique)]


def _within(ranked: list[Piece], budget: int) -> list[Piece]:
    """The pieces that fit, each whole, in the order of their priority."""
    taken: list[Piece] = []
    kinds: set[str] = set()
    used = -1  # no line break at the end
    for piece in ranked:
        heading = 0 if piece.kind in kinds else len(f"[{piece.kind}]") + 1
        needed = len(piece.text.encode()) + 1 + heading
        if -(-(used + needed) // 3) <= budget:
            taken.append(piece)
            kinds.add(piece.kind)
            used += needed
    return taken
