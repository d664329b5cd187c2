"""A prefix in an object store, by its URL: what lies there, and reading it, through fsspec.

Of S3 each request for a range names the etag that was listed, so that the server itself refuses another
version. Other stores are asked for the version before each range.
"""

from __future__ import annotations

import base64
import hashlib
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from ..errors import InputRefused, RunFailed, UsageError, UvmergeError

_WAITS_S = (0.5, 2.0, 8.0)  # before a request is repeated; s3fs has tried several times before
_VERSIONS = ("ETag", "etag", "md5Hash", "mtime", "LastModified", "updated", "created")
_LOGIN = "Set AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY."
_EXTRAS = {"s3": "'uvmerge[s3]'", "s3a": "'uvmerge[s3]'"}
Result = TypeVar("Result")


@dataclass(frozen=True)
class Object:
    """A file in a store.

    Attributes:
        name: relative to the prefix.
        size: in bytes.
        version: its etag; in a store without etags, when it was written.
    """

    name: str
    size: int
    version: str


class Store:
    """A prefix of a store.

    Attributes:
        url: of the prefix, without a slash at its end.
        label: the last part of it.
        owner: the bucket, in messages.
        fs: the file system of fsspec.
        root: the prefix as `fs` names it.

    Raises:
        UsageError: no package for this kind of store is installed, or there is no such kind.
    """

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")
        scheme, _, rest = self.url.partition("://")
        self.label = rest.rpartition("/")[2]
        self.owner = f"{scheme}://{rest.partition('/')[0]}"
        self.fs: Any
        self.fs, self.root = _opened(self.url, scheme)

    def objects(self, maxdepth: int | None = None) -> dict[str, Object]:
        """The files below the prefix by name, as the server lists them now.

        Args:
            maxdepth: how many levels down; all of them by default.
        """
        self.fs.invalidate_cache()
        try:
            found = patiently(lambda: self.fs.find(self.root, maxdepth=maxdepth, detail=True))
        except FileNotFoundError:
            return {}
        start = f"{self.root}/"
        entries = {path: info for path, info in found.items() if path.startswith(start)}
        return {
            path[len(start) :]: _object(path[len(start) :], info)
            for path, info in entries.items()
            if info.get("type") == "file" and not path.endswith("/")
        }

    def read(self, wanted: Object, start: int, stop: int) -> bytes:
        """The bytes from `start` to `stop` of a file, if it still is the version that was listed.

        Raises:
            InputRefused: the file has another version, or is gone, or the answer is too short.
        """

        def request() -> bytes:
            # s3fs asks for the etag when it opens the file, and names it with the range.
            with self.fs.open(self._path(wanted.name), "rb", cache_type="none") as file:
                details = getattr(file, "details", None) or self.fs.info(self._path(wanted.name))
                if _object(wanted.name, details) != wanted:
                    raise self.changed(wanted)
                file.seek(start)
                return bytes(file.read(stop - start))

        try:
            content = patiently(request)
        except Exception as error:  # what is raised depends on the package of the store
            if isinstance(error, FileNotFoundError) or type(error).__name__ == "FileExpired":
                raise self.changed(wanted) from None
            raise
        if len(content) != stop - start:
            raise self.changed(wanted)
        return content

    def check(self, wanted: Object) -> None:
        """Refuse a file that is not what was listed any more."""
        self.fs.invalidate_cache()
        try:
            details = patiently(lambda: self.fs.info(self._path(wanted.name)))
        except FileNotFoundError:
            raise self.changed(wanted) from None
        if _object(wanted.name, details) != wanted:
            raise self.changed(wanted)

    def changed(self, wanted: Object) -> InputRefused:
        """The refusal of a file that changed in the store."""
        return InputRefused(
            f"{self.url}/{wanted.name}",
            "changed in the store while it was read: versions would be mixed",
            "Wait until the files are final, then run the same command again.",
        )

    def remove(self, name: str) -> None:
        """Delete a file."""
        patiently(lambda: self.fs.rm_file(self._path(name)))

    @property
    def is_s3(self) -> bool:
        """Whether requests of S3 can be sent (`call`)."""
        return hasattr(self.fs, "call_s3")

    def call(self, name: str, method: str, **words: Any) -> dict[str, Any]:
        """The answer to a request of S3 about a file."""
        bucket, key, _ = self.fs.split_path(self._path(name))
        answer: dict[str, Any] = self.fs.call_s3(method, Bucket=bucket, Key=key, **words)
        return answer

    def open_uploads(self) -> Iterator[tuple[str, str]]:
        """Name and id of each upload in parts below the prefix that is not complete (S3 alone)."""
        bucket, key, _ = self.fs.split_path(self.root)
        start = f"{key}/"
        place: dict[str, Any] = {"Bucket": bucket, "Prefix": start}
        while True:
            listing = partial(self.fs.call_s3, "list_multipart_uploads", **place)
            answer = patiently(listing)
            for each in answer.get("Uploads", ()):
                yield each["Key"][len(start) :], each["UploadId"]
            if not answer.get("IsTruncated"):
                return
            place["KeyMarker"] = answer["NextKeyMarker"]
            place["UploadIdMarker"] = answer["NextUploadIdMarker"]

    def abandon(self, name: str, upload: str) -> None:
        """End an upload in parts; the store forgets its parts."""
        with suppress(FileNotFoundError):
            patiently(lambda: self.call(name, "abort_multipart_upload", UploadId=upload))

    def is_open(self, name: str, upload: str) -> bool:
        """Whether an upload in parts still takes parts."""
        try:
            patiently(lambda: self.call(name, "list_parts", UploadId=upload, MaxParts=1))
        except FileNotFoundError:
            return False
        return True

    def put(self, name: str, content: bytes | Path) -> str:
        """Send a file in one request; returns its version in the store."""
        path = self._path(name)
        if isinstance(content, Path):
            self.fs.put_file(str(content), path)
        elif self.is_s3:
            answer = self.call(name, "put_object", Body=content, ContentMD5=md5(content))
            return str(answer["ETag"]).strip('"')
        else:
            self.fs.pipe_file(path, content)
        self.fs.invalidate_cache()
        return _object(name, self.fs.info(path)).version

    def refused(self, error: Exception) -> UvmergeError:
        """The refusal of an input that cannot be read."""
        return _told(error, InputRefused, self.url, "cannot be read")

    def not_sent(self, error: Exception) -> UvmergeError:
        """The failure of an upload."""
        return _told(error, RunFailed, self.url, "cannot be written")

    def _path(self, name: str) -> str:
        return f"{self.root}/{name}"


