"""A checkpoint of the Hub that is read before it is fetched: config, index and headers come first.

Its folder holds the small files, and a sparse file in the place of each weight file. What is read of a
weight file is fetched as a range and written at its place, so that everything above sees local files.
Weight files that are whole in the Hub's own cache are read from there.
"""

from __future__ import annotations

import fnmatch
import os
import struct
import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from ..checkpoint.folder import inside
from ..checkpoint.header import HEADER_LIMIT_BYTES
from ..checkpoint.source import FileState, LocalFile
from ..errors import InputRefused, UvmergeError
from ..output.disk import disk_errors
from ..output.places import Reference
from ..text import size
from . import listing as listings, session
from .failures import refusal
from .listing import Listing
from .locate import SECOND_COPIES, SIDE_FILES, WEIGHTS, Local, locate, misspelt
from .pieces import Pieces
from .references import named
from .session import Address
from .spans import Span, cut, merged

AT_ONCE = 8  # connections
GAP_BYTES = 1 << 18  # what lies between two ranges is fetched with them, up to so many bytes
SAMPLE_GAP_BYTES = 1 << 14  # the same where only samples are read
REQUEST_BYTES = 32 << 20  # of one request at most


class RemoteFile:
    """A weight file of the Hub, as a `Source`; what is read of it is there, or is fetched first.

    Attributes:
        state: never changes, since a commit does not.
        requested: spans that this process has asked the server for.
    """

    def __init__(self, address: Address, folder: Path) -> None:
        self.address, self.size = address, address.size
        self.name = f"{address.repo}/{address.name}"
        self.state = FileState(address.size, 0, 0, 0)
        self.requested: list[Span] = []
        self._is_confirmed = True
        self._verified = folder / "verified" / address.name
        place = folder / "files" / address.name
        self._pieces = Pieces(place, folder / "pieces" / address.name, address.size, self.name)
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
        """What has to be fetched for `spans`; neighbours are joined."""
        return [] if self._whole is not None else merged(self._pieces.missing(list(spans)), gap)

    def prepare(self, spans: Iterable[Span]) -> None:
        """Fetch what is missing of the spans, several at once."""
        missing = self.missing(spans, SAMPLE_GAP_BYTES)
        if missing:
            in_parallel([partial(self.fetch, *span) for span in cut(missing, REQUEST_BYTES)])

    def fetch(
        self, start: int, stop: int, advance: Callable[[int], None] = lambda count: None
    ) -> None:
        """Fetch one range; pieces that came are kept, also after an error."""
        self.requested.append((start, stop))
        self._is_confirmed = False
        try:
            with self._pieces.writing(start) as writer:

                def write(piece: bytes) -> int:
                    writer.write(piece)
                    advance(len(piece))
                    return writer.position

                session.stream_range(self.address, start, stop, write)
        except UvmergeError:
            raise
        except Exception as error:  # what is raised depends on huggingface_hub's HTTP client
            raise lost(self.address, error) from None

    def read_into(self, offset: int, buffer: memoryview) -> None:
        if self._whole is not None:
            self._whole.read_into(offset, buffer)
            return
        self.prepare([(offset, offset + len(buffer))])
        self._pieces.read_into(offset, buffer)

    def confirm(self) -> None:
        """Ask for the etag again, after ranges were fetched: their bytes are of one version.

        Raises:
            InputRefused: the server has another version now.
        """
        if not self._is_confirmed:
            self.address.check_etag(session.head_etag(self.address))
            self._is_confirmed = True

    def has_changed(self) -> bool:
        if self._whole is not None:
            return self._whole.has_changed()
        self.confirm()
        return not self._pieces.is_in_place()

    def close(self) -> None:
        if self._whole is not None:
            self._whole.close()


@dataclass(frozen=True)
class Remote:
    """A model of the Hub whose weights are not fetched yet; like `Local`, with a source for each file."""

    folder: Path
    label: str
    commit: str
    sources: dict[str, RemoteFile]

    def source(self, path: Path) -> RemoteFile:
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


def in_parallel(calls: Sequence[Callable[[], object]]) -> None:
    """Do all calls, several at once; after an error those that did not begin are dropped."""
    if len(calls) == 1:
        calls[0]()
        return
    pool = ThreadPoolExecutor(AT_ONCE)
    futures = [pool.submit(call) for call in calls]
    try:
        for future in futures:
            future.result()
    except Exception:
        pool.shutdown(wait=True, cancel_futures=True)
        raise
    except BaseException:  # a stop does not wait for what is on its way
        pool.shutdown(wait=False, cancel_futures=True)
        raise
    pool.shutdown()


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
    wanted = WEIGHTS if weights_only else [*WEIGHTS, *SIDE_FILES]
    names = [
        name
        for name in listing.files
        if _matches(name, wanted) and not _matches(name, SECOND_COPIES)
    ]
    weights = [name for name in names if name.endswith(".safetensors")]
    with disk_errors(folder, folder.parent, resumes=False):
        folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        inside(folder, name)
    sources = {name: RemoteFile(listing.files[name], listing.folder) for name in weights}
    small = [name for name in names if name not in sources]
    in_parallel([partial(fetch_beside, listing, name) for name in small])
    in_parallel([partial(_header, each) for each in sources.values()])
    return Remote(folder, listing.repo, listing.commit, sources)


def _matches(name: str, patterns: Sequence[str]) -> bool:
    return any(fnmatch.fnmatch(name, pattern) for pattern in patterns)


def _header(source: RemoteFile) -> None:
    """Have the header of a weight file at hand; whether it is right is for its reader to say."""
    if source.size >= 8 and source.is_remote:
        prefix = bytearray(8)
        source.read_into(0, memoryview(prefix))
        (length,) = struct.unpack("<Q", prefix)
        if 0 < length <= min(HEADER_LIMIT_BYTES, source.size - 8):
            source.prepare([(8, 8 + length)])


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
