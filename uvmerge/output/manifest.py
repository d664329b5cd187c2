"""`uvmerge.json`, the manifest: what an output says about itself.

It does not hold a time, an absolute path, a user name or a token, so that the same surgery on the same
inputs writes the same bytes.
"""

from __future__ import annotations

import json
import math
import platform
from collections.abc import Iterable, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, BinaryIO

import xxhash

from ..checkpoint.bounded import MANIFEST_BYTES, read_json
from ..checkpoint.folder import Checkpoint, inside
from ..checkpoint.roles import by_name, mirrored, spelled
from ..checkpoint.sample import sample_digest
from ..errors import InputRefused, listed
from ..plan.steps import Plan
from .tree import Tree

NAME, CARD = "uvmerge.json", "README.md"
FORMAT = 1
HASH = "content_xxh3_128"
# What the record of a matrix may hold; `changed` and `relative_change` are always there.
_RECORD: dict[str, tuple[type, ...]] = {
    "changed": (bool,), "relative_change": (int, float), "zero": (bool,), "device": (str,),
    "steps": (list,), "k": (list,), "gap": (dict,), "method": (list,), "precision": (str,),
    "rank": (int,), "norm": (int, float), "error": (int, float),
    "finetuning_norm": (int, float), "finetuning_error": (int, float),
    "options": (list,),
}  # fmt: skip


def build(
    plan: Plan,
    files: dict[str, dict[str, Any]],
    edits: dict[str, Any],
    settings: Mapping[str, str],
    samples: Mapping[str, str],
) -> dict[str, Any]:
    """The content of `uvmerge.json`; its last value is the hash of all others.

    Args:
        files: by name, `bytes` and `xxh3_128` of every other file of the output.
        edits: per edited matrix, its record (`docs/output.md`, The record of a matrix).
        settings: device and precision.
        samples: see `samples`.
    """
    content = {
        **_heading(plan, settings, samples),
        "edited": dict(sorted(edits.items())),
        "reset": plan.reset,
        "notes": list(plan.notes),
        "files": dict(sorted(files.items())),
    }
    return sealed(content)


def sealed(content: Mapping[str, Any]) -> dict[str, Any]:
    """A manifest with its own hash as its last value."""
    rest = {key: value for key, value in content.items() if key != HASH}
    return rest | {HASH: _own_hash(rest)}


def _heading(plan: Plan, settings: Mapping[str, str], samples: Mapping[str, str]) -> dict[str, Any]:
    """The part of the manifest that determines the bytes of an output."""
    references = {
        role: f"{identity['reference']}@{commit}"
        if (commit := identity["commit"])
        else identity["reference"]
        for role, identity in plan.inputs.items()
    }
    return {
        "format": FORMAT,
        "recipe": plan.recipe.with_references(by_name(references)),
        "inputs": plan.inputs,
        "samples": dict(samples),
        "settings": dict(settings),
        "versions": versions(),
    }


def is_of(
    content: Mapping[str, Any],
    plan: Plan,
    settings: Mapping[str, str],
    samples: Mapping[str, str],
) -> bool:
    """Whether a manifest says that this plan made its folder, under the same versions."""
    heading = _heading(plan, settings, samples)
    return all(content.get(key) == value for key, value in heading.items())


def samples(checkpoints: Mapping[str, Checkpoint]) -> dict[str, str]:
    """By role, a hash of samples of the weights of each checkpoint that no Hub commit identifies."""
    local = {role: each for role, each in checkpoints.items() if each.commit is None}
    return {role: sample_digest(each) for role, each in local.items()}


def nonfinite_note(own: str, names: Iterable[str]) -> str:
    """The note for tensors that are left as they are because an operand holds NaN or Inf."""
    return f"NaN or Inf, left as {spelled(own)}: {listed(sorted(set(names)), 'tensor')}"


