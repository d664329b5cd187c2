"""Send a finished output to an object store so that no reader sees an index whose files are missing.

Weight files go first, then the other files, the config and the index at the end. With `overwrite` the old
index and config are removed before anything else, and what only the old output had before the new ones
come. To S3 a large file goes in parts, several at once, each with its MD5 for the server to check; parts
that came are kept after a stop, and the same command sends the others. It also ends uploads in parts that a
killed run began and had no time to note.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from ..errors import InputRefused, RunFailed, UvmergeError, listed
from ..hub.ranged import in_parallel
from ..output import manifest
from ..output.lock import lock_of, locked
from .record import Record
from .store import Object, Store, md5, patiently

PART_BYTES = 16 << 20  # of one request; more where a file would have more parts than S3 takes
_MOST_PARTS = 10_000
_INDEX = ".index.json"
_CONFIGS = ("config.json", "adapter_config.json")
_WEIGHTS = (".safetensors", ".bin", ".pt")
Advance = Callable[[int], None]


def refuse_taken(url: str, record: Path, names: Collection[str], overwrite: bool) -> None:
    """Refuse a prefix that an output cannot be sent to.

    Args:
        record: of an upload to this prefix that was interrupted, if there is one.
        names: of the weight files of the output.

    Raises:
        InputRefused: the prefix is not empty, and not `overwrite`; or weights or an index there, which
            uvmerge did not write, would stay beside the output.
    """
    store = Store(url)
    try:
        there, found = store.objects(), Record(record, store.url)
        found.refuse_strange(there, overwrite)
        if not found.has_begun:
            _refuse_mixed(store, there, names, _written(store, there))
    except UvmergeError:
        raise
    except Exception as error:  # what is raised depends on the package of the store
        raise store.not_sent(error) from None


def send(folder: Path, url: str, record: Path, overwrite: bool, advance: Advance) -> int:
    """Send all files of an output; returns the bytes that were sent.

    Args:
        folder: holds the output, with its manifest.
        record: where it is noted what was sent, beside the folder.
        advance: called from any thread with a number of bytes that are in the store.

    Raises:
        InputRefused: see `refuse_taken`.
        RunFailed: the store did not take a file; the same command sends what is left.
    """
    store = Store(url)
    with locked(lock_of(record)):
        try:
            return _Upload(folder, store, Record(record, store.url), advance).run(overwrite)
        except UvmergeError:
            raise
        except Exception as error:  # what is raised depends on the package of the store
            raise store.not_sent(error) from None


class _Upload:
    """One upload, with what its steps share."""

    def __init__(self, folder: Path, store: Store, record: Record, advance: Advance) -> None:
        self.folder, self.store, self.record, self.advance = folder, store, record, advance
        content = manifest.read_checked(folder)
        assert content is not None
        own = manifest.file_identity(folder / manifest.NAME)
        self.identities: dict[str, Any] = {**content["files"], manifest.NAME: own}

    def run(self, overwrite: bool) -> int:
        """Send what is not there yet, in order."""
        there, names = self.store.objects(), sorted(self.identities, key=_order)
        self.record.refuse_strange(there, overwrite)
        written = [] if self.record.has_begun else _written(self.store, there)
        if not self.record.has_begun:
            _refuse_mixed(self.store, there, names, written)
        is_resumed = self.record.has_begun
        self.record.begin(self.identities, written)
        if is_resumed and self.store.is_s3:
            self._abandon()
        todo = [name for name in names if not self.record.is_sent(name, there)]
        if any(_order(name)[0] < 2 for name in todo) or there.keys() & {*self.record.stale}:
            todo = [name for name in names if name in todo or _order(name)[0] >= 2]
            for name in sorted(filter(_names_others, there), key=_order, reverse=True):
                self.store.remove(name)
        for name in set(names) - set(todo):
            self.advance(self.identities[name]["bytes"])
        for name in (name for name in todo if not _names_others(name)):
            self._send(name)
        for name in there.keys() & {*self.record.stale}:
            if not _names_others(name):
                self.store.remove(name)
        for name in (name for name in todo if _names_others(name)):
            self._send(name)
        self._verify()
        return sum(self.identities[name]["bytes"] for name in todo)

    def _abandon(self) -> None:
        """End uploads in parts of these files that the record does not have."""
        with suppress(Exception):  # where a store forbids it, a rule of the bucket removes them
            for name, upload in self.store.open_uploads():
                if self.record.knows(name) and upload != self.record.upload(name):
                    self.store.abandon(name, upload)

    def _verify(self) -> None:
        there = self.store.objects()
        if wrong := [name for name in self.identities if not self.record.is_sent(name, there)]:
            raise RunFailed(
                self.store.url,
                f"does not hold what was sent ({listed(wrong, 'file', 3)}): someone else writes there",
                "Run the same command again.",
            )

    def _send(self, name: str) -> None:
        path, size = self.folder / name, self.identities[name]["bytes"]
        part_bytes = max(PART_BYTES, -(-size // _MOST_PARTS))
        if size > part_bytes and self.store.is_s3:
            version = self._send_parts(name, path, size, part_bytes)
        else:
            content = path.read_bytes() if size <= part_bytes else path
            version = patiently(partial(self.store.put, name, content))
            self.advance(size)
        self.record.sent(name, version)

    def _send_parts(self, name: str, path: Path, size: int, part_bytes: int) -> str:
        """Send a file in parts, those that are missing; returns its version."""
        call = partial(self.store.call, name)
        upload = self.record.upload(name)
        if upload is not None and not self.store.is_open(name, upload):
            if version := self._completed(name):  # by a run that was stopped before it knew
                self.advance(size)
                return version
            upload = None
        if upload is None:
            upload = str(patiently(partial(call, "create_multipart_upload"))["UploadId"])
            self.record.begun(name, upload)
        there = self.record.parts(name)

        def send_part(number: int) -> None:
            start = (number - 1) * part_bytes
            count = min(part_bytes, size - start)
            if number not in there:
                with path.open("rb") as file:
                    file.seek(start)
                    content = file.read(count)
                words = {"PartNumber": number, "Body": content, "ContentMD5": md5(content)}
                said = patiently(partial(call, "upload_part", UploadId=upload, **words))
                self.record.part(name, number, _kept(said))
            self.advance(count)

        count = -(-size // part_bytes)
        in_parallel([partial(send_part, number) for number in range(1, count + 1)])
        parts: list[dict[str, Any]] = [
            {"PartNumber": n, **said} for n, said in sorted(self.record.parts(name).items())
        ]
        try:
            done = call(
                "complete_multipart_upload", UploadId=upload, MultipartUpload={"Parts": parts}
            )
        except FileNotFoundError:  # an answer that was lost: the upload is complete already
            if version := self._completed(name):
                return version
            raise
        return str(done["ETag"]).strip('"')

    def _completed(self, name: str) -> str | None:
        """The version of a file in the store, if it consists of the parts that the record has."""
        found = self.store.objects().get(name)
        parts = sorted(self.record.parts(name).items())
        is_whole = found and found.version == joined(said["ETag"] for _, said in parts)
        return found.version if found and is_whole else None


def joined(etags: Iterable[str]) -> str:
    """The etag of a file that was sent in parts with these etags."""
    digests = [bytes.fromhex(each.strip('"')) for each in etags]
    whole = hashlib.md5(b"".join(digests), usedforsecurity=False).hexdigest()
    return f"{whole}-{len(digests)}"


def _order(name: str) -> tuple[int, str]:
    """Files that name others come after them."""
    if name.endswith(_INDEX):
        return 3, name
    if name in _CONFIGS:
        return 2, name
    return int(not name.endswith(_WEIGHTS)), name


def _names_others(name: str) -> bool:
    return _order(name)[0] >= 2


def _kept(said: Mapping[str, Any]) -> dict[str, str]:
    """What the end of an upload has to repeat of the answer to a part."""
    return {
        key: str(value)
        for key, value in said.items()
        if key == "ETag" or (key.startswith("Checksum") and key != "ChecksumType")
    }


def _written(store: Store, there: Mapping[str, Object]) -> list[str]:
    """Names of the files that the manifest of an old output in the store names."""
    found = there.get(manifest.NAME)
    if found is None:
        return []
    path = f"{store.url}/{manifest.NAME}"
    try:
        content = json.loads(store.read(found, 0, found.size))
        manifest.refuse_changed(Path(path), content)
    except (ValueError, AttributeError, InputRefused):
        return []
    return [*content["files"], manifest.NAME]


def _refuse_mixed(
    store: Store, there: Collection[str], names: Collection[str], written: Collection[str]
) -> None:
    """Refuse a prefix with weights or an index of others that the output would not replace."""
    strange = sorted(
        name
        for name in set(there) - {*names, *written}
        if name.endswith((*_WEIGHTS, _INDEX)) and "/" not in name
    )
    if strange:
        raise InputRefused(
            store.url,
            f"holds weights that uvmerge did not write, which would stay beside these ({strange[0]})",
            "Remove them, or choose another prefix.",
        )
