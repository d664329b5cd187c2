"""Processes that each write a share of one output, and what of it is there.

Every start of a rank has a journal of its own in the staging folder, so that no two processes append to
one file, wherever they run. Ranks may run at the same time, one after the other, or twice: what they
write is the same, and nothing has to be locked.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from . import publishing
from .disk import disk_errors
from .journal import check_unfinished, claims, staging_root
from .lock import lock_of, refuse_held
from .places import check_out
from .publishing import RANK_JOURNAL
from .tree import Tree
from .writer import Staging, prepared

Piece = tuple[str, int]  # file, offset


class RankStaging(Staging):
    """The staging folder as one rank sees it: what any rank has finished is not done again."""

    def __init__(
        self, out: Path, root: Tree, head: dict[str, Any], overwrite: bool, rank: int, count: int
    ) -> None:
        found = finished(root, head)
        journal = f"rank-{rank}-of-{count}-{secrets.token_hex(4)}.jsonl"
        super().__init__(out, root, head, overwrite, journal)
        self._claimed = found


class GatheredStaging(Staging):
    """The staging folder as the process sees it that publishes what ranks have written."""

    @property
    def world_sizes(self) -> list[int]:
        """The numbers of ranks that journals speak of."""
        matches = map(RANK_JOURNAL.fullmatch, self._root.names())
        return sorted({int(match[2]) for match in matches if match})

    def take(self, pieces: set[Piece], head: dict[str, Any]) -> set[Piece]:
        """Count what journals claim of `pieces` as written; returns the pieces that none claims.

        The bytes are read back by `verify`.
        """
        claimed = finished(self._root, head) | self._claimed
        self.journal |= {piece: claimed[piece] for piece in pieces & claimed.keys()}
        return pieces - claimed.keys()


def finished(root: Tree, head: dict[str, Any]) -> dict[Piece, dict[str, Any]]:
    """What the journals of all ranks claim, by (file, offset)."""
    found: dict[Piece, dict[str, Any]] = {}
    for name in root.names():
        if RANK_JOURNAL.fullmatch(name):
            found |= claims(root, head, name)
    return found


@contextmanager
def gathered(
    out: Path, digest: str, head: dict[str, Any], overwrite: bool
) -> Iterator[GatheredStaging]:
    """The staging folder, locked, of an output whose weights ranks have written."""
    with prepared(out, digest, head, overwrite, check_out) as root:
        staging = GatheredStaging(out, root, head, overwrite)
        try:
            yield staging
        finally:
            staging.close()


@contextmanager
def ranked(
    out: Path, digest: str, head: dict[str, Any], overwrite: bool, rank: int, count: int
) -> Iterator[Staging]:
    """The staging folder of one rank."""
    with disk_errors(out, out.parent):
        check_out(out, overwrite)
        refuse_held(lock_of(out))
        check_unfinished(out, digest, head, overwrite)
        with publishing.opened(staging_root(out, digest)) as root:
            staging = RankStaging(out, root, head, overwrite, rank, count)
            try:
                yield staging
            finally:
                staging.close()
