"""What the workers of a cluster are handed of a run: plans, inputs, and where they write."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from ..checkpoint.folder import Checkpoint
from ..engine.node import Writing
from ..engine.settings import Settings
from ..output.journal import staging_root
from ..output.lent import LentStaging, Shown, hashed, lent
from ..output.places import Reference
from ..plan.steps import Plan
from . import plan_file
from .mixing import Mixed
from .pinning import input_folders
from .runs import Run
from .settings import SweepSettings


@dataclass(frozen=True)
class Handout:
    """See `engine.node.WritingHandout`.

    Attributes:
        content: of a file of the plans.
    """

    content: bytes
    settings: Settings
    token: str
    numbers: Mapping[str, str]
    folders: Sequence[str]

    def begun(self, node: str) -> Writing:
        """What a process of this node has open for the run."""
        return Writing(self, node)

    @contextmanager
    def opened(self) -> Iterator[tuple[list[Plan], dict[str, Checkpoint], list[LentStaging]]]:
        """Plans, checkpoints by role as the plans read them, and the staging folder of each plan.

        Raises:
            InputRefused: an input is another one here, or other versions are installed.
        """
        planned = plan_file.unpacked(self.content, Path("the plan"))
        with ExitStack() as stack:
            operands = stack.enter_context(planned.opened())
            stagings = [
                stack.enter_context(lent(run.target, staging_root(run.target, run.plan.digest)))
                for run in planned.runs
            ]
            yield planned.plans, operands.checkpoints, stagings


def handout(
    runs: Sequence[Run],
    references: Mapping[str, Reference],
    settings: SweepSettings,
    engine: Settings,
    shown: Shown,
    mixed: Mixed | None = None,
) -> Handout:
    """What workers are handed of `runs`, each of which computes one matrix at a time.

    Args:
        mixed: the mixture of experts that is written.
    """
    return Handout(
        plan_file.packed(runs, references, settings, mixed=mixed),
        for_worker(engine),
        shown.token,
        {place: hashed(number) for place, number in shown.numbers.items()},
        [str(folder.absolute()) for folder in input_folders(references.values())],
    )


def for_worker(engine: Settings) -> Settings:
    """The settings of one worker of a cluster, which computes one matrix at a time."""
    devices = ("cpu",) if engine.device == "cpu" else ("cuda:0",)  # Ray gives each task its GPU
    factors = None if engine.factors is None else engine.factors.absolute()
    return Settings(devices, engine.precision, 1, engine.memory_bytes, factors)
