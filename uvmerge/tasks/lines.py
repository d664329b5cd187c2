"""JSON Lines from evaluations: one object a line, read one at a time, NaN as some writers leave it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..errors import InputRefused
from ..text import brief, size

LINE_BYTES = 64 << 20
FORCE = "Run the evaluation again, or pass --force to compare without it."


def json_lines(path: Path, force: bool, notes: list[str]) -> Iterator[dict[str, Any]]:
    """The objects of a file; lines without one are refused, or with `force` left out and noted."""
    broken = []
    with path.open("rb") as file:
        for number, line in enumerate(iter(lambda: file.readline(LINE_BYTES + 1), b""), 1):
            if len(line) > LINE_BYTES:
                what = f"is longer than {size(LINE_BYTES)}"
                raise InputRefused(f"{path}:{number}", what, "Name a file of evaluated items.")
            if line.isspace():
                continue
            parsed = _object(line)
            if isinstance(parsed, dict):
                yield parsed
                continue
            cut = " (it ends in the middle of a line)" if not line.endswith(b"\n") else ""
            if not force:
                raise InputRefused(f"{path}:{number}", f"{parsed}{cut}", FORCE)
            broken.append(f"line {number}{cut}")
    if broken:
        notes.append(f"{path.name}: left out {', '.join(broken[:5])}")


def _object(line: bytes) -> dict[str, Any] | str:
    """The JSON object of a line, or what is wrong with it."""
    try:
        parsed = json.loads(line.decode().removeprefix("\ufeff"))
    except (ValueError, RecursionError) as error:
        return f"is not valid JSON: {brief(error)}"
    return parsed if isinstance(parsed, dict) else "is not a JSON object"


def as_number(value: Any) -> float | None:
    """A number or truth value as a float; None for anything else."""
    try:
        return float(value) if isinstance(value, (bool, int, float)) else None
    except OverflowError:
        return None


def hand_of(line: dict[str, Any]) -> str | None:
    """The unordered hand of cards that a line or its `doc` is about, where it is about one."""
    doc = line.get("doc")
    for told in (line, doc if isinstance(doc, dict) else {}):
        if isinstance(told.get("unordered"), str):
            return told["unordered"]
        hand = told.get("hand")
        if isinstance(hand, list) and hand:
            return " ".join(sorted(map(str, hand)))
    return None
