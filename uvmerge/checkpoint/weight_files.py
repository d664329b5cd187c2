"""Which files of a folder hold weights: those that an index names, the single file, or a variant."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from ..errors import InputRefused
from ..text import brief
from . import header
from .bounded import INDEX_BYTES, is_text, read_json
from .source import Source

SINGLE_FILE = "model.safetensors"
INDEX = "model.safetensors.index.json"
_VARIANT_FILE = re.compile(r"model\.[\w-]+\.safetensors")
_VARIANT_INDEX = re.compile(r"model\.safetensors\.index\.[\w-]+\.json")


def inside(folder: Path, name: str) -> Path:
    """`folder / name`, or `InputRefused` where the name or a link would lead out of the folder.

    File names of an input are mirrored into the output, so a name like `../x` would overwrite
    files of the user. The one way out is a Hub cache snapshot, whose files are links into `blobs`.
    """
    parts = name.split("/")
    if not is_text(name):
        what = f"names the file '{brief(name)}', which is not valid text"
        raise InputRefused(folder, what, "Rename the file in UTF-8.")
    if name.startswith("/") or "\\" in name or "\0" in name or {"..", ".", ""} & set(parts):
        raise InputRefused(
            folder,
            f"names the file '{brief(name)}', which may lie outside the folder",
            "Do not use this checkpoint, or repair its index.",
        )
    try:
        if any(len(os.fsencode(part)) > 255 for part in parts):
            raise ValueError("too long")
        root, target = folder.resolve(), (folder / name).resolve()
    except (OSError, RuntimeError, ValueError):  # too long, a loop of links, not encodable
        raise InputRefused(
            folder, f"names the file '{brief(name)}', which no file can have"
        ) from None
    homes = [root]
    if root.parent.name == "snapshots":
        homes.append(root.parent.parent / "blobs")
    if not any(target.is_relative_to(home) for home in homes):
        raise InputRefused(
            folder,
            f"'{brief(name)}' is a link that leads out of the folder",
            "Copy the file in its place.",
        )
    return folder / name


def weight_files(
    folder: Path, notes: list[str], source_of: Callable[[Path], Source]
) -> tuple[dict[str, str], dict[str, Any] | None]:
    """The files to open, by their name in the checkpoint, and the index if there is one.

    The names differ where the folder holds only a variant (`model.fp16.safetensors`).
    """
    indexes = sorted(path.name for path in folder.glob("*.safetensors.index.json"))
    single = (folder / SINGLE_FILE).exists()
    if len(indexes) > 1 and INDEX not in indexes:
        what = f"has several indexes: {', '.join(indexes)}"
        raise InputRefused(folder, what, "Keep one of them.")
    if not indexes:
        return ({SINGLE_FILE: SINGLE_FILE}, None) if single else _variant(folder, notes)
    name = INDEX if INDEX in indexes else indexes[0]
    index = _read_index(folder, name)
    files = list(dict.fromkeys(index["weight_map"].values()))
    if single and files != [SINGLE_FILE]:
        _check_same_keys(source_of(inside(folder, SINGLE_FILE)), folder, name, index["weight_map"])
        notes.append(f"{SINGLE_FILE} and {name} name the same tensors; {SINGLE_FILE} is used")
        return {SINGLE_FILE: SINGLE_FILE}, None
    return {file: file for file in files}, index


def _read_index(folder: Path, name: str) -> dict[str, Any]:
    """The index `name`, whose weight_map is known to name safetensors files that exist."""
    index = json_file(folder, name, INDEX_BYTES) or {}
    weight_map = index.get("weight_map")
    if not isinstance(weight_map, dict) or not all(isinstance(f, str) for f in weight_map.values()):
        raise InputRefused(folder / name, "has no weight_map from tensor names to file names")
    for file in dict.fromkeys(weight_map.values()):
        path = inside(folder, file)
        if not file.endswith(".safetensors"):
            what = f"names '{brief(file)}', which is not a .safetensors file"
            raise InputRefused(folder / name, what)
        if not path.is_file():
            what = f"the shard {file} is missing"
            raise InputRefused(folder, what, "Download the checkpoint again.")
    return index


def _variant(folder: Path, notes: list[str]) -> tuple[dict[str, str], dict[str, Any] | None]:
    """Like `weight_files`, of the only variant that the folder holds."""
    indexes = [p for p in folder.iterdir() if _VARIANT_INDEX.fullmatch(p.name)]
    singles = [p for p in folder.iterdir() if _VARIANT_FILE.fullmatch(p.name)]
    if len(indexes) + len(singles) != 1:
        return {}, None
    if singles:
        notes.append(f"read as {SINGLE_FILE}: the variant {singles[0].name}")
        return {SINGLE_FILE: singles[0].name}, None
    index = _read_index(folder, indexes[0].name)
    variant = indexes[0].name.split(".")[-2]
    plain = {file: file.replace(f".{variant}", "", 1) for file in index["weight_map"].values()}
    notes.append(f"read as {INDEX}: the variant {indexes[0].name}")
    weight_map = {name: plain[file] for name, file in index["weight_map"].items()}
    return {plain[file]: file for file in plain}, index | {"weight_map": weight_map}


def _check_same_keys(
    single: Source, folder: Path, index_name: str, weight_map: dict[str, str]
) -> None:
    with closing(single) as source:
        names = {entry.name for entry in header.read(source).entries}
    if names != weight_map.keys():
        raise InputRefused(
            folder,
            f"holds both {SINGLE_FILE} ({len(names):,} tensors) and {index_name}"
            f" ({len(weight_map):,} tensors), which differ",
            f"transformers loads {SINGLE_FILE}; vLLM follows the index. Remove the stale one.",
        )


def json_file(folder: Path, name: str, most: int) -> dict[str, Any] | None:
    """The JSON object in a file of at most `most` bytes; None where there is no such file."""
    return read_json(inside(folder, name), most) if (folder / name).exists() else None


def partition(sizes: Sequence[int], most: int) -> list[list[int]]:
    """Consecutive groups of indices whose sizes sum to `most` or less; a larger item is alone."""
    groups: list[list[int]] = []
    filled = math.inf
    for i, size in enumerate(sizes):
        if filled + size > most:
            groups.append([])
            filled = 0
        groups[-1].append(i)
        filled += size
    return groups


def shard_names(count: int) -> list[str]:
    """`model.safetensors`, or `model-00001-of-00003.safetensors` and so on."""
    if count == 1:
        return [SINGLE_FILE]
    return [f"model-{i:05d}-of-{count:05d}.safetensors" for i in range(1, count + 1)]
