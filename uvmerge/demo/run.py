"""`uvmerge demo OUT`: repair an embedded pair in several ways and measure every result.

Every row of the table is a command that a user could run on the pair: an operation writes a
complete checkpoint to `OUT/<name>`, and that checkpoint is loaded through transformers and asked
the same held-out hands under every rule of `sums`. The settings are fixed here, and every row
is reported, whatever it shows. Interpolation comes first, because every other row is judged by
what it has above that line. `OUT/report.md` and `OUT/report.json` hold the results;
`OUT/diff/report.html` shows where the weights of some of the checkpoints moved.

Importing this module imports neither torch nor transformers; `run` imports both.
"""

from __future__ import annotations

import json
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import Any

import uvmerge

from ..errors import UsageError
from ..output import manifest
from ..output.lock import lock_of, locked
from ..output.places import refuse_read_only, target_of
from ..tasks import scores
from ..tasks.goals import Goal
from ..tasks.margins import Estimate, place
from . import PAIRS, evaluator, pair as embedded
from .table import BASE, DIFF, FINETUNED, REPORT, DemoReport, Row, markdown

_SHOWN = ("restore-0.2", "interpolate-0.3")  # in diff/report.html, beside the fine-tuned model
_PACKAGES = ("uvmerge", "torch", "transformers", "tokenizers", "safetensors")
_LINE = "interpolate"
_GOALS = (Goal("in_domain"), Goal("out_of_domain"))


@dataclass(frozen=True)
class _Job:
    """One operation of the demo.

    Attributes:
        name: of the checkpoint's folder and of the row.
        options: by name, as in Python.
        is_control: whether it tells what a part of the model does, and is no repair.
    """

    name: str
    operation: str
    options: Mapping[str, Any]
    is_control: bool = False

    @property
    def is_of_line(self) -> bool:
        """Whether it is an interpolation of the whole model."""
        return self.operation == _LINE and not self.is_control

    @property
    def command(self) -> str:
        """What a user types to do the same."""
        words = (f"--{name.strip('_')} {value}" for name, value in self.options.items())
        return f"uvmerge {self.operation} base finetuned {self.name} {' '.join(words)}"

    def make(self, base: Path, finetuned: Path, out: Path, overwrite: bool) -> None:
        """Write the checkpoint."""
        call = getattr(uvmerge, self.operation.replace("-", "_"))
        call(base, finetuned, out, **self.options, overwrite=overwrite, quiet=True)


def _jobs() -> list[_Job]:
    """The operations of the demo in the order of the table, those of the line first."""
    tops = (0.2, 0.5, 0.7, 0.85)
    return [
        *(_Job(f"{_LINE}-{n / 10}", _LINE, {"scale": n / 10}) for n in range(1, 10)),
        *(_Job(f"restore-{top}", "restore", {"top": top}) for top in (0.05, 0.2, 0.5, 0.7)),
        *(_Job(f"project-{top}", "project", {"top": top}) for top in tops),
        *(_Job(f"project-left-{t}", "project", {"top": t, "side": "left"}) for t in tops),
        _Job("reset-first-0.25", "reset-layers", {"frac": 0.25}),
        _Job("reset-first-0.5", "reset-layers", {"frac": 0.5}),
        _Job("reset-last-0.25", "reset-layers", {"frac": 0.25, "from_": "last"}),
        _Job("values-0.2", "values", {"top": 0.2}, is_control=True),
        _Job("layers-back", "reset-layers", {"frac": 1}, is_control=True),
        _Job("embed-head-back", _LINE, {"scale": 0, "modules": "embeddings,head"}, is_control=True),
    ]


def run(
    out: Path,
    *,
    pair: str = "part",
    hands: int = evaluator.HANDS,
    seed: int = evaluator.SEED,
    overwrite: bool = False,
    on_row: Callable[[Row], None] | None = None,
) -> DemoReport:
    """Run every operation on an embedded pair, measure all checkpoints and write the report.

    What an earlier call with the same arguments has made is kept, so that the call goes on where a
    kill has stopped it; its report is written last.

    Args:
        out: folder for the checkpoints, `report.md`, `report.json` and `diff/`.
        pair: which embedded pair: `part`, whose base knows the rule of the fine-tuning in part, or
            `unseen`, whose base has never seen it.
        hands: how many hands to ask under each rule; every checkpoint is asked the same hands.
        seed: seed of the draw of these hands.
        overwrite: replace what an earlier run left in `out`.
        on_row: called with each row as soon as it is measured.

    Raises:
        UsageError: `out` is a file, or holds something that would be overwritten and `overwrite` is
            false, or there is no such pair. Nothing has been written then.
        Locked: another process is writing to `out`.
    """
    if pair not in PAIRS:
        raise UsageError("pair", f"there is no pair {pair!r}", f"There are: {', '.join(PAIRS)}.")
    jobs, target, given = _jobs(), target_of(out), embedded(pair)
    asked = DemoReport((), pair, hands, seed, _versions())
    _refuse_taken(target, jobs, given, asked, overwrite)
    target.parent.mkdir(parents=True, exist_ok=True)
    with locked(lock_of(target)):
        for source, name in zip(given, (BASE, FINETUNED), strict=True):
            _copy(source, target / name)
        report = replace(asked, rows=tuple(_rows(target, jobs, asked, overwrite, on_row)))
        shown = [target / name for name in _SHOWN]
        found = uvmerge.diff(target / BASE, target / FINETUNED, *shown)
        found.save(target / DIFF, overwrite=overwrite)
        text = json.dumps(report.as_dict(), indent=2) + "\n"
        manifest.write_whole(target / f"{REPORT}.json", text.encode())
        manifest.write_whole(target / f"{REPORT}.md", markdown(report).encode())
    return report


