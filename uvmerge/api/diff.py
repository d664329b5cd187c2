"""`uvmerge diff`: measure how far fine-tuned checkpoints have moved from their base.

    found = uvmerge.diff(base, finetuned, top=0.2)
    found.save("report")

The flow: references → checkpoints → pairing → engine → findings → report.
"""

from __future__ import annotations

import os
import re
import shlex
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ..checkpoint.folder import Checkpoint
from ..checkpoint.pickled import load_pickles
from ..checkpoint.selection import Selection
from ..engine.progress import Progress
from ..engine.settings import Control, Phases, Settings
from ..errors import InputRefused, Interrupted, RunFailed, UsageError, UvmergeError, counted
from ..hub import locate as hub
from ..measure.findings import Behaviour, Compared, Findings, as_data
from ..measure.measures import UNRELATED_COSINE
from ..operations.options import DEFAULT_TOP, exclusive
from ..output import manifest, writer
from ..plan import preflight
from ..plan.pairing import Pairing, pair
from ..plan.planner import BASE, FINETUNED
from ..recipe.recipe import Recipe, RecipeStep
from ..text import parse_size
from . import run as api

if TYPE_CHECKING:
    from ..engine.measuring import Rank

# What a report's folder holds, and what a killed run may leave there.
_MADE = re.compile(r"(report\.json|matrices\.csv|report\.html)(\.new)?")


class Diff(Findings):
    """`Findings` with what one does with them."""

    def as_data(self) -> dict[str, Any]:
        """JSON-able data, as in `report.json`."""
        return as_data(self)

    def save(self, folder: str | Path, *, overwrite: bool = False) -> list[Path]:
        """Write `report.json`, `matrices.csv` and `report.html` into `folder`; returns the paths.

        Raises:
            InputRefused: there are other files in it, and not `overwrite`.
        """
        from .. import report

        target = refuse_folder(folder, overwrite)
        with writer.disk_errors(target, target, resumes=False):
            return report.save(self, target)

    def save_figures(self, folder: str | Path) -> list[Path]:
        """Write the report's figures as PNG and PDF into `folder` (needs matplotlib)."""
        from ..report.figures import save_figures

        with writer.disk_errors(folder, Path(folder), resumes=False):
            return save_figures(self, folder)

    def to_frame(self) -> Any:
        """A pandas DataFrame with a row per matrix and checkpoint, as in `matrices.csv`."""
        try:
            import pandas  # type: ignore[import-untyped,unused-ignore]
        except ImportError as error:
            raise UsageError("to_frame", "needs pandas", "pip install pandas") from error
        from ..report import rows

        return pandas.DataFrame(rows(self))

    def __str__(self) -> str:
        from ..report import summary

        return summary(self)

    def _repr_html_(self) -> str:
        from ..report import figure

        return figure(self)


def diff(
    base: api.Reference,
    *checkpoints: api.Reference,
    top: float | str | None = None,
    rank: int | None = None,
    energy: float | str | None = None,
    layers: str | Sequence[int] | None = None,
    modules: str | Sequence[str] | None = None,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    device: str = "auto",
    precision: Literal["exact", "fast"] = "exact",
    workers: int = 0,
    memory: str | int | None = None,
    factors: api.Reference | None = None,
    allow_pickle: bool = False,
    kl: str | Path | None = None,
    quiet: bool = True,
    progress: Progress | None = None,
    control: Control | None = None,
) -> Diff:
    """Measure each of `checkpoints` against `base`, every matrix decomposed once.

    Args:
        top, rank, energy: how many leading triplets k: a fraction of min(m, n) (0.2), a count, or
            the smallest k with that share of the base's squared values.
        layers, modules, include, exclude: which matrices, as for an operation; the default is
            attention and MLP of the decoder layers.
        kl: a JSONL file of prompts, on which the models are run and compared too.

    For the other keywords see `uvmerge.api.RunOptions`.

    Returns:
        The findings; an unrelated pair is a finding too (`verdict`).

    Raises:
        InputRefused: a checkpoint cannot be read, or names can be aligned in no or several ways.
        Unrelated: hardly any name matches.
    """
    if not checkpoints:
        raise UsageError("diff", "compares nothing with the base", "Name one or more checkpoints.")
    exclusive(top=top, rank=rank, energy=energy)
    step = RecipeStep.parse("restore", {
        "top": top, "rank": rank, "energy": energy,
        "layers": layers, "modules": modules, "include": include, "exclude": exclude,
    })  # fmt: skip
    asked, filters = step.options or {"top": DEFAULT_TOP}, step.selection
    api.check_precision(precision)
    progress = progress or Progress(quiet=quiet)
    started, phases = time.monotonic(), Phases()
    prompts = _prompts(kl)
    settings = Settings(
        ("cpu",), precision, workers, 0 if memory is None else parse_size(memory, "memory"),
        api.factors_of(factors),
    )  # fmt: skip
    with ExitStack() as stack:
        with phases.timed("open"):
            opened = [
                _opened(reference, kl is None, allow_pickle, number, stack)
                for number, reference in enumerate((base, *checkpoints))
            ]
            _tell_apart(opened)
            if settings.factors is not None:
                writer.check_apart(settings.factors.resolve(), [each.folder for each in opened])
        with phases.timed("plan"):
            pairing = pair(opened[0], opened[1:], filters)
            _warn_unrelated(pairing, opened, progress)
        with phases.timed("import"):
            from ..engine.measuring import Rank

            settings = replace(settings, devices=api.devices_of(device))
        found: Sequence[Behaviour | None] = [None] * len(checkpoints)
        if prompts is not None:  # first: it refuses what measuring takes
            with phases.timed("kl"):
                found = _behaviours(opened, prompts, settings, progress)
        measured, pairs = _measure(
            pairing, opened, Rank(**asked), settings, control, phases, progress
        )
        compared = [replace(each, behaviour=kl) for each, kl in zip(measured, found)]
        phases.seconds["total"] = time.monotonic() - started
        return Diff(
            opened[0].label, opened[0].commit, tuple(compared), tuple(pairs),
            _said(asked, filters, settings), manifest.versions(), dict(phases.seconds),
        )  # fmt: skip


