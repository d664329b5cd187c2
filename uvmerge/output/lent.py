"""A staging folder that one process owns and processes of other machines write into.

The owner keeps lock and journal. A worker writes bytes at their offset and returns what the journal has
to say of them. Before anything is written, owner and nodes show each other that they see one folder:

    seen-<token>          the owner writes a number into it that is drawn for this run
    seen-<token>-<node>   a node writes its answer, made from that number
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import xxhash

from ..errors import InputRefused
from . import publishing
from .tree import Tree
from .writer import Staging

Line = dict[str, Any]  # of the journal


class LentStaging(Staging):
    """The staging folder as a worker sees it: lines of the journal are collected for its owner."""

    def __init__(self, out: Path, root: Tree) -> None:
        self.lines: list[Line] = []
        super().__init__(out, root, {}, False)

    def _begin(self, root: Tree, head: dict[str, Any], journal: str) -> None:
        """The journal is the owner's."""

    def _open(self, root: Tree, journal: str) -> None:
        """The same."""

    def _log(self, line: Line) -> None:
        self.lines.append(line)

    def claimed(self, lines: Sequence[Line]) -> None:
        """Take what an earlier run noted; pieces whose bytes are still those are not made again."""
        self._claimed |= {(line["file"], line["offset"]): line for line in lines}

    def is_done(self, file: str, offset: int, size_bytes: int, labels: Any = ()) -> bool:
        """Whether an earlier run finished this piece; then its line is collected, too."""
        found = super().is_done(file, offset, size_bytes, labels)
        if found:
            self.lines.append(self.journal[file, offset])
        return found

    def taken_lines(self) -> list[Line]:
        """The lines since the last call."""
        lines, self.lines = self.lines, []
        return lines

    def close(self) -> None:
        """Close the folders, which stay."""
        self._tree.close()


@contextmanager
def lent(out: Path, place: Path) -> Iterator[LentStaging]:
    """The staging folder at `place`, which another process owns.

    Raises:
        InputRefused: no such folder is seen from here.
    """
    with _opened(place) as root:
        staging = LentStaging(out, root)
        try:
            yield staging
        finally:
            staging.close()


class Shown:
    """Which nodes see the staging folders of a run.

    Args:
        roots: the staging folders; of several in one folder, one is looked at.
    """

    def __init__(self, roots: Sequence[Path]) -> None:
        self.token = secrets.token_hex(8)
        self.places = list({root.parent: root for root in roots}.values())
        self.numbers = {str(place): secrets.token_hex(16) for place in self.places}

    @contextmanager
    def shown(self) -> Iterator[None]:
        """The folders hold this run's numbers inside the block, and no others."""
        for place in self.places:
            with _opened(place) as root:
                _forget(root)
                root.write_whole(_name(self.token), self.numbers[str(place)].encode(), sync=False)
        try:
            yield
        finally:
            for place in self.places:
                with suppress(InputRefused), _opened(place) as root:  # it may have been given up
                    _forget(root)

    def unanswered(self, node: str) -> list[Path]:
        """The folders in which a node has not answered, or not to this run's number."""
        return [
            place
            for place in self.places
            if _content(place, _name(self.token, node)) != _answer(self.numbers[str(place)], node)
        ]


def unseen(token: str, numbers: Mapping[str, str], node: str) -> list[str]:
    """Called on a node: the folders in which it does not see the owner's number; the others are answered.

    Args:
        numbers: of each folder, the hash of its number.
    """
    missing = []
    for place, digest in numbers.items():
        number = _content(Path(place), _name(token))
        if number is None or hashed(number) != digest:
            missing.append(place)
            continue
        try:
            with _opened(Path(place)) as root:
                root.write_whole(_name(token, node), _answer(number, node).encode(), sync=False)
        except OSError:
            missing.append(place)
    return missing


def hashed(number: str) -> str:
    """By this a node knows the owner's number without having been told it."""
    return xxhash.xxh3_128_hexdigest(number.encode())


def _answer(number: str, node: str) -> str:
    return xxhash.xxh3_128_hexdigest(f"{number} {node}".encode())


def _name(token: str, node: str = "") -> str:
    return f"seen-{token}-{node}" if node else f"seen-{token}"


def _content(place: Path, name: str) -> str | None:
    """What a small file in a staging folder holds; None where it cannot be read."""
    try:
        with _opened(place) as root, root.reading(name) as file:
            return file.read(200).decode("ascii", "replace")
    except (OSError, InputRefused):
        return None


def _opened(place: Path) -> Tree:
    try:
        return publishing.opened(place, create=False)
    except OSError as error:
        raise InputRefused(
            place, f"cannot be reached: {error.strerror}",
            "Write to a folder that all nodes see under the same path.",
        ) from error  # fmt: skip


def _forget(root: Tree) -> None:
    for name in root.names():
        if name.startswith("seen-"):
            root.remove(name)
