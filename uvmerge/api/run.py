"""Run recipes on checkpoints: `uvmerge.run`, and what the functions of the operations share.

uvmerge.run("recipe.yaml", out)
uvmerge.run("restore-top20", out, base=base, finetuned=finetuned)
uvmerge.run({"steps": [{"restore": {"top": 0.2}}]}, out, base=base, finetuned=finetuned)
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ..checkpoint.folder import Checkpoint
from ..checkpoint.roles import spelled
from ..checkpoint.stacks import one_name
from ..errors import UsageError, counted
from ..output import adapter
from ..output.commands import Command
from ..output.places import Reference, check_apart, is_store, made_parents, report_folder, target_of
from ..plan import words
from ..plan.arranged import arranged
from ..plan.steps import Plan
from ..recipe.recipe import Recipe
from ..text import duration, expanded, inert, size, two_lines
from . import diff, plan_file, storing, vocabularies
from .engines import refuse_no_engine
from .estimate import Estimate
from .finished import finished_runs
from .recipes import loaded
from .settings import RunSettings, SweepSettings, Watch, shows, split_all
from .surgery import Surgery


@dataclass(frozen=True)
class Result:
    """What a run did.

    Attributes:
        out: the published folder, or its URL in an object store; None after a dry run.
        plan: the plan that was carried out, or only printed.
        edits: by edited matrix: k, gap at the cut, method, relative change (docs/output.md).
        seconds: wall time.
        kept: where an old OUT with files of others was moved to; None where there was none.
        was_there: whether OUT was the whole output of this run already; then nothing was written.
        next: commands to go on with, like `uvmerge check OUT`.
        plan_file: where the plan was written that `work` carries out; None where it was not.
        estimate: what the plan will take on this machine; None where it was not asked for.
        fetched: by role, what was fetched from the Hub, or would be: `bytes`, `of_bytes` (of all its
            weight files), `saved_bytes` and `requests`.
        phases: seconds by phase; `read`, `decompose`, `recombine`, `write` and `copy` are summed
            over threads and lie within `edit`.
    """

    out: Path | str | None
    plan: Plan = field(repr=False)
    edits: Mapping[str, Any] = field(default_factory=dict, repr=False)
    seconds: float = 0.0
    kept: Path | None = None
    was_there: bool = False
    phases: Mapping[str, float] = field(default_factory=dict, repr=False)
    next: tuple[Command, ...] = field(default=(), repr=False)
    fetched: Mapping[str, Any] = field(default_factory=dict, repr=False)
    plan_file: Path | None = None
    estimate: Estimate | None = field(default=None, repr=False)

    def __repr__(self) -> str:
        place = "a plan, nothing was written" if self.out is None else str(self.out)
        done = f"{self.plan.recipe}; .plan" if self.out is None else self.summary
        return two_lines("Result", place, done)

    def __str__(self) -> str:
        return str(self.plan) if self.out is None else f"{self.summary}\n{inert(self.out)}"

    def _repr_html_(self) -> str:
        """Bars of how far each kind of matrix was changed; after a dry run, the plan."""
        if self.out is None:
            return self.plan._repr_html_()
        from .. import report

        changes: dict[str, list[float]] = {}
        for step in self.plan.edits:
            layer, name = step.place.layer, step.tensor
            kind = name if layer is None else one_name(name, layer)
            labels = (block.view.label for block in step.blocks)
            changes.setdefault(kind, []).extend(
                self.edits[label]["relative_change"] for label in labels if label in self.edits
            )
        rows = [(kind, sum(found) / len(found)) for kind, found in changes.items() if found]
        caption = f"{self.out}: {self.summary}. Mean change of the fine-tuned matrix's norm:"
        return report.bars(caption, rows)

    @property
    def adapter(self) -> dict[str, Any]:
        """Of an output that is an adapter, what it holds in all (docs/output.md); else empty."""
        return adapter.summary(self.edits) if self.plan.emission and self.edits else {}

    @property
    def lines(self) -> list[str]:
        """Of an output that is an adapter, a line for each kind of tensor; else none."""
        return list(adapter.rows(self.plan, self.edits)) if self.adapter else []

    @property
    def summary(self) -> str:
        """What was done, in a sentence."""
        if self.was_there:
            return "was there already: the whole output of this command; nothing was written"
        if self.plan.emission is not None:
            return f"done in {duration(self.seconds)}: {adapter.told(self.adapter)}"
        if self.plan.recipe.mixture is not None:
            return f"done in {duration(self.seconds)}: {size(self.plan.bytes_out)} written, {words.summary(self.plan)}"
        edited = sum(entry["changed"] for entry in self.edits.values())
        reset = self.plan.counts()["reset"]
        changed = [f"{edited:,} changed"] if edited or not reset else []
        if reset:
            changed.append(f"{counted(reset, 'tensor')} reset to {self.plan.reset_to}")
        rest = "everything else byte-identical"
        if any(step.action == "convert" for step in self.plan.steps):
            rest = f"everything else converted to {self.plan.recipe.dtype}"
        elif self.plan.recipe.tokenizer is not None:
            rest = "embeddings by the rule for the vocabulary, everything else byte-identical"
        elif not edited + reset and (merge := self.plan.recipe.merge) and merge.layout.has_ranges:
            rest = "every tensor is one of the models', byte for byte"
        elif not edited + reset:
            rest = f"the output equals the {spelled(self.plan.own)} checkpoint"
        written = f"{size(self.plan.bytes_out)} written"
        return f"done in {duration(self.seconds)}: {', '.join([written, *changed, rest])}"

    def as_data(self) -> dict[str, Any]:
        """The result as JSON-able data; after a dry run, the plan."""
        fetched = {"fetched": dict(self.fetched)} if self.fetched else {}
        if self.estimate is not None:
            fetched |= {"estimate": self.estimate.as_data()}
        if self.plan_file is not None:
            return fetched | {"plan_file": str(self.plan_file), **self.plan.counts()}
        if self.out is None:
            return self.plan.as_data() | fetched
        return fetched | {
            "out": str(self.out), **self.plan.counts(), "bytes": self.plan.bytes_out,
            "seconds": round(self.seconds, 3),
            "phases": {name: round(spent, 3) for name, spent in self.phases.items()},
            "edits": dict(self.edits),
            **({"adapter": self.adapter} if self.adapter else {}),
            "notes": list(self.plan.notes), "was_there": self.was_there,
            "next": [command.line for command in self.next],
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
        recipe: a `Recipe`, the content of a recipe file as a dict, or where the file is: its path,
            the name of a bundled recipe, or `org/name/file@revision` on the Hub. The manifest of an
            output is a recipe, too.
        out: the folder of the output, or a prefix in an object store (docs/scale.md).
        base, finetuned, models: references that replace those of the recipe.
        settings: see docs/options.md; and `quiet`, `progress`, `control` of `Watch`.

    Raises:
        UvmergeError: one of its subclasses in `uvmerge.errors`, which says what to do.
    """
    chosen, watch = split_all(RunSettings, settings)
    given = {"base": base, "finetuned": finetuned, "models": [*models]}
    recipe = _as_recipe(recipe, given)
    references = recipe.inputs(given)
    return run_one(recipe, references, out, chosen, watch)


