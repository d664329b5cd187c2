"""Every command as one Python call; the command line is a layer of click around this module.

    uvmerge.restore(base, finetuned, out, top=0.2)
    uvmerge.run("recipe.yaml", out)

The flow: references → checkpoints → plan → checks → engine → writer → published folder.
"""

from __future__ import annotations

import inspect
import os
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, fields, replace
from functools import cache
from pathlib import Path
from typing import Any, Literal, TypedDict

from ..checkpoint.folder import Checkpoint
from ..checkpoint.pickled import load_pickles
from ..checkpoint.roles import mirrored, spelled
from ..checkpoint.selection import Selection
from ..engine.crew import available_memory
from ..engine.local import jobs, run as run_plans
from ..engine.progress import Progress
from ..engine.settings import Control, Phases, Settings
from ..errors import InputRefused, Interrupted, RunFailed, UsageError, listed
from ..hub import locate as hub
from ..operations import Operation
from ..output import manifest, writer
from ..output.sidefiles import SideFile, runs_code, side_files
from ..plan import planner as planning, preflight
from ..plan.steps import Plan
from ..recipe.recipe import Recipe, RecipeStep
from ..text import duration, parse_size, size

Reference = str | Path


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


class RunOptions(TypedDict, total=False):
    """The keywords that every operation and `run` take beside their own.

    device: `auto`, `cpu`, `cuda` or `cuda:N`.  precision: `exact` or `fast`.
    dtype: `keep`, `bfloat16`, `float16` or `float32`.  max_shard_size: `5GB`; None mirrors.
    overwrite: replace a non-empty OUT.  force: go on although the pair looks unrelated.
    nonfinite: `refuse` or `copy` matrices with NaN or Inf.  allow_pickle: read `.bin` weights.
    dry_run: plan only.  workers: matrices at once, 0 for one per core.  quiet: no progress.
    memory: `8GiB`, what all edits together may use; None is half of what is free.
    factors: a folder in which decompositions are kept, for later runs on the same matrices.
    report: a folder for a report of base, fine-tuned and OUT, measured after the run.
    """

    device: str
    precision: Literal["exact", "fast"]
    dtype: str
    max_shard_size: str | int | None
    overwrite: bool
    force: bool
    nonfinite: Literal["refuse", "copy"]
    allow_pickle: bool
    dry_run: bool
    workers: int
    memory: str | int | None
    factors: Reference | None
    report: Reference | None
    quiet: bool
    progress: Progress | None
    control: Control | None


class FilterOptions(RunOptions, total=False):
    """`RunOptions`, and the filters of one step except `layers`, which an operation may own."""

    modules: str | Sequence[str] | None
    include: Sequence[str]
    exclude: Sequence[str]


class StepOptions(FilterOptions, total=False):
    """Every keyword that all operations share."""

    layers: str | Sequence[int] | None


def operate(
    operation: Operation, references: Mapping[str, Reference], out: Reference, **options: Any
) -> Result:
    """Run one operation.

    Args:
        references: its checkpoints by role, as `Operation.assign` gives them.
        options: its own, the selection's, and those of `RunOptions`.
    """
    shared = {key: options.pop(key) for key in RunOptions.__annotations__ if key in options}
    step = RecipeStep.parse(operation.command, options)
    return _run_one(Recipe((step,)), references, out, **shared)


