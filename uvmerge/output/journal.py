"""The journal of a run: a head that must be the same for the run to be resumed, then finished pieces.

Head and pieces are one line each, which ends with a hash of its own: a line that was cut off, or changed,
counts as absent. The journal lies in the staging folder beside OUT; the name of
this folder holds the digest of the plan.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import xxhash

from ..checkpoint.bounded import is_deeper
from ..errors import InputRefused
from . import manifest
from .publishing import JOURNAL, is_ours, refuse_foreign
from .tree import Tree

LIMIT_BYTES, LIMIT_LINE_BYTES, LIMIT_DEPTH = 1 << 30, 16 << 20, 16
_LINE = re.compile(rb'(\{.+),"line_xxh3_64":"([0-9a-f]{16})"\}\n')
_DIGEST = re.compile("[0-9a-f]{32}")


def staging_root(out: Path, digest: str) -> Path:
    """The staging folder of a plan with this digest, beside OUT."""
    return out.with_name(f"{out.name}.uvmerge-partial-{digest[:8]}")


def check_unfinished(out: Path, digest: str, head: dict[str, Any], overwrite: bool) -> None:
    """Refuse if another plan has left an unfinished run beside OUT, unless it may be overwritten.

    What lies in the place of this plan's staging folder and is none is refused in any case.
    """
    refuse_foreign(staging_root(out, digest))
    for folder in unfinished_runs(out) if not overwrite else ():
        if folder != staging_root(out, digest):
            raise _other_run(folder, {}, head)


def unfinished_runs(out: Path) -> list[Path]:
    """Staging folders with a journal that earlier runs left beside OUT."""
    return [path for path in staging_folders(out) if (path / JOURNAL).is_file()]


def staging_folders(out: Path) -> list[Path]:
    """This user's staging folders beside OUT."""
    pattern = re.compile(re.escape(out.name) + r"\.uvmerge-partial-[0-9a-f]{8}")
    found = (path for path in out.parent.iterdir() if pattern.fullmatch(path.name))
    return sorted(path for path in found if is_ours(path))


def read_journal(
    root: Tree, head: dict[str, Any], name: str = JOURNAL
) -> dict[tuple[str, int], dict[str, Any]]:
    """The pieces that an earlier run under the same head claims to have finished, by (file, offset).

    The journal is then written anew: without lines that a kill cut off, and with a whole head.

    Raises:
        InputRefused: the head belongs to another run.
    """
    claimed = claims(root, head, name)
    write_journal(root, [head, *claimed.values()], name)
    return claimed


def claims(
    root: Tree, head: dict[str, Any], name: str = JOURNAL
) -> dict[tuple[str, int], dict[str, Any]]:
    """`read_journal` for a journal that another process may be writing, and that stays as it is."""
    before, *entries = _entries(root, name)
    if before and before != head:
        raise _other_run(root.path, before, head)
    # Without its head, nothing can be trusted.
    pieces = [entry for entry in entries if _is_piece(entry)] if before else []
    return {(piece["file"], piece["offset"]): piece for piece in pieces}


def write_journal(root: Tree, entries: list[dict[str, Any]], name: str = JOURNAL) -> None:
    """Write a journal of these entries alone, in place of the one that is there.

    A loss of power may empty it: the pieces are then made again.
    """
    root.write_whole(name, "".join(map(line_of, entries)).encode(), sync=False)


def line_of(entry: dict[str, Any]) -> str:
    """The line of the journal that holds `entry`."""
    text = json.dumps(entry, separators=(",", ":"))
    return f'{text[:-1]},"line_xxh3_64":"{xxhash.xxh3_64_hexdigest(text.encode())}"}}\n'


def _entries(root: Tree, name: str) -> list[dict[str, Any]]:
    """What each line of a journal holds, the head first; empty where a line is not whole."""
    with root.reading(name) as file:
        if file.seek(0, 2) > LIMIT_BYTES:
            return [{}]
        file.seek(0)
        return [parse_line(line) for line in lines_of(file)] or [{}]


def lines_of(file: Any) -> Iterator[bytes]:
    """The lines of a journal that is open, each cut at the length that a line may have."""
    while line := file.readline(LIMIT_LINE_BYTES):
        yield line


def parse_line(line: bytes) -> dict[str, Any]:
    """The entry that a line of the journal holds; empty where it has another hash than the line says."""
    match = _LINE.fullmatch(line)
    if match is None:
        return {}
    text = match[1] + b"}"
    if xxhash.xxh3_64_hexdigest(text) != match[2].decode():
        return {}
    try:
        entry = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return entry if not is_deeper(entry, LIMIT_DEPTH) else {}


def _is_piece(entry: dict[str, Any]) -> bool:
    """Whether an entry has the types of a finished piece."""
    numbers, texts = ("offset", "size"), ("file", "xxh3_128")
    record = entry.get("record", {})
    return (
        all(type(entry.get(key)) is int and entry[key] >= 0 for key in numbers)
        and all(isinstance(entry.get(key), str) for key in texts)
        and _DIGEST.fullmatch(entry["xxh3_128"]) is not None
        and isinstance(record, dict)
        and all(map(manifest.is_record, record.values()))
    )


def has_head(root: Tree, head: dict[str, Any]) -> bool:
    """Whether the journal in a staging folder begins with this head, or with no readable head."""
    if root.status(JOURNAL) is None:
        return True
    with root.reading(JOURNAL) as file:
        before = parse_line(file.readline(LIMIT_LINE_BYTES))
    return not before or before == head


def _other_run(root: Path, before: dict[str, Any], head: dict[str, Any]) -> InputRefused:
    changed = [key for key in head if key in before and before[key] != head[key]]
    what = f"other {', '.join(changed)}" if changed else "another recipe or other inputs"
    return InputRefused(
        root,
        f"an unfinished run with {what} is in the way",
        "Repeat that run's command to finish it, or start over with --overwrite (or delete the folder).",
    )
