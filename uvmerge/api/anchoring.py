"""The phases of building an anchor file: opened → planned → checked → computed → published."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import xxhash

from .. import __version__
from ..checkpoint.folder import Checkpoint, Tensor
from ..checkpoint.header import DTYPES
from ..checkpoint.roles import BASE
from ..engine.crew import available_memory, refuse_too_large
from ..engine.settings import Control, NonfiniteRefused, Phases, Settings
from ..errors import InputRefused, Interrupted, counted
from ..hub.download import Share
from ..operations.options import DEFAULT_TOP
from ..output import disk, journal, manifest
from ..output.leftovers import clear_up
from ..output.lock import lock_of, refuse_held
from ..output.places import (
    Reference,
    check_all_apart,
    check_file,
    local_folders,
    made_parents,
    nearest_folder,
    target_of_file,
)
from ..output.single import FileStaging, staged_file
from ..output.writer import CHUNK_BYTES
from ..plan import reads
from ..plan.anchor import AnchorPlan, plan_anchor, working_set
from ..recipe.step import RecipeStep
from ..text import duration, expanded, size
from ..training.anchor_file import NO_HASH, AnchoredMatrix, AnchorFile, is_anchor, metadata, section
from . import fetching
from .anchored import Anchored
from .heap import collected_later
from .opening import opened, refuse_changed_inputs, say_folders, states
from .settings import AnchorSettings, Watch

if TYPE_CHECKING:
    from ..engine.anchoring import Anchoring, Hashes

_UNKNOWN = (NO_HASH, NO_HASH)


@dataclass(frozen=True)
class _Layout:
    """The file in the making.

    Attributes:
        header: the header section.
        factors: (offset, bytes) of the factors of each matrix by name.
    """

    matrices: Mapping[str, AnchoredMatrix]
    header: bytes
    factors: Mapping[str, tuple[int, int]]

    @classmethod
    def of(
        cls,
        plan: AnchorPlan,
        made_with: Mapping[str, str],
        hashes: Mapping[str, Hashes] | None = None,
    ) -> _Layout:
        """The layout of a plan; with `hashes` of all matrices, its header is the final one."""
        matrices = {}
        for step in plan.steps:
            content, factors = hashes[step.name] if hashes is not None else _UNKNOWN
            m, n = step.tensor.shape
            most = min(m, n) - 1 if step.k is None else step.k  # of those that have factors
            matrices[step.name] = AnchoredMatrix(
                step.name, (m, n), max(1, most), most == min(m, n), step.view.transposed,
                step.tensor.dtype, content, factors,
            )  # fmt: skip
        said = metadata(matrices, plan.asked, plan.dtype, __version__, made_with)
        return cls(matrices, *section(matrices, plan.dtype, said))

    @property
    def size_bytes(self) -> int:
        """Of the whole file."""
        return len(self.header) + sum(count for _, count in self.factors.values())


class Build:
    """One call of `anchor_build`, with what its phases share: settings, watch and the clock."""

    def __init__(
        self, base: Reference, out: Reference, settings: AnchorSettings, watch: Watch
    ) -> None:
        self.reference, self.out, self.settings = base, out, settings
        self.target, self.progress = target_of_file(out), watch.shown
        self.control = watch.control or Control()
        self.phases, self.started = Phases(), time.monotonic()

    def run(self, step: RecipeStep) -> Anchored:
        """Plan and, unless it is a dry run or OUT is there already, write.

        Args:
            step: holds at most one of `top`, `rank` and `energy`, and the filters.
        """
        settings = self.settings
        say_folders({BASE: self.reference}, self.progress)
        with self._opened() as base:
            rank = dict(step.options) or {"top": DEFAULT_TOP}
            with self.phases.timed("plan"), collected_later():
                plan = plan_anchor(base, rank, step.selection, DTYPES[settings.dtype])
            engine = settings.computing(needs_torch=not settings.dry_run)
            others = {name: v for name, v in manifest.versions().items() if name != "uvmerge"}
            made_with = {**others, "device": engine.device, "precision": engine.precision}
            layout = _Layout.of(plan, made_with)
            if settings.dry_run:
                self._announce(plan, layout, base, engine)
                return self._result(plan, layout, None)
            if there := self._finished(plan, layout, made_with, base):
                clear_up(self.target, plan.digest)
                return self._result(plan, there, expanded(self.out), was_there=True)
            with made_parents([self.target]):
                head = self._checked(plan, layout, made_with, base, engine)
                with staged_file(self.target, plan.digest, head, settings.overwrite) as staging:
                    plan, layout = self._computed(plan, made_with, base, staging, engine)
                    self._published(layout, base, staging)
        return self._result(plan, layout, expanded(self.out))

    @contextmanager
    def _opened(self) -> Iterator[Checkpoint]:
        """The base, after a check that it and the outputs do not overlap."""
        targets, factors = [self.target], self.settings.factors
        check_all_apart(targets, factors, local_folders([self.reference]))
        with self.phases.timed("open"), collected_later():
            opening = opened({BASE: self.reference}, self.settings, by_ranges=True)
        with opening as checkpoints:
            check_all_apart(targets, factors, [checkpoints[BASE].on_disk()])
            yield checkpoints[BASE]

    def _wanted(self, plan: AnchorPlan, base: Checkpoint) -> dict[str, list[Share]]:
        """What is to be fetched of a base on the Hub."""
        read = reads.of_tensors(BASE, (step.tensor for step in plan.steps))
        return fetching.to_fetch(read, {BASE: base})

    def _announce(
        self, plan: AnchorPlan, layout: _Layout, base: Checkpoint, engine: Settings
    ) -> None:
        say, most = self.progress.say, "at most " if plan.by_energy else ""
        label = plan.inputs[BASE]["reference"]
        say(f"plan: {counted(len(plan.steps), 'matrix')} of {label} anchored")
        say(f"      {plan.words} → out {self.out}")
        free = shutil.disk_usage(nearest_folder(self.target)).free
        written = f"{most}{size(layout.size_bytes)}"
        say(f"      reads {size(plan.bytes_in)}, writes {written} ({size(free)} free)")
        fetching.say(self._wanted(plan, base), self.progress)
        largest = max(working_set(step) for step in plan.steps)
        say(
            f"      largest matrix about {size(largest)} of memory ({size(available_memory())}"
            f" available); {engine.device}, {engine.precision}"
        )
        say(
            f"      about {duration(max(1.0, plan.seconds))} of one core, less where several work at once"
        )
        for note in plan.notes:
            say(f"note: {note}")

    def _finished(
        self, plan: AnchorPlan, layout: _Layout, made_with: Mapping[str, str], base: Checkpoint
    ) -> AnchorFile | None:
        """OUT, where it is the whole file of this call.

        Raises:
            InputRefused: OUT is the file of this call, but not whole; or it is to be replaced and no
                anchor file.
        """
        if self.target.is_symlink() or not self.target.is_file():
            return None
        if self.settings.overwrite:
            if not is_anchor(self.target):
                what = "is no anchor file of uvmerge, and is not replaced"
                raise InputRefused(self.target, what, "Name another file.")
            return None
        try:
            found = AnchorFile.open(self.target)
        except InputRefused:
            return None
        told = (found.selection, found.dtype, found.version, found.made_with)
        is_same = told == (plan.asked, plan.dtype, __version__, made_with)
        if not is_same or not _are_those(found, layout, base, plan):
            return None
        try:
            found.verify()
        except InputRefused as error:
            what = f"is the file of this command, but not whole: {error.what}"
            raise InputRefused(self.target, what, "Pass --overwrite to make it again.") from None
        return found

    def _checked(
        self,
        plan: AnchorPlan,
        layout: _Layout,
        made_with: Mapping[str, str],
        base: Checkpoint,
        engine: Settings,
    ) -> dict[str, Any]:
        """The head of the journal, after what can be refused before a weight is read."""
        from ..engine.anchoring import Task

        check_file(self.target, self.settings.overwrite)
        refuse_held(lock_of(self.target))
        self._announce(plan, layout, base, engine)
        head = {
            "plan": plan.digest, "inputs": states({BASE: base}), "versions": manifest.versions(),
            "settings": dict(made_with),
        }  # fmt: skip
        journal.check_unfinished(self.target, plan.digest, head, self.settings.overwrite)
        if not plan.by_energy:
            earlier = journal.staging_root(self.target, plan.digest)
            there = disk.taken_bytes(earlier.rglob("*"))
            disk.refuse_full(self.target, layout.size_bytes, there)
        refuse_too_large([Task(i, step) for i, step in enumerate(plan.steps)], engine)
        if wanted := self._wanted(plan, base):
            with self.phases.timed("fetch"):
                fetching.fetch(wanted, self.progress, self.control)
        return head

    def _computed(
        self,
        plan: AnchorPlan,
        made_with: Mapping[str, str],
        base: Checkpoint,
        staging: FileStaging,
        engine: Settings,
    ) -> tuple[AnchorPlan, _Layout]:
        """Write the factors, then the header with their hashes; the plan with all ranks, and the
        final layout."""
        from ..engine.anchoring import FILE, Anchoring, Task

        run = Anchoring(base, staging, plan.dtype, engine, self.phases)
        try:
            with (
                self.phases.timed("build"),
                self.progress.bar(plan.work, self.control),
                self.control.listen(),
            ):
                if plan.by_energy:
                    plan = self._ranked(plan, run, base)
                layout = _Layout.of(plan, made_with)
                if plan.by_energy:  # only now is it known how large the file becomes
                    there = disk.taken_bytes([staging.folder / FILE])
                    disk.refuse_full(self.target, layout.size_bytes, there)
                staging.create_file(FILE, layout.header, layout.size_bytes)
                places = ((step, layout.factors.get(step.name, (0, 0))) for step in plan.steps)
                tasks = [Task(i, step, *place) for i, (step, place) in enumerate(places)]
                hashes = run.factors(tasks, self.control)
                self._refuse_stopped(base)
        except NonfiniteRefused:
            refuse_changed_inputs({BASE: base})
            staging.discard()
            raise
        final = _Layout.of(plan, made_with, hashes)
        staging.create_file(FILE, final.header, final.size_bytes)
        return plan, final

    def _ranked(self, plan: AnchorPlan, run: Anchoring, base: Checkpoint) -> AnchorPlan:
        """The plan with the ranks that the singular values decide."""
        ranks = run.ranks(plan.steps, plan.rank["energy"], self.control)
        self._refuse_stopped(base)
        if not any(ranks):
            run.staging.discard()  # nothing that another run could go on from
        ranked = plan.with_ranks(ranks)
        for note in ranked.notes[len(plan.notes) :]:
            self.progress.say(f"note: {note}")
        return ranked

    def _refuse_stopped(self, base: Checkpoint) -> None:
        if self.control.stop.is_set():
            raise Interrupted(self.out, self.control.signal_number)
        refuse_changed_inputs({BASE: base})

    def _published(self, layout: _Layout, base: Checkpoint, staging: FileStaging) -> None:
        """Verify the file and put it at OUT."""
        from ..engine.anchoring import FILE

        with self.phases.timed("publish"):
            with self.progress.phase("verifying", layout.size_bytes) as advance:
                staging.verify(advance)
            AnchorFile.open(staging.folder / FILE)
            refuse_changed_inputs({BASE: base})
            with self.progress.phase("flushing", layout.size_bytes) as advance:
                staging.publish_file(FILE, advance)

    def _result(
        self,
        plan: AnchorPlan,
        made: _Layout | AnchorFile,
        out: Path | None,
        was_there: bool = False,
    ) -> Anchored:
        ranks = {name: matrix.k for name, matrix in made.matrices.items()}
        seconds, total = time.monotonic() - self.started, made.size_bytes
        return Anchored(out, plan, ranks, total, seconds, was_there, self.phases.seconds)


def _are_those(found: AnchorFile, layout: _Layout, base: Checkpoint, plan: AnchorPlan) -> bool:
    """Whether a file anchors these matrices of this base, whose bytes are read."""
    wanted = dict(layout.matrices)
    if plan.by_energy:  # k is not known, and a matrix of zeros is not anchored
        wanted = {
            n: replace(m, k=found.matrices[n].k) for n, m in wanted.items() if n in found.matrices
        }
    if list(found.matrices) != list(wanted):
        return False
    return all(
        (theirs.shape, theirs.k, theirs.dtype) == (ours.shape, ours.k, ours.dtype)
        and theirs.content_hash == _stored_hash(base, base.tensors[name])
        for (name, theirs), ours in zip(found.matrices.items(), wanted.values())
    )


def _stored_hash(base: Checkpoint, tensor: Tensor) -> str:
    """xxh3-128 of the bytes of a tensor, without torch."""
    hasher = xxhash.xxh3_128()
    for at in range(0, tensor.size_bytes, CHUNK_BYTES):
        count = min(CHUNK_BYTES, tensor.size_bytes - at)
        hasher.update(base.read(tensor.file, tensor.offset + at, count))
    return hasher.hexdigest()
