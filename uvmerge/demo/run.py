"""`uvmerge demo OUT`: repair the embedded pair in several ways and measure every result.

Every row of the table is a command that a user could run on the pair: an operation writes a
complete checkpoint to `OUT/<name>`, and that checkpoint is loaded through transformers and asked
the same freshly drawn hands under both rules of `sums`. The settings are fixed here, and every row
is reported, whatever it shows. `OUT/report.md` and `OUT/report.json` hold the results;
`OUT/diff/report.html` shows where the weights of some of the checkpoints moved.

Importing this module imports neither torch nor transformers; `run` imports both.
"""

from __future__ import annotations

import json
import platform
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from importlib import metadata
from pathlib import Path

from ..errors import UsageError
from ..output import manifest
from ..output.lock import lock_of, locked
from ..output.places import refuse_read_only, target_of
from . import pair, sums
from .table import BASE, DIFF, FINETUNED, REPORT, DemoReport, Row, Score, markdown

_SHOWN = ("restore-0.2", "interpolate-0.3")  # in diff/report.html, beside the fine-tuned model
_PACKAGES = ("uvmerge", "torch", "transformers", "tokenizers", "safetensors")


@dataclass(frozen=True)
class _Job:
    """One operation of the demo.

    Attributes:
        name: of the checkpoint's folder and of the row.
        options: as typed on the command line.
        call: the same operation in Python, on (base, finetuned, out).
    """

    name: str
    operation: str
    options: str
    call: Callable[..., object]

    @property
    def command(self) -> str:
        return f"uvmerge {self.operation} base finetuned {self.name} {self.options}"


def _jobs() -> list[_Job]:
    """The operations of the demo, in the order of the table."""
    import uvmerge

    jobs = [
        _Job(f"restore-{top}", "restore", f"--top {top}", partial(uvmerge.restore, top=top))
        for top in (0.05, 0.1, 0.2, 0.5)
    ]
    jobs += [
        _Job(
            "restore-0.2-alpha-0.5",
            "restore",
            "--top 0.2 --alpha 0.5",
            partial(uvmerge.restore, top=0.2, alpha=0.5),
        ),
        _Job(
            "project-right-0.2",
            "project",
            "--top 0.2 --side right",
            partial(uvmerge.project, top=0.2, side="right"),
        ),
        _Job("values-0.2", "values", "--top 0.2", partial(uvmerge.values, top=0.2)),
        _Job(
            "reset-layers-0.25",
            "reset-layers",
            "--frac 0.25",
            partial(uvmerge.reset_layers, frac=0.25),
        ),
    ]
    jobs += [
        _Job(
            f"interpolate-{scale}",
            "interpolate",
            f"--scale {scale}",
            partial(uvmerge.interpolate, scale=scale),
        )
        for scale in (0.1, 0.3, 0.5)
    ]
    return jobs


def run(
    out: Path,
    *,
    hands: int = 2000,
    seed: int = 1927,
    overwrite: bool = False,
    on_row: Callable[[Row], None] | None = None,
) -> DemoReport:
    """Run every operation on the embedded pair, measure all checkpoints and write the report.

    What an earlier call with the same arguments has made is kept, so that the call goes on where a
    kill has stopped it; its report is written last.

    Args:
        out: folder for the checkpoints, `report.md`, `report.json` and `diff/`.
        hands: how many hands to ask under each rule; every checkpoint is asked the same hands.
        seed: seed of the draw of these hands.
        overwrite: replace what an earlier run left in `out`.
        on_row: called with each row as soon as it is measured.

    Raises:
        UsageError: `out` is a file, or holds something that would be overwritten and `overwrite` is
            false. Nothing has been written then.
        Locked: another process is writing to `out`.
    """
    jobs, target = _jobs(), target_of(out)
    versions = _versions()
    _refuse_taken(target, jobs, DemoReport((), hands, seed, versions), overwrite)
    target.parent.mkdir(parents=True, exist_ok=True)
    with locked(lock_of(target)):
        rows = _measured(target, jobs, sums.deal(hands, seed), overwrite, on_row)
        report = DemoReport(tuple(rows), hands, seed, versions)
        text = json.dumps(report.as_dict(), indent=2) + "\n"
        manifest.write_whole(target / f"{REPORT}.json", text.encode())
        manifest.write_whole(target / f"{REPORT}.md", markdown(report).encode())
    return report


def _measured(
    out: Path,
    jobs: Sequence[_Job],
    dealt: list[sums.Hand],
    overwrite: bool,
    on_row: Callable[[Row], None] | None,
) -> list[Row]:
    """Make the checkpoints and `diff/`; returns the rows of the table."""
    import uvmerge

    base, finetuned = out / BASE, out / FINETUNED
    for source, copy in zip(pair(), (base, finetuned), strict=True):
        _copy(source, copy)
    given = _scores(base, dealt), _scores(finetuned, dealt)
    rows: list[Row] = []

    def add(name: str, command: str, scores: tuple[Score, Score]) -> None:
        rows.append(_row(name, command, scores, *given))
        if on_row is not None:
            on_row(rows[-1])

    add(BASE, "", given[0])
    add(FINETUNED, "", given[1])
    for job in jobs:
        folder = out / job.name
        job.call(base, finetuned, folder, overwrite=overwrite, quiet=True)
        add(job.name, job.command, _scores(folder, dealt))
    shown = [out / name for name in _SHOWN]
    uvmerge.diff(base, finetuned, *shown).save(out / DIFF, overwrite=overwrite)
    return rows


def _copy(source: Path, folder: Path) -> None:
    """Copy the files that are not there yet, each whole."""
    folder.mkdir(parents=True, exist_ok=True)
    for path in sorted(source.iterdir()):
        if not _has_content(folder / path.name, path):
            manifest.write_whole(folder / path.name, path.read_bytes())


def _has_content(path: Path, source: Path) -> bool:
    return path.is_file() and path.read_bytes() == source.read_bytes()


def _refuse_taken(out: Path, jobs: Sequence[_Job], asked: DemoReport, overwrite: bool) -> None:
    """Refuse an `out` that is a file, or holds something that would be overwritten.

    Args:
        asked: the report that will be written, yet without rows.
    """
    if out.exists() and not out.is_dir():
        raise UsageError(out, "is a file", "Name a folder.")
    refuse_read_only(out, next(p for p in (out, *out.absolute().parents) if p.is_dir()))
    if overwrite:
        return
    sources = dict(zip((BASE, FINETUNED), pair(), strict=True))
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


def _row(
    name: str,
    command: str,
    scores: tuple[Score, Score],
    base: tuple[Score, Score],
    finetuned: tuple[Score, Score],
) -> Row:
    """A row of the table; every pair of scores is (in domain, out of domain)."""
    inside, outside = scores
    floor, goal = finetuned[1].right, base[1].right
    return Row(
        name, command, inside, outside,
        of_base=outside.right / goal if goal else None,
        of_loss=(outside.right - floor) / (goal - floor) if goal != floor else None,
    )  # fmt: skip


def _scores(folder: Path, hands: list[sums.Hand]) -> tuple[Score, Score]:
    """The scores of a checkpoint in domain and out of domain."""
    inside, outside = sums.accuracies(folder, (sums.IN_DOMAIN, sums.OUT_OF_DOMAIN), hands)
    return Score(inside, len(hands)), Score(outside, len(hands))


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = "not installed as a package"
    return found
