"""`--emit adapter`: which model an adapter is for, and what of a run is other than for a checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..checkpoint.adapter import Adapter
from ..checkpoint.folder import Checkpoint
from ..checkpoint.header import DTYPES
from ..checkpoint.merged import MergedCheckpoint
from ..checkpoint.roles import BASE, FINETUNED, spelled
from ..errors import UsageError
from ..output import adapter as output
from ..output.sidefiles import SideFile
from ..output.writer import Staging
from ..plan.emission import Emission
from ..plan.steps import Plan
from ..recipe.recipe import Recipe
from .settings import RunSettings, SweepSettings

_ONLY = "only counts with --emit adapter"


def refuse_options(settings: SweepSettings) -> None:
    """Refuse settings that do not go with what is written."""
    plain = type(settings)()
    own = ("adapter_rank", "adapter_error", "adapter_for", "lossy")
    if settings.emit != "adapter":
        given = (name for name in own if getattr(settings, name) != getattr(plain, name))
        if name := next(given, None):
            raise UsageError(f"--{name.replace('_', '-')}", _ONLY, "Add --emit adapter.")
        return
    if settings.max_shard_size is not None:
        what = "does not go with --emit adapter, whose factors are one file"
        raise UsageError("--max-shard-size", what, "Leave it out.")
    if isinstance(settings, RunSettings) and settings.report is not None:
        what = "measures a checkpoint, not an adapter"
        raise UsageError("--report", what, "Use `uvmerge diff BASE OUT` afterwards.")


def emission_of(
    settings: SweepSettings, recipe: Recipe, checkpoints: Mapping[str, Checkpoint]
) -> Emission | None:
    """How the edit of a recipe is written as an adapter; None where the output is a checkpoint."""
    if settings.emit != "adapter":
        return None
    dtype = DTYPES[recipe.dtype] if recipe.dtype else "F32"
    against = _against(settings, recipe, checkpoints)
    first = recipe.steps[0]
    return Emission(
        against, settings.adapter_rank, settings.adapter_error,
        against == BASE and first.operation.starts_from_base(first.options), dtype, settings.lossy,
    )  # fmt: skip


def _against(settings: SweepSettings, recipe: Recipe, checkpoints: Mapping[str, Checkpoint]) -> str:
    """The role of the model that an adapter is for.

    Raises:
        UsageError: there is no such model, or it is itself an adapter.
    """
    finetuned = checkpoints.get(FINETUNED)
    is_merged = isinstance(finetuned, MergedCheckpoint)
    wanted: str = settings.adapter_for
    if wanted == "auto":
        first = recipe.steps[0]
        near_base = first.operation.starts_from_base(first.options) or is_merged
        wanted = BASE if finetuned is None or (near_base and BASE in checkpoints) else FINETUNED
    if wanted not in checkpoints:
        what = f"there is no {spelled(wanted)} model here"
        raise UsageError("--adapter-for", what, f"The models are {', '.join(checkpoints)}.")
    if isinstance(checkpoints[wanted], MergedCheckpoint):
        what = f"{checkpoints[wanted].label} is an adapter: no model has its merged weights"
        raise UsageError("--adapter-for", what, "Write it for the base, or merge it first.")
    return wanted


def said(emission: Emission | None) -> dict[str, str]:
    """The settings of an adapter, as the manifest holds them."""
    if emission is None:
        return {}
    rank = {} if emission.rank is None else {"adapter_rank": str(emission.rank)}
    error = {"adapter_error": repr(emission.error), "adapter_for": emission.against}
    return {"emit": "adapter", **error, **rank, **({"lossy": "true"} if emission.lossy else {})}


def put_together(
    plan: Plan,
    staging: Staging,
    records: Mapping[str, Any],
    checkpoints: Mapping[str, Checkpoint],
    hub_id: str | None,
) -> list[SideFile]:
    """Make the adapter's weight file of what is staged; returns its config.

    Raises:
        InputRefused: the factors hold too little of the edit; the staging folder is removed.
    """
    assert plan.emission is not None
    try:
        output.refuse_misfits(plan, records)
    except BaseException:
        staging.discard()
        raise
    output.assemble(plan, staging, records)
    return [output.config(plan, records, checkpoints[plan.emission.against], hub_id)]


def refuse_unreadable(staging: Staging, plan: Plan) -> None:
    """Open what was written, as a user of the output will."""
    if plan.emission is None:
        Checkpoint.open(staging.folder).close()
    else:
        Adapter.open(staging.folder).source.close()
