"""Whether OUT already is the whole output of a command: what its manifest says, and what is there."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..checkpoint.composed import ComposedCheckpoint
from ..checkpoint.folder import Checkpoint
from ..checkpoint.merged import MergedCheckpoint
from ..errors import InputRefused
from ..plan.steps import Block, Plan
from . import manifest
from .adapter import NAMES
from .sidefiles import SideFile


@dataclass(frozen=True)
class Expected:
    """What a command would write.

    Attributes:
        settings: device and precision, as the manifest holds them.
        samples: see `manifest.samples`.
        sides: the side files without the card.
        leaves_nonfinite: whether tensors that hold NaN or Inf are left unedited.
    """

    plan: Plan
    settings: Mapping[str, str]
    samples: Mapping[str, str]
    sides: Sequence[SideFile]
    leaves_nonfinite: bool

    def is_described(self, content: Mapping[str, Any]) -> bool:
        """Whether a manifest is that of this output: same inputs, recipe, versions, files, edits."""
        files, adapter = content["files"], self.plan.emission is not None
        weights = {} if adapter else {file.name: file.size_bytes for file in self.plan.files}
        names = {
            *weights,
            *(NAMES if adapter else ()),
            *(side.name for side in self.sides),
            manifest.CARD,
        }
        count = sum(len(step.blocks) for step in self.plan.edits)
        return (
            manifest.is_of(content, self.plan, self.settings, self.samples)
            and files.keys() == names
            and all(files[name]["bytes"] == size for name, size in weights.items())
            and (self.leaves_nonfinite or len(content["edited"]) == count)
            and _edits_are_those_of(self.plan, content)
            and content["reset"] == self.plan.reset
            and all(files[s.name] == manifest.bytes_identity(s.read()) for s in self.sides)
        )


def manifest_of(
    out: Path, expected: Expected, checkpoints: Mapping[str, Checkpoint]
) -> dict[str, Any] | None:
    """The manifest of OUT if OUT is the whole output that is expected; None if it is another one.

    Raises:
        InputRefused: OUT is that output, but files are missing or were changed.
    """
    try:
        content = manifest.read_checked(out)
    except InputRefused:
        return None
    if content is None or not expected.is_described(content) or _is_newer(checkpoints, out):
        return None
    if wrong := list(_wrong_files(out, content["files"])):
        raise InputRefused(
            out,
            f"is the output of this command, but not whole: {_listed(wrong)}",
            "Pass --overwrite to make it again.",
        )
    return content


def _edits_are_those_of(plan: Plan, content: Mapping[str, Any]) -> bool:
    """Whether a manifest has one fitting record for each matrix that the plan edits."""
    edited = content["edited"]
    blocks = {block.view.label: block for step in plan.edits for block in step.blocks}
    left = [s for s in plan.edits if not any(block.view.label in edited for block in s.blocks)]
    if (
        left
        and manifest.nonfinite_note(plan.own, [step.tensor for step in left])
        not in content["notes"]
    ):
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


def _is_newer(checkpoints: Mapping[str, Checkpoint], out: Path) -> bool:
    """Whether a local input was written to after OUT was made."""
    made = (out / manifest.NAME).stat().st_mtime_ns
    return any(_written_ns(each) > made for each in checkpoints.values())


def _written_ns(checkpoint: Checkpoint) -> int:
    """When a local file was last written that a checkpoint's tensors come from; 0 where none is local."""
    if isinstance(checkpoint, ComposedCheckpoint):
        return max(map(_written_ns, checkpoint.parents))
    if isinstance(checkpoint, MergedCheckpoint):
        adapter = checkpoint.adapter
        own = 0 if adapter.commit else adapter.source.state.mtime_ns
        return max(own, _written_ns(checkpoint.base))
    if checkpoint.commit is not None:
        return 0
    local = (source for source in checkpoint.sources.values() if not source.is_remote)
    return max((source.state.mtime_ns for source in local), default=0)


def _wrong_files(folder: Path, files: Mapping[str, Any]) -> Iterator[str]:
    """What is wrong with the files that a manifest names."""
    for name, identity in files.items():
        path = folder / name
        if path.is_symlink() or not path.is_file():
            yield f"{name} is missing"
        elif manifest.file_identity(path) != identity:
            yield f"{name} has other content"


def _listed(wrong: Sequence[str]) -> str:
    return "; ".join(wrong[:3]) + (f"; and {len(wrong) - 3:,} more files" if wrong[3:] else "")
