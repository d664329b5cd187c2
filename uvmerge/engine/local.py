"""The local engine: threads that copy and edit, within a memory budget."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import xxhash

from ..checkpoint.folder import Checkpoint
from ..checkpoint.roles import spelled
from ..errors import RunFailed, listed
from ..output.writer import CHUNK_BYTES, Staging
from ..plan.steps import Plan, Range, Step
from .crew import Crew
from .settings import Control, NonfiniteOperand, NonfiniteRefused, Phases, Settings

if TYPE_CHECKING:
    from .compute import Editor

COPY_RUN_BYTES = 64 << 20  # adjacent copies are joined up to this size


@dataclass(frozen=True)
class Job:
    """Steps done in one go: edits of one tensor under several plans, or adjacent copies of one plan.

    Attributes:
        plans: the number of each edit's plan; of copies, the one number of their plan.
        streams: whether every edit is computed in small pieces.
    """

    steps: tuple[Step, ...]
    plans: tuple[int, ...]
    streams: bool = False

    @property
    def name(self) -> str:
        return self.steps[-1].tensor

    @property
    def action(self) -> str:
        return self.steps[0].action

    @property
    def offset(self) -> int:
        return self.steps[0].offset

    @property
    def place(self) -> tuple[bool, int, str, int]:
        return self.action == "edit", self.plans[0], self.steps[0].file, self.offset

    @property
    def size_bytes(self) -> int:
        return sum(step.size_bytes for step in self.steps)

    @property
    def memory_bytes(self) -> int:
        """Working set: the matrices of one edit, and the result of each further one.

        It is 0 of copies, and of edits in small pieces.
        """
        if self.action != "edit" or self.streams:
            return 0
        most = max(step.matrix_bytes for step in self.steps)
        return most + sum(step.result_bytes for step in self.steps[1:])

    @property
    def work(self) -> float:
        if self.action == "edit":
            return self.steps[0].work + sum(s.size_bytes * 1e-3 for s in self.steps[1:])
        return sum(step.work for step in self.steps)


def jobs(plans: Sequence[Plan]) -> list[Job]:
    """The steps of all plans as jobs: copies in output order, then edits and conversions.

    How steps are grouped depends on the plans alone.
    """
    copies: list[Job] = []
    edits: dict[tuple[str, str, int, int], list[tuple[int, Step]]] = {}
    for number, plan in enumerate(plans):
        group: list[Step] = []
        filled = 0
        for step in plan.steps:
            if step.size_bytes == 0:
                continue
            if step.action == "edit":
                key = (step.tensor, step.file, step.offset, step.size_bytes)
                edits.setdefault(key, []).append((number, step))
                continue
            adjoins = group and _adjoins(group[-1], step)
            if group and not (adjoins and filled + step.size_bytes <= COPY_RUN_BYTES):
                copies.append(Job(tuple(group), (number,)))
                group, filled = [], 0
            group.append(step)
            filled += step.size_bytes
        if group:
            copies.append(Job(tuple(group), (number,)))
    together = [
        Job(
            tuple(s for _, s in found),
            tuple(n for n, _ in found),
            all(plans[number].streams(step) for number, step in found),
        )
        for found in edits.values()
    ]
    return [*copies, *together]


def run(
    plans: Sequence[Plan],
    checkpoints: Mapping[str, Checkpoint],
    stagings: Sequence[Staging],
    settings: Settings,
    control: Control,
    phases: Phases,
    share: Sequence[Job] | None = None,
) -> list[dict[str, Any]]:
    """Write every weight file of each plan into its staging folder.

    The run stops early, without an error, when `control.stop` is set.

    Args:
        share: the jobs to do, some of `jobs(plans)`; by default all.

    Returns:
        Per plan, the records of its edited matrices, by label.

    Raises:
        InputRefused: lists the tensors to edit whose operands hold NaN or Inf. Operands are looked at
            as they are loaded; after the first such tensor the others are only looked at.
        RunFailed: a tensor could not be edited, or what was edited is not what was planned.
    """
    create_files(plans, stagings)
    with worker_for(plans, checkpoints, stagings, settings, phases) as worker:
        pending = jobs(plans) if share is None else share
        Crew(worker.do, worker.prepare_thread, settings, control).work_off(
            [job for job in pending if job.action == "copy"],
            [job for job in pending if job.action != "copy"],
        )
    if not control.stop.is_set():
        if worker.nonfinite:
            raise nonfinite_refusal(plans, worker.nonfinite)
        if share is None:
            return records_of_all(plans, stagings)
    return [records_of(staging) for staging in stagings]


@contextmanager
def worker_for(
    plans: Sequence[Plan],
    checkpoints: Mapping[str, Checkpoint],
    stagings: Sequence[Staging],
    settings: Settings,
    phases: Phases,
) -> Iterator[_Worker]:
    """What does jobs of these plans, in any thread that it has prepared."""
    with ExitStack() as stack:
        editor = None
        if any(plan.needs_torch for plan in plans):
            from . import compute

            editor = stack.enter_context(compute.editor(plans, checkpoints, settings, phases))
        yield _Worker(checkpoints, stagings, editor, phases)


def create_files(plans: Sequence[Plan], stagings: Sequence[Staging]) -> None:
    """Make every weight file of each plan in its staging folder, with its header."""
    for plan, staging in zip(plans, stagings, strict=True):
        for file in plan.files:
            staging.create_file(file.name, file.header, file.size_bytes)


def records_of_all(plans: Sequence[Plan], stagings: Sequence[Staging]) -> list[dict[str, Any]]:
    """Per plan, the records of its edited matrices, each of which has to have one."""
    records = [records_of(staging) for staging in stagings]
    for plan, record in zip(plans, records, strict=True):
        refuse_other_edits(plan, record)
    return records


def nonfinite_refusal(plans: Sequence[Plan], names: Collection[str]) -> NonfiniteRefused:
    """The error for edits with NaN or Inf in an operand: their tensors, in the order of the plans."""
    ordered = dict.fromkeys(step.tensor for plan in plans for step in plan.edits)
    return NonfiniteRefused(
        " and ".join(map(spelled, plans[0].inputs)),
        f"NaN or Inf in {listed((name for name in ordered if name in names), 'tensor')}",
        f"--nonfinite copy leaves them as {spelled(plans[0].own)}; or restore the checkpoint that"
        " was damaged.",
    )


def records_of(staging: Staging) -> dict[str, Any]:
    """The record of each edited matrix, by its label."""
    found: dict[str, Any] = {}
    for line in staging.journal.values():
        found.update(line.get("record") or {})
    return found


def refuse_other_edits(plan: Plan, record: Mapping[str, Any]) -> None:
    """Fail unless every planned edit has its record, and nothing else has one."""
    planned = {block.view.label for step in plan.edits for block in step.blocks}
    if mismatched := sorted(planned ^ record.keys()):
        raise RunFailed(
            "engine",
            f"what was edited is not what was planned: {listed(mismatched, 'matrix')}",
            "This is a mistake in uvmerge: please report it. Nothing was published.",
        )


class _Worker:
    """Does one job at a time in each of several threads.

    Attributes:
        nonfinite: names of tensors with an edit whose operands hold NaN or Inf. Nothing is published
            once there is one: nothing more is written, and the other edits are only looked at.
    """

    def __init__(
        self,
        checkpoints: Mapping[str, Checkpoint],
        stagings: Sequence[Staging],
        editor: Editor | None,
        phases: Phases,
    ) -> None:
        self.checkpoints, self.stagings = checkpoints, stagings
        self.editor, self.phases = editor, phases
        self.nonfinite: set[str] = set()

    @property
    def prepare_thread(self) -> Callable[[], None] | None:
        """What a thread that computes calls first; None where nothing is computed."""
        return None if self.editor is None else self.editor.prepare_thread

    def do(self, job: Job) -> None:
        """Do one job, unless an earlier run has."""
        first = job.steps[0]
        if self.nonfinite:
            if job.action == "edit" and not self._are_finite(job):
                self.nonfinite.add(job.name)
            return
        if first.action == "copy":
            staging = self.stagings[job.plans[0]]
            if not staging.is_done(first.file, first.offset, job.size_bytes):
                assert first.copy is not None
                with self.phases.timed("copy"):
                    digest = self._copy(first.copy, job, staging)
                staging.finish(first.file, first.offset, job.size_bytes, digest)
            return
        requests = [
            (plan, step)
            for plan, step in zip(job.plans, job.steps)
            if not self.stagings[plan].is_done(
                step.file, step.offset, step.size_bytes, {b.view.label for b in step.blocks}
            )
        ]
        if not requests:
            return
        assert self.editor is not None
        try:
            for (plan, step), (pieces, record) in zip(requests, self.editor.produce(requests)):
                self._write(self.stagings[plan], step, pieces, record)
        except NonfiniteOperand:
            self.nonfinite.add(job.name)

    def _are_finite(self, job: Job) -> bool:
        assert self.editor is not None
        with self.phases.timed("scan"):
            return self.editor.are_finite(job.steps)

    def _write(
        self, staging: Staging, step: Step, pieces: Iterable[memoryview], record: Any
    ) -> None:
        hasher, offset = xxhash.xxh3_128(), step.offset
        for piece in pieces:
            with self.phases.timed("write"):
                hasher.update(piece)
                staging.write(step.file, offset, piece)
            offset += len(piece)
        # Of factors, only those columns are written that the edit needs.
        staging.finish(step.file, step.offset, offset - step.offset, hasher.hexdigest(), record)

    def _copy(self, source: Range, job: Job, staging: Staging) -> str:
        hasher = xxhash.xxh3_128()
        reader = self.checkpoints[source.checkpoint].sources[source.file]
        size = job.size_bytes
        buffer = memoryview(bytearray(min(CHUNK_BYTES, max(size, 1))))
        for start in range(0, size, CHUNK_BYTES):
            chunk = buffer[: min(CHUNK_BYTES, size - start)]
            reader.read_into(source.offset + start, chunk)
            hasher.update(chunk)
            staging.write(job.steps[0].file, job.offset + start, chunk)
        return hasher.hexdigest()


def _adjoins(before: Step, after: Step) -> bool:
    """Whether `after` follows `before` without a gap, both in the input and in the output."""
    a, b = before.copy, after.copy
    return (
        a is not None and b is not None
        and before.action == after.action == "copy"
        and (before.file, before.offset + before.size_bytes) == (after.file, after.offset)
        and (a.checkpoint, a.file, a.offset + a.size_bytes) == (b.checkpoint, b.file, b.offset)
    )  # fmt: skip
