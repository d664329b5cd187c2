"""The journal of one pair: what has been measured on it, one line a measurement, none lost or repeated.

A line is written and flushed to the disk as soon as its measurement is done, and ends with a hash of
its own. A line that a kill cut off counts as absent. The first line says under which sizes and
versions the others were measured; one with other sizes is refused, and one with other versions is read
and not gone on with.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..errors import InputRefused, RunFailed
from ..output.journal import line_of, lines_of, parse_line
from ..output.lock import lock_of, locked
from ..output.manifest import write_whole

Key = tuple[str, str]  # stage, and what was measured
DONE = (
    ""  # written when a stage has nothing left to measure on a pair; its value is the CPU time in s
)


class OtherHead(InputRefused):
    """A journal was begun with other sizes, or on other versions."""


class Journal:
    """The measurements of one pair, open for more.

    Attributes:
        path: the file.
        entries: by (stage, key), each with `value` and `cpu_s`, the seconds of CPU that it took.
    """

    def __init__(self, path: Path, entries: dict[Key, dict[str, Any]]) -> None:
        self.path, self.entries = path, entries

    @classmethod
    @contextmanager
    def opened(cls, path: Path, head: Mapping[str, Any]) -> Iterator[Journal]:
        """The journal at `path`, held by this process alone inside the block.

        Raises:
            Locked: another process works on the pair.
            OtherHead: the journal belongs to a study with another head.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        with locked(lock_of(path)):
            entries = read(path, head)
            kept = [dict(head), *entries.values()]
            write_whole(path, "".join(map(line_of, kept)).encode())
            yield cls(path, entries)

    def once(self, stage: str, key: str, make: Callable[[], Any]) -> Any:
        """The value of a measurement: as found here, or made now and written down.

        Args:
            make: returns numbers, texts, lists and dictionaries of them.

        Raises:
            RunFailed: a number is not finite.
        """
        found = self.entries.get((stage, key))
        if found is None:
            start = time.process_time()
            value = make()
            spent = round(time.process_time() - start, 2)
            found = {"stage": stage, "key": key, "value": value, "cpu_s": spent}
            self._append(found)
        return found["value"]

    def _append(self, entry: dict[str, Any]) -> None:
        try:
            json.dumps(entry, allow_nan=False)
        except ValueError:
            where = f"{self.path.stem}, {entry['stage']}, {entry['key']}"
            raise RunFailed(where, "has a measure that is not finite") from None
        with open(self.path, "ab") as file:
            file.write(line_of(entry).encode())
            file.flush()
            os.fsync(file.fileno())
        self.entries[entry["stage"], entry["key"]] = entry


def read(path: Path, head: Mapping[str, Any]) -> dict[Key, dict[str, Any]]:
    """The entries of a journal, which need not be there, by (stage, key).

    Args:
        head: what must be the same in its first line, which may say more.

    Raises:
        OtherHead: the journal belongs to a study with another head.
    """
    try:
        with open(path, "rb") as file:
            before, *entries = [parse_line(line) for line in lines_of(file)] or [{}]
    except FileNotFoundError:
        return {}
    name = next((name for name in sorted(head) if before and before.get(name) != head[name]), None)
    if name is not None:
        raise OtherHead(
            path,
            f"was measured with {name} {before.get(name)}, not {head[name]}",
            "Go on as it was begun, or name another folder.",
        )
    whole = (entry for entry in entries if entry) if before else ()
    return {(entry["stage"], entry["key"]): entry for entry in whole}