def run(
    recipe: Recipe | Reference | Mapping[str, Any],
    out: Reference,
    *,
    base: Reference | None = None,
    finetuned: Reference | None = None,
    models: Sequence[Reference] = (),
    device: str = "auto",
    precision: Literal["exact", "fast"] = "exact",
    dtype: str = "keep",
    max_shard_size: str | int | None = None,
    overwrite: bool = False,
    force: bool = False,
    nonfinite: Literal["refuse", "copy"] = "refuse",
    allow_pickle: bool = False,
    dry_run: bool = False,
    workers: int = 0,
    memory: str | int | None = None,
    factors: Reference | None = None,
    report: Reference | None = None,
    quiet: bool = True,
    progress: Progress | None = None,
    control: Control | None = None,
) -> Result:
    """Run a recipe on a pair of checkpoints and publish the result at `out`.

    Args:
        recipe: a `Recipe`, the path of a recipe file, or what such a file holds, as a dict.
        base, finetuned, models: references that replace those of the recipe.
        control: lets the caller stop the run; what is finished is kept and can be resumed.

    For the other keywords see `RunOptions`. Raises the errors of `uvmerge.errors`.
    """
    given = dict(locals())
    options = {key: given[key] for key in RunOptions.__annotations__}
    recipe = _as_recipe(recipe)
    references = recipe.inputs({"base": base, "finetuned": finetuned, "models": [*models]})
    return _run_one(recipe, references, out, **options)


def _run_one(
    recipe: Recipe, references: Mapping[str, Reference], out: Reference, **options: Any
) -> Result:
    """Run a recipe on checkpoints by role, and report where that is asked for."""
    given = _with_defaults(options)
    report = given["report"]
    if report is not None:
        from . import diff as comparison

        inputs = list(references.values())
        target = comparison.refuse_folder(report, given["overwrite"], inputs, given["factors"])
        writer.check_apart(target, [target_of(out)], "output")
    (result,) = run_all([(recipe, out)], references, **given)
    assert result is not None
    if report is not None and result.out is not None:
        comparison.report_after(recipe, references, result, **given)
    return result


def _with_defaults(options: Mapping[str, Any]) -> dict[str, Any]:
    """`RunOptions`, with the defaults of `run` for those that are not given."""
    defaults = inspect.signature(run).parameters
    return {key: defaults[key].default for key in RunOptions.__annotations__} | dict(options)


def run_all(
    tasks: Sequence[tuple[Recipe, Reference]],
    references: Mapping[str, Reference],
    *,
    keep_same: bool = False,
    **options: Any,
) -> list[Result | None]:
    """Run several recipes on the same checkpoints, each into its OUT, with one decomposition of each
    matrix.

    Args:
        tasks: recipe and OUT of each.
        references: the checkpoints, by role; those in the recipes are not looked at.
        keep_same: leave an OUT alone that is what would be written; its result is None.
        options: see `RunOptions`; the defaults are those of `run`.
    """
    given = _with_defaults(options)
    started, phases = time.monotonic(), Phases()
    dry_run, overwrite = given["dry_run"], given["overwrite"]
    check_precision(given["precision"])
    progress = given["progress"] or Progress(quiet=given["quiet"])
    targets = [target_of(out) for _, out in tasks]
    shard_bytes = _size(given["max_shard_size"], "max-shard-size")
    memory_bytes = _size(given["memory"], "memory") or 0
    factors = factors_of(given["factors"])
    if not dry_run:
        local = [Path(r) for r in references.values() if os.path.isdir(r)]
        _refuse_places(targets, factors, local)
    with ExitStack() as stack:
        with phases.timed("open"):
            checkpoints = _open_all(references, given["allow_pickle"], stack)
        if not dry_run:
            _refuse_places(targets, factors, [c.folder for c in checkpoints.values()])
        with phases.timed("plan"):
            how = (given["dtype"], shard_bytes, given["force"])
            plans = [_plan(recipe, checkpoints, *how) for recipe, _ in tasks]
        needs_torch = any(plan.needs_torch for plan in plans)
        with phases.timed("import"):
            devices = devices_of(given["device"]) if needs_torch else ("cpu",)
        settings = Settings(devices, given["precision"], given["workers"], memory_bytes, factors)
        runs = [_Run(plan, out, target) for plan, (_, out), target in zip(plans, tasks, targets)]
        if dry_run:
            _announce(runs, settings, progress)
            return [Result(None, run.plan) for run in runs]
        todo = [run for run in runs if not (keep_same and _is_there(run, settings))]
        if not todo:
            return [None] * len(runs)
        for each in todo:
            writer.check_out(each.target, overwrite)
        _announce(todo, settings, progress)
        sides = list(side_files(checkpoints[todo[0].plan.own], todo[0].plan))
        for each in todo:
            each.head = _head(each.plan, checkpoints, settings)
            writer.check_unfinished(each.target, each.plan.digest, each.head, overwrite)
        if needs_torch:
            with phases.timed("scan"):
                names = _nonfinite(todo, checkpoints, settings, given["nonfinite"], progress)
                _leave_alone(names, todo, checkpoints, how, progress)
        _refuse_full_disk(todo, sides)
        plans = [each.plan for each in todo]
        stagings = [
            stack.enter_context(writer.staged(each.target, each.plan.digest, each.head, overwrite))
            for each in todo
        ]
        control = given["control"] or Control()
        work = sum(job.work for job in jobs(plans))
        with phases.timed("edit"), progress.bar(work, control), control.listen():
            edits = run_plans(plans, checkpoints, stagings, settings, control, phases)
        if control.stop.is_set():
            raise Interrupted(todo[0].out, control.signal_number)
        refuse_changed_inputs(todo[0].head["inputs"], checkpoints)
        progress.say("verifying")
        for each, staging, record in zip(todo, stagings, edits):
            with phases.timed("publish"):
                kept = _complete(each.plan, checkpoints, staging, settings, record, sides)
            each.result = Result(Path(each.out), each.plan, record, 0.0, kept, phases.seconds)
    seconds = time.monotonic() - started
    return [run.result and replace(run.result, seconds=seconds) for run in runs]


