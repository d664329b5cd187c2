"""Fetch what is read of weight files: as ranges, or of the Hub whole where most of a file is read.

A whole file goes through huggingface_hub into its own cache, where other programs find it, and its
sha256 is compared with the one that the Hub lists. Ranges are checked by their size, and by the etag of
the file, which is asked for again at the end: this is weaker, since the server could send other bytes
under the same etag.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path

from ..checkpoint.source import Source
from ..errors import InputRefused
from ..output.places import nearest_folder
from ..text import size
from . import session
from .ranged import RangedFile, in_parallel
from .remote import RemoteFile, lost
from .spans import Span, cut, merged, total

WHOLE_FROM = 0.9  # a file of which this fraction is read is fetched whole


@dataclass(frozen=True)
class Share:
    """What is to be fetched of one weight file.

    Attributes:
        wanted: the ranges that are read.
        spans: those that are missing, neighbours joined.
    """

    source: RangedFile
    wanted: tuple[Span, ...]
    spans: tuple[Span, ...]

    @cached_property
    def is_whole(self) -> bool:
        """Whether a file of the Hub is fetched whole: most is read, and not half of that is here."""
        size = self.source.size
        if not isinstance(self.source, RemoteFile):
            return False
        return total(self.wanted) >= WHOLE_FROM * size and 2 * total(self.spans) > size

    @property
    def bytes(self) -> int:
        """Bytes to fetch."""
        return self.source.size if self.is_whole else total(self.spans)

    @property
    def requests(self) -> int:
        """Requests for them, if no connection breaks."""
        return 1 if self.is_whole else len(list(cut(self.spans, self.source.request_bytes)))


def shares(sources: Mapping[str, Source], wanted: Mapping[str, Sequence[Span]]) -> list[Share]:
    """What is to be fetched of each weight file of a checkpoint; empty for one on this disk.

    Args:
        wanted: by file, the spans that are read.
    """
    found = []
    for name, source in sources.items():
        if isinstance(source, RangedFile):
            spans = merged(wanted.get(name, ()))
            found.append(Share(source, tuple(spans), tuple(source.missing(spans))))
    return found


def download(found: Sequence[Share], advance: Callable[[int], None], *, quiet: bool) -> None:
    """Fetch all shares, several connections at once.

    Args:
        advance: called from any thread with a number of bytes that came.
        quiet: show no bar of huggingface_hub.

    Raises:
        InputRefused: the disk has no room, a hash or an etag is another one, or the server cannot
            be reached.
    """
    whole = {
        each.source.address: each.source
        for each in found
        if isinstance(each.source, RemoteFile) and each.is_whole
    }
    parts = [each for each in found if each.spans and not each.is_whole]
    sizes = (*(source.size for source in whole.values()), *(each.bytes for each in parts))
    _refuse_full_disk(sum(sizes))
    for source in whole.values():
        _fetch_whole(source, advance, quiet)
    in_parallel(
        [
            partial(each.source.fetch, *span, advance)
            for each in parts
            for span in cut(each.spans, each.source.request_bytes)
        ]
    )
    in_parallel([each.source.confirm for each in parts])


def verify(found: Sequence[Share]) -> None:
    """Check the hash of every whole file that was not checked before.

    Raises:
        InputRefused: a file has another hash.
    """
    in_parallel([each.source.verify for each in found])


def _fetch_whole(source: RemoteFile, advance: Callable[[int], None], quiet: bool) -> None:
    from huggingface_hub import hf_hub_download
    from huggingface_hub.utils import disable_progress_bars

    address = source.address
    if quiet:
        disable_progress_bars()
    try:
        path = session.patiently(
            lambda: hf_hub_download(address.repo, address.name, revision=address.commit)
        )
    except Exception as error:  # what is raised depends on huggingface_hub's HTTP client
        raise lost(address, error) from None
    source.use_cached()
    try:
        source.verify()
    except InputRefused:
        os.unlink(os.path.realpath(path))  # so that the next run fetches it again
        raise
    advance(source.size)


def _refuse_full_disk(wanted: int) -> None:
    from huggingface_hub import constants

    folder = Path(constants.HF_HUB_CACHE)
    short = wanted - shutil.disk_usage(nearest_folder(folder)).free
    if short > 0:
        raise InputRefused(
            folder, f"the download needs {size(wanted)}, the disk is {short:,} bytes short",
            "Make room, or set HF_HOME to a folder on another disk.",
        )  # fmt: skip
