"""The file of a plan: what is done, to which inputs, into which output, for workers on any machine."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..checkpoint.composed import ComposedCheckpoint
from ..checkpoint.folder import Checkpoint
from ..checkpoint.roles import spelled
from ..engine.local import jobs
from ..errors import InputRefused, UsageError
from ..output import manifest
from ..output.disk import disk_errors
from ..output.places import Reference, check_apart
from ..output.tree import Tree
from ..plan import file as plans
from ..plan.steps import Plan
from ..text import expanded
from .heap import collected_later
from .mixing import Mixed
from .operands import Operands, operands_of
from .pinning import input_folders, pinned
from .runs import Run
from .settings import SweepSettings

FORMAT = 1
LIMIT_BYTES = 2 << 30  # of a plan of tens of thousands of experts: some 100 MB
# The settings that workers and `finish` have to share with the command that planned.
_SHARED = (
    "allow_pickle", "merge_inner_adapters", "precision", "nonfinite", "overwrite", "force", "base_id",
    "finetuned_id",
)  # fmt: skip
_DO = "Make it again with --plan."


@dataclass(frozen=True)
class PlanFile:
    """A file of one or several plans on the same inputs.

    Attributes:
        path: of the file.
        references: the inputs by role: absolute paths, or references to the Hub with their commit.
        device: the kind of device that computes: `cpu` or `cuda`.
        settings: the other settings that decide the bytes of the outputs.
        runs: one for each output.
        costs: estimated seconds of each job; None where they were not estimated.
        mixed: the mixture of experts that is written; None where it is something else.
    """

    path: Path
    references: Mapping[str, str]
    device: str
    settings: SweepSettings
    runs: Sequence[Run]
    costs: Sequence[float] | None = None
    mixed: Mixed | None = None

    @property
    def plans(self) -> list[Plan]:
        """The plan of each output."""
        return [run.plan for run in self.runs]

    @contextmanager
    def opened(self) -> Iterator[Operands]:
        """The checkpoints of the runs; the inputs have to be those that were planned with.

        Raises:
            InputRefused: an input is another one now.
        """
        planned = self.runs[0]
        with operands_of(planned.recipe, self.references, self.settings, self.mixed) as operands:
            samples = manifest.samples(operands.inputs)
            for role, checkpoint in operands.inputs.items():
                same = checkpoint.identity() == planned.plan.inputs[role]
                if not same or samples.get(role) != planned.samples.get(role):
                    raise self._other(role, checkpoint)
            for role, checkpoint in operands.checkpoints.items():
                before = planned.head["inputs"].get(role, {})
                if isinstance(checkpoint, ComposedCheckpoint) and before != {
                    **before,
                    **checkpoint.layout(),
                }:
                    raise self._other(role, checkpoint)
            yield operands

    def _other(self, role: str, checkpoint: Checkpoint) -> InputRefused:
        return InputRefused(
            f"{spelled(role)} ({checkpoint.label})",
            f"is not the checkpoint that {self.path.name} was made for",
            _DO,
        )


def write(
    path: Path,
    runs: Sequence[Run],
    references: Mapping[str, Reference],
    settings: SweepSettings,
    costs: Sequence[float] | None = None,
    mixed: Mixed | None = None,
) -> None:
    """Write the plans of runs with heads; a file at `path` is replaced only with `--overwrite`.

    Args:
        costs: seconds of each job, where they were estimated; shares are balanced by them.
        mixed: the mixture of experts that is written.

    Raises:
        UsageError: the file lies in an input or cannot be made.
        InputRefused: it is there already.
    """
    target = Path(os.path.realpath(path))
    check_apart(target, input_folders(references.values()))
    if not target.parent.is_dir() or target.is_dir():
        raise UsageError(
            path, "cannot be made: its folder is missing, or it is one", "Name a file."
        )
    if target.exists() and not settings.overwrite:
        raise InputRefused(path, "is there already", "Name another file, or pass --overwrite.")
    with collected_later():
        content = packed(runs, references, settings, costs, mixed)
    with disk_errors(target, target.parent), Tree.at(target.parent) as folder:
        folder.write_whole(target.name, content)


def packed(
    runs: Sequence[Run],
    references: Mapping[str, Reference],
    settings: SweepSettings,
    costs: Sequence[float] | None = None,
    mixed: Mixed | None = None,
) -> bytes:
    """The content of the file; see `write`."""
    data = {
        "uvmerge_plan": FORMAT,
        "versions": manifest.versions(),
        "references": {
            role: pinned(references[role], identity)
            for role, identity in runs[0].plan.inputs.items()
        },
        "settings": {name: getattr(settings, name) for name in _SHARED},
        "costs": None if costs is None else [float(f"{seconds:.6g}") for seconds in costs],
        "mixture": None if mixed is None else mixed.as_data(),
        "runs": [
            {
                "out": str(run.target), "said": run.said, "samples": run.samples, "head": run.head,
                "plan": plans.packed(run.plan),
            }
            for run in runs
        ],
    }  # fmt: skip
    written = json.dumps(
        data, separators=(",", ":"), default=plans.packed_value, check_circular=False
    )
    return written.encode()


def read(path: Reference) -> PlanFile:
    """The plans in a file.

    Raises:
        InputRefused: it is no such file, was made by other versions, or was changed.
    """
    source = expanded(path)
    if not source.is_file():
        raise InputRefused(
            path, "is not a file", "Make it with --plan: uvmerge restore … --plan FILE."
        )
    if source.stat().st_size > LIMIT_BYTES:
        raise InputRefused(path, "is too large for a plan", _DO)
    return unpacked(source.read_bytes(), source)


def unpacked(content: bytes, path: Path) -> PlanFile:
    """The plans in the content of a file; `path` is for messages.

    Raises:
        InputRefused: as `read`.
    """
    try:
        with collected_later():
            data = plans.mapping(json.loads(content))
        if data.get("uvmerge_plan") != FORMAT:
            raise plans.Misfit(f"its format is {data.get('uvmerge_plan')!r}, not {FORMAT}")
        if data.get("versions") != manifest.versions():
            raise plans.Misfit(f"it was made by other versions: {_differing(data['versions'])}")
        with collected_later():
            runs = [_run(plans.mapping(each)) for each in plans.read_as_list(data.get("runs"))]
        shared = SweepSettings.read(plans.mapping(data.get("settings")))
        references = {k: str(v) for k, v in plans.mapping(data.get("references")).items()}
        costs = plans.read_as(tuple[float, ...] | None, data.get("costs"))
        mixture = data.get("mixture")
        mixed = None if mixture is None else Mixed.of_data(plans.mapping(mixture))
    except (ValueError, RecursionError, KeyError, UsageError, plans.Misfit) as error:
        words = str(error) if isinstance(error, plans.Misfit) else "its content is damaged"
        raise InputRefused(path, f"is no plan that this uvmerge reads: {words}", _DO) from error
    if not runs or references.keys() != runs[0].plan.inputs.keys():
        raise InputRefused(path, "is no plan that this uvmerge reads: inputs are missing", _DO)
    if costs is not None and not _fit(costs, len(jobs([run.plan for run in runs]))):
        raise InputRefused(path, "is no plan that this uvmerge reads: its costs do not fit", _DO)
    return PlanFile(path, references, runs[0].said["device"], shared, runs, costs, mixed)


def _fit(costs: Sequence[float], count: int) -> bool:
    """Whether these can be the seconds of so many jobs."""
    return len(costs) == count and all(math.isfinite(each) and each >= 0 for each in costs)


def _run(data: Mapping[str, Any]) -> Run:
    plan = plans.unpacked(data.get("plan"))
    said, samples = (
        {key: str(value) for key, value in plans.mapping(data.get(name)).items()}
        for name in ("said", "samples")
    )
    out, head = plans.read_as(str, data.get("out")), plans.mapping(data.get("head"))
    for states in plans.mapping(head.get("inputs")).values():
        plans.mapping(states)
    if not os.path.isabs(out) or "device" not in said:
        raise plans.Misfit("its output has no path, or its device is missing")
    return Run(plan.recipe, plan, out, Path(out), said, samples, head)


def _differing(versions: Any) -> str:
    """`torch 2.6.0 (here 2.13.0), …`."""
    here = manifest.versions()
    found = plans.mapping(versions)
    changed = (n for n in here if found.get(n) != here[n])
    return ", ".join(f"{name} {found.get(name)} (here {here[name]})" for name in changed)
