"""The engines that carry out plans: threads of this machine, or the nodes of a Ray cluster."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

from ..checkpoint.folder import Checkpoint
from ..engine import local
from ..engine.settings import Settings
from ..errors import UsageError
from ..output.lent import Shown
from ..output.writer import Staging
from .handout import handout
from .runs import Run
from .settings import SweepSettings

if TYPE_CHECKING:
    from .surgery import Surgery


def refuse_no_engine(settings: SweepSettings) -> None:
    """Refuse an engine that is not installed, and an address that is for another one.

    Raises:
        UsageError: says what to install or to pass.
    """
    if settings.engine == "ray":
        from ..engine import ray

        ray.imported()
    elif settings.address is not None:
        raise UsageError("--address", "is for another engine", "Pass --engine ray with it.")


@contextmanager
def carried_out(
    surgery: Surgery,
    runs: Sequence[Run],
    checkpoints: Mapping[str, Checkpoint],
    stagings: Sequence[Staging],
    engine: Settings,
) -> Iterator[Callable[[], list[dict[str, Any]]]]:
    """What writes all weight files of `runs`, by the engine of the settings.

    Raises:
        RunFailed: no cluster can be reached.
        InputRefused: a node does not see the inputs or the staging folders.
    """
    plans, settings, phases = [run.plan for run in runs], surgery.settings, surgery.phases
    if settings.engine == "local":
        yield lambda: local.run(plans, checkpoints, stagings, engine, surgery.control, phases)
        return
    from ..engine import ray

    shown = Shown([staging.root for staging in stagings])
    with ExitStack() as stack:
        with phases.timed("connect"):
            stack.enter_context(shown.shown())
            cluster = stack.enter_context(ray.connected(settings.address))
            lent = handout(runs, surgery.references, settings, engine, shown, surgery.mixed)
            cluster.check(lent, shown)
        surgery.progress.say(cluster.words())
        yield lambda: cluster.run(plans, lent, stagings, engine.workers, surgery.control, phases)
