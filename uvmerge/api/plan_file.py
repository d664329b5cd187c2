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

from ..checkpoint.folder import Checkpoint
from ..checkpoint.roles import spelled
from ..engine.local import jobs
from ..errors import InputRefused, UsageError
from ..output import manifest
from ..output.disk import disk_errors
from ..output.places import Reference, check_apart, is_store, local_folders
from ..output.tree import Tree
from ..plan import file as plans
from ..plan.steps import Plan
from ..text import expanded
from .heap import collected_later
from .opening import opened_for
from .runs import Run
from .settings import SweepSettings

FORMAT = 1
LIMIT_BYTES = 2 << 30  # of a plan of tens of thousands of experts: some 100 MB
# The settings that workers and `finish` have to share with the command that planned.
_SHARED = ("allow_pickle", "merge_inner_adapters", "precision", "nonfinite", "overwrite")
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
    """

    path: Path
    references: Mapping[str, str]
    device: str
    settings: SweepSettings
    runs: Sequence[Run]
    costs: Sequence[float] | None = None

    @property
    def plans(self) -> list[Plan]:
        """The plan of each output."""
        return [run.plan for run in self.runs]

    @contextmanager
    def opened(self) -> Iterator[dict[str, Checkpoint]]:
        """The inputs by role; they have to be those that were planned with.

        Raises:
            InputRefused: an input is another one now.
        """
        with opened_for(self.runs[0].recipe, self.references, self.settings) as checkpoints:
            planned = self.runs[0]
            samples = manifest.samples(checkpoints)
            for role, checkpoint in checkpoints.items():
                same = checkpoint.identity() == planned.plan.inputs[role]
                if not same or samples.get(role) != planned.samples.get(role):
                    raise InputRefused(
                        f"{spelled(role)} ({checkpoint.label})",
                        f"is not the checkpoint that {self.path.name} was made for",
                        _DO,
                    )
            yield checkpoints


def write(
    path: Path,
    runs: Sequence[Run],
    references: Mapping[str, Reference],
    settings: SweepSettings,
    costs: Sequence[float] | None = None,
) -> None:
    """Write the plans of runs with heads; a file at `path` is replaced only with `--overwrite`.

    Args:
        costs: seconds of each job, where they were estimated; shares are balanced by them.

    Raises:
        UsageError: the file lies in an input or cannot be made.
        InputRefused: it is there already.
    """
    target = Path(os.path.realpath(path))
    check_apart(target, local_folders(list(references.values())))
    if not target.parent.is_dir() or target.is_dir():
        raise UsageError(
            path, "cannot be made: its folder is missing, or it is one", "Name a file."
        )
    if target.exists() and not settings.overwrite:
        raise InputRefused(path, "is there already", "Name another file, or pass --overwrite.")
    with collected_later():
        content = packed(runs, references, settings, costs)
    with disk_errors(target, target.parent), Tree.at(target.parent) as folder:
        folder.write_whole(target.name, content)


def packed(
    runs: Sequence[Run],
    references: Mapping[str, Reference],
    settings: SweepSettings,
    costs: Sequence[float] | None = None,
) -> bytes:
    """The content of the file; see `write`."""
    data = {
        "uvmerge_plan": FORMAT,
        "versions": manifest.versions(),
        "references": _pinned(runs[0].plan, references),
        "settings": {name: getattr(settings, name) for name in _SHARED},
        "costs": None if costs is None else [float(f"{seconds:.6g}") for seconds in costs],
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


def refuse_put_together(plan: Plan) -> None:
    """Refuse a plan that no other machine can carry out: of inputs put together of several checkpoints
    before they are read, or of an adapter."""
    recipe = plan.recipe
    what = {
        "an adapter": plan.emission is not None,
        "a mixture of experts": recipe.mixture is not None,
        "a merge in mergekit's language": recipe.merge is not None,
        "a merge with a rule for the vocabulary": recipe.tokenizer is not None,
    }
    for kind, is_one in what.items():
        if is_one:
            do = "Leave out --plan and --engine ray."
            raise UsageError("plan", f"only one machine can make {kind}", do)


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
    except (ValueError, RecursionError, KeyError, UsageError, plans.Misfit) as error:
        words = str(error) if isinstance(error, plans.Misfit) else "its content is damaged"
        raise InputRefused(path, f"is no plan that this uvmerge reads: {words}", _DO) from error
    if not runs or references.keys() != runs[0].plan.inputs.keys():
        raise InputRefused(path, "is no plan that this uvmerge reads: inputs are missing", _DO)
    if costs is not None and not _fit(costs, len(jobs([run.plan for run in runs]))):
        raise InputRefused(path, "is no plan that this uvmerge reads: its costs do not fit", _DO)
    return PlanFile(path, references, runs[0].said["device"], shared, runs, costs)


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
    if not os.path.isabs(out) or "device" not in said:
        raise plans.Misfit("its output has no path, or its device is missing")
    return Run(plan.recipe, plan, out, Path(out), said, samples, head)


def _pinned(plan: Plan, references: Mapping[str, Reference]) -> dict[str, str]:
    """The inputs as any machine finds them: with commit, by URL, or by their absolute path."""
    return {
        role: f"hf://{identity['reference']}@{identity['commit']}"
        if identity["commit"]
        else str(references[role])
        if is_store(references[role])
        else os.path.abspath(expanded(references[role]))
        for role, identity in plan.inputs.items()
    }


def _differing(versions: Any) -> str:
    """`torch 2.6.0 (here 2.13.0), …`."""
    here = manifest.versions()
    found = plans.mapping(versions)
    changed = (n for n in here if found.get(n) != here[n])
    return ", ".join(f"{name} {found.get(name)} (here {here[name]})" for name in changed)
