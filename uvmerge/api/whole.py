"""Folders that transformers can load: those of checkpoints, and of an adapter a temporary whole model."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from ..checkpoint.folder import Checkpoint
from ..checkpoint.merged import MergedCheckpoint
from ..output.disk import disk_errors, refuse_full
from ..output.writer import CHUNK_BYTES
from ..text import size


@contextmanager
def whole_folders(
    checkpoints: Sequence[Checkpoint], say: Callable[[str], None]
) -> Iterator[list[Path]]:
    """The folder of each checkpoint; an adapter is merged into a folder that lasts for the block.

    Raises:
        InputRefused: the disk for temporary files has no room for the merged model.
    """
    with ExitStack() as stack:
        folders = []
        for checkpoint in checkpoints:
            folder = checkpoint.on_disk()
            if isinstance(checkpoint, MergedCheckpoint):
                folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="uvmerge-")))
                say(
                    f"merging {checkpoint.label} into a temporary folder ({size(_bytes(checkpoint))})"
                )
                _write(checkpoint, folder)
            folders.append(folder)
        yield folders


def _bytes(checkpoint: Checkpoint) -> int:
    return sum(source.size for source in checkpoint.sources.values())


def _write(checkpoint: Checkpoint, folder: Path) -> None:
    """Write a checkpoint as it is read: its weight files and its side files."""
    refuse_full(folder, _bytes(checkpoint), 0)
    with disk_errors(folder, folder, resumes=False):
        for name in checkpoint.side_names():
            path = folder / name
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(checkpoint.side_bytes(name))
        for name, source in checkpoint.sources.items():
            with (folder / name).open("wb") as file:
                for start in range(0, source.size, CHUNK_BYTES):
                    count = min(CHUNK_BYTES, source.size - start)
                    file.write(checkpoint.read(name, start, count))
