"""A checkpoint of the Hub that is read before it is fetched: config, index and headers come first.

Its folder holds the small files, and a sparse file in the place of each weight file. What is read of a
weight file is fetched as a range and written at its place, so that everything above sees local files.
Weight files that are whole in the Hub's own cache are read from there.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from ..checkpoint.folder import inside
from ..checkpoint.source import FileState, LocalFile
from ..errors import InputRefused, UvmergeError
from ..output.disk import disk_errors
from ..output.places import Reference
from ..text import size
from . import listing as listings, session
from .failures import refusal
from .listing import Listing
from .locate import Local, chosen, locate, misspelt
from .ranged import GAP_BYTES, RangedFile, in_parallel
from .references import named
from .session import Address
from .spans import Span


class RemoteFile(RangedFile):
    """A weight file of the Hub at a commit."""

    def __init__(self, address: Address, folder: Path) -> None:
        place, journal = folder / "files" / address.name, folder / "pieces" / address.name
        state = FileState(address.size, 0, 0, 0)
        super().__init__(f"{address.repo}/{address.name}", state, place, journal)
        self.address = address
        self._verified = folder / "verified" / address.name
        self._whole: LocalFile | None = None
        self.use_cached()

    @property
    def is_remote(self) -> bool:
        """Whether reading may need the network."""
        return self._whole is None

    def use_cached(self) -> None:
        """Read from the Hub's own cache from now on, where the whole file is there."""
        from huggingface_hub import try_to_load_from_cache

        found = try_to_load_from_cache(
            self.address.repo, self.address.name, revision=self.address.commit
        )
        if isinstance(found, str) and os.path.getsize(found) == self.size:
            self._whole = LocalFile(Path(found))

    def verify(self) -> None:
        """Compare the hash of a whole file with the listed one, once for each file in the cache.

        Raises:
            InputRefused: the file has another hash.
        """
        if self._whole is None:
            return
        path, seen = self._whole.path, f"{self.address.etag} {self._whole.state}"
        if self._verified.is_file() and self._verified.read_text() == seen:
            return
        if not self.address.is_content_of(path):
            raise InputRefused(
                self.name, f"has other bytes in the Hub's cache than the Hub lists ({path})",
                "Delete this file and run the same command again.",
            )  # fmt: skip
        with disk_errors(self._verified, self._verified.parent, resumes=False):
            self._verified.parent.mkdir(parents=True, exist_ok=True)
            self._verified.write_text(seen)

    def missing(self, spans: Iterable[Span], gap: int = GAP_BYTES) -> list[Span]:
        return [] if self._whole is not None else super().missing(spans, gap)

    def read_into(self, offset: int, buffer: memoryview) -> None:
        if self._whole is not None:
            self._whole.read_into(offset, buffer)
        else:
            super().read_into(offset, buffer)

    def has_changed(self) -> bool:
        return super().has_changed() if self._whole is None else self._whole.has_changed()

    def close(self) -> None:
        if self._whole is not None:
            self._whole.close()

    def _stream(self, start: int, stop: int, write: Callable[[bytes], int]) -> None:
        session.stream_range(self.address, start, stop, write)

    def _check_version(self) -> None:
        self.address.check_etag(session.head_etag(self.address))

    def _lost(self, error: Exception) -> InputRefused:
        return lost(self.address, error)


@dataclass(frozen=True)
class Remote:
    """A model elsewhere whose weights are not fetched yet; like `Local`, with a source for each file."""

    folder: Path
    label: str
    commit: str | None
    sources: Mapping[str, RangedFile]

    def source(self, path: Path) -> RangedFile:
        """The source of a weight file in the folder."""
        return self.sources[path.relative_to(self.folder).as_posix()]


def opened(reference: Reference, *, weights_only: bool) -> Remote | Local:
    """A folder on this disk, or a model of the Hub with its small files and headers.

    Args:
        weights_only: fetch config and index alone, and no tokenizer or other file beside the weights.

    Raises:
        InputRefused: the reference is neither a folder nor a Hub id, or cannot be had; the message
            says what was tried.
    """
    model = named(reference)
    if isinstance(model, Path):
        return locate(reference)
    try:
        listing = listings.current(model)
    except Exception as error:  # what is raised depends on huggingface_hub's HTTP client
        if session.is_unreachable(error):
            return locate(reference, weights_only=weights_only)
        refused = refusal(error, str(reference), model.repo, model.revision)
        raise misspelt(reference, refused) from None
    try:
        return _remote(listing, weights_only)
    except UvmergeError:
        raise
    except Exception as error:  # what is raised depends on huggingface_hub's HTTP client
        raise refusal(error, str(reference), model.repo, model.revision) from None


def lost(address: Address, error: Exception) -> InputRefused:
    """The refusal of an input whose download broke off, or is not allowed."""
    if session.status_of(error) in (401, 403):
        return refusal(error, address.repo, address.repo, address.commit)
    said = (str(error).strip() or type(error).__name__).splitlines()[0]
    return InputRefused(
        f"{address.repo}/{address.name}", f"cannot be fetched from the Hub: {said}",
        "What came is kept: run the same command again to resume.",
    )  # fmt: skip


def _remote(listing: Listing, weights_only: bool) -> Remote:
    folder = listing.folder / "files"
    names = chosen(listing.files, weights_only=weights_only)
    weights = [name for name in names if name.endswith(".safetensors")]
    with disk_errors(folder, folder.parent, resumes=False):
        folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        inside(folder, name)
    sources = {name: RemoteFile(listing.files[name], listing.folder) for name in weights}
    small = [name for name in names if name not in sources]
    in_parallel([partial(fetch_beside, listing, name) for name in small])
    in_parallel([each.prepare_header for each in sources.values()])
    return Remote(folder, listing.repo, listing.commit, sources)


def fetch_beside(listing: Listing, name: str) -> Path:
    """The place of a file beside the weights, fetched and checked by its hash."""
    folder = listing.folder / "files"
    with disk_errors(folder, folder.parent, resumes=False):
        folder.mkdir(parents=True, exist_ok=True)
    address, path = listing.files[name], inside(folder, name)
    if not address.is_content_of(path):
        session.patiently(lambda: _fetch_small(address, path))
    return path


def _fetch_small(address: Address, path: Path) -> None:
    digest = address.hasher()
    with disk_errors(path, path.parent, resumes=False):
        path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{os.getpid()}-{threading.get_ident()}")
    try:
        with disk_errors(path, path.parent, resumes=False):
            file = beside.open("wb")
        with file:

            def write(piece: bytes) -> None:
                digest.update(piece)
                if file.tell() + len(piece) > address.size:
                    raise _other_bytes(address)
                with disk_errors(path, path.parent, resumes=False):
                    file.write(piece)

            session.stream(address, write)
        if digest.hexdigest() != address.etag:
            raise _other_bytes(address)
        with disk_errors(path, path.parent, resumes=False):
            os.replace(beside, path)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise


def _other_bytes(address: Address) -> InputRefused:
    return InputRefused(
        f"{address.repo}/{address.name}",
        f"came with other bytes than the Hub lists ({size(address.size)}, {address.etag[:12]})",
        "Run the command again; if it stays so, do not trust this server.",
    )
