"""A plan done by processes that do not speak to each other: `uvmerge.work` and `uvmerge.finish`.

uvmerge.restore(base, finetuned, out, plan="plan.json")
uvmerge.work("plan.json", rank=0, world_size=4)  # and 1, 2, 3, anywhere that sees the same folders
uvmerge.finish("plan.json")
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ..checkpoint.roles import mirrored
from ..engine import shares
from ..engine.crew import refuse_too_large
from ..engine.local import Job, jobs, records_of, refuse_other_edits, run as run_jobs
from ..engine.settings import Control, Phases, Settings
from ..errors import InputRefused, Interrupted, UsageError, counted
from ..output.places import Reference, made_parents
from ..output.ranks import Piece, gathered, ranked
from ..output.sidefiles import side_files
from ..text import duration, two_lines
from . import plan_file
from .finished import finished_runs
from .opening import refuse_changed_inputs
from .plan_file import PlanFile
from .run import Result
from .runs import Planned, Run, sides_for
from .settings import WorkSettings, shows, split_all
from .surgery import Surgery

# Where launchers say which process of how many one is; the last has no word for how many.
_LAUNCHERS = (
    ("RANK", "WORLD_SIZE"),
    ("SLURM_PROCID", "SLURM_NTASKS"),
    ("JOB_COMPLETION_INDEX", ""),
)
MOST_RANKS = 1_000_000


@dataclass(frozen=True)
class Worked:
    """What one rank did.

    Attributes:
        rank, world_size: which rank of how many.
        done: the number of its jobs.
        seconds: wall time.
        phases: seconds by phase, summed over threads.
    """

    rank: int
    world_size: int
    done: int
    seconds: float
    phases: Mapping[str, float] = field(default_factory=dict, repr=False)

    @property
    def summary(self) -> str:
        """What was done, in a sentence."""
        return (
            f"rank {self.rank} of {self.world_size}: {counted(self.done, 'job')} in"
            f" {duration(self.seconds)}"
        )

    def __repr__(self) -> str:
        return two_lines("Worked", f"rank {self.rank} of {self.world_size}", self.summary)

    def __str__(self) -> str:
        return self.summary

    def as_data(self) -> dict[str, Any]:
        """The figures as JSON-able data."""
        return {
            "rank": self.rank, "world_size": self.world_size, "jobs": self.done,
            "seconds": round(self.seconds, 3),
            "phases": {name: round(spent, 3) for name, spent in self.phases.items()},
        }  # fmt: skip


@shows(WorkSettings)
def work(
    file: Reference, *, rank: int | None = None, world_size: int | None = None, **settings: Any
) -> Worked:
    """Do one rank's share of a plan; the output grows in its staging folder.

    Args:
        file: the plan, written by a command or call with `plan`.
        rank: which share, counted from 0; by default what torchrun, srun or a Kubernetes indexed job
            says in the environment (RANK, SLURM_PROCID, JOB_COMPLETION_INDEX).
        world_size: the number of shares; by default WORLD_SIZE or SLURM_NTASKS.
        settings: `workers`, `memory`, `factors`, and `quiet`, `progress`, `control`.

    Raises:
        UsageError: the rank is missing or none of the shares.
        InputRefused: the plan cannot be read, an input or the output is another one than was planned.
    """
    chosen, watch = split_all(WorkSettings, settings)
    rank, world_size = which(rank, world_size)
    planned = plan_file.read(file)
    started, phases = time.monotonic(), Phases()
    control, progress = watch.control or Control(), watch.shown
    with planned.opened() as (_, checkpoints):
        pending = jobs(planned.plans)
        numbers = shares.shares(pending, world_size, planned.costs)[rank]
        share = [pending[number] for number in numbers]
        engine = engine_of(planned, chosen)
        refuse_too_large(share, engine)
        with ExitStack() as stack:
            stack.enter_context(made_parents(run.target for run in planned.runs))
            stagings = [
                stack.enter_context(
                    ranked(
                        run.target, run.plan.digest, run.head, planned.settings.overwrite,
                        rank, world_size,
                    )
                )
                for run in planned.runs
            ]  # fmt: skip
            stack.enter_context(phases.timed("edit"))
            stack.enter_context(progress.bar(sum(job.work for job in share), control))
            stack.enter_context(control.listen())
            run_jobs(planned.plans, checkpoints, stagings, engine, control, phases, share)
        if control.stop.is_set():
            raise Interrupted(planned.path, control.signal_number)
        refuse_changed_inputs(checkpoints)
    return Worked(rank, world_size, len(share), time.monotonic() - started, phases.seconds)


def engine_of(planned: PlanFile, chosen: WorkSettings) -> Settings:
    """How this machine computes a plan, with the plan's precision and kind of device."""
    devices: tuple[str, ...] = ("cpu",)
    if planned.device == "cuda":
        from ..engine.reading import resolve_devices

        devices = resolve_devices("cuda")
    return Settings(
        devices, planned.settings.precision, chosen.workers, chosen.memory or 0, chosen.factors
    )


