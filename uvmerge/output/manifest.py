"""`uvmerge.json` (the manifest) and the model card: what an output says about itself.

Neither file holds a time, an absolute path, a user name or a token, so that the same surgery on the same
inputs writes the same bytes.
"""

from __future__ import annotations

import json
import math
import os
import platform
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import xxhash
import yaml

from ..checkpoint.folder import Checkpoint, inside
from ..checkpoint.header import parse_json
from ..checkpoint.roles import BASE, by_name, spelled
from ..errors import InputRefused, counted, listed
from ..plan.steps import Block, Plan
from ..text import inert

NAME, CARD = "uvmerge.json", "README.md"
FORMAT = 1


def build(
    plan: Plan, files: dict[str, dict[str, Any]], edits: dict[str, Any], settings: dict[str, Any]
) -> dict[str, Any]:
    """The content of `uvmerge.json`.

    Args:
        files: by name, `bytes` and `xxh3_128` of every other file of the output.
        edits: per edited matrix, its record (`docs/output.md`, The record of a matrix).
        settings: device and precision.
    """
    return {
        **_heading(plan, settings),
        "edited": dict(sorted(edits.items())),
        "reset": [step.tensor for step in plan.taken],
        "notes": list(plan.notes),
        "files": dict(sorted(files.items())),
    }


def _heading(plan: Plan, settings: dict[str, Any]) -> dict[str, Any]:
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
        "settings": settings,
        "versions": versions(),
    }


def describes(folder: Path, plan: Plan, settings: dict[str, Any]) -> bool:
    """Whether the manifest in `folder` says that this plan made it, under the same versions.

    Besides the heading, each record of a matrix is compared with the plan. Tensors that hold NaN or
    Inf may lack their records, if a note names them.
    """
    try:
        content = read_checked(folder) or {}
    except InputRefused:
        return False
    heading = _heading(plan, settings)
    return (
        all(content.get(key) == value for key, value in heading.items())
        and content["reset"] == [step.tensor for step in plan.taken]
        and _edits_are_those_of(plan, content)
    )


def _edits_are_those_of(plan: Plan, content: Mapping[str, Any]) -> bool:
    """Whether a manifest has one fitting record for each matrix that the plan edits."""
    edited = content["edited"]
    blocks = {block.view.label: block for step in plan.edits for block in step.blocks}
    left = [s for s in plan.edits if not any(block.view.label in edited for block in s.blocks)]
    if left and nonfinite_note(plan.own, [step.tensor for step in left]) not in content["notes"]:
        return False
    without = {block.view.label for step in left for block in step.blocks}
    if edited.keys() != blocks.keys() - without:
        return False
    return all(_fits(entry, blocks[label]) for label, entry in edited.items())


def _fits(record: Mapping[str, Any], block: Block) -> bool:
    """Whether the steps and the ranks in the record of a matrix are those of the plan."""
    ranks = record.get("k", block.ranks)
    return (
        record.get("steps", list(block.chain)) == list(block.chain)
        and isinstance(ranks, (list, tuple))
        and len(ranks) == len(block.ranks)
        and all(k is None or planned in (None, k) for k, planned in zip(ranks, block.ranks))
    )


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
    return parse_json(path.read_bytes(), str(path), "it") if path.is_file() else None


def read_checked(folder: Path) -> dict[str, Any] | None:
    """The manifest in `folder`, its structure checked; None where the folder has none.

    Raises:
        InputRefused: the content is not what uvmerge writes.
    """
    content = read(folder)
    if content is None:
        return None
    files, edited = content.get("files"), content.get("edited")
    right = (
        isinstance(files, dict)
        and all(isinstance(f, dict) and {"bytes", "xxh3_128"} <= f.keys() for f in files.values())
        and isinstance(edited, dict)
        and all(_is_record(entry) for entry in edited.values())
        and isinstance(content.get("recipe"), dict)
        and all(_are_texts(content.get(key)) for key in ("reset", "notes"))
    )
    if not right:
        raise InputRefused(folder / NAME, "is not a manifest as uvmerge writes it")
    for name in files or ():
        inside(folder, name)
    return content


def _is_record(entry: object) -> bool:
    """Whether an entry can be the record of a matrix."""
    if not isinstance(entry, dict) or type(entry.get("changed")) is not bool:
        return False
    moved = entry.get("relative_change")
    if not isinstance(moved, (int, float)) or isinstance(moved, bool):
        return False
    return 0 <= moved < math.inf


def _are_texts(values: object) -> bool:
    return isinstance(values, list) and all(isinstance(value, str) for value in values)


def is_whole(folder: Path) -> bool:
    """Whether `folder` holds every file that its manifest names, as it was written, and no other."""
    return made_by_uvmerge(folder) and not missing_files(folder)


def missing_files(folder: Path) -> list[str]:
    """Names of the files that the manifest in `folder` names and that are not there."""
    content = read_checked(folder)
    names = content["files"] if content else ()
    return [name for name in names if not (folder / name).is_file()]


def made_by_uvmerge(folder: Path) -> bool:
    """Whether uvmerge wrote everything in `folder`: every file has the size and hash in the manifest."""
    try:
        content = read(folder)
    except InputRefused:
        return False
    files = content.get("files") if content else None
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
    digest, size_bytes = xxhash.xxh3_128(), 0
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
            size_bytes += len(chunk)
    return {"bytes": size_bytes, "xxh3_128": digest.hexdigest()}


def to_bytes(data: dict[str, Any]) -> bytes:
    """`data` as indented JSON in UTF-8, ending with a newline."""
    return (json.dumps(data, indent=2, ensure_ascii=False) + "\n").encode()


def write_whole(path: Path, content: bytes) -> None:
    """Write a file so that it is never there in part: beside its place, then renamed."""
    beside = path.with_name(path.name + ".new")
    try:
        beside.write_bytes(content)
        os.replace(beside, path)
    except OSError:
        beside.unlink(missing_ok=True)
        raise


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
    if licence := _front_matter(own).get("license"):
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
    return " and ".join(f"`{inert(model.label)}`" for model in models)


def _front_matter(checkpoint: Checkpoint) -> dict[str, Any]:
    """The YAML metadata of a checkpoint's model card; empty where none can be read."""
    if CARD not in checkpoint.side_names():
        return {}
    text = checkpoint.side_bytes(CARD).decode(errors="replace")
    parts = text[:65536].split("---\n", 2)
    try:
        data = yaml.safe_load(parts[1]) if len(parts) == 3 and not parts[0].strip() else {}
    except Exception:  # what a wrong value under a YAML tag raises depends on the tag
        return {}
    return data if isinstance(data, dict) else {}
