"""A weight file of which ranges are fetched, when they are read or before; the server is of a subclass.

What was fetched lies at its place in a sparse file (see `pieces`), so that everything above sees a local
file.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from ..checkpoint.header import HEADER_LIMIT_BYTES
from ..checkpoint.source import FileState, Source
from ..errors import UvmergeError
from .pieces import Pieces
from .spans import Span, cut, merged

AT_ONCE = 8  # connections
GAP_BYTES = 1 << 18  # what lies between two ranges is fetched with them, up to so many bytes
SAMPLE_GAP_BYTES = 1 << 14  # the same where only samples are read


class RangedFile(ABC):
    """A weight file elsewhere, as a `Source`; what is read of it is there, or is fetched first.

    Args:
        name: of the file in messages.
        place: of the sparse file.
        journal: the file that names the pieces that are there.

    Attributes:
        owner: what messages call the place that the file is in, such as `the Hub`.
        request_bytes: most bytes that one request asks for.
        state: never changes, since one version of the file is read.
        requested: spans that this process has asked the server for.
    """

    owner = "the Hub"
    request_bytes = 32 << 20

    def __init__(self, name: str, state: FileState, place: Path, journal: Path) -> None:
        self.name, self.state, self.size = name, state, state.size
        self.requested: list[Span] = []
        self._is_confirmed = True
        self._pieces = Pieces(place, journal, self.size, name)

    @property
    def is_remote(self) -> bool:
        """Whether reading may need the network."""
        return True

    def missing(self, spans: Iterable[Span], gap: int = GAP_BYTES) -> list[Span]:
        """What has to be fetched for `spans`; neighbours are joined."""
        return merged(self._pieces.missing(list(spans)), gap)

    def prepare(self, spans: Iterable[Span]) -> None:
        """Fetch what is missing of the spans, several at once."""
        missing = self.missing(spans, SAMPLE_GAP_BYTES)
        if missing:
            in_parallel([partial(self.fetch, *span) for span in cut(missing, self.request_bytes)])

    def prepare_header(self) -> None:
        """Have the header of the file at hand; whether it is right is for its reader to say."""
        if self.size >= 8 and self.is_remote:
            prefix = bytearray(8)
            self.read_into(0, memoryview(prefix))
            length = int.from_bytes(prefix, "little")
            if 0 < length <= min(HEADER_LIMIT_BYTES, self.size - 8):
                self.prepare([(8, 8 + length)])

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

                self._stream(start, stop, write)
        except UvmergeError:
            raise
        except Exception as error:  # what is raised depends on the HTTP client
            raise self._lost(error) from None

    def read_into(self, offset: int, buffer: memoryview) -> None:
        """Fill `buffer` with the bytes from `offset` on, fetched where they are missing."""
        self.prepare([(offset, offset + len(buffer))])
        self._pieces.read_into(offset, buffer)

    def confirm(self) -> None:
        """Ask for the version again, after ranges were fetched: their bytes are of one version.

        Raises:
            InputRefused: the server has another version now.
        """
        if not self._is_confirmed:
            self._check_version()
            self._is_confirmed = True

    @abstractmethod
    def verify(self) -> None:
        """Check the hash of a file that is here whole, where one is known; ranges have none."""

    def has_changed(self) -> bool:
        """Whether the file changed, on the server or in its place here."""
        self.confirm()
        return not self._pieces.is_in_place()

    @abstractmethod
    def close(self) -> None: ...

    @abstractmethod
    def _stream(self, start: int, stop: int, write: Callable[[bytes], int]) -> None:
        """Hand a range to `write`, in order; `write` returns the position that it has reached."""

    @abstractmethod
    def _check_version(self) -> None: ...

    @abstractmethod
    def _lost(self, error: Exception) -> UvmergeError:
        """The error to show where fetching broke off."""


def owner_of(sources: Iterable[Source]) -> str:
    """What messages call the place that weight files come from."""
    return next((each.owner for each in sources if isinstance(each, RangedFile)), RangedFile.owner)


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
