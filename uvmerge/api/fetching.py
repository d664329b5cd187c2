"""What plans read of checkpoints on the Hub or in a store: how much it is, and its download before anything is written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..checkpoint.folder import Checkpoint
from ..checkpoint.roles import spelled
from ..engine.progress import Progress
from ..engine.settings import Control
from ..errors import Interrupted, counted
from ..hub.download import Share, download, shares, verify
from ..hub.ranged import RangedFile, owner_of
from ..plan.reads import Spans, spans
from ..plan.steps import Plan
from ..text import size


def of_plans(
    plans: Sequence[Plan], checkpoints: Mapping[str, Checkpoint]
) -> dict[str, list[Share]]:
    """By role, what is to be fetched for plans of each checkpoint that is elsewhere."""
    sources = (source for each in checkpoints.values() for source in each.sources.values())
    if not any(isinstance(source, RangedFile) for source in sources):
        return {}
    return to_fetch(spans(plans, checkpoints), checkpoints)


def to_fetch(
    wanted: Mapping[str, Spans], checkpoints: Mapping[str, Checkpoint]
) -> dict[str, list[Share]]:
    """By role, what is to be fetched of each weight file of a checkpoint that is elsewhere.

    Args:
        wanted: by role, what is read (see `plan.reads`).
    """
    found = {role: shares(checkpoints[role].sources, files) for role, files in wanted.items()}
    return {role: each for role, each in found.items() if each}


def say(wanted: Mapping[str, Sequence[Share]], progress: Progress) -> None:
    """Say how much is fetched of each checkpoint."""
    for role, found in wanted.items():
        said = figures(found)
        progress.say(
            f"      fetches {size(said['bytes'])} of {spelled(role)} from"
            f" {owner_of(share.source for share in found)} in"
            f" {counted(said['requests'], 'request')}; saves {size(said['saved_bytes'])} of"
            f" {size(said['of_bytes'])}"
        )


def fetch(wanted: Mapping[str, Sequence[Share]], progress: Progress, control: Control) -> None:
    """Fetch what is missing; whole files are checked by hash, ranges by size and etag.

    Raises:
        Interrupted: `control` was stopped.
        InputRefused: the disk has no room, a hash or an etag is another one, or the server cannot
            be reached; what came is kept.
    """
    everything = [share for found in wanted.values() for share in found]
    if count := sum(share.bytes for share in everything):
        with progress.phase("fetching", count) as advance:

            def came(more: int) -> None:
                if control.stop.is_set():
                    raise Interrupted("download", control.signal_number)
                advance(more)

            download(everything, came, quiet=progress.quiet)
    verify(everything)


def figures(found: Sequence[Share]) -> dict[str, Any]:
    """Of one checkpoint: bytes to fetch, bytes of its weight files, bytes saved, and requests."""
    wanted, whole = sum(share.bytes for share in found), sum(share.source.size for share in found)
    return {
        "bytes": wanted, "of_bytes": whole, "saved_bytes": whole - wanted,
        "requests": sum(share.requests for share in found),
    }  # fmt: skip
