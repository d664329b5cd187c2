"""Run recipes on checkpoints, each into its OUT: `uvmerge.run`, and what every operation's call does.

uvmerge.run("recipe.yaml", out)
uvmerge.run({"steps": [{"restore": {"top": 0.2}}]}, out, base=base, finetuned=finetuned)
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ..checkpoint.roles import spelled
from ..output.places import Reference, check_apart, report_folder, target_of
from ..plan.steps import Plan
from ..recipe.recipe import Recipe
from ..text import duration, size
from . import diff
from .settings import RunSettings, SweepSettings, Watch, shows, split_all
from .surgery import Surgery


@dataclass(frozen=True)
class Result:
    """What a run did.

    Attributes:
        out: the published folder; None after a dry run.
        plan: what was planned.
        edits: per edited matrix: k, gap at the cut, method, relative change.
        seconds: wall time.
        kept: where an old, foreign OUT was moved to.
        phases: seconds by phase; `read`, `decompose`, `recombine`, `write` and `copy` are summed
            over threads and lie within `edit`.
    """

    out: Path | None
    plan: Plan = field(repr=False)
    edits: Mapping[str, Any] = field(default_factory=dict, repr=False)
    seconds: float = 0.0
    kept: Path | None = None
    phases: Mapping[str, float] = field(default_factory=dict, repr=False)

    @property
    def summary(self) -> str:
        """What was done, in a sentence."""
        changed = sum(e["changed"] for e in self.edits.values()) + self.plan.counts()["reset"]
        rest = "everything else byte-identical"
        if any(step.action == "convert" for step in self.plan.steps):
            rest = f"everything else converted to {self.plan.recipe.dtype}"
        elif not changed:
            rest = f"the output equals the {spelled(self.plan.own)} checkpoint"
        written = f"{size(self.plan.bytes_out)} written"
        return f"done in {duration(self.seconds)}: {written}, {changed:,} changed, {rest}"

    def as_data(self) -> dict[str, Any]:
        """The result as JSON-able data: the plan after a dry run, else what was done."""
        if self.out is None:
            return self.plan.as_data()
        return {
            "out": str(self.out), **self.plan.counts(), "bytes": self.plan.bytes_out,
            "seconds": round(self.seconds, 3),
            "phases": {name: round(spent, 3) for name, spent in self.phases.items()},
            "edits": dict(self.edits),
            "notes": list(self.plan.notes),
        }  # fmt: skip


@shows(RunSettings)
def run(
    recipe: Recipe | Reference | Mapping[str, Any],
    out: Reference,
    *,
    base: Reference | None = None,
    finetuned: Reference | None = None,
    models: Sequence[Reference] = (),
    **settings: Any,
) -> Result:
    """Run a recipe on checkpoints and publish the result at `out`.

    Args:
        recipe: a `Recipe`, the path of a recipe file, or what such a file holds, as a dict.
        base, finetuned, models: references that replace those of the recipe.
        settings: see docs/options.md; and `quiet`, `progress`, `control` of `Watch`.

    Raises the errors of `uvmerge.errors`.
    """
    chosen, watch = split_all(RunSettings, settings)
    recipe = _as_recipe(recipe)
    references = recipe.inputs({"base": base, "finetuned": finetuned, "models": [*models]})
    return run_one(recipe, references, out, chosen, watch)


def run_one(
    recipe: Recipe,
    references: Mapping[str, Reference],
    out: Reference,
    chosen: RunSettings,
    watch: Watch,
) -> Result:
    """Run a recipe on checkpoints by role, and report what it did where that is asked for."""
    if chosen.report is not None:
        folder = report_folder(
            chosen.report, chosen.overwrite, list(references.values()), chosen.factors
        )
        check_apart(folder, [target_of(out)], "output")
    (result,) = run_all([(recipe, out)], references, chosen, watch)
    assert result is not None
    if chosen.report is not None and result.out is not None:
        diff.report_after(recipe, _pinned(result.plan, references), result.out, chosen, watch)
    return result


def run_all(
    tasks: Sequence[tuple[Recipe, Reference]],
    references: Mapping[str, Reference],
    settings: SweepSettings,
    watch: Watch,
    *,
    keep_same: bool = False,
) -> list[Result | None]:
    """Run several recipes on the same checkpoints, each into its OUT, with one decomposition of each
    matrix.

    Args:
        tasks: recipe and OUT of each.
        references: the checkpoints, by role; those in the recipes are not looked at.
        keep_same: leave an OUT alone that is what would be written; its result is None.
    """
    started = time.monotonic()
    surgery = Surgery(settings, watch)
    with surgery.opened([out for _, out in tasks], references) as checkpoints:
        planned = surgery.planned(tasks, checkpoints)
        if settings.dry_run:
            surgery.announce(planned.runs, planned.engine)
            return [Result(None, each.plan) for each in planned.runs]
        todo = [each for each in planned.runs if not (keep_same and each.is_there())]
        results: dict[Path, Result] = {}
        if todo:
            checked, sides = surgery.checked(replace(planned, runs=todo), checkpoints)
            with surgery.staged(checked) as stagings:
                records = surgery.edited(checked, checkpoints, stagings, planned.engine)
                for each, staging, record in zip(checked, stagings, records, strict=True):
                    kept = surgery.published(each, checkpoints, staging, record, sides)
                    results[each.target] = Result(
                        Path(each.out), each.plan, record, 0.0, kept, surgery.phases.seconds
                    )
    seconds = time.monotonic() - started
    found = (results.get(each.target) for each in planned.runs)
    return [result and replace(result, seconds=seconds) for result in found]


def _as_recipe(recipe: Recipe | Reference | Mapping[str, Any]) -> Recipe:
    if isinstance(recipe, Recipe):
        return recipe
    return Recipe.from_data(recipe) if isinstance(recipe, Mapping) else Recipe.load(recipe)


def _pinned(plan: Plan, references: Mapping[str, Reference]) -> dict[str, Reference]:
    """The references, those of the Hub at the commits that were planned with."""
    return {
        role: f"{it['reference']}@{it['commit']}" if it["commit"] else references[role]
        for role, it in plan.inputs.items()
    }