def run_one(
    recipe: Recipe,
    references: Mapping[str, Reference],
    out: Reference,
    chosen: RunSettings,
    watch: Watch,
) -> Result:
    """Run one recipe on checkpoints by role, and write a report where one is asked for."""
    if chosen.report is not None and recipe.merge and not recipe.merge.layout.is_whole:
        what = "compares layers of the same number, and here layers get other numbers"
        raise UsageError("--report", what, "Leave it out.")
    if chosen.report is not None and chosen.plan is not None:
        raise UsageError("--report", "cannot be written of a plan", "Run uvmerge diff afterwards.")
    if chosen.report is not None:
        storing.refuse_for([out], "--report")
        folder = report_folder(
            chosen.report, chosen.overwrite, list(references.values()), chosen.factors
        )
        check_apart(folder, [target_of(out)], "output")
    (result,) = run_all([(recipe, out)], references, chosen, watch)
    assert result is not None
    if chosen.report is not None and isinstance(result.out, Path):
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
    """Run several recipes on the same checkpoints, with one decomposition of each matrix.

    Args:
        tasks: recipes, each with its OUT.
        references: the checkpoints by role; references inside the recipes are ignored.
        keep_same: whether an OUT that already holds the same output is kept even with `overwrite`;
            its result is then None.
    """
    refuse_no_engine(settings)
    surgery = Surgery(settings, watch)
    rule = vocabularies.rule_of(tasks[0][0], settings, references)
    tasks = [(replace(recipe, tokenizer=rule), out) for recipe, out in tasks]
    with surgery.opened([out for _, out in tasks], references, tasks[0][0]) as checkpoints:
        if tasks[0][0].merge is not None:
            recipe, checkpoints = arranged(tasks[0][0], checkpoints)
            tasks = [(recipe, out) for _, out in tasks]
        return run_opened(surgery, tasks, checkpoints, keep_same=keep_same)


