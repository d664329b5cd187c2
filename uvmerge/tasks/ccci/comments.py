"""Kind `comments`: what people wrote of the method, of its surroundings and of used members.

Comments are data: each is quoted as one string in which line breaks, quotation marks, fences and what
a terminal would act on are escaped.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

from ...text import inert
from .java import Comment, Member, Type
from .reach import View
from .task import Piece

MOST = 600
"""Characters of a comment that are quoted."""


def pieces(view: View) -> Iterator[Piece]:
    """Of the method, around the hole, of types and their members, of tables and columns."""
    site = view.typing.site
    file = site.unit.file
    if site.method.comment is not None:
        yield from _piece(f"method {site.method.name}", site.method.comment, file, 0)
    for comment in site.comments:
        where = (
            "above" if comment.line < site.line else "below" if comment.line > site.line else "in"
        )
        yield from _piece(f"{where} the hole", comment, file, 0)
    for found, distance in view.types.items():
        if found.comment is not None:
            yield from _piece(
                f"{found.kind} {found.name}", found.comment, found.unit.file, distance
            )
        for member in found.members:
            if member.comment is None or (found is site.type and member.line == site.method.line):
                continue
            near = distance if found is not site.type or member.kind == "field" else distance + 2
            yield from _piece(_name(found, member), member.comment, found.unit.file, near)
    for distance, table in view.tables.values():
        for column in table.columns:
            if column.comment:
                said = f"{inert(table.name)}.{inert(column.name)}: {quoted(column.comment)}"
                name = inert(column.name)
                yield Piece("comments", said, column.file, column.line, distance, 0, name)


def _name(found: Type, member: Member) -> str:
    if member.kind in ("method", "constructor"):
        kinds = ", ".join(kind for kind, _ in member.parameters)
        return f"{found.name}.{member.name}({kinds})"
    return f"{found.name}.{member.name}"


def _piece(name: str, comment: Comment, file: str, distance: int) -> Iterator[Piece]:
    text = plain(comment.text)
    if text:
        word = re.search(r"[^\W_]+", comment.text.split("\n")[0])
        quotes = word[0] if word else ""
        yield Piece(
            "comments", f"{name}: {quoted(text)}", file, comment.line, distance, 0, quotes
        )  # fmt: skip


def plain(comment: str) -> str:
    """The words of a comment: without its marks, and on one line."""
    inner = re.sub(r"\*+/\s*$", "", re.sub(r"^\s*/\*+", "", comment))
    lines = (re.sub(r"^\s*(\*(?!/)|//+)\s?", "", line) for line in inner.split("\n"))
    return " ".join(" ".join(lines).split())


def quoted(text: str) -> str:
    """A text from outside as one string in quotation marks, in which nothing is in force."""
    cut = text if len(text) <= MOST else f"{text[:MOST]}…"
    return json.dumps(inert(cut), ensure_ascii=False).replace("`", "'").replace("*/", "* /")
