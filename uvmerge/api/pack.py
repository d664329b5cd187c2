"""`uvmerge ccci pack`: the context of a hole in a Java file.

    found = uvmerge.pack_ccci("src/shop/OrderMapper.java", schema="schema.sql")
    print(found)

The flow: file → hole → project → types and tables that are reached → pieces within the budget.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from ..errors import UsageError
from ..tasks.ccci import Pack, Place, pack
from ..tasks.ccci.task import BUDGET, DEPTH
from ..text import brief, expanded

Paths = str | Path | Sequence[str | Path]


def pack_ccci(
    file: str | Path,
    *,
    hole: str | int | Place | None = None,
    root: str | Path | None = None,
    schema: Paths = (),
    classpath: Paths = (),
    budget: int = BUDGET,
    without: str | Iterable[str] = (),
    depth: int = DEPTH,
) -> Pack:
    """Pack what the code in a hole of a Java file may need to know.

    Args:
        file: the file, in UTF-8.
        hole: LINE or LINE:COL, from 1; by default where `/*HOLE*/` stands. Without a column the hole is
            at the end of the line.
        root: the folder of the sources; by default that which holds the package of the file.
        schema: files of DDL.
        classpath: jars, and folders of classes or sources; in one string as Java has them, too.
        budget: tokens that the pack may have: three bytes of UTF-8 count as one.
        without: kinds of context to leave out: `scope`, `tables`, `objects`, `relations`, `libraries`,
            `comments`. The pieces of the others stay the same.
        depth: steps from the variables in scope.

    Raises:
        InputRefused: the file has no hole in a method, or a file cannot be read.
        UsageError: a word makes no sense, the budget holds no piece, or the extra `ccci` is missing.
    """
    entries = [part for each in _several(classpath) for part in str(each).split(os.pathsep) if part]
    place = hole if hole is None or isinstance(hole, Place) else place_of(str(hole))
    return pack(
        expanded(file), place, root=None if root is None else expanded(root),
        schema=[expanded(path) for path in _several(schema)],
        classpath=[expanded(path) for path in entries],
        budget=budget, without=without, depth=depth,
    )  # fmt: skip


def place_of(text: str) -> Place:
    """The place of `12` or `12:5`.

    Raises:
        UsageError: it is no place.
    """
    found = re.fullmatch(r"([0-9]{1,9})(?::([0-9]{1,9}))?", text.strip())
    if found is None:
        do = "Write LINE or LINE:COL, such as 12 or 12:5."
        raise UsageError("--hole", f"{brief(text)!r} is no place", do)
    return Place(int(found[1]), int(found[2]) if found[2] else None)


def _several(paths: Paths) -> Sequence[str | Path]:
    return [paths] if isinstance(paths, (str, Path)) else paths