def versions() -> dict[str, str]:
    """Versions of the software that determines the bytes of an output."""
    found = {"python": platform.python_version()}
    for package in ("uvmerge", "torch", "scipy"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found


def read(folder: Path) -> dict[str, Any] | None:
    """The manifest in `folder`; None where the folder has none.

    Raises:
        InputRefused: the file is not a JSON object.
    """
    path = folder / NAME
    return read_json(path, MANIFEST_BYTES) if path.is_file() else None


def read_checked(folder: Path) -> dict[str, Any] | None:
    """The manifest in `folder`, its hash and its structure checked; None where the folder has none.

    Raises:
        InputRefused: the content is not what uvmerge writes.
    """
    content = read(folder)
    if content is None:
        return None
    refuse_changed(folder / NAME, content)
    for name in content["files"]:
        inside(folder, name)
    return content


def refuse_changed(path: Path, content: Mapping[str, Any]) -> None:
    """Refuse the content of a manifest that uvmerge did not write, or not like this."""
    if not _is_manifest(content):
        raise InputRefused(path, "is not a manifest as uvmerge writes it")
    if content.get(HASH) != _own_hash(content):
        raise InputRefused(path, "was changed after uvmerge wrote it")


def role_of(checkpoint: Checkpoint, content: Mapping[str, Any]) -> str | None:
    """The role that a checkpoint had in the run of a manifest; None where it was no input of it.

    Of inputs that are the same, the mirrored one counts first.
    """
    inputs = content.get("inputs")
    if not isinstance(inputs, dict) or not inputs:
        return None
    known, own = content.get("samples"), mirrored(inputs)
    digest = sample_digest(checkpoint)
    for role in (own, *(role for role in inputs if role != own)):
        identity = inputs[role] if isinstance(inputs[role], dict) else {}
        if checkpoint.commit is not None and identity.get("commit") == checkpoint.commit:
            return role
        same_files = identity.get("files") == checkpoint.identity()["files"]
        if same_files and isinstance(known, dict) and known.get(role) == digest:
            return role
    return None


def made_from(checkpoint: Checkpoint) -> tuple[str, ...]:
    """The labels of the inputs from which uvmerge wrote the weights of a checkpoint.

    Empty where uvmerge did not write them, or where they were written to since.
    """
    folder = checkpoint.on_disk()
    try:
        content = read_checked(folder)
    except InputRefused:
        return ()
    inputs = (content or {}).get("inputs")
    if content is None or not isinstance(inputs, dict):
        return ()
    written = (folder / NAME).stat().st_mtime_ns
    for name in checkpoint.headers:
        path, identity = folder / name, content["files"].get(name)
        if identity is None or path.stat().st_size != identity["bytes"]:
            return ()
        if path.stat().st_mtime_ns > written and file_identity(path) != identity:
            return ()
    return tuple(
        str(each["reference"])
        for each in inputs.values()
        if isinstance(each, dict) and "reference" in each
    )


def _is_manifest(content: Mapping[str, Any]) -> bool:
    """Whether what other modules read of a manifest has the types that uvmerge writes."""
    files, edited, reset = (content.get(key) for key in ("files", "edited", "reset"))
    return (
        isinstance(files, dict)
        and all(map(_is_identity, files.values()))
        and isinstance(edited, dict)
        and all(map(is_record, edited.values()))
        and isinstance(content.get("recipe"), dict)
        and all(map(_are_texts, (reset, content.get("notes"))))
    )


def _is_identity(value: object) -> bool:
    """Whether a value is like those of `file_identity`."""
    return (
        isinstance(value, dict)
        and type(value.get("bytes")) is int
        and isinstance(value.get("xxh3_128"), str)
    )


def is_record(value: object) -> bool:
    """Whether a value has the keys and types of the record of a matrix."""
    return (
        isinstance(value, dict)
        and {"changed", "relative_change"} <= value.keys() <= _RECORD.keys()
        and all(type(entry) in _RECORD[key] for key, entry in value.items())
        and 0 <= value["relative_change"] < math.inf
    )


def _are_texts(values: object) -> bool:
    return isinstance(values, list) and all(isinstance(value, str) for value in values)


def _own_hash(content: Mapping[str, Any]) -> str:
    """xxh3-128 of a manifest without its hash."""
    rest = {key: value for key, value in content.items() if key != HASH}
    return xxhash.xxh3_128_hexdigest(json.dumps(rest, separators=(",", ":")).encode())


def made_by_uvmerge(folder: Path) -> bool:
    """Whether uvmerge wrote everything in `folder`: every file has the size and hash in the manifest."""
    try:
        content = read(folder)
    except InputRefused:
        return False
    if content is None or content.get(HASH) != _own_hash(content):
        return False
    files = content.get("files")
    if not isinstance(files, dict):
        return False
    written: set[Path] = set()
    for path in (p for p in folder.rglob("*") if p.is_file()):
        name = path.relative_to(folder).as_posix()
        if name != NAME and (path.is_symlink() or files.get(name) != file_identity(path)):
            return False
        written |= {path, *path.parents}
    return all(path in written for path in folder.rglob("*"))


def file_identity(path: Path) -> dict[str, Any]:
    """`bytes` and `xxh3_128` of a file, as the manifest holds them."""
    with path.open("rb") as file:
        return stream_identity(file)


def bytes_identity(content: bytes) -> dict[str, Any]:
    """`file_identity` of a file with this content."""
    return {"bytes": len(content), "xxh3_128": xxhash.xxh3_128_hexdigest(content)}


def stream_identity(file: BinaryIO) -> dict[str, Any]:
    """`file_identity` of an open file, from where it stands to its end."""
    digest, size_bytes = xxhash.xxh3_128(), 0
    while chunk := file.read(1 << 20):
        digest.update(chunk)
        size_bytes += len(chunk)
    return {"bytes": size_bytes, "xxh3_128": digest.hexdigest()}


def to_bytes(data: dict[str, Any]) -> bytes:
    """`data` as indented JSON in UTF-8, ending with a newline."""
    # A lone half of a surrogate pair becomes its escape, which JSON reads again.
    return (json.dumps(data, indent=2, ensure_ascii=False) + "\n").encode(errors="backslashreplace")


def write_whole(path: Path, content: bytes) -> None:
    """Write a file so that it is never there in part: beside its place, then renamed."""
    with Tree.at(path.parent) as folder:
        folder.write_whole(path.name, content)
