"""What runs on the nodes of a cluster: a process opens the inputs of a run once, and does batches of jobs."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from typing import Any, Protocol

from ..checkpoint.folder import Checkpoint
from ..errors import InputRefused, UvmergeError
from ..output import lent, manifest
from ..plan.steps import Plan
from .local import jobs, worker_for
from .settings import Phases, Settings


class Handout(Protocol):
    """All that a worker needs to do jobs of a run; it is pickled once for all workers.

    Attributes:
        settings: how one worker computes.
        token, numbers: what `lent.unseen` takes.
        folders: local folders of the inputs.
    """

    @property
    def settings(self) -> Settings: ...
    @property
    def token(self) -> str: ...
    @property
    def numbers(self) -> Mapping[str, str]: ...
    @property
    def folders(self) -> Sequence[str]: ...

    def opened(
        self,
    ) -> AbstractContextManager[tuple[list[Plan], dict[str, Checkpoint], list[lent.LentStaging]]]:
        """Plans, inputs by role, and the staging folder of each plan."""


@dataclass(frozen=True)
class Done:
    """What a worker returns of a batch.

    Attributes:
        lines: of the journals, each with the number of its plan.
        nonfinite: names of tensors whose operands hold NaN or Inf.
        seconds: by phase.
        error: class, place, problem and what to do, where the batch failed.
    """

    lines: Sequence[tuple[int, lent.Line]] = ()
    nonfinite: Sequence[str] = ()
    seconds: Mapping[str, float] | None = None
    error: tuple[str, str, str, str] | None = None


class _Share:
    """Inputs and staging folders of a run, opened once in a worker process."""

    def __init__(self, handout: Handout, node: str) -> None:
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
            if self.worker.prepare_thread is not None:
                self.worker.prepare_thread()
            self._open = stack.pop_all()

    def do(
        self, numbers: Sequence[int], claims: Sequence[tuple[int, lent.Line]], known: Sequence[str]
    ) -> Done:
        """Do some jobs, one after the other; see `do` below."""
        for plan, line in claims:
            self.stagings[plan].claimed([line])
        self.worker.nonfinite |= set(known)
        for number in numbers:
            self.worker.do(self.jobs[number])
        lines = [(i, line) for i, each in enumerate(self.stagings) for line in each.taken_lines()]
        seconds, self.phases.seconds = self.phases.seconds, {}
        return Done(lines, sorted(self.worker.nonfinite.difference(known)), seconds)

    def close(self) -> None:
        self._open.close()


_shares: dict[str, _Share] = {}  # of this process, by the token of the run: one at most


def do(
    token: str,
    shared: Sequence[Any],
    numbers: Sequence[int],
    claims: Sequence[tuple[int, lent.Line]],
    known: Sequence[str],
) -> Done:
    """A task: do a batch, with what this process opened for an earlier one of the same run.

    Args:
        token: of the run.
        shared: holds the reference to the `Handout`; in a list, so that Ray leaves it alone.
        numbers: of the jobs.
        claims: what an earlier run noted of their pieces, each with the number of its plan.
        known: tensors with NaN or Inf that were found already: then nothing more is written.
    """
    import ray

    try:
        if token not in _shares:
            while _shares:
                _shares.popitem()[1].close()
            node = ray.get_runtime_context().get_node_id()
            _shares[token] = _Share(ray.get(shared[0]), node)
        return _shares[token].do(numbers, claims, known)
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
    here = manifest.versions()
    found += [
        f"has {name} {here.get(name)}, not {wanted}"
        for name, wanted in versions.items()
        if here.get(name) != wanted
    ]
    return found
