"""The runs of a surgery as data: what is planned, and what must be the same for it to be resumed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..checkpoint.folder import Checkpoint
from ..checkpoint.roles import BASE, FINETUNED, mirrored
from ..engine.settings import Settings
from ..output import disk, journal, manifest
from ..output.commands import Command, after_adapter, after_edit
from ..output.places import Reference, is_store
from ..output.sidefiles import SideFile, Sides, sides_of
from ..output.templates import with_chat_template
from ..plan.steps import Plan
from ..recipe.recipe import Recipe
from . import emitting
from .opening import states
from .settings import SweepSettings

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


def sides_for(recipe: Recipe, inputs: Mapping[str, Checkpoint], own: Checkpoint) -> Sides:
    """The side files of an output.

    Args:
        inputs: the checkpoints of the run by role, in which a chat template is looked for.
        own: the checkpoint that the output mirrors.
    """
    sides, merge = sides_of(own), recipe.merge
    if merge is None or merge.chat_template is None:
        return sides
    return with_chat_template(sides, merge.chat_template, inputs.values())


def generates_text(config: Mapping[str, Any]) -> bool:
    """Whether the model of a `config.json` generates text."""
    classes = config.get("architectures")
    named = classes if isinstance(classes, list) else []
    return any(str(each).endswith(GENERATING) for each in named)


def said_of(plan: Plan, engine: Settings, settings: SweepSettings) -> dict[str, str]:
    """The settings that decide the bytes of an output, as the manifest holds them."""
    device = engine.device if plan.needs_torch else "none"
    precision = engine.precision if plan.needs_torch else "exact"
    ids = {f"{role}_id": hub_id for role, hub_id in settings.ids.items()}
    chosen = {"max_shard_size": settings.max_shard_size, "nonfinite": settings.nonfinite}
    others = {k: str(v) for k, v in chosen.items() if v not in (None, "refuse")}
    emit = emitting.said(plan.emission)
    return {"device": device, "precision": precision, **others, **emit, **ids}


def following(
    run: Run, references: Mapping[str, Reference], checkpoints: Mapping[str, Checkpoint]
) -> tuple[Command, ...]:
    """What to do with the output of a run."""
    named = {role: str(reference) for role, reference in references.items()}
    if emission := run.plan.emission:
        return after_adapter(named.get(emission.against), str(run.out))
    is_baseline = all(s.operation.command == "interpolate" for s in run.recipe.steps)
    is_here = not is_store(run.out)
    return after_edit(
        None if is_baseline else named.get(BASE),
        named.get(FINETUNED),
        str(run.out),
        loads=is_here,
        generates=is_here and generates_text(checkpoints[mirrored(checkpoints)].config),
    )
