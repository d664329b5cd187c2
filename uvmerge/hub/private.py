"""What must not leave this machine: tokens, and names of folders in a home folder."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from ..errors import InputRefused
from .items import Item

_TEXT = (".json", ".md", ".yaml", ".yml", ".txt", ".py", ".jinja", ".jsonl", ".model")
_TOKEN = re.compile(rb"\bhf_[A-Za-z0-9]{30,}")
_NAME_OR_PATH = re.compile(rb'"_name_or_path":\s*"(/|~|\.{1,2}/|[A-Za-z]:\\)')
_NAMES = "Take it out of the inputs (`_name_or_path` in config.json, say), make the output again, and push."


def refuse_private(items: Sequence[Item]) -> None:
    """Refuse files that hold a token, or a path in a home folder of this machine.

    Raises:
        InputRefused: names the file and what it holds.
    """
    wanted = list(_wanted())
    for each in items:
        if isinstance(each.content, bytes) or each.name.endswith(_TEXT):
            _refuse(each.name, _pieces(each), wanted)


def _refuse(name: str, pieces: Iterable[bytes], wanted: Sequence[tuple[str, bytes]]) -> None:
    for piece in pieces:
        found = next((kind for kind, secret in wanted if secret in piece), None)
        if found is None and _TOKEN.search(piece):
            found = "an access token of the Hub"
        if found is None and _NAME_OR_PATH.search(piece):
            found = "the path of a folder (_name_or_path)"
        if found is not None:
            raise InputRefused(name, f"holds {found}; nothing was pushed", _NAMES)


def _wanted() -> Iterator[tuple[str, bytes]]:
    from huggingface_hub import get_token

    if token := get_token():
        yield "your access token", token.encode()
    for home in {str(Path.home()), os.path.realpath(Path.home())} - {"/"}:
        yield "a path in your home folder", f"{home.rstrip('/')}/".encode()


def _pieces(item: Item, piece_bytes: int = 1 << 20, overlap: int = 4096) -> Iterator[bytes]:
    """The content in pieces that overlap, so that nothing is missed between two."""
    if isinstance(item.content, bytes):
        yield item.content
        return
    with item.content.open("rb") as file:
        last = b""
        while piece := file.read(piece_bytes):
            yield last + piece
            last = piece[-overlap:]
