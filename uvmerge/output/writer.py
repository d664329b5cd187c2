"""The output transaction: stage, stream, journal, verify, publish.

    OUT                             absent until the last step, then complete
    OUT.uvmerge-lock                names the process that is writing
    OUT.uvmerge-partial-<plan>/     the staging folder, until the output is complete
        journal.jsonl               one line per finished piece, with the hash of its bytes
        factors.bin                 the pieces of an adapter, before it is put together
        out/                        the folder that becomes OUT (see `publishing`)

Headers are known in advance, so every tensor is written at its final offset, in any order, and no
shard has to fit in memory. After a kill the same command finds the folder, checks each journalled
piece against its hash and goes on. Nothing that uvmerge did not create is ever removed.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import xxhash

from ..errors import RunFailed
from ..plan.emission import FACTORS
from . import manifest, publishing
from .disk import disk_errors
from .journal import (
    check_unfinished,
    has_head,
    line_of,
    read_journal,
    staging_folders,
    staging_root,
    write_journal,
)
from .leftovers import discard
from .lock import lock_of, locked
from .places import check_out
from .publishing import FOLDER, JOURNAL
from .tree import Advance, Tree, unseen, write_at

CHUNK_BYTES = 1 << 20  # fits a processor cache: measured 1.5 times as fast as 8 MB


class Staging:
    """The folder beside OUT in which the output grows; made by `staged`.

    Attributes:
        folder: the folder that will become OUT.
        journal: finished pieces by (file, offset), each with its size, hash and record.
    """

    def __init__(
        self, out: Path, root: Tree, head: dict[str, Any], overwrite: bool, journal: str = JOURNAL
    ) -> None:
        self.out, self.root, self.folder = out, root.path, root.path / FOLDER
        self.overwrite = overwrite
        self.journal: dict[tuple[str, int], dict[str, Any]] = {}
        self._claimed: dict[tuple[str, int], dict[str, Any]] = {}  # of an earlier run
        self._files: dict[str, _Planned] = {}  # weight files
        self._sides: set[str] = set()  # names of the other files
        self._mutex = threading.Lock()
        self._root, self._resumes = root, False
        self._begin(root, head, journal)
        self._tree = root.folder(FOLDER, create=True)
        self._open(root, journal)

    def _begin(self, root: Tree, head: dict[str, Any], journal: str) -> None:
        """Take up the journal and the folder of an earlier run, or begin a journal."""
        self._resumes = root.status(journal) is not None
        if self._resumes:
            self._claimed = read_journal(root, head, journal)
        else:
            write_journal(root, [head], journal)
        publishing.take_up(root)

    def _open(self, root: Tree, journal: str) -> None:
        """Open the journal for the lines to come."""
        with root.opened(journal, os.O_WRONLY | os.O_APPEND) as descriptor:
            self._journal_file = open(os.dup(descriptor), "a", encoding="utf-8")  # noqa: SIM115

    def create_file(self, name: str, header: bytes, size_bytes: int) -> None:
        """Make an output file at its full (sparse) size, with its header section.

        The file `FACTORS` does not become part of the output, and its pieces may be shorter than
        planned.
        """
        if name != FACTORS:
            self._files[name] = _Planned(header, size_bytes)
        with self._disk_errors(name), self._at(name).created(name, os.O_RDWR) as descriptor:
            os.ftruncate(descriptor, size_bytes)
            write_at(descriptor, memoryview(header), 0)

    def write(self, file: str, offset: int, data: memoryview) -> None:
        """Put `data` at `offset` of `file`; thread-safe."""
        with self._disk_errors(file), self._at(file).opened(file, os.O_WRONLY) as descriptor:
            write_at(descriptor, data, offset)

    def finish(
        self, file: str, offset: int, size_bytes: int, digest: str, record: Any = None
    ) -> None:
        """Note in the journal that a piece is complete; thread-safe.

        Args:
            digest: xxh3-128 of its bytes, in hexadecimal.
            record: what the manifest says of each edited matrix in it, by label.
        """
        line = {"file": file, "offset": offset, "size": size_bytes, "xxh3_128": digest}
        if record is not None:
            line["record"] = record
        with self._mutex:
            self.journal[file, offset] = line
            with self._disk_errors(JOURNAL):
                self._log(line)

    def claim(self, file: str, offset: int) -> dict[str, Any] | None:
        """What an earlier run noted of a piece; its bytes may have changed since."""
        return self._claimed.get((file, offset))

    def is_done(
        self, file: str, offset: int, size_bytes: int, labels: Collection[str] = ()
    ) -> bool:
        """Whether an earlier run finished this piece and the bytes on disk still have its hash.

        Args:
            labels: of the edited matrices in the piece, for which the journal must have records.
        """
        line = self._claimed.get((file, offset))
        if line is None or line["size"] > size_bytes:
            return False
        if file != FACTORS and line["size"] != size_bytes:
            return False
        if line.get("record", {}).keys() != set(labels):
            return False
        digest = xxhash.xxh3_128()
        for chunk in self.chunks(file, offset, line["size"]):
            digest.update(chunk)
        if digest.hexdigest() != line["xxh3_128"]:
            return False
        with self._mutex:
            self.journal[file, offset] = line
        return True

    def add_side_file(self, name: str, read: Callable[[], bytes]) -> None:
        """Write a file that holds no weights, with the content that `read` gives."""
        self._sides.add(name)
        content = memoryview(read())
        with self._disk_errors(name), self._tree.created(name, os.O_WRONLY) as descriptor:
            os.ftruncate(descriptor, 0)
            write_at(descriptor, content, 0)

    def drop_side_files(self) -> None:
        """Remove the side files that an interrupted run had already written."""
        for name in self._tree.files() if self._resumes else ():
            if name not in self._files:
                self._tree.remove_file(name)

    def verify(self, advance: Advance = unseen) -> dict[str, dict[str, Any]]:
        """Read everything back; returns `bytes` and `xxh3_128` of each file by its name.

        Planned headers and pieces of the journal have to cover every byte of every weight file once, with
        the hashes that were taken while writing; the other files have to be the side files that were added.

        Args:
            advance: called from any thread with the number of bytes of weight files just verified.

        Raises:
            RunFailed: names the file, and the bytes that are missing, written twice or different.
        """
        pieces: dict[str, list[dict[str, Any]]] = {name: [] for name in self._files}
        for (file, offset), line in sorted(self.journal.items()):
            if file != FACTORS and file not in pieces:
                raise RunFailed(file, f"holds a piece at byte {offset:,} and was never planned")
            pieces.setdefault(file, []).append(line)
        with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
            names = list(self._files)
            digests = pool.map(lambda n: self._verify_file(n, pieces[n], advance), names)
            files = dict(zip(names, digests))
        for name in self._tree.files():
            if name not in files:
                with self._tree.reading(name) as stream:
                    files[name] = manifest.stream_identity(stream)
        if unexpected := files.keys() ^ (self._files.keys() | self._sides):
            raise RunFailed(
                self.folder, f"its files are not those that were written: {sorted(unexpected)}"
            )
        return files

    def publish(self, advance: Advance = unseen) -> Path | None:
        """Sync everything to the disk and rename the folder to OUT, or exchange it with an old OUT.

        The old OUT is deleted if uvmerge wrote everything in it; else it is renamed, and its new
        path is returned.

        Args:
            advance: called with the number of bytes just synced.
        """
        self._tree.sync_all(advance)
        publishing.publish(self._root, self.out, self.overwrite)
        return self.discard()

    def discard(self) -> Path | None:
        """Remove the staging folder; returns where an old OUT in it with files of others is now."""
        self.close()
        return publishing.clear_up(self._root, self.out)

    def close(self) -> None:
        """Close the journal and the folders, which stay."""
        self._journal_file.close()
        self._tree.close()

    def chunks(self, file: str, offset: int, size_bytes: int) -> Iterator[memoryview]:
        """The bytes of a piece, fewer where the file ends before; a chunk is overwritten by the next."""
        buffer = memoryview(bytearray(min(CHUNK_BYTES, max(size_bytes, 1))))
        stop = offset + size_bytes
        with self._at(file).opened(file, os.O_RDONLY) as descriptor:
            while offset < stop:
                count = os.preadv(descriptor, [buffer[: stop - offset]], offset)
                if count == 0:
                    return
                yield buffer[:count]
                offset += count

    def _verify_file(
        self, name: str, pieces: list[dict[str, Any]], advance: Advance
    ) -> dict[str, Any]:
        """Hash a file as a whole and, in the same pass, its header and each of its pieces."""
        planned, whole = self._files[name], xxhash.xxh3_128()
        head = {"offset": 0, "size": len(planned.header), "xxh3_128": _digest(planned.header)}
        position = 0
        for piece in (head, *pieces):
            offset, length = piece["offset"], piece["size"]
            if offset != position:
                raise _not_once(name, position, offset)
            part = xxhash.xxh3_128()
            for chunk in self.chunks(name, offset, length):
                whole.update(chunk)
                part.update(chunk)
                advance(len(chunk))
            if part.hexdigest() != piece["xxh3_128"]:
                raise changed_since(name, offset, length)
            position = offset + length
        if position != planned.size_bytes:
            raise _not_once(name, position, planned.size_bytes)
        with self._tree.opened(name, os.O_RDONLY) as descriptor:
            there = os.fstat(descriptor).st_size
        if there != planned.size_bytes:
            raise RunFailed(name, f"is {there:,} bytes long, {planned.size_bytes:,} were planned")
        return {"bytes": there, "xxh3_128": whole.hexdigest()}

    def _at(self, file: str) -> Tree:
        """The folder in which a file of this name is."""
        return self._root if file == FACTORS else self._tree

    def _log(self, line: dict[str, Any]) -> None:
        self._journal_file.write(line_of(line))
        self._journal_file.flush()

    @contextmanager
    def _disk_errors(self, name: str) -> Iterator[None]:
        with disk_errors(name, self.root):
            yield


@dataclass(frozen=True)
class _Planned:
    """A weight file as it was planned: its header section, and its size."""

    header: bytes
    size_bytes: int


def _digest(data: bytes) -> str:
    return xxhash.xxh3_128_hexdigest(data)


def changed_since(name: str, offset: int, length: int) -> RunFailed:
    """The error for a piece of a file whose bytes are not those that were written."""
    return RunFailed(
        name,
        f"reading back bytes {offset:,} to {offset + length:,} gives other content than was written",
        "Check the disk, then run the same command again to resume.",
    )


def _not_once(name: str, position: int, offset: int) -> RunFailed:
    """The error for bytes that no piece covers, or that two pieces cover."""
    first, last = sorted((position, offset))
    how = "were never written" if position < offset else "were written twice"
    return RunFailed(
        name, f"bytes {first:,} to {last:,} {how}", "Run the same command again to resume."
    )


@contextmanager
def staged(out: Path, digest: str, head: dict[str, Any], overwrite: bool) -> Iterator[Staging]:
    """The staging folder of one run, locked; an earlier run of the same plan is resumed."""
    with prepared(out, digest, head, overwrite, check_out) as root:
        staging = Staging(out, root, head, overwrite)
        try:
            yield staging
        finally:
            staging.close()


@contextmanager
def prepared(
    out: Path,
    digest: str,
    head: dict[str, Any],
    overwrite: bool,
    check: Callable[[Path, bool], None],
) -> Iterator[Tree]:
    """The folder in which a run stages its output, checked and locked inside the block.

    Args:
        check: refuses an OUT that cannot be written, given OUT and `overwrite`.
    """
    with disk_errors(out, out.parent), locked(lock_of(out)):
        check(out, overwrite)
        place = staging_root(out, digest)
        check_unfinished(out, digest, head, overwrite)
        for other in staging_folders(out):
            if other != place and (overwrite or publishing.is_bare(other)):
                discard(other, out)
        if overwrite and place.exists():
            with publishing.opened(place) as root:
                begun = has_head(root, head)
            if not begun:
                discard(place, out)
        with publishing.opened(place) as root:
            yield root
