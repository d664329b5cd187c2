"""`uvmerge.json` (the manifest) and the model card: what an output says about itself.

Neither file holds a time, an absolute path, a user name or a token, so that the same surgery on the same
inputs writes the same bytes.
"""

from __future__ import annotations

import json
import math
import platform
import re
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, BinaryIO

import xxhash
import yaml

from ..checkpoint.bounded import MANIFEST_BYTES, read_json
from ..checkpoint.folder import Checkpoint, inside
from ..checkpoint.roles import BASE, by_name, spelled
from ..checkpoint.sample import sample_digest
from ..errors import InputRefused, RecipeError, counted, listed
from ..plan.steps import Plan
from ..recipe.reader import Reader, compose
from ..text import as_code, inert
from .tree import Tree

NAME, CARD = "uvmerge.json", "README.md"
FORMAT = 1
HASH = "content_xxh3_128"
# Of a card, this much of its start is looked at, and of the lines of its licence.
CARD_BYTES, LICENCE_BYTES = 16 << 20, 64 << 10
_FRONT = re.compile(rb"\s*---\n(.*?\n)---\n", re.DOTALL)
_LICENCE = re.compile(rb"^license:.*\n(?:[ \t-].*\n)*", re.MULTILINE)
# What the record of a matrix may hold; `changed` and `relative_change` are always there.
_RECORD: dict[str, tuple[type, ...]] = {
    "changed": (bool,), "relative_change": (int, float), "zero": (bool,), "device": (str,),
    "steps": (list,), "k": (list,), "gap": (dict,), "method": (list,),
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
    return content | {HASH: _own_hash(content)}


def _heading(plan: Plan, settings: Mapping[str, str], samples: Mapping[str, str]) -> dict[str, Any]:
    """The part of the manifest that determines the bytes of an output."""
    recipe = plan.recipe.as_data()
    references = {
        role: f"{identity['reference']}@{commit}"
        if (commit := identity["commit"])
        else identity["reference"]
        for role, identity in plan.inputs.items()
    }
    recipe |= by_name(references)
    return {
        "format": FORMAT,
        "recipe": recipe,
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
    for package in ("uvmerge", "torch"):
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
    if not _is_manifest(content):
        raise InputRefused(folder / NAME, "is not a manifest as uvmerge writes it")
    if content.get(HASH) != _own_hash(content):
        raise InputRefused(folder / NAME, "was changed after uvmerge wrote it")
    for name in content["files"]:
        inside(folder, name)
    return content


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


def card(plan: Plan, checkpoints: Mapping[str, Checkpoint]) -> bytes:
    """The model card of the output, with the Hub's metadata.

    Args:
        checkpoints: by role. The card names the one that the output mirrors first.
    """
    own = checkpoints[plan.own]
    models = [own, *(other for role, other in checkpoints.items() if role != plan.own)]
    metadata = {
        "base_model": [model.label for model in models],
        "base_model_relation": "merge",
        "library_name": "transformers",
        "tags": [
            "uvmerge",
            "merge",
            *(f"uvmerge-{s.operation.command}" for s in plan.recipe.steps),
        ],
    }
    if licence := _licence(own):
        metadata["license"] = licence
    converted = any(s.action == "convert" for s in plan.steps)
    rest = f"converted to {plan.recipe.dtype}" if converted else "copied byte for byte"
    local = [model for model in checkpoints.values() if model.commit is None]
    count = plan.counts()
    the_source = "the base" if plan.reset_to == BASE else plan.reset_to
    kind = "Repaired" if _only_edits(plan) else "Merged"
    steps = {"steps": plan.recipe.as_data()["steps"]}
    lines = [
        "---", yaml.safe_dump(metadata, sort_keys=False).strip(), "---", "",
        f"# {inert(plan.recipe.name or f'{kind} checkpoint')}", "",
        *([inert(plan.recipe.description), ""] if plan.recipe.description else []),
        f"{_how_made(plan, models)} with uvmerge:",
        f"{counted(count['edited'], plan.edited_kind)} edited, {counted(count['reset'], 'tensor')} reset to"
        f" {the_source}, {counted(count['copied'], 'tensor')} {rest}.", "",
        "```yaml", yaml.safe_dump(steps, sort_keys=False).strip(), "```", "",
        f"`{NAME}` holds the inputs, the rank of every edit, and a hash of every file;"
        " `uvmerge check` verifies them.",
    ]  # fmt: skip
    if local:
        names = _quoted(local)
        lines += [
            "",
            f"{names} came from local folders: before publishing, put their Hub ids into"
            " `base_model` above.",
        ]
    return ("\n".join(lines) + "\n").encode()


def _how_made(plan: Plan, models: Sequence[Checkpoint]) -> str:
    """How the output was made: `sft` after surgery towards `base`, say, or models merged."""
    own, *others = models
    if not others:
        return f"{_quoted(models)} after surgery"
    if _only_edits(plan):
        return f"{_quoted([own])} after surgery towards {_quoted(others)}"
    return f"{_quoted(models)} merged"


def _only_edits(plan: Plan) -> bool:
    """Whether one checkpoint is edited, and none made of several."""
    return all(step.operation.edits for step in plan.recipe.steps)


def _quoted(models: Sequence[Checkpoint]) -> str:
    return " and ".join(as_code(model.label) for model in models)


def _licence(checkpoint: Checkpoint) -> str | list[str] | None:
    """The licence in the metadata of a checkpoint's model card: a text or several.

    Of the metadata, which strangers write, the lines of this key alone are parsed, by the strict
    reader of recipes.
    """
    if CARD not in checkpoint.side_names():
        return None
    start = checkpoint.side_start(CARD, CARD_BYTES).replace(b"\r\n", b"\n")
    front = _FRONT.match(start)
    lines = front and _LICENCE.search(front[1])
    if not lines:
        return None
    try:
        (found,) = Reader(CARD).mapping(compose(lines[0][:LICENCE_BYTES], CARD)).values()
        value = Reader(CARD).value(found.value)
    except RecipeError:
        return None
    texts = value if isinstance(value, list) else [value]
    return value if texts and all(isinstance(text, str) and text for text in texts) else None
