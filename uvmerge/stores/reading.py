"""A checkpoint in an object store: listing, config, index and headers first, then what is read.

It becomes a folder in the cache of uvmerge, as a model of the Hub does: small files, and a sparse file
in the place of each weight file. The folder belongs to the sizes and versions that were listed, so that
another version has another folder.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Collection
from functools import partial
from pathlib import Path

import xxhash

from ..checkpoint.folder import inside
from ..checkpoint.source import FileState
from ..errors import InputRefused, UvmergeError
from ..hub import listing
from ..hub.locate import Local, chosen
from ..hub.ranged import RangedFile, in_parallel
from ..hub.remote import Remote
from ..hub.spans import cut
from ..output.disk import disk_errors
from ..output.places import Reference
from .store import Object, Store

_DEPTH = 2  # levels that files of a checkpoint lie in


class StoreFile(RangedFile):
    """A weight file in a store, at the version that was listed."""

    request_bytes = 8 << 20  # a range that a lost connection cuts off is fetched again whole

    def __init__(self, store: Store, found: Object, folder: Path) -> None:
        version = xxhash.xxh3_64_intdigest(found.version.encode()) >> 1
        super().__init__(
            f"{store.label}/{found.name}",
            FileState(found.size, version, 0, 0),  # a resumed run compares the size and this number
            folder / "files" / found.name,
            folder / "pieces" / found.name,
        )
        self.owner = store.owner
        self._store, self._object = store, found

    def verify(self) -> None:
        """Nothing: what an etag is the hash of is for the store to say."""

    def close(self) -> None:
        """Nothing: between reads nothing is open."""

    def _stream(self, start: int, stop: int, write: Callable[[bytes], int]) -> None:
        write(self._store.read(self._object, start, stop))

    def _check_version(self) -> None:
        try:
            self._store.check(self._object)
        except Exception as error:  # what is raised depends on the package of the store
            raise self._store.refused(error) from None

    def _lost(self, error: Exception) -> UvmergeError:
        return self._store.refused(error)


def opened(reference: Reference, *, weights_only: bool, also: Collection[str] = ()) -> Remote:
    """A checkpoint in a store with its small files and headers.

    Args:
        weights_only: fetch config and index alone, and no tokenizer or other file beside the weights.
        also: names of further files to fetch, where they are there.

    Raises:
        UsageError: the package for this kind of store is missing.
        InputRefused: nothing is there, or it cannot be read.
    """
    store = Store(str(reference))
    try:
        return _opened(store, weights_only, also)
    except UvmergeError:
        raise
    except Exception as error:  # what is raised depends on the package of the store
        raise store.refused(error) from None


def located(reference: Reference, *, weights_only: bool) -> Local:
    """A checkpoint in a store, fetched whole into the cache."""
    found = opened(reference, weights_only=weights_only)
    for each in found.sources.values():
        missing = cut(each.missing([(0, each.size)]), each.request_bytes)
        in_parallel([partial(each.fetch, *span) for span in missing])
        each.confirm()
    return Local(found.folder, found.label)


def _opened(store: Store, weights_only: bool, also: Collection[str]) -> Remote:
    listed = store.objects(_DEPTH)
    further = [name for name in also if name in listed]
    wanted = dict.fromkeys([*chosen(listed, weights_only=False), *further])
    everything = {name: listed[name] for name in wanted}
    if not everything:
        raise InputRefused(
            store.url,
            "holds no file of a checkpoint, or is not there",
            "Check the bucket and prefix.",
        )
    said = repr(sorted((each.name, each.size, each.version) for each in everything.values()))
    place = f"{store.label}-{xxhash.xxh3_64_hexdigest(store.url.encode())}"
    folder = listing.cache() / "stores" / place / xxhash.xxh3_128_hexdigest(said.encode())
    files = folder / "files"
    names = dict.fromkeys([*chosen(everything, weights_only=weights_only), *further])
    with disk_errors(files, folder.parent, resumes=False):
        files.mkdir(parents=True, exist_ok=True)
    for name in names:
        inside(files, name)
    sources = {
        name: StoreFile(store, listed[name], folder)
        for name in names
        if name.endswith(".safetensors")
    }
    small = [listed[name] for name in names if name not in sources]
    in_parallel([partial(_fetch_small, store, each, inside(files, each.name)) for each in small])
    in_parallel([each.prepare_header for each in sources.values()])
    return Remote(files, store.label, None, sources)


def _fetch_small(store: Store, wanted: Object, path: Path) -> None:
    """Have a file beside the weights; one that is there is of the version that was listed."""
    if path.is_file():
        return
    content = store.read(wanted, 0, wanted.size) if wanted.size else b""
    beside = path.with_name(f".{os.getpid()}-{threading.get_ident()}")
    with disk_errors(path, path.parent, resumes=False):
        path.parent.mkdir(parents=True, exist_ok=True)
        beside.write_bytes(content)
        os.replace(beside, path)
