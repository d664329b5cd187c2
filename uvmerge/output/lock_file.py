"""The lock in the manifest of a pushed output, as another machine reads it: untrusted data."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from ..errors import InputRefused
from .pushed import LOCK

_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Lock:
    """What a pushed output says about itself.

    Attributes:
        files: by file its sha256.
        inputs: by role of an input, its files and their sha256.
        not_reproducible: why nobody else can make the output again.
        settings: the settings of a run that decide the bytes.
    """

    files: Mapping[str, str]
    inputs: Mapping[str, Mapping[str, str]]
    not_reproducible: list[str]
    settings: Mapping[str, Any]


def read_lock(content: Mapping[str, Any], repo: str) -> Lock:
    """The lock of a manifest.

    Raises:
        InputRefused: there is none, or it is not as `uvmerge push` writes it.
    """
    lock, settings = content.get(LOCK), content.get("settings")
    if not isinstance(lock, dict):
        raise InputRefused(
            repo, "its manifest has no lock: `uvmerge push` did not make it",
            "Ask its owner to push it with uvmerge.",
        )  # fmt: skip
    inputs, reasons = lock.get("inputs"), lock.get("not_reproducible")
    files: dict[str, Any] = {
        role: each.get("files") if isinstance(each, dict) else None
        for role, each in (inputs.items() if isinstance(inputs, dict) else ())
    }
    if (
        not all(map(_are_sums, (lock.get("files"), *files.values())))
        or not isinstance(reasons, list)
        or not isinstance(settings, dict)
        or not isinstance(content.get("inputs"), dict)
        or not (reasons or files.keys() == content["inputs"].keys())
    ):
        raise InputRefused(
            repo, "its lock is not as uvmerge writes it", "Ask its owner to push it again."
        )
    keys = ("precision", "max_shard_size", "nonfinite", "emit", "adapter_for")
    chosen: dict[str, Any] = {key: str(settings[key]) for key in keys if key in settings}
    chosen |= _adapter_settings(repo, settings)
    if (most := chosen.get("max_shard_size", "")).isdecimal():
        chosen["max_shard_size"] = int(most)
    device = str(settings.get("device", ""))
    chosen["device"] = "auto" if device.startswith("cuda") else "cpu"
    return Lock(lock["files"], files, [str(each) for each in reasons], chosen)


def _adapter_settings(repo: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of an output that is an adapter and that are no words."""
    read: dict[str, Callable[[str], Any]] = {
        "adapter_rank": int, "adapter_error": float, "lossy": lambda word: word == "true",
    }  # fmt: skip
    try:
        return {key: read[key](str(settings[key])) for key in read if key in settings}
    except ValueError:
        raise InputRefused(
            repo, "its lock is not as uvmerge writes it", "Ask its owner to push it again."
        ) from None


def _are_sums(value: object) -> bool:
    """Whether a value has a sha256 for each of names that stay inside a folder."""
    return isinstance(value, dict) and all(
        isinstance(each, str) and _SHA256.fullmatch(each) and _is_inside(name)
        for name, each in value.items()
    )


def _is_inside(name: str) -> bool:
    path = PurePosixPath(name)
    return not (path.is_absolute() or ".." in path.parts or "\\" in name or "\0" in name)
