"""The phases of a surgery: opened → planned → checked → staged → done.

Each phase takes the results of the phases before it; `run.run_all` calls the phases in turn.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..checkpoint.anatomy import anatomy_of
from ..checkpoint.folder import Checkpoint
from ..checkpoint.roles import mirrored, spelled
from ..checkpoint.ties import equal_tensors
from ..engine.crew import available_memory, refuse_too_large
from ..engine.local import jobs
from ..engine.settings import Control, NonfiniteRefused, Phases, Settings
from ..errors import Interrupted, UsageError, listed
from ..hub.download import Share
from ..hub.ranged import owner_of
from ..output import journal, manifest, writer
from ..output.card import card
from ..output.commands import Command
from ..output.disk import free_bytes
from ..output.lock import lock_of, refuse_held
from ..output.places import Reference, check_all_apart, check_out
from ..output.sidefiles import SideFile, Sides, runs_code, side_files
from ..plan import merges, planner as planning, preflight, words
from ..plan.steps import Plan
from ..recipe.recipe import Recipe
from . import emitting, fetching, storing, vocabularies
from .engines import carried_out
from .estimate import Estimate, estimate
from .heap import collected_later
from .mixing import Mixed
from .opening import opened_for, refuse_changed_inputs, say_folders
from .pinning import input_folders
from .runs import Planned, Run, following, head_of, refuse_full_disk, said_of, sides_for
from .settings import SweepSettings, Watch
from .storing import target_for


class Surgery:
    """The phases of a surgery, with what they share: settings, watch and the clock."""

    def __init__(self, settings: SweepSettings, watch: Watch) -> None:
        self.started = time.monotonic()
        self.settings, self.progress = settings, watch.shown
        self.control = watch.control or Control()
        self.phases = Phases()
        self.references: Mapping[str, Reference] = {}  # by role, as they were named
        self.shares: Mapping[str, Sequence[Share]] = {}  # by role, what is fetched
        self.inputs: Mapping[str, Checkpoint] = {}  # by role, as they were opened
        self.mixed: Mixed | None = None  # the mixture of experts that is written

    @property
    def is_elsewhere(self) -> bool:
        """Whether other machines compute."""
        return self.settings.plan is not None or self.settings.engine == "ray"

    @contextmanager
    def opened(
        self,
        outs: Sequence[Reference],
        references: Mapping[str, Reference],
        recipe: Recipe,
    ) -> Iterator[dict[str, Checkpoint]]:
        """The checkpoints by role, after a check that outputs and inputs do not overlap.

        They have the vocabulary that the recipe asks for.
        """
        self.references = references
        if self.settings.plan is not None:
            storing.refuse_for(outs, "--plan")
        say_folders(references, self.progress)
        targets, factors = [target_for(out) for out in outs], self.settings.factors
        storing.refuse_overlap(outs, references.values())
        if not self.settings.dry_run:
            check_all_apart(targets, factors, input_folders(references.values()))
        with ExitStack() as stack:
            with self.phases.timed("open"), collected_later():
                opening = opened_for(recipe, references, self.settings)
                checkpoints = stack.enter_context(opening)
            if not self.settings.dry_run:
                check_all_apart(targets, factors, [c.on_disk() for c in checkpoints.values()])
            with self.phases.timed("open"):
                checkpoints = vocabularies.aligned(checkpoints, recipe, force=self.settings.force)
            self.inputs = checkpoints
            yield checkpoints

    def planned(
        self, tasks: Sequence[tuple[Recipe, Reference]], checkpoints: dict[str, Checkpoint]
    ) -> Planned:
        """A plan of each task, the side files, and the settings of the engine.

        Everything that headers alone can show to be wrong is refused here. Only a device that is
        named as `cuda` is not looked for where others carry out the plan.
        """
        dtype = self.settings.dtype
        emitting.refuse_options(self.settings)
        if unknown := self.settings.ids.keys() - self.inputs.keys():
            role = min(unknown)
            raise UsageError(f"--{role}-id", f"there is no {role} here", "Leave it out.")
        with self.phases.timed("plan"), collected_later():
            sides = sides_for(tasks[0][0], self.inputs, checkpoints[mirrored(checkpoints)])
            recipes = [
                recipe if dtype == "keep" else replace(recipe, dtype=dtype) for recipe, _ in tasks
            ]
            if dtype == "keep" and (stored := merges.dtype_of_models(checkpoints)):
                recipes = [replace(each, dtype=each.dtype or stored) for each in recipes]
            if layers := self.settings.layer_map:
                recipes = [replace(recipe, layer_map=layers) for recipe in recipes]
            plans = [self._plan(recipe, checkpoints, sides) for recipe in recipes]
        needs_torch = any(plan.needs_torch for plan in plans)
        with self.phases.timed("import"):
            elsewhere = self.is_elsewhere and self.settings.device != "auto"
            computes = needs_torch and not self.settings.dry_run and not elsewhere
            engine = self.settings.computing(needs_torch=computes)
        with self.phases.timed("plan"):
            samples = {} if self.settings.dry_run else manifest.samples(self.inputs)
            self.shares = fetching.of_plans(plans, checkpoints)
        runs = [
            Run(recipe, plan, out, target_for(out), said_of(plan, engine, self.settings), samples)
            for recipe, plan, (_, out) in zip(recipes, plans, tasks, strict=True)
        ]
        return Planned(runs, sides, engine)

    @property
    def fetched(self) -> dict[str, Any]:
        """Figures of what is fetched, by role."""
        return {role: fetching.figures(found) for role, found in self.shares.items()}

    def estimated(self, planned: Planned, checkpoints: Mapping[str, Checkpoint]) -> Estimate:
        """What the runs will take on this machine."""
        engine = self.settings.computing()
        with self.phases.timed("calibrate"):
            return estimate([each.plan for each in planned.runs], checkpoints, engine,
                            planned.runs[0].target)  # fmt: skip

    def announce(self, runs: Sequence[Run], engine: Settings) -> None:
        """Print the plan of each run."""
        for each in runs:
            if len(runs) > 1:
                self.progress.say(f"setting {Path(each.out).name}")
            free = free_bytes(each.target)
            way = words.way(self.references, each.out)
            self.progress.plan(each.plan, way, engine, available_memory(), free)
        fetching.say(self.shares, self.progress)

    def checked(
        self, planned: Planned, checkpoints: Mapping[str, Checkpoint]
    ) -> tuple[list[Run], list[SideFile]]:
        """The runs with final plans and journal heads, and the side files.

        The folders of the outputs are checked here; so are the free space of the disk and the memory
        for the largest edit, unless other machines carry out the plan. Values are looked at while they are edited, or here where a tensor that
        holds NaN or Inf is to be left as it is: then the plan depends on them.
        """
        overwrite = self.settings.overwrite
        runs: Sequence[Run] = planned.runs
        for each in runs:
            check_out(each.target, overwrite)
            storing.check(each, overwrite, self.progress)
            refuse_held(lock_of(each.target))
        self.announce(runs, planned.engine)
        sides = side_files(planned.sides, checkpoints[mirrored(checkpoints)], runs[0].plan)
        runs = [replace(each, head=head_of(each, checkpoints)) for each in runs]
        for each in runs:
            journal.check_unfinished(each.target, each.plan.digest, each.head, overwrite)
        if self.settings.plan is None:
            refuse_full_disk(runs, sides)
        if not self.is_elsewhere:
            refuse_too_large(jobs([each.plan for each in runs]), planned.engine)
        if self.shares and not self.is_elsewhere:
            with self.phases.timed("fetch"):
                fetching.fetch(self.shares, self.progress, self.control)
        if self.settings.factors is not None and any(each.plan.edits for each in runs):
            from ..engine.factors import FactorFolder

            FactorFolder(self.settings.factors, planned.engine.device)  # makes the folder
        if self.settings.nonfinite == "copy" and any(each.plan.edits for each in runs):
            with self.phases.timed("scan"):
                runs = self._scanned(runs, checkpoints, planned)
        return list(runs), sides

    @contextmanager
    def staged(self, runs: Sequence[Run]) -> Iterator[list[writer.Staging]]:
        """The locked staging folder of each run."""
        with ExitStack() as stack:
            yield [
                stack.enter_context(
                    writer.staged(each.target, each.plan.digest, each.head, self.settings.overwrite)
                )
                for each in runs
            ]

    def edited(
        self,
        runs: Sequence[Run],
        checkpoints: Mapping[str, Checkpoint],
        stagings: Sequence[writer.Staging],
        engine: Settings,
    ) -> list[dict[str, Any]]:
        """Write all weight files into the staging folders; returns the records of each run.

        Raises:
            InputRefused: a tensor to edit holds NaN or Inf; the staging folders are removed.
        """
        plans = [each.plan for each in runs]
        work = sum(job.work for job in jobs(plans))
        with (
            carried_out(self, runs, checkpoints, stagings, engine) as carry_out,
            self.phases.timed("edit"),
            self.progress.bar(work, self.control),
            self.control.listen(),
        ):
            try:
                records = carry_out()
            except NonfiniteRefused:  # if the values are still those of the opened files
                refuse_changed_inputs(checkpoints)
                for staging in stagings:
                    staging.discard()
                raise
        if self.control.stop.is_set():
            raise Interrupted(runs[0].out, self.control.signal_number)
        refuse_changed_inputs(checkpoints)
        return records

    def published(
        self,
        run: Run,
        checkpoints: Mapping[str, Checkpoint],
        staging: writer.Staging,
        edits: Mapping[str, Any],
        sides: Sequence[SideFile],
    ) -> Path | None:
        """Add side files and manifest, verify, rename to OUT; returns where an old OUT is."""
        bytes_out = run.plan.bytes_out
        with self.phases.timed("publish"):
            staging.drop_side_files()
            if emission := run.plan.emission:
                hub_id = self.settings.ids.get(emission.against)
                made = emitting.put_together(run.plan, staging, edits, checkpoints, hub_id)
                sides = [*sides, *made]
            text = card(run.plan, self.inputs, run.target.name, self.settings.ids)
            for side in [SideFile.of(manifest.CARD, text), *sides]:
                staging.add_side_file(side.name, side.read)
            with self.progress.phase("verifying", bytes_out) as advance:
                files = staging.verify(advance)
            emitting.refuse_unreadable(staging, run.plan)
            record = manifest.to_bytes(
                manifest.build(run.plan, files, dict(edits), run.said, run.samples)
            )
            staging.add_side_file(manifest.NAME, lambda: record)
            refuse_changed_inputs(checkpoints)
            with self.progress.phase("flushing", bytes_out) as advance:
                return staging.publish(advance)

    def following(self, run: Run, checkpoints: Mapping[str, Checkpoint]) -> tuple[Command, ...]:
        """What to do with the output of a run."""
        return following(run, self.references, checkpoints)

    def _plan(
        self,
        recipe: Recipe,
        checkpoints: Mapping[str, Checkpoint],
        sides: Sides,
        nonfinite: Sequence[str] = (),
    ) -> Plan:
        """The plan of one recipe; tensors named in `nonfinite` are not edited."""
        notes, own = [*preflight.same_files(self.inputs), *sides.notes], mirrored(checkpoints)
        if runs_code(checkpoints[own]):
            notes.append("brings Python files (auto_map): they are copied and never run here")
        if nonfinite:
            notes.append(manifest.nonfinite_note(own, nonfinite))
        if not self.settings.force:
            merges.refuse_twins(self.inputs)
            merges.refuse_other_kinds(self.inputs)
        is_told = recipe.layer_map or (recipe.merge and not recipe.merge.layout.is_whole)
        if not self.settings.force and not is_told:
            preflight.refuse_other_depths(checkpoints)
        unread = [r for r, c in checkpoints.items() if c.is_remote and self.settings.dry_run]
        tied = (
            [] if own in unread else equal_tensors(checkpoints[own], anatomy_of(checkpoints[own]))
        )
        if unread:
            whose = " and ".join(map(spelled, unread))
            owners = dict.fromkeys(owner_of(checkpoints[role].sources.values()) for role in unread)
            notes.append(
                f"values of {whose} are on {' and '.join(owners)} and were not looked at for this plan"
            )
        plan = planning.build(
            recipe,
            checkpoints,
            max_shard_bytes=self.settings.max_shard_size,
            force=self.settings.force,
            left_alone=nonfinite,
            tied=tied,
            notes=notes,
            made=planning.Made(
                emitting.emission_of(self.settings, recipe, checkpoints), self.inputs
            ),
        )
        if self.settings.force or unread:
            return plan
        if strange := preflight.refuse_unrelated(plan, checkpoints):
            self.progress.say(f"warning: {listed(strange, 'sampled matrix', 3)} look unrelated")
        return plan

    def _scanned(
        self,
        runs: Sequence[Run],
        checkpoints: Mapping[str, Checkpoint],
        planned: Planned,
    ) -> list[Run]:
        """The runs, planned anew without tensors that hold NaN or Inf."""
        from ..engine import compute

        self.progress.say("looking for NaN and Inf in the tensors to edit")
        plans = [each.plan for each in runs]
        once = {(step.tensor, step.offset): step for plan in plans for step in plan.edits}
        with compute.editor(plans, checkpoints, planned.engine) as editor:
            names = editor.nonfinite_tensors(once.values())
        notes: list[str] = []
        left: list[Run] = []
        for each in runs:
            edited = {step.tensor for step in each.plan.edits}
            if mine := [name for name in names if name in edited]:
                plan = self._plan(each.recipe, checkpoints, planned.sides, mine)
                notes.append(plan.notes[-1])
                each = replace(each, plan=plan)
            left.append(each)
        for note in dict.fromkeys(notes):
            self.progress.say(f"note: {note}")
        return left