def _rows(
    out: Path,
    jobs: Sequence[_Job],
    asked: DemoReport,
    overwrite: bool,
    on_row: Callable[[Row], None] | None,
) -> list[Row]:
    """Make the checkpoints and measure them; returns the rows of the table."""
    rows: list[Row] = []

    def asked_of(name: str) -> evaluator.Answers:
        return evaluator.answers(out / name, hands=asked.hands, seed=asked.seed)

    def add(row: Row) -> None:
        rows.append(row)
        if on_row is not None:
            on_row(row)

    given = asked_of(BASE), asked_of(FINETUNED)
    for name, found in zip((BASE, FINETUNED), given, strict=True):
        add(_row(name, "", found, given))
    line = [BASE, *(job.name for job in jobs if job.is_of_line), FINETUNED]
    judged = sum(not job.is_of_line for job in jobs)
    for job in jobs:
        job.make(out / BASE, out / FINETUNED, out / job.name, overwrite)
        row = _row(job.name, job.command, asked_of(job.name), given)
        if not job.is_of_line:
            over_line = _over_line(row, [r for r in rows if r.name in line], judged)
            row = replace(row, over_line=over_line, is_control=job.is_control)
        add(row)
    return rows


def _row(
    name: str,
    command: str,
    found: evaluator.Answers,
    given: tuple[evaluator.Answers, evaluator.Answers],
) -> Row:
    """A row of the table; `given` are the answers of the base and of the fine-tuned model."""
    outside, goal, floor = (each.accuracies[1] for each in (found, *given))
    return Row(
        name, command, found,
        of_base=outside / goal if goal else None,
        of_loss=(outside - floor) / (goal - floor) if goal != floor else None,
    )  # fmt: skip


def _over_line(row: Row, line: Sequence[Row], among: int) -> Estimate:
    """What a row has above the line out of domain, at its own accuracy in domain.

    Args:
        line: base, fine-tuned model and what lies between them, in this order.
        among: how many rows are judged, for intervals that hold for all of them at once.
    """
    base, finetuned, *between = line
    points = {each.name: _by_goal(each.answers) for each in (base, *between, finetuned)}
    return place(points, {row.name: _by_goal(row.answers)}, _GOALS, among)[row.name].over_line[0]


def _by_goal(found: evaluator.Answers) -> dict[str, scores.Score]:
    items = scores.Items([str(i).encode() for i in range(len(found.clusters))], found.clusters)
    values = (found.in_domain, found.out_of_domain)
    return {g.name: scores.score_of_items(items, v) for g, v in zip(_GOALS, values, strict=True)}


def _copy(source: Path, folder: Path) -> None:
    """Copy the files that are not there yet, each whole."""
    folder.mkdir(parents=True, exist_ok=True)
    for path in sorted(source.iterdir()):
        if not _has_content(folder / path.name, path):
            manifest.write_whole(folder / path.name, path.read_bytes())


def _has_content(path: Path, source: Path) -> bool:
    return path.is_file() and path.read_bytes() == source.read_bytes()


def _refuse_taken(
    out: Path,
    jobs: Sequence[_Job],
    given: tuple[Path, Path],
    asked: DemoReport,
    overwrite: bool,
) -> None:
    """Refuse an `out` that is a file, or holds something that would be overwritten.

    Args:
        given: the folders of the embedded pair.
        asked: the report that will be written, yet without rows.
    """
    if out.exists() and not out.is_dir():
        raise UsageError(out, "is a file", "Name a folder.")
    refuse_read_only(out, next(p for p in (out, *out.absolute().parents) if p.is_dir()))
    if overwrite:
        return
    sources = dict(zip((BASE, FINETUNED), given, strict=True))
    taken = [name for name, source in sources.items() if _holds_others(out / name, source)]
    made = [job.name for job in jobs if (out / job.name).exists()]
    taken += [name for name in made if not manifest.made_by_uvmerge(out / name)]
    if not _is_same_demo(out / f"{REPORT}.json", asked):
        taken += [name for name in (f"{REPORT}.json", f"{REPORT}.md") if (out / name).exists()]
    if taken:
        raise UsageError(
            out, f"already holds {', '.join(taken)}", "Name another folder, or pass --overwrite."
        )


def _holds_others(folder: Path, source: Path) -> bool:
    """Whether a folder holds something else than `source`, or than a part of it."""
    if not folder.is_dir():
        return folder.exists()
    started = {f"{path.name}.new" for path in source.iterdir()}  # by a run that was killed
    found = (path for path in folder.iterdir() if path.name not in started)
    return not all(
        (source / path.name).is_file() and _has_content(path, source / path.name) for path in found
    )


def _is_same_demo(path: Path, asked: DemoReport) -> bool:
    """Whether a report is of a demo with the same settings and versions."""
    try:
        found = json.loads(path.read_bytes())
        return all(found[key] == asked.as_dict()[key] for key in ("task", "versions"))
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return False


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = "not installed as a package"
    return found
