"""A reference to a model becomes a local folder, pinned to a commit; one to a file becomes the file.

A reference to a model is a folder, `org/name`, `org/name@revision`, or `hf://org/name@revision`; a
reference to a file on the Hub is `org/name/file@revision`. The one importer of huggingface_hub.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..checkpoint.folder import folder_label
from ..errors import InputRefused
from ..text import brief, folder_meant

_HUB_ID = re.compile(r"(?:hf://)?(\w[\w.-]*(?:/\w[\w.-]*)?)(?:@([\w./-]+))?")
_HUB_FILE = re.compile(r"(?:hf://)?(\w[\w.-]*/\w[\w.-]*)((?:/\w[\w.-]*)*)(?:@([\w./-]+))?")
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
        if not exists and (close := folder_meant(folder)):
            raise InputRefused(brief(reference), "there is no such folder", close)
        raise InputRefused(
            brief(reference),
            "is neither a folder nor a Hub id like org/name or org/name@revision",
            "Check the path.",
        )
    wanted = WEIGHTS if weights_only else WEIGHTS + SIDE_FILES
    try:
        return _download(str(reference), match[1], match[2], wanted, "folder")
    except InputRefused as error:
        close = "" if str(reference).startswith("hf://") else folder_meant(folder)
        if not close:
            raise
        of_the_hub = error.what.removeprefix(f"no folder {str(reference)!r} here")
        what = f"there is no such folder{of_the_hub}"
        raise InputRefused(error.where, what, f"{close} {error.do}") from None


def locate_file(reference: str, usual: Sequence[str]) -> Path | None:
    """Download a file from a repository of models; None where no Hub file can be meant.

    Args:
        reference: `org/name/file@revision`, or `org/name` for the first of `usual` that is there.

    Raises:
        InputRefused: the Hub cannot be reached, or has no such file.
    """
    match = _HUB_FILE.fullmatch(reference)
    if not match or ".." in reference:
        return None
    repo, file, revision = match.groups()
    names = [file[1:]] if file else list(usual)
    folder = _download(reference, repo, revision, names, "file").folder
    for name in names:
        if (folder / name).is_file():
            return folder / name
    raise InputRefused(
        reference, f"{repo} on the Hub has no {' or '.join(names)}", f"Write `{repo}/FILE`."
    )


def _download(
    reference: str, repo: str, revision: str | None, wanted: list[str], kind: str
) -> Local:
    from huggingface_hub import constants, errors, snapshot_download

    tried = f"no {kind} {reference!r} here, and from the Hub ({constants.ENDPOINT})"
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
            f"Check the connection (and HF_HUB_OFFLINE), or give a {kind}.",
        ) from None
    except Exception as error:  # what is raised depends on huggingface_hub's HTTP client
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise InputRefused(
            reference, f"{tried}: {first}", f"Check the connection, or give a {kind}."
        ) from None
