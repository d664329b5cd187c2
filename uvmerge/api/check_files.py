"""What `check` finds in the files of an output, whatever they hold."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..errors import listed
from ..output import manifest


def file_problems(folder: Path, content: dict[str, Any] | None) -> Iterator[str]:
    """Problems of files: missing, of another size or hash, or not written by uvmerge."""
    if content is None:
        return
    for name, expected in content["files"].items():
        path = folder / name
        if not path.is_file():
            yield f"{name} is missing"
            continue
        identity = manifest.file_identity(path)
        if identity["bytes"] != expected["bytes"]:
            yield f"{name} has {identity['bytes']:,} bytes instead of {expected['bytes']:,}"
        elif identity["xxh3_128"] != expected["xxh3_128"]:
            yield f"{name} has other content than was written"
    stray = {path.name for path in folder.glob("*.safetensors")} - content["files"].keys()
    if stray:
        yield f"{listed(sorted(stray), 'weight file')} not written by uvmerge"