@dataclass
class _Run:
    """One recipe on its way into one OUT."""

    plan: Plan
    out: Reference
    target: Path
    head: dict[str, Any] = field(default_factory=dict)
    result: Result | None = None


def _announce(runs: Sequence[_Run], settings: Settings, progress: Progress) -> None:
    for each in runs:
        if len(runs) > 1:
            progress.say(f"setting {Path(each.out).name}")
        progress.plan(each.plan, settings, available_memory(), _free_bytes(each.target))


def _is_there(run: _Run, settings: Settings) -> bool:
    """Whether OUT holds, whole, what this run would write."""
    return manifest.made_all_of(run.target) and manifest.describes(
        run.target, run.plan, _kept_settings(run.plan, settings)
    )


def _plan(
    recipe: Recipe,
    checkpoints: dict[str, Checkpoint],
    dtype: str,
    shard_bytes: int | None,
    force: bool,
    nonfinite: Sequence[str] = (),
) -> Plan:
    """The plan of one recipe; tensors named in `nonfinite` are left as they are."""
    notes, own = [], mirrored(checkpoints)
    if runs_code(checkpoints[own]):
        notes.append("brings Python files (auto_map): they are copied and never run here")
    if nonfinite:
        names = listed(sorted(nonfinite), "tensor")
        notes.append(f"NaN or Inf, left as {spelled(own)}: {names}")
    plan = planning.build(
        recipe if dtype == "keep" else replace(recipe, dtype=dtype),
        checkpoints,
        max_shard_bytes=shard_bytes,
        force=force,
        left_alone=nonfinite,
        notes=notes,
    )
    if not force:
        preflight.refuse_unrelated(plan, checkpoints)
    return plan


def _size(text: str | int | None, option: str) -> int | None:
    return None if text is None else parse_size(text, option)


def _refuse_places(targets: Sequence[Path], factors: Path | None, inputs: list[Path]) -> None:
    for target in targets:
        writer.check_apart(target, inputs)
        if factors is not None:
            writer.check_apart(factors, inputs)
            writer.check_apart(factors, [target], "output")


