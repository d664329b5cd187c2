"""Steps against the files that they fill: every byte is planned once, and an index names every tensor. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from ..checkpoint.folder import Checkpoint
from ..errors import RunFailed
from .layout import OutputFile
from .steps import Step


def index_of(own: Checkpoint, steps: Sequence[Step]) -> dict[str, Any]:
    """A new index, for an output that the mirrored checkpoint's index does not fit."""
    metadata = {
        "total_parameters": sum(math.prod(t.shape) for t in own.tensors.values()),
        "total_size": sum(step.size_bytes for step in steps),
    }
    return {"metadata": metadata, "weight_map": dict(sorted((s.tensor, s.file) for s in steps))}


def refuse_gaps(files: Sequence[OutputFile], steps: Sequence[Step]) -> None:
    """Fail unless header and steps cover every byte of every file exactly once."""
    reached = {file.name: len(file.header) for file in files}
    for step in sorted(steps, key=lambda step: step.offset):
        if step.size_bytes and step.offset != reached[step.file]:
            raise RunFailed(
                step.tensor,
                f"is planned at byte {step.offset:,} of {step.file}, where"
                f" {reached[step.file]:,} was to come",
            )
        reached[step.file] += step.size_bytes
    for file in files:
        if reached[file.name] != file.size_bytes:
            raise RunFailed(
                file.name, f"{reached[file.name]:,} of its {file.size_bytes:,} bytes are planned"
            )
