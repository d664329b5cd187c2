"""The Ray engine: the jobs of the local engine, or the tasks of a comparison, done by the nodes of a Ray cluster.

The driver holds lock and journal of every output and no weights. A task of Ray is a batch of jobs: its
worker opens the inputs once, writes bytes at their offset into the staging folders and returns the lines
of the journal. Ray chooses where a task runs, and runs it again where its worker or node has died; a job
done twice writes the same bytes twice.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from .. import errors
from ..errors import InputRefused, RunFailed, counted
from ..output import lent, manifest
from ..output.writer import Staging
from ..plan.steps import Plan
from ..text import size
from .batches import Batch, Item, batches
from .connection import connection, first_line
from .local import (
    Job,
    create_files,
    jobs,
    nonfinite_refusal,
    records_of,
    records_of_all,
)
from .node import (
    Done,
    Handout,
    Inputs,
    MeasuringHandout,
    WritingHandout,
    do,
    look,
    look_at_inputs,
)
from .settings import Control, Phases

if TYPE_CHECKING:
    from ..measure.findings import Other
    from .measurements import Key, Measured

RETRIES = 5  # of a task whose worker or node dies
WAITING = 4  # tasks for each CPU that Ray has at hand
ANSWER_S = 120.0  # for a node to say what it sees; its first worker has to start
END_S = 10.0  # for tasks in hand to end after they were cancelled
_RESUME = "Run the same command again: what is finished of an output is kept."


@contextmanager
def connected(address: str | None) -> Iterator[Cluster]:
    """A cluster: see `connection`."""
    with connection(address) as (ray, is_own):
        yield Cluster(ray, is_own)


class Cluster:
    """A Ray cluster that this process is connected to.

    Args:
        is_own: whether the connection is for this run alone.
    """

    def __init__(self, ray: Any, is_own: bool = False) -> None:
        self.ray, self.is_own = ray, is_own

    def nodes(self) -> list[dict[str, Any]]:
        """The nodes that are alive and have a CPU for tasks, as Ray describes them."""
        return [n for n in self.ray.nodes() if n["Alive"] and n["Resources"].get("CPU", 0) >= 1]

    def words(self) -> str:
        """What the cluster consists of, in a line."""
        nodes, cpus = counted(len(self.nodes()), "node"), counted(self.cpus(), "CPU")
        return f"Ray: {nodes} with {cpus}"

    def cpus(self) -> int:
        """The number of tasks that run at once."""
        return sum(int(node["Resources"]["CPU"]) for node in self.nodes())

    def check(self, handout: WritingHandout, shown: lent.Shown) -> None:
        """Refuse a cluster with a node that does not see the inputs or what the driver writes.

        Raises:
            InputRefused: names each such node, and what it does not see.
        """
        folders, versions = handout.folders, manifest.versions()
        found = self._asked(
            look, lambda node: (node, handout.token, handout.numbers, folders, versions)
        )
        for node, problems in found.items():
            if not problems:
                places = shown.unanswered(node)
                problems += [f"writes to another {place} than is seen here" for place in places]
        self._refuse(
            found,
            "All nodes have to see inputs and output under the same paths, and to have the same"
            " versions.",
        )

    def check_inputs(self, inputs: Inputs) -> None:
        """Refuse a cluster with a node on which the inputs of a comparison are others than here.

        Raises:
            InputRefused: names each such node, and the input.
        """
        shared, versions = [self.ray.put(inputs)], manifest.versions()
        self._refuse(
            self._asked(look_at_inputs, lambda node: (shared, versions)),
            "All nodes have to see the same inputs under the same paths, and to have the same"
            " versions.",
        )

    def _asked(
        self, task: Callable[..., list[str]], words: Callable[[str], tuple[Any, ...]]
    ) -> dict[str, list[str]]:
        """What each node that stays in the cluster answers to a task, by its id.

        Args:
            words: what the task is given on a node.
        """
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy as On

        ask = self.ray.remote(task)
        asked = {
            node: ask.options(num_cpus=0, scheduling_strategy=On(node, soft=False)).remote(
                *words(node)
            )
            for node in (each["NodeID"] for each in self.nodes())
        }
        self.ray.wait(list(asked.values()), num_returns=len(asked), timeout=ANSWER_S)
        found = {}
        for node, answer in asked.items():
            try:
                found[node] = self.ray.get(answer, timeout=0)
            except self.ray.exceptions.RayError as error:
                if node in {each["NodeID"] for each in self.nodes()}:
                    found[node] = [f"does not answer ({type(error).__name__})"]
        return found

    def _refuse(self, found: Mapping[str, Sequence[str]], do: str) -> None:
        """Raise an `InputRefused` where a node, by its id, has a problem."""
        names = {each["NodeID"]: each["NodeManagerHostname"] for each in self.ray.nodes()}
        problems = [
            f"node {names[node]} ({node[:8]}) {what}"
            for node, each in found.items()
            for what in each
        ]
        if problems:
            raise InputRefused("Ray", "; ".join(problems[:8]), do)

    def run(
        self,
        plans: Sequence[Plan],
        handout: WritingHandout,
        stagings: Sequence[Staging],
        workers: int,
        control: Control,
        phases: Phases,
    ) -> list[dict[str, Any]]:
        """`local.run` on the cluster.

        Args:
            workers: batches in hand at once; 0 for as many as there are CPUs.
        """
        create_files(plans, stagings)
        pending, nonfinite = jobs(plans), set[str]()

        def words(batch: Batch) -> tuple[Any, ...]:
            claims = _claims([pending[number] for number in batch.numbers], stagings)
            return claims, sorted(nonfinite)

        for done in self._worked_off(pending, handout, words, workers, control, phases):
            for plan, line in done.lines:
                stagings[plan].finish(
                    line["file"], line["offset"], line["size"], line["xxh3_128"], line.get("record")
                )
            nonfinite |= set(done.nonfinite)
        if control.stop.is_set():
            return [records_of(staging) for staging in stagings]
        if nonfinite:
            raise nonfinite_refusal(plans, nonfinite)
        return records_of_all(plans, stagings)

    def measure(
        self, handout: MeasuringHandout, workers: int, control: Control, phases: Phases
    ) -> tuple[list[Measured], list[list[Other]]]:
        """`measuring.run` on the cluster; see `run` for `workers`."""
        from .measurements import in_order, tasks

        moving, computing = tasks(handout.pairing, handout.rank)
        found: dict[Key, Measured | Other] = {}
        for done in self._worked_off(
            [*moving, *computing], handout, lambda batch: (), workers, control, phases
        ):
            found |= done.found
        return in_order(found, len(handout.pairing.partners))

    def _worked_off(
        self,
        pending: Sequence[Item],
        handout: Handout,
        words: Callable[[Batch], tuple[Any, ...]],
        workers: int,
        control: Control,
        phases: Phases,
    ) -> Iterator[Done]:
        """What comes back of each batch of `pending`, when it is done.

        Args:
            words: what a worker is told with a batch.
        """
        settings = handout.settings
        work = batches(pending, workers or self.cpus(), settings.memory_bytes)
        self._refuse_too_large(work, pending)
        task, shared = self.ray.remote(do), [self.ray.put(handout)]

        def submit(batch: Batch) -> Any:
            gpus = 1 if batch.computes and settings.device == "cuda" else 0
            wanted = {"num_cpus": 1, "num_gpus": gpus, "memory": batch.memory_bytes}
            return task.options(**wanted, max_retries=RETRIES, retry_exceptions=False).remote(
                handout.token, shared, batch.numbers, *words(batch)
            )

        for batch, done in self._done(deque(work), submit, workers, control):
            phases.add(done.seconds or {})
            yield done
            for number in batch.numbers:
                control.advance(pending[number].name, pending[number].work)

    def _done(
        self,
        waiting: deque[Batch],
        submit: Callable[[Batch], Any],
        workers: int,
        control: Control,
    ) -> Iterator[tuple[Batch, Done]]:
        """Each batch when it is done; when the run ends early, what is in hand is cancelled."""
        running: dict[Any, Batch] = {}
        try:
            while (waiting or running) and not control.stop.is_set():
                most = workers or WAITING * max(self.cpus(), 4)
                while waiting and len(running) < most:
                    batch = waiting.popleft()
                    running[submit(batch)] = batch
                if self.ray.wait(list(running), timeout=0.2)[0]:
                    for found in self.ray.wait(list(running), num_returns=len(running), timeout=0)[
                        0
                    ]:
                        yield running.pop(found), self._result(found)
        finally:
            self._cancel(list(running))

    def _result(self, reference: Any) -> Done:
        exceptions = self.ray.exceptions
        try:
            done: Done = self.ray.get(reference)
        except exceptions.OutOfMemoryError as error:
            raise RunFailed(
                "Ray", "a node has too little memory for what runs on it", "Pass fewer --workers. " + _RESUME
            ) from error  # fmt: skip
        except exceptions.RayError as error:
            cause = getattr(error, "cause", None) or error
            what = f"a task failed: {type(cause).__name__}: {first_line(cause)}"
            raise RunFailed("Ray", what, _RESUME) from error
        if done.error is not None:
            kind, *parts = done.error
            raise getattr(errors, kind, RunFailed)(*parts)
        return done

    def _cancel(self, running: list[Any]) -> None:
        """End tasks, so that nobody writes any more when the staging folders are given up.

        Their processes are ended: one that is interrupted while it imports torch could do nothing else
        afterwards. To end the connection does so at once; where that is not ours, Ray is told of each
        task, and may end this process if one of them is done at this very moment (seen with Ray 2.60).
        """
        if not running:
            return
        if self.is_own:
            self.ray.shutdown()
            return
        _, running = self.ray.wait(running, num_returns=len(running), timeout=0)
        for reference in running:
            with suppress(Exception):
                self.ray.cancel(reference, force=True)
        if running:
            self.ray.wait(running, num_returns=len(running), timeout=END_S)

    def _refuse_too_large(self, work: Sequence[Batch], pending: Sequence[Item]) -> None:
        most = max((int(n["Resources"].get("memory", 0)) for n in self.nodes()), default=0)
        largest = max(work, key=lambda batch: batch.memory_bytes, default=None)
        if largest is not None and largest.memory_bytes > most:
            raise InputRefused(
                max((pending[n] for n in largest.numbers), key=lambda item: item.memory_bytes).name,
                f"needs about {size(largest.memory_bytes)} of memory, and no node of"
                f" {counted(len(self.nodes()), 'node')} offers more than {size(most)}",
                "Add a larger node, or leave it out with --exclude; --memory says what a task asks for"
                " at most.",
            )


def _claims(several: Sequence[Job], stagings: Sequence[Staging]) -> list[tuple[int, lent.Line]]:
    """What an earlier run noted of these jobs' pieces, each with the number of its plan."""
    return [
        (plan, line)
        for job in several
        for plan, step in zip(job.plans, job.steps)
        if (line := stagings[plan].claim(step.file, step.offset)) is not None
    ]