def factors_of(folder: Reference | None) -> Path | None:
    """The folder of `--factors`."""
    if folder == "":
        raise UsageError("--factors", "is empty", "Name a folder.")
    return None if folder is None else Path(folder)


def target_of(out: Reference) -> Path:
    """The real path of OUT, links followed."""
    do = "Name a folder that does not exist yet."
    if not str(out):
        raise UsageError("OUT", "is empty", do)
    if "\0" in str(out) or (os.path.islink(out) and not os.path.isdir(out)):
        raise UsageError(out, "is a file", do)
    return Path(os.path.realpath(out))


def _open_all(
    references: Mapping[str, Reference], allow_pickle: bool, stack: ExitStack
) -> dict[str, Checkpoint]:
    """Every checkpoint by role, located or downloaded; closed with `stack`."""
    checkpoints, own = {}, mirrored(references)
    for role, reference in references.items():
        found = hub.locate(reference, weights_only=role != own)
        loader = load_pickles if allow_pickle else None
        opened = Checkpoint.open(
            found.folder, label=found.label, commit=found.commit, load_pickles=loader
        )
        checkpoints[role] = stack.enter_context(opened)
        preflight.refuse_unusable(opened, role)
    return checkpoints


def _as_recipe(recipe: Recipe | Reference | Mapping[str, Any]) -> Recipe:
    if isinstance(recipe, Recipe):
        return recipe
    return Recipe.from_data(recipe) if isinstance(recipe, Mapping) else Recipe.load(recipe)


def check_precision(name: str) -> None:
    """Refuse a precision that is not there."""
    if name not in ("exact", "fast"):
        raise UsageError("precision", f"{name!r} is unknown", "Choose exact or fast.")


def devices_of(device: str) -> tuple[str, ...]:
    """The devices that `--device` means on this machine."""
    from ..engine import reading

    return reading.resolve_devices(device)


def _nonfinite(
    runs: Sequence[_Run],
    checkpoints: Mapping[str, Checkpoint],
    settings: Settings,
    nonfinite: str,
    progress: Progress,
) -> list[str]:
    """Names of the tensors to be edited that hold NaN or Inf; refuses them unless they are copied."""
    from ..engine import compute

    progress.say("looking for NaN and Inf in what will be edited")
    plans = [run.plan for run in runs]
    once = {(step.tensor, step.offset): step for plan in plans for step in plan.edits}
    with compute.editor(plans, checkpoints, settings) as editor:
        names = editor.find_nonfinite(once.values())
    if names and nonfinite != "copy":
        raise InputRefused(
            " and ".join(map(spelled, checkpoints)), f"NaN or Inf in {listed(names, 'tensor')}",
            f"--nonfinite copy leaves them as {spelled(mirrored(checkpoints))}; or restore the"
            " checkpoint that was damaged.",
        )  # fmt: skip
    return names


def _leave_alone(
    names: Sequence[str],
    runs: Sequence[_Run],
    checkpoints: dict[str, Checkpoint],
    how: tuple[str, int | None, bool],
    progress: Progress,
) -> None:
    """Plan anew, without the tensors in `names`, each run that would edit one of them."""
    notes = []
    for run in runs:
        edited = {step.tensor for step in run.plan.edits}
        if mine := [name for name in names if name in edited]:
            run.plan = _plan(run.plan.recipe, checkpoints, *how, mine)
            notes.append(run.plan.notes[-1])
    for note in dict.fromkeys(notes):
        progress.say(f"note: {note}")


def _head(plan: Plan, checkpoints: Mapping[str, Checkpoint], settings: Settings) -> dict[str, Any]:
    """First line of the journal: what must be the same for a run to be resumed."""
    return {
        "plan": plan.digest,
        "inputs": {role: checkpoint.state() for role, checkpoint in checkpoints.items()},
        "versions": manifest.versions(),
        "settings": _kept_settings(plan, settings),
    }


