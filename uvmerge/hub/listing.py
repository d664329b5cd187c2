"""What a model of the Hub holds at a revision: the commit, and size and hash of every file.

One request resolves the revision and lists the files. The answer is kept, so that a later run works
offline; a commit never changes, a branch or tag may.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from ..checkpoint.bounded import MANIFEST_BYTES, read_json
from ..errors import InputRefused
from ..output.disk import disk_errors
from ..output.manifest import write_whole
from . import session
from .references import Model
from .session import Address

_NAME = "listing.json"


@dataclass(frozen=True)
class Listing:
    """The files of a model at a commit: where each is, by name."""

    repo: str
    commit: str
    files: dict[str, Address]

    @property
    def folder(self) -> Path:
        """Where what is fetched of this commit is kept."""
        return root(self.repo) / self.commit

    def save(self, revision: str | None) -> None:
        """Keep the listing, and which commit the revision is."""
        files = {name: [each.size, each.etag, each.is_large] for name, each in self.files.items()}
        data = {"commit": self.commit, "files": files}
        ref = _ref(self.repo, revision)
        with disk_errors(self.folder, self.folder.parent, resumes=False):
            for folder in (self.folder, ref.parent):
                folder.mkdir(parents=True, exist_ok=True)
            write_whole(self.folder / _NAME, json.dumps(data).encode())
            write_whole(ref, self.commit.encode())


def cache() -> Path:
    """The cache of uvmerge, which lies beside that of the Hub."""
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE).parent / "uvmerge"


def root(repo: str) -> Path:
    """The folder of a model in the cache of uvmerge."""
    return cache() / f"models--{repo.replace('/', '--')}"


def fetched(model: Model) -> Listing:
    """What the Hub says of a model; errors are those of huggingface_hub."""
    from huggingface_hub import HfApi

    info = session.patiently(
        lambda: HfApi().model_info(model.repo, revision=model.revision, files_metadata=True)
    )
    repo, commit = model.repo, str(info.sha)
    files: dict[str, Address] = {}
    for each in info.siblings or []:
        is_large = each.lfs is not None
        etag = each.lfs.sha256 if each.lfs is not None else each.blob_id
        if each.size is not None and etag is not None:
            name = each.rfilename
            files[name] = Address(repo, commit, name, each.size, etag, is_large)
    listing = Listing(repo, commit, files)
    listing.save(model.revision)
    return listing


def current(model: Model) -> Listing:
    """What the Hub says of a model, or what is kept where the Hub gives no answer."""
    try:
        return fetched(model)
    except Exception as error:  # what is raised depends on huggingface_hub's HTTP client
        found = kept(model) if session.is_unreachable(error) else None
        if found is None:
            raise
        return found


def kept(model: Model) -> Listing | None:
    """What an earlier run has kept of a model at a revision; None where there is nothing."""
    try:
        commit = _ref(model.repo, model.revision).read_text()
    except OSError:
        commit = model.revision or ""
    path = root(model.repo) / commit / _NAME
    if "/" in commit or not path.is_file():
        return None
    try:
        data = read_json(path, MANIFEST_BYTES)
        return _read(model.repo, data)
    except (InputRefused, KeyError, TypeError, ValueError):
        return None


def _read(repo: str, data: dict[str, Any]) -> Listing:
    commit = str(data["commit"])
    files = {
        name: Address(repo, commit, name, int(size), str(etag), bool(is_large))
        for name, (size, etag, is_large) in data["files"].items()
    }
    return Listing(repo, commit, files)


def _ref(repo: str, revision: str | None) -> Path:
    return root(repo) / "refs" / quote(revision or "main", safe="")
