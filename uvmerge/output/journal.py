"""The journal of a run: a head that must be the same for the run to be resumed, then finished pieces.

Head and pieces are one line each. The journal lies in the staging folder beside OUT; the name of
this folder holds the digest of the plan.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from ..errors import InputRefused
from .publishing import JOURNAL, is_ours, refuse_foreign
from .tree import Tree


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


def read_journal(root: Tree, head: dict[str, Any]) -> dict[tuple[str, int], dict[str, Any]]:
    """The pieces that an earlier run under the same head claims to have finished, by (file, offset).

    The journal is then written anew: without lines that a kill cut off, and with a whole head.

    Raises:
        InputRefused: the head belongs to another run.
    """
    parsed = [_parse_line(line) for line in root.read(JOURNAL).split(b"\n")]
    if parsed[0] and parsed[0] != head:
        raise _other_run(root.path, parsed[0], head)
    claimed: dict[tuple[str, int], dict[str, Any]] = {}
    for entry in parsed[1:] if parsed[0] else ():  # without its head, nothing can be trusted
        if isinstance(entry.get("file"), str) and isinstance(entry.get("offset"), int):
            claimed[entry["file"], entry["offset"]] = entry
    write_journal(root, [head, *claimed.values()])
    return claimed


def write_journal(root: Tree, entries: list[dict[str, Any]]) -> None:
    """Write a journal of these entries alone, in place of the one that is there."""
    root.write_whole(JOURNAL, "".join(map(line_of, entries)).encode())


def _parse_line(line: bytes) -> dict[str, Any]:
    """The entry that a line of the journal holds; empty where the line is cut off or no object."""
    try:
        entry = json.loads(line)
    except ValueError:
        return {}
    return entry if isinstance(entry, dict) else {}


def line_of(entry: dict[str, Any]) -> str:
    """The line of the journal that holds `entry`."""
    return json.dumps(entry, separators=(",", ":")) + "\n"


def has_head(root: Tree, head: dict[str, Any]) -> bool:
    """Whether the journal in a staging folder begins with this head, or with no readable head."""
    if root.status(JOURNAL) is None:
        return True
    first = _parse_line(root.read(JOURNAL).partition(b"\n")[0])
    return first in ({}, head)


def _other_run(root: Path, before: dict[str, Any], head: dict[str, Any]) -> InputRefused:
    changed = [key for key in head if key in before and before[key] != head[key]]
    what = f"other {', '.join(changed)}" if changed else "another recipe or other inputs"
    return InputRefused(
        root,
        f"an unfinished run with {what} is in the way",
        "Repeat that run's command to finish it, or start over with --overwrite (or delete the folder).",
    )
