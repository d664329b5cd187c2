"""Small files from strangers: read up to a limit, and parsed up to a depth.

No size that a file claims is believed, and nothing here takes longer than one pass over the bytes.
"""

from __future__ import annotations

import codecs
import json
import os
import stat
from collections import Counter
from pathlib import Path
from typing import Any

from ..errors import InputRefused
from ..text import brief, size
from .strangers import refuse_pointer

AGAIN = "Download or save the file again."
CONFIG_BYTES, INDEX_BYTES, MANIFEST_BYTES = 16 << 20, 64 << 20, 128 << 20
DEPTH = 64  # of the JSON of a config, an index or a manifest


def read_small(path: Path, most: int) -> bytes:
    """The content of a regular file of at most `most` bytes.

    Raises:
        InputRefused: the file is larger, is a pipe or a device, or cannot be read.
    """
    start = read_start(path, most + 1)
    if len(start) > most:
        found = max(len(start), path.stat().st_size)
        raise InputRefused(
            path, f"has {found:,} bytes, such a file has at most {size(most)}", AGAIN
        )
    return start


def read_start(path: Path, most: int) -> bytes:
    """Up to `most` bytes from the start of a regular file."""
    try:
        # Without O_NONBLOCK, a pipe without a writer would be waited for.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise InputRefused(path, "is not a file", AGAIN)
            content, left = bytearray(), min(most, status.st_size)
            while left and (piece := os.read(descriptor, left)):
                content += piece
                left -= len(piece)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise InputRefused(path, f"cannot be read: {error.strerror}") from None
    return bytes(content)


def read_json(path: Path, most: int) -> dict[str, Any]:
    """The JSON object in a file of at most `most` bytes; see `read_small` and `parse_json`."""
    raw = read_small(path, most)
    refuse_pointer(path, raw[:64], len(raw))
    return parse_json(raw.removeprefix(codecs.BOM_UTF8), path, "it")


def parse_json(
    raw: bytes, file: str | Path, what: str, *, depth: int = DEPTH, constants: bool = True
) -> dict[str, Any]:
    """A JSON object without repeated keys, or `InputRefused` naming the file.

    Args:
        what: what the object is, for the message.
        depth: how deep objects and lists may stand in each other; 0 where the caller knows the type
            of every value that it accepts.
        constants: whether NaN and Infinity, which configs hold and JSON has not, are numbers.
    """

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        table = dict(pairs)
        if len(table) < len(pairs):
            counts = Counter(key for key, _ in pairs)
            twice = next(key for key, count in counts.items() if count > 1)
            raise InputRefused(file, f"{what} has the key '{brief(twice)}' twice", AGAIN)
        return table

    try:
        parsed = json.loads(
            raw.decode("utf-8"),
            object_pairs_hook=once,
            parse_constant=None if constants else _refuse_constant,
        )
    except RecursionError:
        raise _too_deep(file, what, depth) from None
    except ValueError as error:
        raise InputRefused(file, f"{what} is not valid JSON ({brief(error)})", AGAIN) from None
    if not isinstance(parsed, dict):
        raise InputRefused(file, f"{what} is not a JSON object", AGAIN)
    if depth and is_deeper(parsed, depth):
        raise _too_deep(file, what, depth)
    return parsed


def is_deeper(value: Any, depth: int) -> bool:
    """Whether objects and lists stand in each other more than `depth` deep."""
    level = [value]
    for _ in range(depth):
        inner = (each.values() if isinstance(each, dict) else each for each in level)
        level = [child for group in inner for child in group if isinstance(child, (dict, list))]
        if not level:
            return False
    return True


def is_text(value: str) -> bool:
    """Whether a string can be written as UTF-8; a lone half of a surrogate pair cannot."""
    if value.isascii():
        return True
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _refuse_constant(text: str) -> float:
    raise ValueError(f"{text} is no number")


def _too_deep(file: str | Path, what: str, depth: int) -> InputRefused:
    return InputRefused(file, f"{what} is nested deeper than {depth or DEPTH} levels", AGAIN)
