"""What an upload has done so far, in a file beside the files that are sent: an interrupted one goes on."""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import InputRefused
from ..output.disk import disk_errors
from ..output.manifest import write_whole
from .store import Object


class Record:
    """The record of one upload to one prefix.

    A file counts as sent while the store lists it with the size and the version that it got, and a
    part while its upload is open; both only for the hash that the file has now.

    Args:
        path: of the record; one that is damaged or of another prefix counts as none.
    """

    def __init__(self, path: Path, url: str) -> None:
        self._path, self._mutex = path, threading.Lock()
        self._data: dict[str, Any] = {"url": url, "files": {}, "stale": []}
        self.has_begun = False
        if path.is_file():
            try:
                found = json.loads(path.read_bytes())
                self.has_begun = found["url"] == url and isinstance(found["files"], dict)
            except (ValueError, KeyError, TypeError):
                found = {}
            if self.has_begun:
                self._data = found

    @property
    def stale(self) -> list[str]:
        """Names of an old output's files that the new one does not have."""
        return list(self._data["stale"])

    def begin(self, identities: Mapping[str, Any], stale: list[str]) -> None:
        """Note the files that are to be sent; what was sent with other bytes is forgotten."""
        old = self._data["files"]
        files = {
            name: old[name]
            if name in old and old[name]["identity"] == identity
            else {"identity": identity, "version": None, "parts": {}}
            for name, identity in identities.items()
        }
        # Names that an earlier run sent, and that are no part of this output, are removed with it.
        gone = {*self._data["stale"], *stale, *old} - files.keys()
        self._data |= {"files": files, "stale": sorted(gone)}
        self._save()

    def refuse_strange(self, there: Mapping[str, Object], overwrite: bool) -> None:
        """Refuse a prefix that holds what this upload has not sent, and not `overwrite`."""
        known = {*self._data["files"], *self._data["stale"]} if self.has_begun else set()
        strange = sorted(there.keys() - known)
        if strange and not overwrite:
            raise InputRefused(
                self._data["url"], f"is not empty ({strange[0]})",
                "Choose another prefix, or pass --overwrite.",
            )  # fmt: skip

    def is_sent(self, name: str, there: Mapping[str, Object]) -> bool:
        """Whether a file is in the store as it was sent."""
        entry, found = self._data["files"][name], there.get(name)
        return (
            found is not None
            and entry["version"] is not None
            and (found.size, found.version) == (entry["identity"]["bytes"], entry["version"])
        )

    def sent(self, name: str, version: str) -> None:
        """Note that a file is in the store, with its version."""
        self._data["files"][name] |= {"version": version, "parts": {}, "upload": None}
        self._save()

    def upload(self, name: str) -> str | None:
        """The id of an upload in parts that was begun; None where there is none."""
        found = self._data["files"].get(name, {}).get("upload")
        return None if found is None else str(found)

    def knows(self, name: str) -> bool:
        """Whether a file is one of this upload's, or of the old output's that it replaces."""
        return name in self._data["files"] or name in self._data["stale"]

    def begun(self, name: str, upload: str) -> None:
        """Note an upload in parts; parts of an earlier one are forgotten."""
        self._data["files"][name] |= {"upload": upload, "parts": {}}
        self._save()

    def parts(self, name: str) -> dict[int, dict[str, str]]:
        """By number what the store said of each part that it has."""
        return {int(n): said for n, said in self._data["files"][name]["parts"].items()}

    def part(self, name: str, number: int, said: dict[str, str]) -> None:
        """Note a part that the store has; thread-safe."""
        with self._mutex:
            self._data["files"][name]["parts"][str(number)] = said
            self._save()

    def _save(self) -> None:
        with disk_errors(self._path, self._path.parent):
            write_whole(self._path, json.dumps(self._data).encode())
