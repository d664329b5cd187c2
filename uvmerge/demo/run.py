"""`uvmerge demo OUT`: repair the embedded pair in several ways and measure every result.

Every row of the table is a command that a user could run on the pair: an operation writes a
complete checkpoint to `OUT/<name>`, and that checkpoint is loaded through transformers and asked
the same freshly drawn hands under both rules of `cards`. The settings are fixed here, and every row
is reported, whatever it shows. `OUT/report.md` and `OUT/report.json` hold the results;
`OUT/diff/report.html` shows where the weights of some of the checkpoints moved.

Importing this module imports neither torch nor transformers; `run` imports both.
"""

from __future__ import annotations

import json
import platform
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from importlib import metadata
from pathlib import Path

from ..errors import UsageError
from ..output.places import refuse_read_only
from . import cards, pair
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

    Args:
        out: folder for the checkpoints, `report.md`, `report.json` and `diff/`.
        hands: how many hands to ask under each rule; every checkpoint is asked the same hands.
        seed: seed of the draw of these hands.
        overwrite: replace what an earlier run left in `out`.
        on_row: called with each row as soon as it is measured.

    Raises:
        UsageError: `out` is a file, or holds something that would be overwritten and `overwrite` is
            false. Nothing has been written then.
    """
    import uvmerge

    jobs, out = _jobs(), Path(out)
    _refuse_taken(out, jobs, overwrite)
    dealt = cards.deal(hands, seed)
    base, finetuned = out / BASE, out / FINETUNED
    for source, copy in zip(pair(), (base, finetuned), strict=True):
        shutil.copytree(source, copy, dirs_exist_ok=True, copy_function=shutil.copyfile)
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
    report = DemoReport(tuple(rows), hands, seed, _versions())
    text = json.dumps(report.as_dict(), indent=2) + "\n"
    (out / f"{REPORT}.json").write_text(text, encoding="utf-8")
    (out / f"{REPORT}.md").write_text(markdown(report), encoding="utf-8")
    shown = [out / name for name in _SHOWN]
    uvmerge.diff(base, finetuned, *shown).save(out / DIFF, overwrite=True)
    return report


def _refuse_taken(out: Path, jobs: Sequence[_Job], overwrite: bool) -> None:
    """Refuse an `out` that is a file, or holds something that would be overwritten."""
    if out.exists() and not out.is_dir():
        raise UsageError(out, "is a file", "Name a folder.")
    refuse_read_only(out, next(p for p in (out, *out.absolute().parents) if p.is_dir()))
    written = [BASE, FINETUNED, *(job.name for job in jobs), f"{REPORT}.md", f"{REPORT}.json", DIFF]
    taken = [name for name in written if (out / name).exists()]
    if taken and not overwrite:
        raise UsageError(
            out, f"already holds {', '.join(taken)}", "Name another folder, or pass --overwrite."
        )


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


def _scores(folder: Path, hands: list[cards.Hand]) -> tuple[Score, Score]:
    """The scores of a checkpoint in domain and out of domain."""
    inside, outside = cards.accuracies(folder, (cards.IN_DOMAIN, cards.OUT_OF_DOMAIN), hands)
    return Score(inside, len(hands)), Score(outside, len(hands))


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = "not installed as a package"
    return found
