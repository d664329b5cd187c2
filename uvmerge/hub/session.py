"""Requests to the Hub through the session of huggingface_hub, repeated where the network fails."""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from ..errors import InputRefused, UvmergeError

CHUNK_BYTES = 1 << 18
_WAITS_S = (0.2, 1.0, 4.0, 10.0)  # before a request is repeated
_LONGEST_WAIT_S = 60.0
_TIMEOUT_S = 30.0  # without a byte
_CLIENTS = ("httpx", "httpx2", "requests", "urllib3")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Address:
    """One file of a model at a commit.

    Attributes:
        repo, name: the model, and the file in it.
        size: in bytes, as the Hub lists the file.
        etag: what the Hub's headers must say: the sha256 of a large file, else the id of its git blob.
        is_large: whether the Hub keeps the file in its store of large files.
    """

    repo: str
    commit: str
    name: str
    size: int
    etag: str
    is_large: bool

    @property
    def url(self) -> str:
        from huggingface_hub import hf_hub_url

        return hf_hub_url(self.repo, self.name, revision=self.commit)

    def is_content_of(self, path: Path) -> bool:
        """Whether a file has the size and the hash that the Hub lists."""
        if not path.is_file() or path.stat().st_size != self.size:
            return False
        digest = self.hasher()
        with path.open("rb") as file:
            while piece := file.read(CHUNK_BYTES):
                digest.update(piece)
        return digest.hexdigest() == self.etag

    def hasher(self) -> hashlib._Hash:
        """What the etag is the hash of: the sha256 of the content, or a git blob."""
        if self.is_large:
            return hashlib.sha256()
        return hashlib.sha1(f"blob {self.size}\0".encode(), usedforsecurity=False)

    def check_etag(self, found: str | None) -> None:
        """Refuse another etag than the listed one.

        Raises:
            InputRefused: the file changed on the server, although a commit does not change.
        """
        if found is not None and found != self.etag:
            raise InputRefused(
                f"{self.repo}/{self.name}",
                f"changed on the server at commit {self.commit[:8]}: etag {found[:12]} instead of"
                f" {self.etag[:12]}",
                "Run the command again; if it stays so, do not trust this server.",
            )


def patiently(call: Callable[[], Result]) -> Result:
    """What `call` returns; it is called again after an error of the network or of a busy server."""
    waits = iter(_WAITS_S)
    while True:
        try:
            return call()
        except Exception as error:  # what is raised depends on huggingface_hub's HTTP client
            if type(error).__name__ == "ConnectError" or "NewConnectionError" in str(error):
                raise  # there is no server
            _wait(error, waits)


def status_of(error: Exception) -> int | None:
    """The HTTP status in an error; None where no answer came."""
    return getattr(getattr(error, "response", None), "status_code", None)


def is_unreachable(error: Exception) -> bool:
    """Whether an error says that the Hub gave no answer, or had none to give."""
    status = status_of(error)
    if status is None:
        of_client = type(error).__module__.partition(".")[0] in _CLIENTS
        return of_client or (isinstance(error, OSError) and not isinstance(error, UvmergeError))
    return status in (408, 429) or status >= 500


def stream(address: Address, write: Callable[[bytes], object]) -> None:
    """Hand the bytes of a whole file to `write`, in order."""
    with _answer(address.url, {}) as (response, pieces):
        _check(response, address)
        for piece in pieces:
            write(piece)


def stream_range(address: Address, start: int, stop: int, write: Callable[[bytes], int]) -> None:
    """Hand the bytes of a range to `write`, in order, and go on after a lost connection.

    Args:
        write: returns the position that it has reached, in bytes of the file.

    Raises:
        InputRefused: the server sends the whole file, other bytes, or another version.
    """
    waits = iter(_WAITS_S)
    position = start
    while position < stop:
        try:
            asked = {"Range": f"bytes={position}-{stop - 1}"}
            with _answer(address.url, asked) as (response, pieces):
                _check(response, address, (position, stop))
                for piece in pieces:
                    if len(piece) > stop - position:
                        raise _refused(address, "sends more bytes than were asked for")
                    position = write(piece)
                    waits = iter(_WAITS_S)
            if position < stop:
                raise ConnectionError(f"the answer ends at byte {position:,}")
        except Exception as error:  # what is raised depends on huggingface_hub's HTTP client
            _wait(error, waits)


def head_etag(address: Address) -> str | None:
    """The etag of a file as its headers say it now."""
    from huggingface_hub import get_hf_file_metadata

    return patiently(lambda: get_hf_file_metadata(address.url)).etag


@contextmanager
def _answer(url: str, headers: dict[str, str]) -> Iterator[tuple[Any, Iterator[bytes]]]:
    """The answer to a GET request, redirects followed, and its body in pieces."""
    from huggingface_hub.utils import build_hf_headers, get_session

    session = get_session()
    headers = {**build_hf_headers(), "Accept-Encoding": "identity", **headers}
    if callable(session.stream):  # httpx, which huggingface_hub uses from 1.0 on
        with session.stream(
            "GET", url, headers=headers, follow_redirects=True, timeout=_TIMEOUT_S
        ) as response:
            if response.status_code >= 400:
                response.read()
            yield response, response.iter_bytes(CHUNK_BYTES)
    else:
        with session.get(url, headers=headers, stream=True, timeout=_TIMEOUT_S) as response:
            yield response, response.iter_content(CHUNK_BYTES)


def _check(response: Any, address: Address, span: tuple[int, int] | None = None) -> None:
    """Refuse an answer that is an error, another version of the file, or another range of it."""
    from huggingface_hub.utils import hf_raise_for_status

    hf_raise_for_status(response)
    tags = [each.headers.get("X-Linked-ETag") for each in (*response.history, response)]
    tags += [] if response.history else [response.headers.get("ETag")]
    found = next((tag for tag in tags if tag), None)
    address.check_etag(None if found is None else found.removeprefix("W/").strip('"'))
    if span is None:
        return
    if response.status_code != 206:
        raise _refused(address, "is sent whole where a part of it was asked for")
    told = re.sub(r"\s+", " ", response.headers.get("Content-Range", "").strip())
    if told != f"bytes {span[0]}-{span[1] - 1}/{address.size}":
        raise _refused(address, f"has other bytes in the answer than were asked for ({told[:60]})")


def _refused(address: Address, what: str) -> InputRefused:
    return InputRefused(
        f"{address.repo}/{address.name}", what,
        f"Fetch the model first: hf download {address.repo} --revision {address.commit}",
    )  # fmt: skip


def _wait(error: Exception, waits: Iterator[float]) -> None:
    """Wait before the next try; raise the error where there is none, or where it would not help."""
    from huggingface_hub.errors import OfflineModeIsEnabled

    if isinstance(error, OfflineModeIsEnabled) or not is_unreachable(error):
        raise error
    wait_s = next(waits, None)
    if wait_s is None:
        raise error
    told = getattr(getattr(error, "response", None), "headers", {}).get("Retry-After", "")
    time.sleep(min(_LONGEST_WAIT_S, float(told) if told.isdecimal() else wait_s))
