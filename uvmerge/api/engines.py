"""The engines that carry out plans and comparisons: threads of this machine, or the nodes of a Ray cluster."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

from ..checkpoint.folder import Checkpoint
from ..engine import local
from ..engine.settings import Settings
from ..errors import UsageError
from ..output.lent import Shown
from ..output.writer import Staging
from ..plan.pairing import Pairing
from .handout import for_worker, handout
from .runs import Run
from .settings import SpreadSettings

if TYPE_CHECKING:
    from ..engine.measurements import Measured, Rank
    from ..measure.findings import Other
    from .diff import Comparison
    from .surgery import Surgery


def refuse_no_engine(settings: SpreadSettings) -> None:
    """Refuse an engine that is not installed, and an address that is for another one.

    Raises:
        UsageError: says what to install or to pass.
    """
    if settings.engine == "ray":
        from ..engine.connection import imported

        imported()
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


def refuse_models(settings: SpreadSettings, prompts: Mapping[str, Any]) -> None:
    """Refuse to run models on a cluster.

    Args:
        prompts: by option, the file of prompts that it names; None where it is not given.

    Raises:
        UsageError: names the option.
    """
    for option, given in prompts.items():
        if given is not None and settings.engine == "ray":
            raise UsageError(
                option, "runs whole models, and --engine ray spreads what is measured of weights",
                f"Leave {option} out, and run diff again with it and --engine local.",
            )  # fmt: skip


@contextmanager
def measurement(
    comparison: Comparison,
    pairing: Pairing,
    checkpoints: Mapping[str, Checkpoint],
    rank: Rank,
    engine: Settings,
) -> Iterator[Callable[[], tuple[list[Measured], list[list[Other]]]]]:
    """What measures all that is paired, by the engine of the settings; see `measuring.run`.

    Args:
        checkpoints: by `measurements.role`.

    Raises:
        RunFailed: no cluster can be reached.
        InputRefused: a node does not see the same inputs.
    """
    control, phases = comparison.control, comparison.phases
    if comparison.inputs is None:
        from ..engine import measuring

        yield lambda: measuring.run(pairing, checkpoints, rank, engine, control, phases)
        return
    from ..engine import ray
    from .measuring_handout import MeasuringHandout

    with ExitStack() as stack:
        with phases.timed("connect"):
            cluster = stack.enter_context(ray.connected(comparison.settings.address))
            cluster.check_inputs(comparison.inputs)
        comparison.progress.say(cluster.words())
        lent = MeasuringHandout(
            comparison.inputs, pairing, rank, for_worker(engine), secrets.token_hex(8)
        )
        yield lambda: cluster.measure(lent, engine.workers, control, phases)
