"""What a model has answered so far, kept in a file from which an evaluation is resumed.

The file holds what was asked of which model, and then a line for each answer, written as soon as it is
there. Each line ends with a hash of its own; a line that was cut off by a kill, or changed, counts as
absent.
"""

from __future__ import annotations

import json
import os
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..errors import InputRefused, listed
from ..output.journal import line_of, lines_of, parse_line
from ..output.lock import lock_of, locked
from ..output.tree import Tree

SAMPLES, RESULTS = "samples.jsonl", "results.json"


class Kept(ABC):
    """Answers in memory, and in a file if there is one.

    Attributes:
        name: of the file.
    """

    name: str
    _descriptor: int | None = None

    @abstractmethod
    def lines(self) -> Iterable[dict[str, Any]]:
        """A line for each answer, as JSON-able data."""

    @abstractmethod
    def take(self, line: Mapping[str, Any]) -> None:
        """Take the answer that a line of an earlier run holds, if it is one that this run needs."""

    def write(self, line: Mapping[str, Any]) -> None:
        """Append the line of one more answer to the file, if there is one."""
        if self._descriptor is not None:
            data = memoryview(line_of(dict(line)).encode())
            while data:
                data = data[os.write(self._descriptor, data) :]

    @contextmanager
    def kept_in(self, out: Path, head: Mapping[str, Any]) -> Iterator[Tree]:
        """Inside the block, every answer is also written into OUT; earlier ones are taken from there.

        Args:
            head: what the run asks, and of which model.

        Raises:
            InputRefused: OUT holds other files, or the answers of another run.
            Locked: another run is writing there.
        """
        out.mkdir(parents=True, exist_ok=True)
        with locked(lock_of(out)), Tree.at(out) as root:
            self._refuse_others(root)
            self._take_all(root, dict(head))
            text = "".join(map(line_of, [dict(head), *self.lines()]))
            root.write_whole(self.name, text.encode())
            with root.created(self.name, os.O_WRONLY | os.O_APPEND) as self._descriptor:
                try:
                    yield root
                finally:
                    self._descriptor = None

    def _take_all(self, root: Tree, head: dict[str, Any]) -> None:
        """Take the answers of an earlier run of the same head."""
        if root.status(self.name) is None:
            return
        with root.reading(self.name) as file:
            before, *entries = [parse_line(line) for line in lines_of(file)] or [{}]
        if before != json.loads(json.dumps(head)):
            other = [key for key in head if before.get(key) != head[key]]
            raise InputRefused(
                root.path,
                f"holds the attempts of another run (other {', '.join(other)})",
                "Name another --out, or delete the folder.",
            )
        for entry in entries:
            self.take(entry)

    def _refuse_others(self, root: Tree) -> None:
        """Refuse a folder with anything that is not of an evaluation."""
        known = (self.name, SAMPLES, RESULTS)
        if others := sorted(set(root.names()) - {*known, *(f"{name}.new" for name in known)}):
            what = f"holds more than an evaluation ({listed(others, 'other', 3)})"
            raise InputRefused(root.path, what, "Name another --out.")


def write_results(
    root: Tree, samples: Iterable[Mapping[str, Any]], results: Mapping[str, Any]
) -> None:
    """Write the items and the scores of an evaluation that has finished."""
    root.write_whole(SAMPLES, "".join(f"{json.dumps(sample)}\n" for sample in samples).encode())
    text = json.dumps(results, indent=2, allow_nan=False)
    root.write_whole(RESULTS, f"{text}\n".encode())
