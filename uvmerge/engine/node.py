"""What runs on the nodes of a cluster: a process opens the inputs of a run once, and does batches of jobs,
which write an output, or of tasks, which measure."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from ..checkpoint.folder import Checkpoint
from ..errors import InputRefused, UvmergeError
from ..output import lent, manifest
from ..plan.steps import Plan
from .batches import Item
from .local import jobs, worker_for
from .settings import Phases, Settings

if TYPE_CHECKING:
    from ..measure.findings import Other
    from ..plan.pairing import Pairing
    from .measurements import Decompose, Key, Measured, Rank, Subtract


class Handout(Protocol):
    """All that a worker needs to take part in a run; it is pickled once for all workers.

    Attributes:
        settings: how one worker computes.
        token: of the run.
    """

    @property
    def settings(self) -> Settings: ...
    @property
    def token(self) -> str: ...

    def begun(self, node: str) -> Share:
        """What a process of this node has open for the run."""


class Share(Protocol):
    """What a worker process has open for a run."""

    def do(self, numbers: Sequence[int], *words: Any) -> Done:
        """Do the jobs or tasks with these numbers, one after the other.

        Args:
            words: what else the driver tells with each batch.
        """

    def close(self) -> None: ...


class WritingHandout(Handout, Protocol):
    """That of a run which writes.

    Attributes:
        numbers: what `lent.unseen` takes beside the token.
        folders: local folders of the inputs.
    """

    @property
    def numbers(self) -> Mapping[str, str]: ...
    @property
    def folders(self) -> Sequence[str]: ...

    def opened(
        self,
    ) -> AbstractContextManager[tuple[list[Plan], dict[str, Checkpoint], list[lent.LentStaging]]]:
        """Plans, inputs by role, and the staging folder of each plan."""


class MeasuringHandout(Handout, Protocol):
    """That of a comparison."""

    @property
    def inputs(self) -> Inputs: ...
    @property
    def pairing(self) -> Pairing: ...
    @property
    def rank(self) -> Rank: ...


class Inputs(Protocol):
    """The checkpoints of a comparison, as the driver opened them."""

    def opened(self) -> AbstractContextManager[dict[str, Checkpoint]]:
        """They by `measurements.role`; an `InputRefused` names one that is another here."""

    def refuse_changed(self, checkpoints: Mapping[str, Checkpoint]) -> None:
        """Fail where files here have changed since they were opened."""


@dataclass(frozen=True)
class Done:
    """What a worker returns of a batch.

    Attributes:
        lines: of the journals, each with the number of its plan.
        nonfinite: names of tensors whose operands hold NaN or Inf.
        found: what was measured, by key of the task.
        seconds: by phase.
        error: class, place, problem and what to do, where the batch failed.
    """

    lines: Sequence[tuple[int, lent.Line]] = ()
    nonfinite: Sequence[str] = ()
    found: Mapping[Key, Measured | Other] = field(default_factory=dict)
    seconds: Mapping[str, float] | None = None
    error: tuple[str, str, str, str] | None = None


class _Once:
    """Prepares this thread before the first batch that computes: others may have been given no GPU."""

    def __init__(self, prepare: Callable[[], None] | None) -> None:
        self.prepare = prepare

    def before(self, several: Iterable[Item]) -> None:
        if self.prepare is not None and any(item.place[0] for item in several):
            self.prepare()
            self.prepare = None


class Writing:
    """Inputs and staging folders of a run, opened once in a worker process."""

    def __init__(self, handout: WritingHandout, node: str) -> None:
        self.phases = Phases()
        with ExitStack() as stack:
            if unseen := lent.unseen(handout.token, handout.numbers, node):
                raise InputRefused(
                    unseen[0], "is not seen", "Write to a folder that all nodes see."
                )
            plans, checkpoints, self.stagings = stack.enter_context(handout.opened())
            self.jobs = jobs(plans)
            self.worker = stack.enter_context(
                worker_for(plans, checkpoints, self.stagings, handout.settings, self.phases)
            )
            self._open = stack.pop_all()
        self._prepare = _Once(self.worker.prepare_thread)

    def do(
        self, numbers: Sequence[int], claims: Sequence[tuple[int, lent.Line]], known: Sequence[str]
    ) -> Done:
        """Do some jobs, one after the other.

        Args:
            claims: what an earlier run noted of their pieces, each with the number of its plan.
            known: tensors with NaN or Inf that were found already: then nothing more is written.
        """
        for plan, line in claims:
            self.stagings[plan].claimed([line])
        self.worker.nonfinite |= set(known)
        self._prepare.before(self.jobs[number] for number in numbers)
        for number in numbers:
            self.worker.do(self.jobs[number])
        lines = [(i, line) for i, each in enumerate(self.stagings) for line in each.taken_lines()]
        seconds, self.phases.seconds = self.phases.seconds, {}
        return Done(lines, sorted(self.worker.nonfinite.difference(known)), seconds=seconds)

    def close(self) -> None:
        self._open.close()


class Measuring:
    """The inputs of a comparison, opened once in a worker process."""

    def __init__(self, handout: MeasuringHandout) -> None:
        from ..spectral.precision import single_threaded
        from .measurements import tasks
        from .measuring import Measurer

        self.phases, self.inputs = Phases(), handout.inputs
        moving, computing = tasks(handout.pairing, handout.rank)
        self.tasks: list[Subtract | Decompose] = [*moving, *computing]
        with ExitStack() as stack:
            self.checkpoints = stack.enter_context(handout.inputs.opened())
            stack.enter_context(single_threaded())
            self.measurer = Measurer(self.checkpoints, handout.settings, self.phases, handout.rank)
            self._open = stack.pop_all()
        self._prepare = _Once(self.measurer.prepare_thread)

    def do(self, numbers: Sequence[int], *words: Any) -> Done:
        """Do some tasks, one after the other, of files that stay as they were."""
        several = [self.tasks[number] for number in numbers]
        self._prepare.before(several)
        found = {task.key: self.measurer.do(task) for task in several}
        self.inputs.refuse_changed(self.checkpoints)
        seconds, self.phases.seconds = self.phases.seconds, {}
        return Done(found=found, seconds=seconds)

    def close(self) -> None:
        self._open.close()


_shares: dict[str, Share] = {}  # of this process, by the token of the run: one at most


def do(token: str, shared: Sequence[Any], numbers: Sequence[int], *words: Any) -> Done:
    """A task of Ray: do a batch, with what this process opened for an earlier one of the same run.

    Args:
        token: of the run.
        shared: holds the reference to the `Handout`; in a list, so that Ray leaves it alone.
        numbers, words: see `Share.do`.
    """
    import ray

    try:
        if token not in _shares:
            while _shares:
                _shares.popitem()[1].close()
            node = ray.get_runtime_context().get_node_id()
            _shares[token] = ray.get(shared[0]).begun(node)
        return _shares[token].do(numbers, *words)
    except UvmergeError as error:
        what = f"{error.what} (on node {socket.gethostname()})"
        return Done(error=(type(error).__name__, error.where, what, error.do))


def look(
    node: str,
    token: str,
    numbers: Mapping[str, str],
    folders: Sequence[str],
    versions: Mapping[str, str],
) -> list[str]:
    """A task: what a node does not see, or has otherwise; the staging folders are answered."""
    found = [f"does not see {folder}" for folder in folders if not os.path.isdir(folder)]
    found += [f"does not see {place}" for place in lent.unseen(token, numbers, node)]
    return found + other_versions(versions)


def look_at_inputs(shared: Sequence[Any], versions: Mapping[str, str]) -> list[str]:
    """A task: whether a node opens the same inputs of a comparison, and has the same versions.

    Args:
        shared: holds the reference to the `Inputs`.
    """
    import ray

    if found := other_versions(versions):
        return found
    try:
        with ray.get(shared[0]).opened():
            return []
    except UvmergeError as error:
        return [f"does not see the same inputs: {error.where}: {error.what}"]


def other_versions(versions: Mapping[str, str]) -> list[str]:
    """The versions of this process that are not the wanted ones."""
    here = manifest.versions()
    return [
        f"has {name} {here.get(name)}, not {wanted}"
        for name, wanted in versions.items()
        if here.get(name) != wanted
    ]