def refuse_changed_inputs(before: Mapping[str, Any], checkpoints: Mapping[str, Checkpoint]) -> None:
    """Fail where an input was saved over during the run: the output would be of two minds."""
    for role, checkpoint in checkpoints.items():
        try:
            same = checkpoint.state() == before[role]
        except OSError:
            same = False
        if not same:
            raise RunFailed(
                f"{role} ({checkpoint.label})", "its files changed while they were being read",
                "Wait until they are final, then start over; --overwrite replaces what was begun.",
            )  # fmt: skip


def _kept_settings(plan: Plan, settings: Settings) -> dict[str, str]:
    if not plan.needs_torch:
        return {"device": "none", "precision": "exact"}
    return {"device": settings.device, "precision": settings.precision}


def _free_bytes(out: Path) -> int:
    return shutil.disk_usage(out.parent if out.parent.is_dir() else ".").free


def _refuse_full_disk(runs: Sequence[_Run], sides: Sequence[SideFile]) -> None:
    wanted = there = 0
    for run in runs:
        copied = sum(os.stat(c).st_size for _, c in sides if isinstance(c, Path))
        wanted += run.plan.bytes_out + copied
        earlier = writer.staging_root(run.target, run.plan.digest).rglob("*")
        there += sum(p.stat().st_blocks * 512 for p in earlier if p.is_file())
    out = runs[0].target
    short = wanted - there - _free_bytes(out)
    if short > 0:
        raise InputRefused(
            out.parent, f"the output needs {size(wanted)} ({wanted:,} bytes), the disk is"
            f" {short:,} bytes short", "Make room, or choose another disk.",
        )  # fmt: skip


def _complete(
    plan: Plan,
    checkpoints: Mapping[str, Checkpoint],
    staging: writer.Staging,
    settings: Settings,
    edits: Mapping[str, Any],
    sides: Sequence[SideFile],
) -> Path | None:
    """Side files, verification, manifest; then OUT is there."""
    card = manifest.card(plan, checkpoints)
    staging.drop_side_files()
    for name, content in [(manifest.CARD, card), *sides]:
        staging.add_side_file(name, content)
    files = staging.verify()
    Checkpoint.open(staging.folder).close()
    record = manifest.build(plan, files, dict(edits), _kept_settings(plan, settings))
    staging.add_side_file(manifest.NAME, manifest.to_bytes(record))
    return staging.publish()


@cache
def function_for(operation: Operation) -> Callable[..., Result]:
    """`uvmerge.restore` and its like: `operate` with the signature and help of one operation."""

    names = (*(operand.name for operand in operation.operands), "out")

    def call(*places: Reference, **options: Any) -> Result:
        named = {name: options.pop(name) for name in names if name in options}
        return operate(operation, *operation.assign(places, named), **options)

    kinds = inspect.Parameter
    positional = [
        kinds(
            operand.name,
            kinds.VAR_POSITIONAL if operand.several else kinds.POSITIONAL_OR_KEYWORD,
            annotation=Reference,
        )
        for operand in operation.operands
    ]
    kind = kinds.KEYWORD_ONLY if operation.takes_several else kinds.POSITIONAL_OR_KEYWORD
    positional.append(kinds("out", kind, annotation=Reference))
    given = inspect.signature(operation.function).parameters
    own = [p for p in given.values() if p.kind is kinds.KEYWORD_ONLY and p.name != "place"]
    selection = [
        kinds(f.name, kinds.KEYWORD_ONLY, default=f.default, annotation=f.type)
        for f in fields(Selection) if f.name not in given
    ]  # fmt: skip
    runs = inspect.signature(run).parameters
    shared = [runs[name] for name in RunOptions.__annotations__]
    call.__name__ = call.__qualname__ = operation.name
    call.__module__ = "uvmerge"
    call.__doc__ = inspect.getdoc(operation.function)
    call.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [*positional, *own, *selection, *shared], return_annotation=Result
    )
    return call
