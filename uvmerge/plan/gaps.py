"""Whether the steps of a plan make every byte of its files, each once. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from ..errors import RunFailed
from .layout import OutputFile
from .steps import Step


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