@shows(WorkSettings)
def finish(file: Reference, **settings: Any) -> list[Result]:
    """Verify and publish what the ranks have written; a result for each output.

    Raises:
        InputRefused: ranks are missing, which are named; or an input is another one now.
        RunFailed: what is read back is not what was written.
    """
    _, watch = split_all(WorkSettings, settings)
    started = time.monotonic()
    planned = plan_file.read(file)
    surgery = Surgery(planned.settings, watch)
    surgery.references = planned.references
    with planned.opened() as (inputs, checkpoints):
        surgery.inputs = inputs
        own = checkpoints[mirrored(checkpoints)]
        sides = sides_for(planned.runs[0].recipe, inputs, own)
        whole = Planned(list(planned.runs), sides, Settings())
        there = finished_runs(whole, checkpoints, planned.settings, keep_same=True)
        todo = [run for run in planned.runs if run.target not in there]
        results: dict[Path, Result] = {}
        for run in todo:
            copied = side_files(sides, own, run.plan)
            overwrite = planned.settings.overwrite
            with gathered(run.target, run.plan.digest, run.head, overwrite) as staging:
                if missing := staging.take(pieces_of(run), run.head):
                    raise _unfinished(planned, run, missing, staging.world_sizes)
                for each in run.plan.files:
                    staging.create_file(each.name, each.header, each.size_bytes)
                record = records_of(staging)
                refuse_other_edits(run.plan, record)
                kept = surgery.published(run, checkpoints, staging, record, copied)
            results[run.target] = Result(
                run.target, run.plan, record, 0.0, kept, False, surgery.phases.seconds,
                surgery.following(run, checkpoints),
            )  # fmt: skip
        for run in planned.runs:
            if found := there.get(run.target):
                results[run.target] = Result(
                    run.target, run.plan, found.edits, kept=found.kept, was_there=True,
                    next=surgery.following(run, checkpoints),
                )  # fmt: skip
    seconds = time.monotonic() - started
    return [replace(results[run.target], seconds=seconds) for run in planned.runs]


def pieces_of(run: Run) -> set[Piece]:
    """Where each piece of an output begins that one job makes."""
    return {(step.file, step.offset) for job in jobs([run.plan]) for step in _ends(job)}


def _ends(job: Job) -> Sequence[Any]:
    return job.steps[:1] if job.action == "copy" else job.steps


def _unfinished(
    planned: PlanFile, run: Run, missing: set[Piece], counts: Sequence[int]
) -> InputRefused:
    """The error for an output of which pieces are missing: which ranks have not done their shares."""
    pending, which_plan = jobs(planned.plans), list(planned.runs).index(run)
    where = {
        (step.file, step.offset): number
        for number, job in enumerate(pending)
        for plan, step in zip(job.plans, _ends(job))
        if plan == which_plan
    }
    lacking = {where[piece] for piece in missing}
    said = []
    for count in counts:
        found = shares.shares(pending, count, planned.costs)
        ranks = [str(rank) for rank, share in enumerate(found) if lacking & set(share)]
        more = ", …" if len(ranks) > 8 else ""
        said.append(f"rank{'s' * (len(ranks) > 1)} {', '.join(ranks[:8])}{more} of {count}")
    words = f"by {'; or '.join(said)}" if said else "as no rank has begun"
    return InputRefused(
        run.out,
        f"{len(missing):,} of {len(where):,} pieces are not written yet, {words}",
        "Let these ranks run (again): uvmerge work PLAN --rank R --world-size N.",
    )


def which(rank: int | None, world_size: int | None) -> tuple[int, int]:
    """The rank and the number of ranks, as given or as a launcher says in the environment.

    Raises:
        UsageError: one of the two is missing, or no rank has this number.
    """
    for rank_name, count_name in _LAUNCHERS:
        if rank is None and rank_name in os.environ:
            rank = _number(rank_name)
            if world_size is None and os.environ.get(count_name):
                world_size = _number(count_name)
    if rank is None or world_size is None:
        what = "--rank" if rank is None else "--world-size"
        raise UsageError(
            what,
            "is not known: no launcher says it in the environment",
            "Name it: --rank 0 --world-size 4 (torchrun and srun set both by themselves).",
        )
    if not 0 < world_size <= MOST_RANKS or not 0 <= rank < world_size:
        raise UsageError(
            "--rank", f"{rank} is no rank of {world_size}", "Ranks count from 0 to world size - 1."
        )
    return rank, world_size


def _number(name: str) -> int:
    text = os.environ[name]
    if not text.isdecimal():
        raise UsageError(name, f"{text[:40]!r} in the environment is no number", "Pass --rank.")
    return int(text)
