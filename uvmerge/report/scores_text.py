"""A comparison of evaluations for the terminal."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator

from ..tasks.outcome import ComparedScores
from ..text import brief, inert, table
from .scores_words import caveats, cells, meanings, recovered_cells, sentences, title

WIDTH = 100


def as_text(found: ComparedScores) -> str:
    """Every table, then what holds, without control characters."""
    return "\n".join(_lines(found))


def _lines(found: ComparedScores) -> Iterator[str]:
    for each in found.tables:
        yield inert(title(each))
        header, rows = cells(each, brief(found.against, 24))
        yield table(header, [[brief(row[0], 40), *row[1:]] for row in rows], "score items Holm")
        yield from (f"  {inert(line)}" for line in caveats(each))
        header, rows = recovered_cells(each)
        if rows:
            yield ""
            yield table(["recovered", *header[1:]], [[brief(row[0], 40), *row[1:]] for row in rows])
        yield ""
    for name, meaning in meanings(found):
        yield from _wrapped(f"{name}: {meaning}.")
    for note in found.notes:
        yield from _wrapped(f"note: {note}")
    yield ""
    for sentence in sentences(found):
        yield from _wrapped(sentence)


def _wrapped(sentence: str) -> list[str]:
    return textwrap.wrap(inert(sentence), WIDTH, subsequent_indent="  ", break_long_words=False)
