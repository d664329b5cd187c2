"""The Ray engine: the jobs of the local engine, done by the nodes of a Ray cluster.

The driver holds lock and journal of every output and no weights. A task of Ray is a batch of jobs: its
worker opens the inputs once, writes bytes at their offset into the staging folders and returns the lines
of the journal. Ray chooses where a task runs, and runs it again where its worker or node has died; a job
done twice writes the same bytes twice.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from .. import errors
from ..errors import InputRefused, RunFailed, UsageError, counted
from ..output import lent, manifest
from ..output.writer import Staging
from ..plan.steps import Plan
from ..text import size
from .batches import Batch, batches
from .local import (
    Job,
    create_files,
    jobs,
    nonfinite_refusal,
    records_of,
    records_of_all,
)
from .node import Done, Handout, do, look
from .settings import Control, Phases

RETRIES = 5  # of a task whose worker or node dies
WAITING = 4  # tasks for each CPU that Ray has at hand
ANSWER_S = 120.0  # for a node to say what it sees; its first worker has to start
END_S = 10.0  # for tasks in hand to end after they were cancelled
_RESUME = "What is finished is kept: run the same command again to resume."


def imported() -> Any:
    """The package ray.

    Raises:
        UsageError: it is not installed; says how to install it.
    """
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # else Ray warns of a change
    try:
        import ray
    except ImportError as error:
        raise UsageError("--engine ray", "needs Ray", "pip install 'uvmerge[ray]'") from error
    return ray


@contextmanager
def connected(address: str | None) -> Iterator[Cluster]:
    """A cluster: the one that this process is connected to, or that of `address`.

    Args:
        address: `auto`, `local`, `host:port` or `ray://host:port`; None for a cluster that runs here
            or, where there is none, a new one of this machine alone, which ends with the block.

    Raises:
        RunFailed: no cluster answers there, or it is of another version of Ray or Python.
    """
    ray = imported()
    if ray.is_initialized():
        yield Cluster(ray)
        return
    options: dict[str, Any] = {} if address is None else {"address": address}
    if "://" not in (address or ""):
        options |= {"include_dashboard": False, "log_to_driver": False}
    with _same_sigterm():
        try:
            _refuse_silent(address)
            ray.init(**options, logging_level=logging.ERROR)
        except (OSError, RuntimeError, ValueError, ImportError) as error:
            ray.shutdown()
            raise RunFailed(
                f"--address {address or 'auto'}",
                f"no Ray cluster can be reached: {_first_line(error)}",
                "Start one with `ray start --head`, or leave --address out.",
            ) from error
    try:
        yield Cluster(ray)
    finally:
        ray.shutdown()


def _refuse_silent(address: str | None) -> None:
    """Raise an `OSError` where nothing listens: Ray would end this process."""
    if address not in (None, "auto", "local"):
        host, _, port = address.rpartition("://")[2].rpartition(":")
        socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()


@contextmanager
def _same_sigterm() -> Iterator[None]:
    """Ray sets a handler of its own when it connects; afterwards the former one is there again."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


class Cluster:
    """A Ray cluster that this process is connected to."""

    def __init__(self, ray: Any) -> None:
        self.ray = ray

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

    def check(self, handout: Handout, shown: lent.Shown) -> None:
        """Refuse a cluster with a node that does not see the inputs or what the driver writes.

        Raises:
            InputRefused: names each such node, and what it does not see.
        """
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy as On

        ask = self.ray.remote(look)
        nodes = {node["NodeID"]: node["NodeManagerHostname"] for node in self.nodes()}
        asked = {
            node: ask.options(num_cpus=0, scheduling_strategy=On(node, soft=False)).remote(
                node, handout.token, handout.numbers, handout.folders, manifest.versions()
            )
            for node in nodes
        }
        self.ray.wait(list(asked.values()), num_returns=len(asked), timeout=ANSWER_S)
        problems = []
        for node, answer in asked.items():
            try:
                found = self.ray.get(answer, timeout=0)
            except self.ray.exceptions.RayError as error:
                if node not in {each["NodeID"] for each in self.nodes()}:
                    continue  # it has left the cluster
                found = [f"does not answer ({type(error).__name__})"]
            if not found:
                places = shown.unanswered(node)
                found = [f"writes to another {place} than is seen here" for place in places]
            problems += [f"node {nodes[node]} ({node[:8]}) {what}" for what in found]
        if problems:
            raise InputRefused(
                "Ray", "; ".join(problems[:8]),
                "All nodes have to see inputs and output under the same paths, and to have the same"
                " versions.",
            )  # fmt: skip

    def run(
        self,
        plans: Sequence[Plan],
        handout: Handout,
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
        pending, settings = jobs(plans), handout.settings
        work = batches(pending, workers or self.cpus(), settings.memory_bytes)
        self._refuse_too_large(work, pending)
        task = self.ray.remote(do)
        shared, nonfinite = [self.ray.put(handout)], set[str]()

        def submit(batch: Batch) -> Any:
            gpus = 1 if batch.computes and settings.device == "cuda" else 0
            claims = _claims([pending[number] for number in batch.numbers], stagings)
            wanted = {"num_cpus": 1, "num_gpus": gpus, "memory": batch.memory_bytes}
            return task.options(**wanted, max_retries=RETRIES, retry_exceptions=False).remote(
                handout.token, shared, batch.numbers, claims, sorted(nonfinite)
            )

        for batch, done in self._done(deque(work), submit, workers, control):
            for plan, line in done.lines:
                stagings[plan].finish(
                    line["file"], line["offset"], line["size"], line["xxh3_128"], line.get("record")
                )
            nonfinite |= set(done.nonfinite)
            phases.add(done.seconds or {})
            for number in batch.numbers:
                control.advance(pending[number].name, pending[number].work)
        if control.stop.is_set():
            return [records_of(staging) for staging in stagings]
        if nonfinite:
            raise nonfinite_refusal(plans, nonfinite)
        return records_of_all(plans, stagings)

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
            what = f"a task failed: {type(cause).__name__}: {_first_line(cause)}"
            raise RunFailed("Ray", what, _RESUME) from error
        if done.error is not None:
            kind, *parts = done.error
            raise getattr(errors, kind, RunFailed)(*parts)
        return done

    def _cancel(self, running: list[Any]) -> None:
        """End tasks, so that nobody writes any more when the staging folders are given up.

        Their processes are ended: one that is interrupted while it imports torch could do nothing else
        afterwards.
        """
        for reference in running:
            with suppress(Exception):
                self.ray.cancel(reference, force=True)
        if running:
            self.ray.wait(running, num_returns=len(running), timeout=END_S)

    def _refuse_too_large(self, work: Sequence[Batch], pending: Sequence[Job]) -> None:
        most = max((int(n["Resources"].get("memory", 0)) for n in self.nodes()), default=0)
        largest = max(work, key=lambda batch: batch.memory_bytes, default=None)
        if largest is not None and largest.memory_bytes > most:
            raise InputRefused(
                pending[largest.numbers[0]].name,
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


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
