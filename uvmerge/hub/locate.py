"""A reference to a model becomes a local folder, pinned to a commit, with all of its files."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..checkpoint.folder import folder_label
from ..errors import InputRefused
from ..text import folder_meant
from .failures import refusal
from .references import named

WEIGHTS = ["*.safetensors", "*.safetensors.index.json", "config.json", "adapter_config.json"]
SIDE_FILES = [
    "*.json",
    "*.txt",
    "*.model",
    "*.jinja",
    "*.py",
    "*.tiktoken",
    "LICENSE*",
    "NOTICE*",
    "README.md",
]
SECOND_COPIES = ["original/*", "onnx/*", "openvino/*", "consolidated*", "checkpoint-*/*"]


@dataclass(frozen=True)
class Local:
    """A reference, found on this disk.

    Attributes:
        folder: holds the files.
        label: the Hub id, or the folder's name.
        commit: the Hub commit that the revision was resolved to; None for a local folder.
    """

    folder: Path
    label: str
    commit: str | None = None


def locate(reference: str | Path, *, weights_only: bool = False) -> Local:
    """Find `reference` on this disk, or download it from the Hub.

    Args:
        weights_only: download weights and config alone, which is all that is read of a base.

    Raises:
        InputRefused: the reference is neither a folder nor a Hub id, or the download fails; the
            message says what was tried.
    """
    found = named(reference)
    if isinstance(found, Path):
        return Local(found, folder_label(found))
    wanted = WEIGHTS if weights_only else WEIGHTS + SIDE_FILES
    try:
        return _download(str(reference), found.repo, found.revision, wanted)
    except InputRefused as error:
        raise misspelt(reference, error) from None


def chosen(names: Iterable[str], *, weights_only: bool) -> list[str]:
    """Of the files of a model those that are read.

    Args:
        weights_only: leave out tokenizer and other files beside weights and config.
    """
    wanted = WEIGHTS if weights_only else [*WEIGHTS, *SIDE_FILES]
    return [n for n in names if _matches(n, wanted) and not _matches(n, SECOND_COPIES)]


def _matches(name: str, patterns: Sequence[str]) -> bool:
    return any(fnmatch.fnmatch(name, pattern) for pattern in patterns)


def misspelt(reference: str | Path, error: InputRefused) -> InputRefused:
    """The refusal of a reference; it names the folder that was meant, where one is spelled like it."""
    close = "" if str(reference).startswith("hf://") else folder_meant(Path(reference).expanduser())
    if not close:
        return error
    of_the_hub = error.what.removeprefix(f"no folder {str(reference)!r} here")
    return InputRefused(error.where, f"there is no such folder{of_the_hub}", f"{close} {error.do}")


def _download(reference: str, repo: str, revision: str | None, wanted: list[str]) -> Local:
    from huggingface_hub import snapshot_download

    try:
        # snapshot_download resolves the revision once and fetches every file by its commit; the name
        # of the folder is this commit.
        path = snapshot_download(
            repo, revision=revision, allow_patterns=wanted, ignore_patterns=SECOND_COPIES
        )
        return Local(Path(path), repo, Path(path).name)
    except Exception as error:  # what is raised depends on huggingface_hub's HTTP client
        raise refusal(error, reference, repo, revision) from None