def report_after(
    recipe: Recipe, given: Mapping[str, api.Reference], result: api.Result, **options: Any
) -> None:
    """Write the report of a surgery that is finished, and say so where that fails.

    Args:
        given: base and fine-tuned; those of the Hub are measured at the commits that were edited.
        options: of `uvmerge.api.RunOptions`, `report` among them.
    """
    report, out = options["report"], result.out
    assert out is not None
    references = {
        role: f"{it['reference']}@{it['commit']}" if it["commit"] else given[role]
        for role, it in result.plan.inputs.items()
    }
    words = map(str, (references[BASE], references[FINETUNED], out))
    do = f"{out} is finished; for the report: uvmerge diff {shlex.join(words)} --out {report}"
    try:
        found = before_and_after(recipe, references, out, **options)
        written = found.save(report, overwrite=options["overwrite"])
    except Interrupted as error:
        raise Interrupted(report, error.exit_code - 128, do) from None
    except UvmergeError as error:
        raise RunFailed(report, f"could not be made: {error.where}: {error.what}", do) from error
    progress = options["progress"] or Progress(quiet=options["quiet"])
    for path in written:
        progress.say(f"wrote {path}")


def before_and_after(
    recipe: Recipe, references: Mapping[str, api.Reference], out: Path, **options: Any
) -> Diff:
    """What a surgery did: the fine-tuned checkpoint and OUT, each against the base, at the rank of
    the first step that names one.

    Args:
        options: of `uvmerge.api.RunOptions`.
    """
    shared = ("device", "precision", "workers", "memory", "factors", "allow_pickle", "progress",
              "control", "quiet")  # fmt: skip
    named = (
        {key: step.options[key] for key in ("top", "rank", "energy") if key in step.options}
        for step in recipe.steps
    )
    rank = next(filter(None, named), {})
    kept = {key: options[key] for key in shared if key in options}
    return diff(references[BASE], references[FINETUNED], out, **rank, **kept)


def _measure(
    pairing: Pairing,
    opened: Sequence[Checkpoint],
    rank: Rank,
    settings: Settings,
    control: Control | None,
    phases: Phases,
    progress: Progress,
) -> tuple[list[Compared], Any]:
    """Every match through the engine, put together per checkpoint."""
    from ..engine import measuring

    control = control or Control()
    by_role = {measuring.role(i): checkpoint for i, checkpoint in enumerate(opened)}
    before = {role: checkpoint.state() for role, checkpoint in by_role.items()}
    progress.say(
        f"measuring {counted(len(pairing.matches), 'matrix')} of {opened[0].label} against"
        f" {counted(len(opened) - 1, 'checkpoint')} ({settings.device}, {settings.precision})"
    )
    work = measuring.work_of(pairing, rank)
    with phases.timed("compare"), progress.bar(work, control), control.listen():
        measured, others = measuring.run(pairing, by_role, rank, settings, control, phases)
    if control.stop.is_set():
        kept = f"What is decomposed is in {settings.factors}; the same command goes on from there."
        do = kept if settings.factors is not None else "Nothing was written."
        raise Interrupted("diff", control.signal_number, do)
    api.refuse_changed_inputs(before, by_role)
    compared = []
    for i, (checkpoint, partners) in enumerate(zip(opened[1:], pairing.partners)):
        entries = [each.entries[i] for each in measured]
        compared.append(Compared(
            checkpoint.label, checkpoint.commit, tuple(e for e in entries if e is not None),
            tuple(others[i]), tuple(dict.fromkeys([*opened[0].notes, *partners.notes])),
        ))  # fmt: skip
    return compared, measuring.pairs_of(measured, len(opened))


