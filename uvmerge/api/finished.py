"""Runs whose OUT is there and whole: they are not done again, and what a kill has left is removed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..checkpoint.folder import Checkpoint
from ..checkpoint.roles import mirrored
from ..errors import InputRefused
from ..output import leftovers
from ..output.finished import Expected, manifest_of
from ..output.sidefiles import side_files
from .runs import Planned, Run, head_of
from .settings import SweepSettings


@dataclass(frozen=True)
class Finished:
    """What is known of a run whose OUT was whole already.

    Attributes:
        edits: what the manifest says of each edited matrix.
        kept: where an old OUT with files of others was moved to; None where there was none.
    """

    edits: Mapping[str, Any]
    kept: Path | None


def finished_runs(
    planned: Planned,
    checkpoints: Mapping[str, Checkpoint],
    settings: SweepSettings,
    keep_same: bool,
) -> dict[Path, Finished]:
    """The runs whose OUT is whole already, by OUT.

    With `overwrite` a run is done again, unless it has published OUT and was killed then.

    Args:
        keep_same: whether also `overwrite` keeps what is whole.

    Raises:
        InputRefused: OUT is the output of a run, but not whole, and not `overwrite`.
    """
    found: dict[Path, Finished] = {}
    for run in planned.runs:
        if settings.overwrite and not keep_same and not _is_published(run, checkpoints):
            continue
        try:
            content = manifest_of(
                run.target, _expected(run, planned, checkpoints, settings), checkpoints
            )
        except InputRefused:
            if settings.overwrite:
                continue
            raise
        if content is not None:
            kept = leftovers.clear_up(run.target, run.plan.digest)
            found[run.target] = Finished(content["edited"], kept)
    return found


def _is_published(run: Run, checkpoints: Mapping[str, Checkpoint]) -> bool:
    return leftovers.is_published(run.target, run.plan.digest, head_of(run, checkpoints))


def _expected(
    run: Run, planned: Planned, checkpoints: Mapping[str, Checkpoint], settings: SweepSettings
) -> Expected:
    sides = side_files(planned.sides, checkpoints[mirrored(checkpoints)], run.plan)
    return Expected(run.plan, run.said, run.samples, sides, settings.nonfinite == "copy")