def run_opened(
    surgery: Surgery,
    tasks: Sequence[tuple[Recipe, Reference]],
    checkpoints: dict[str, Checkpoint],
    *,
    keep_same: bool = False,
) -> list[Result | None]:
    """`run_all` on checkpoints that are open."""
    started, settings = surgery.started, surgery.settings
    planned = surgery.planned(tasks, checkpoints)
    taken = surgery.estimated(planned, checkpoints) if settings.estimate else None
    if taken is not None and settings.plan is None:
        return [Result(None, each.plan, estimate=taken) for each in planned.runs]
    if settings.dry_run:
        surgery.announce(planned.runs, planned.engine)
        return [Result(None, each.plan, fetched=surgery.fetched) for each in planned.runs]
    if settings.plan is not None:
        with made_parents(each.target for each in planned.runs):
            checked, _ = surgery.checked(planned, checkpoints)
            costs = None if taken is None else taken.job_seconds
            plan_file.write(
                settings.plan, checked, surgery.references, settings, costs, surgery.mixed
            )
        return [
            Result(None, each.plan, plan_file=expanded(settings.plan), estimate=taken)
            for each in checked
        ]
    kept_local = keep_same or any(is_store(out) for _, out in tasks)
    finished = finished_runs(planned, checkpoints, settings, kept_local)
    todo = [each for each in planned.runs if each.target not in finished]
    results: dict[Path, Result] = {}
    if todo:
        with made_parents(each.target for each in todo):
            checked, sides = surgery.checked(replace(planned, runs=todo), checkpoints)
            with surgery.staged(checked) as stagings:
                records = surgery.edited(checked, checkpoints, stagings, planned.engine)
                for each, staging, record in zip(checked, stagings, records, strict=True):
                    kept = surgery.published(each, checkpoints, staging, record, sides)
                    results[each.target] = Result(
                        storing.shown(each.out), each.plan, record, 0.0, kept, False,
                        surgery.phases.seconds,
                        surgery.following(each, checkpoints),
                        surgery.fetched,
                    )  # fmt: skip
    for each in planned.runs if not keep_same else ():
        if there := finished.get(each.target):
            results[each.target] = Result(
                storing.shown(each.out), each.plan, there.edits, kept=there.kept,
                was_there=not is_store(each.out),
                next=surgery.following(each, checkpoints),
            )  # fmt: skip
    for each in (run for run in planned.runs if is_store(run.out)):
        with surgery.phases.timed("send"):
            storing.upload(each, settings.overwrite, surgery.progress, surgery.control)
    seconds = time.monotonic() - started
    found = (results.get(each.target) for each in planned.runs)
    return [result and replace(result, seconds=seconds) for result in found]


def _as_recipe(recipe: Recipe | Reference | Mapping[str, Any], given: Mapping[str, Any]) -> Recipe:
    if isinstance(recipe, Recipe):
        return recipe
    if isinstance(recipe, Mapping):
        return Recipe.from_data(recipe)
    return loaded(recipe, given)


def _pinned(plan: Plan, references: Mapping[str, Reference]) -> dict[str, Reference]:
    """The references; those of the Hub at the commits that the plan was made from."""
    return {
        role: f"{it['reference']}@{it['commit']}" if it["commit"] else references[role]
        for role, it in plan.inputs.items()
    }
