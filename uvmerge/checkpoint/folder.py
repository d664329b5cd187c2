"""A checkpoint: the names, shapes, dtypes and byte ranges of its tensors, from headers alone.

Nothing here imports torch. A byte source reads one tensor at a time, as raw bytes, so that only
what an edit needs is ever read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from ..errors import InputRefused, listed
from ..text import two_lines
from . import header
from .bounded import CONFIG_BYTES, read_start
from .header import Header, Tensor as Tensor
from .source import LocalFile, Source, Watched
from .strangers import no_weights, pickles, weights_beside
from .weight_files import (
    INDEX as INDEX,
    SINGLE_FILE as SINGLE_FILE,
    inside as inside,
    json_file,
    weight_files,
)
from .wrappers import unwrapped


@dataclass(eq=False)
class Checkpoint:
    """A folder of weights with its config; open one with `Checkpoint.open`.

    Attributes:
        label: name of the checkpoint in messages and manifests: a Hub id or the folder's name.
        commit: the Hub commit that the checkpoint is pinned to, if it came from the Hub.
        headers, sources: header and byte source of each weight file, in the order of the index.
        config: the parsed config.json, empty where there is none.
        index: the parsed index of a sharded checkpoint.
        notes: what is odd but acceptable, as sentences for the plan.
        apart: names of tensors that are tied to no other, although they may be equal.
    """

    label: str
    _folder: Path
    commit: str | None
    headers: dict[str, Header]
    sources: dict[str, Source]
    config: dict[str, Any] = field(default_factory=dict)
    index: dict[str, Any] | None = None
    notes: list[str] = field(default_factory=list)
    _weights: frozenset[str] = frozenset()  # names on disk of the weight files
    _watched: Watched = field(default_factory=Watched)  # the other files that are read
    apart: frozenset[str] = frozenset()

    def __repr__(self) -> str:
        about = f"{sum(len(h.entries) for h in self.headers.values()):,} tensors in {len(self.headers):,} files"
        return two_lines("Checkpoint", self.label, about)

    @property
    def _is_variant(self) -> bool:
        return not self.sources.keys() <= self._weights

    @classmethod
    def open(
        cls,
        folder: str | Path,
        *,
        label: str | None = None,
        commit: str | None = None,
        load_pickles: Callable[[Path], dict[str, Source]] | None = None,
        source_of: Callable[[Path], Source] = LocalFile,
    ) -> Checkpoint:
        """Read the headers in `folder`; refuse files that contradict each other or the index.

        A further format is added here: it gives `sources` by file name, as `load_pickles` does. If it
        changes names, pass `index=None`: plan/layout mirrors the bytes of headers, and output/sidefiles
        copies the index, as they are on disk.

        Args:
            load_pickles: reads a folder's `.bin`/`.pt` weights; without it they are refused.
            source_of: opens a weight file of the folder, by its path.
        """
        folder = Path(folder)
        if not folder.is_dir():
            raise InputRefused(folder, "is not a folder")
        notes = list(weights_beside(folder))
        watched = Watched([folder / "config.json", *folder.glob("*.safetensors.index*.json")])
        config = json_file(folder, "config.json", CONFIG_BYTES) or {}
        files, index = weight_files(folder, notes, source_of)
        sources: dict[str, Source] = {
            name: source_of(inside(folder, stored)) for name, stored in files.items()
        }
        stored = frozenset(files.values())
        if not files and load_pickles and pickles(folder):
            sources = load_pickles(folder)
            stored = frozenset(path.name for path in pickles(folder))
        elif not files:
            raise no_weights(folder)
        label = label or folder_label(folder)
        with ExitStack() as after_failure:
            for source in sources.values():
                after_failure.callback(source.close)
            headers = {name: header.read(source) for name, source in sources.items()}
            checkpoint = cls(
                label, folder, commit, headers, sources, config, index, notes, stored, watched
            )
            checkpoint._check_index()
            after_failure.pop_all()
        return checkpoint

    @cached_property
    def tensors(self) -> dict[str, Tensor]:
        """Every tensor by its plain name (see `wrappers`), in file order."""
        found: dict[str, Tensor] = {}
        for file, head in self.headers.items():
            for e in head.entries:
                name = self.renamed.get(e.name, e.name)
                if name in found:
                    raise InputRefused(
                        self._folder,
                        f"{name} is both in {found[name].file} and in {file}",
                        "Save the checkpoint again; one of the two files is stale.",
                    )
                found[name] = Tensor(name, e.dtype, e.shape, file, e.offset, e.size_bytes)
        return found

    @cached_property
    def renamed(self) -> dict[str, str]:
        """The plain name of each tensor whose stored name a wrapper has changed."""
        names = [entry.name for head in self.headers.values() for entry in head.entries]
        renamed, wrappers = unwrapped(names)
        if renamed:
            self.notes.append(f"names are read and written without {' and '.join(wrappers)}")
        return renamed

    @property
    def has_right_index(self) -> bool:
        """Whether names and total size in the index on disk are those of the weights."""
        if self.index is None or self.renamed or self._is_variant:
            return False
        metadata = self.index.get("metadata")
        return isinstance(metadata, dict) and metadata.get("total_size") == self.size_bytes

    @property
    def size_bytes(self) -> int:
        """Bytes of all tensors together."""
        return sum(tensor.size_bytes for tensor in self.tensors.values())

    @property
    def is_remote(self) -> bool:
        """Whether values that are read may first come over a network."""
        return any(source.is_remote for source in self.sources.values())

    def prepare(self, tensors: Iterable[tuple[Tensor, int, int]]) -> None:
        """Have parts of tensors, each from a byte to another, at hand for reads that follow."""
        spans: dict[str, list[tuple[int, int]]] = {}
        for tensor, start, stop in tensors:
            at = tensor.offset
            spans.setdefault(tensor.file, []).append((at + start, at + stop))
        for file, wanted in spans.items():
            self.sources[file].prepare(wanted)

    def read(self, file: str, offset: int, size_bytes: int) -> bytearray:
        """The bytes of a range of `file`."""
        buffer = bytearray(size_bytes)
        self.sources[file].read_into(offset, memoryview(buffer))
        return buffer

    def identity(self) -> dict[str, Any]:
        """What identifies the weights, without a path: commit, or header digests and sizes."""
        files = {
            name: {"bytes": self.sources[name].size, "header_xxh3_128": head.digest}
            for name, head in self.headers.items()
        }
        return {"reference": self.label, "commit": self.commit, "files": files}

    def states(self) -> dict[str, list[Any]]:
        """Size (bytes), modification time (ns) and header digest of each weight file when opened."""
        states = {name: source.state for name, source in self.sources.items()}
        return {n: [s.size, s.mtime_ns, self.headers[n].digest] for n, s in states.items()}

    def changed_files(self) -> list[str]:
        """Names of the files that are no longer what they were when they were first looked at."""
        weights = [name for name, source in self.sources.items() if source.has_changed()]
        return [*weights, *self._watched.changed()]

    def on_disk(self) -> Path:
        """The checkpoint's folder, for loaders that want one."""
        return self._folder

    def side_names(self) -> list[str]:
        """Names of files and links without weights, in the folder and one level down, sorted."""
        found: list[str] = []
        for path in self._folder.iterdir():
            for each in path.iterdir() if path.is_dir() else [path]:
                if each.is_file() or (each.is_symlink() and not each.is_dir()):
                    found.append(each.relative_to(self._folder).as_posix())
        return sorted(name for name in found if name not in self._weights)

    def side_size(self, name: str) -> int:
        """Size in bytes of one of `side_names`.

        Raises:
            InputRefused: the name is a link that leads out of the folder or to nothing.
        """
        path = inside(self._folder, name)
        if not path.is_file():
            raise InputRefused(
                path, "is a link to a file that is not there", "Put the file in its place."
            )
        return self._watched.state(name, path).size

    def side_bytes(self, name: str) -> bytes:
        """The content of one of `side_names`, whole."""
        return self._watched.read(name, inside(self._folder, name))

    def side_start(self, name: str, most: int) -> bytes:
        """Up to `most` bytes from the start of one of `side_names`."""
        return read_start(inside(self._folder, name), most)

    def close(self) -> None:
        for source in self.sources.values():
            source.close()

    def __enter__(self) -> Checkpoint:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _check_index(self) -> None:
        if self.index is None:
            return
        weight_map = {self.renamed.get(n, n): f for n, f in self.index["weight_map"].items()}
        missing = [
            n for n, f in weight_map.items() if getattr(self.tensors.get(n), "file", "") != f
        ]
        if missing:
            raise InputRefused(
                self._folder,
                f"the index names {listed(missing, 'tensor')} not in the file it gives",
                "Download or save the checkpoint again.",
            )
        if extra := self.tensors.keys() - weight_map.keys():
            raise InputRefused(
                self._folder,
                f"the index does not name {listed(sorted(extra), 'tensor')}",
                "Download or save the checkpoint again.",
            )


def folder_label(folder: Path) -> str:
    """A folder's own name, in characters that can be written anywhere."""
    return folder.resolve().name.encode(errors="replace").decode()