def md5(content: bytes) -> str:
    """The MD5 of bytes as a request of S3 names it."""
    return base64.b64encode(hashlib.md5(content, usedforsecurity=False).digest()).decode()


def patiently(call: Callable[[], Result]) -> Result:
    """What `call` returns; it is called again after errors that may pass."""
    waits = iter(_WAITS_S)
    while True:
        try:
            return call()
        except Exception as error:  # what is raised depends on the package of the store
            wait_s = next(waits, None)
            if wait_s is None or _is_final(error):
                raise
            time.sleep(wait_s)


def _is_final(error: Exception) -> bool:
    """Whether an error stays when the request is repeated."""
    kinds = (UvmergeError, FileNotFoundError, PermissionError, NotImplementedError)
    names = ("NoCredentialsError", "FileExpired", "ParamValidationError")
    return isinstance(error, kinds) or type(error).__name__ in names


def _told(error: Exception, kind: type[UvmergeError], where: str, what: str) -> UvmergeError:
    """An error of the store in words."""
    if isinstance(error, UvmergeError):
        return error
    said = (str(error).strip() or type(error).__name__).splitlines()[0]
    if isinstance(error, FileNotFoundError):
        return kind(where, f"{what}: there is no such bucket or object", "Check the spelling.")
    if isinstance(error, PermissionError) or type(error).__name__ == "NoCredentialsError":
        return kind(where, f"{what} with these credentials: {said}", _LOGIN)
    return kind(where, f"{what}: {said}", "What is done is kept: run the same command again.")


def _object(name: str, info: dict[str, Any]) -> Object:
    version = next((info[key] for key in _VERSIONS if info.get(key)), "")
    said = str(version.timestamp() if isinstance(version, datetime) else version)
    return Object(name, int(info["size"]), said.strip('"'))


def _opened(url: str, scheme: str) -> tuple[Any, str]:
    from fsspec.core import url_to_fs

    try:
        fs, root = url_to_fs(url, use_listings_cache=False, skip_instance_cache=True)
    except ImportError as error:
        install = _EXTRAS.get(scheme)
        said = f"pip install {install}" if install else (str(error).splitlines() or [""])[0]
        needs = "s3fs" if install else "a package of fsspec that is not installed"
        raise UsageError(url, f"needs {needs}", said) from None
    except ValueError:
        do = "Name a folder, a model of the Hub, or s3://bucket/prefix."
        raise UsageError(url, f"{scheme}:// is no kind of store that is known", do) from None
    return fs, str(root).rstrip("/")