def _opened(
    reference: api.Reference, weights_only: bool, allow_pickle: bool, number: int, stack: ExitStack
) -> Checkpoint:
    found = hub.locate(reference, weights_only=weights_only)
    opened = Checkpoint.open(
        found.folder, label=found.label, commit=found.commit,
        load_pickles=load_pickles if allow_pickle else None,
    )  # fmt: skip
    stack.enter_context(opened)
    preflight.refuse_unusable(opened, f"checkpoint {number}" if number else BASE)
    return opened


def _tell_apart(opened: Sequence[Checkpoint]) -> None:
    """Give checkpoints of one label longer ones: the commit, the folders above, or a number."""
    counts = Counter(checkpoint.label for checkpoint in opened)
    alike = [checkpoint for checkpoint in opened if counts[checkpoint.label] > 1]
    for number, checkpoint in enumerate(alike, 1):
        if checkpoint.commit is not None:
            checkpoint.label += f"@{checkpoint.commit[:7]}"
            continue
        parts = checkpoint.folder.resolve().parts
        others = [each.folder.resolve().parts for each in alike if each is not checkpoint]
        depth = next((n for n in (2, 3) if all(parts[-n:] != o[-n:] for o in others)), 0)
        checkpoint.label = "/".join(parts[-depth:]) if depth else f"{checkpoint.label} ({number})"


def _warn_unrelated(pairing: Pairing, opened: Sequence[Checkpoint], progress: Progress) -> None:
    """Say so at once where a sample looks unrelated: measuring all of it may take long."""
    base = opened[0]
    for i, checkpoint in enumerate(opened[1:]):
        plain = [
            (base.tensors[match.base.tensor], checkpoint.tensors[view.tensor])
            for match in pairing.matches
            if (view := match.others[i]) is not None and view.expert is None is match.base.expert
        ]
        cosine = preflight.sampled_cosine(plain, base, checkpoint)
        if cosine is not None and cosine < UNRELATED_COSINE:
            progress.say(
                f"warning: {base.label} and {checkpoint.label} look unrelated:"
                f" {preflight.unrelated(cosine)} (a sample)"
            )


def _prompts(path: str | Path | None) -> Any:
    if path is None:
        return None
    from ..models.prompts import read_prompts

    return read_prompts(path)


def _behaviours(
    opened: Sequence[Checkpoint], prompts: Any, settings: Settings, progress: Progress
) -> list[Behaviour]:
    from ..models.behaviour import behaviours

    progress.say(f"running {counted(len(opened), 'model')} on {counted(len(prompts), 'prompt')}")
    folders = [checkpoint.folder for checkpoint in opened]
    return behaviours(folders[0], folders[1:], prompts, device=settings.devices[0])


def _said(asked: Mapping[str, Any], filters: Selection, settings: Settings) -> dict[str, Any]:
    """What was asked for, as the report says it."""
    chosen = {
        "layers": None if filters.layers is None else list(filters.layers),
        "modules": None if filters.modules is None else list(filters.modules),
        "include": list(filters.include), "exclude": list(filters.exclude),
    }  # fmt: skip
    given = {key: value for key, value in chosen.items() if value}
    return {**asked, **given, "device": settings.device, "precision": settings.precision}


def refuse_folder(
    folder: str | Path,
    overwrite: bool = False,
    inputs: Sequence[api.Reference] = (),
    factors: api.Reference | None = None,
) -> Path:
    """The real path of a report's folder; refuses one that cannot be made or written to, a place
    within a local input or the factors, and other files in it unless `overwrite`."""
    target = api.target_of(folder)
    writer.check_apart(target, [Path(each) for each in inputs if os.path.isdir(each)])
    if factors is not None:
        writer.check_apart(target, [Path(factors)], "other output")
    try:
        target.stat()
    except FileNotFoundError:
        pass
    except OSError as error:
        raise UsageError(folder, f"cannot be a folder: {error.strerror}", "Name another.") from None
    there = next(path for path in (target, *target.parents) if path.exists())
    if not there.is_dir():
        raise UsageError(folder, "is a file", "Name a folder for the report.")
    if not os.access(there, os.W_OK):
        raise UsageError(folder, f"cannot be written: {there} is read-only", "Name another folder.")
    if there == target and not overwrite:
        try:
            strange = sorted(name for name in os.listdir(target) if not _MADE.fullmatch(name))
        except OSError as error:
            raise RunFailed(target, f"cannot be read: {error.strerror}") from error
        if strange:
            raise InputRefused(
                target, f"is not empty, and holds more than a report ({strange[0]})",
                "Name another folder, or pass --overwrite to write the report beside it.",
            )  # fmt: skip
    return target
