"""A model reference becomes a local folder, pinned to a commit. The one importer of huggingface_hub.

A reference is a folder, `org/name`, `org/name@revision`, or `hf://org/name@revision`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from ..checkpoint.folder import folder_label
from ..errors import InputRefused
from ..text import brief

_HUB_ID = re.compile(r"(?:hf://)?(\w[\w.-]*(?:/\w[\w.-]*)?)(?:@([\w./-]+))?")
WEIGHTS = ["*.safetensors", "*.safetensors.index.json", "config.json"]
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
    try:
        folder = Path(reference).expanduser()
        exists, is_folder, is_file = folder.exists(), folder.is_dir(), folder.is_file()
    except (OSError, RuntimeError, ValueError):  # no path that a file system can hold
        folder, exists, is_folder, is_file = Path(reference), True, False, False
    if is_folder and not str(reference).startswith("hf://"):
        return Local(folder, folder_label(folder))
    match = _HUB_ID.fullmatch(str(reference))
    if not match or exists or ".." in str(reference):
        if is_file:
            raise InputRefused(brief(reference), "is a file", "Name the folder it is in.")
        raise InputRefused(
            brief(reference),
            "is neither a folder nor a Hub id like org/name or org/name@revision",
            "Check the path.",
        )
    return _download(
        str(reference), match[1], match[2], WEIGHTS if weights_only else WEIGHTS + SIDE_FILES
    )


def _download(reference: str, repo: str, revision: str | None, wanted: list[str]) -> Local:
    from huggingface_hub import constants, errors, snapshot_download

    tried = f"no folder {reference!r} here, and from the Hub ({constants.ENDPOINT})"
    try:
        # snapshot_download resolves the revision once and fetches every file by its commit; the name
        # of the folder is this commit.
        path = snapshot_download(
            repo, revision=revision, allow_patterns=wanted, ignore_patterns=SECOND_COPIES
        )
        return Local(Path(path), repo, Path(path).name)
    except errors.GatedRepoError:
        raise InputRefused(
            reference,
            f"{tried}: access is gated",
            f"Accept the terms at {constants.ENDPOINT}/{repo}, then `hf auth login`.",
        ) from None
    except errors.RevisionNotFoundError:
        raise InputRefused(
            reference, f"{tried}: no revision {revision!r}", "Check the name."
        ) from None
    except errors.RepositoryNotFoundError:
        raise InputRefused(
            reference,
            f"{tried}: no such model, or it is private",
            "Check the spelling; for a private model, `hf auth login`.",
        ) from None
    except errors.LocalEntryNotFoundError:
        raise InputRefused(
            reference,
            f"{tried}: not in the local cache, and the Hub cannot be reached",
            "Check the connection (and HF_HUB_OFFLINE), or give a folder.",
        ) from None
    except Exception as error:  # what is raised depends on huggingface_hub's HTTP client
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise InputRefused(
            reference, f"{tried}: {first}", "Check the connection, or give a folder."
        ) from None
