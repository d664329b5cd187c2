"""What a push needs of the server beyond `hub_server`: pull requests by state, and copies between models."""

from __future__ import annotations

import json
from dataclasses import fields
from typing import Any

import hub_server
import pytest
from hub_server import Repository
from huggingface_hub import CommitOperationCopy

XET_HASH = "c" * 64
# Whether huggingface_hub can ask for a copy between two models: 1.3 cannot.
CLIENT_COPIES = "src_repo_id" in {each.name for each in fields(CommitOperationCopy)}
_Handler = hub_server._Handler


class Uploads(_Handler):
    """Says whether a pull request is open, and copies large files where `copies` allows it."""

    copies = True
    asked_to_copy: list[str] = []  # noqa: RUF012

    def api(self, name: str, repository: Repository, rest: list[str]) -> None:
        match rest:
            case ["discussions", number]:
                made = repository.refs[f"refs/pr/{number}"]
                merged = any(c.title == f"merge {number}" for c in repository.commits.values())
                self.say({
                    "num": int(number), "title": made.title, "author": {"name": "someone"},
                    "status": "merged" if merged else "open", "isPullRequest": True, "events": [],
                    "createdAt": "2026-01-01T00:00:00.000Z", "changes": {"base": "refs/heads/main"},
                    "filesWithConflicts": [], "diffUrl": "", "repo": {"name": name, "type": "model"},
                })  # fmt: skip
            case ["paths-info", _] if self.copies is not None:
                self.say = self._with_xet_hashes  # type: ignore[method-assign]
                super().api(name, repository, rest)
                del self.say
            case ["lfs-files", "duplicate"]:
                wanted = json.loads(self.body)
                self.asked_to_copy += [each["filename"] for each in wanted["files"]]
                failed = [] if self.copies else wanted["files"]
                said = [{**each, "error": "another region"} for each in failed]
                self.say({"success": [], "failed": said})
            case _:
                super().api(name, repository, rest)

    def _with_xet_hashes(self, data: Any, status: int = 200) -> None:
        found = [{**each, **({"xetHash": XET_HASH} if "lfs" in each else {})} for each in data]
        super().say(found, status)


def install(monkeypatch: pytest.MonkeyPatch, copies: bool | None = None) -> list[str]:
    """Make `hub_server.serving` use this; returns the list that gets the names of copied files.

    Args:
        copies: whether files can be copied between models; None where there is no Xet store.
    """
    asked: list[str] = []
    monkeypatch.setattr(Uploads, "copies", copies)
    monkeypatch.setattr(Uploads, "asked_to_copy", asked)
    monkeypatch.setattr(hub_server, "_Handler", Uploads)
    return asked
