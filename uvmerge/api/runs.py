"""The runs of a surgery as data: what is planned, and what must be the same for it to be resumed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..checkpoint.folder import Checkpoint
from ..engine.settings import Settings
from ..output import disk, journal, manifest
from ..output.places import Reference
from ..output.sidefiles import SideFile, Sides
from ..plan.steps import Plan
from ..recipe.recipe import Recipe
from .opening import states

# Ends of the names of classes that generate text.
GENERATING = ("ForCausalLM", "ForConditionalGeneration", "LMHeadModel")


@dataclass(frozen=True)
class Run:
    """One recipe that is run into one OUT.

    Attributes:
        recipe: the recipe, with the dtype and the layer map of the settings.
        target: the real path of OUT.
        said: device, precision and Hub ids, as the manifest holds them.
        samples: hashes of samples of the inputs, as the manifest holds them.
        head: the head of the journal, which must be the same for a run to be resumed.
    """

    recipe: Recipe
    plan: Plan
    out: Reference
    target: Path
    said: dict[str, str]
    samples: dict[str, str]
    head: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Planned:
    """The result of planning: the runs, the side files, and the settings of the engine."""

    runs: list[Run]
    sides: Sides
    engine: Settings


def head_of(run: Run, checkpoints: Mapping[str, Checkpoint]) -> dict[str, Any]:
    """The head of a run's journal."""
    return {
        "plan": run.plan.digest,
        "inputs": states(checkpoints),
        "versions": manifest.versions(),
        "settings": run.said,
    }


def refuse_full_disk(runs: Sequence[Run], sides: Sequence[SideFile]) -> None:
    """Refuse runs for whose outputs together the disk has no room."""
    wanted = there = 0
    for each in runs:
        wanted += each.plan.bytes_out + sum(side.size_bytes for side in sides)
        there += disk.taken_bytes(journal.staging_root(each.target, each.plan.digest).rglob("*"))
    disk.refuse_full(runs[0].target, wanted, there)


def generates_text(config: Mapping[str, Any]) -> bool:
    """Whether the model of a `config.json` generates text."""
    classes = config.get("architectures")
    named = classes if isinstance(classes, list) else []
    return any(str(each).endswith(GENERATING) for each in named)
