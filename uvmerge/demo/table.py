"""The job of ``uvmerge demo OUT``: repair the embedded pair in several ways and measure each.

Every row is what a user would run on the pair: an operation writes a complete checkpoint to
``OUT/<name>``, and that checkpoint is loaded through transformers and asked the same freshly
drawn hands under both rules of :mod:`uvmerge.demo.cards`. The settings are fixed here; every row
is reported, whatever it shows. ``OUT/report.md`` and ``OUT/report.json`` hold the results, and
``OUT/diff/report.html`` where the weights of some of the checkpoints moved.

Importing this module imports neither torch nor transformers; :func:`run` does.
"""

from __future__ import annotations

import json
import platform
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any

from ..errors import UsageError
from . import cards, pair

__all__ = [
    "BASE",
    "FINETUNED",
    "DemoReport",
    "Row",
    "Score",
    "markdown",
    "run",
    "text",
    "text_footer",
    "text_header",
    "text_row",
]

BASE = "base"
"""Name of the base model's row."""

FINETUNED = "finetuned"
"""Name of the fine-tuned model's row."""

_REPORT, _DIFF = "report", "diff"
_SHOWN = ("restore-0.2", "interpolate-0.3")  # beside the fine-tuned model, in the page of weights
_PACKAGES = ("uvmerge", "torch", "transformers", "tokenizers", "safetensors")


@dataclass(frozen=True)
class Score:
    """Right answers among the hands asked."""

    right: int
    total: int

    @property
    def accuracy(self) -> float:
        """Share of right answers."""
        return self.right / self.total

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % Wilson interval of the accuracy."""
        return cards.wilson(self.right, self.total)

    def __str__(self) -> str:
        low, high = self.interval
        return f"{self.accuracy:.3f} ({low:.3f}-{high:.3f})"


@dataclass(frozen=True)
class Row:
    """One checkpoint and how it did.

    Attributes:
        name: the checkpoint's folder name.
        command: what a user would type to get it; empty for the two given checkpoints.
        in_domain: score under the rule that was fine-tuned on.
        out_of_domain: score under the other rule.
        of_base: out-of-domain accuracy divided by the base's; None if the base has none right.
        of_loss: share of the out-of-domain accuracy lost in fine-tuning that is won back; None if
            base and fine-tuned model do not differ.
    """

    name: str
    command: str
    in_domain: Score
    out_of_domain: Score
    of_base: float | None
    of_loss: float | None


@dataclass(frozen=True)
class DemoReport:
    """All rows, base and fine-tuned model first, and what they were measured with."""

    rows: tuple[Row, ...]
    hands: int
    seed: int
    versions: dict[str, str]

    def as_dict(self) -> dict[str, Any]:
        """Return the report as plain data, as written to ``report.json``."""
        return {
            "task": {
                "in_domain_rule": cards.IN_DOMAIN,
                "out_of_domain_rule": cards.OUT_OF_DOMAIN,
                "hands_per_rule": self.hands,
                "hands_seed": self.seed,
            },
            "versions": self.versions,
            "rows": [
                {
                    "name": row.name,
                    "command": row.command,
                    "in_domain": _plain(row.in_domain),
                    "out_of_domain": _plain(row.out_of_domain),
                    "recovered_of_base": row.of_base,
                    "recovered_of_loss": row.of_loss,
                }
                for row in self.rows
            ],
        }


@dataclass(frozen=True)
class _Job:
    """An operation: its name, its options as typed, and its call as (base, finetuned, out)."""

    name: str
    operation: str
    options: str
    call: Callable[..., object]

    @property
    def command(self) -> str:
        return f"uvmerge {self.operation} base finetuned {self.name} {self.options}"


def _jobs() -> list[_Job]:
    """List the operations of the demo in the order of the table."""
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
        out: folder to write the checkpoints and ``report.md`` and ``report.json`` to.
        hands: hands to ask under each rule; the same ones for every checkpoint.
        seed: seed of these hands.
        overwrite: replace what an earlier run left in ``out``.
        on_row: called with each row as soon as it is measured.

    Raises:
        UsageError: ``out`` is a file, or holds something that would be written over and
            ``overwrite`` is false. Nothing has been written then.
    """
    import uvmerge

    jobs = _jobs()
    out = Path(out)
    if out.exists() and not out.is_dir():
        raise UsageError(out, "is a file", "Name a folder.")
    targets = [
        BASE,
        FINETUNED,
        *(job.name for job in jobs),
        f"{_REPORT}.md",
        f"{_REPORT}.json",
        _DIFF,
    ]
    taken = [name for name in targets if (out / name).exists()]
    if taken and not overwrite:
        raise UsageError(
            out, f"already holds {', '.join(taken)}", "Name another folder, or pass --overwrite."
        )
    dealt = cards.deal(hands, seed)
    base, finetuned = out / BASE, out / FINETUNED
    for source, copy in zip(pair(), (base, finetuned), strict=True):
        shutil.copytree(source, copy, dirs_exist_ok=True, copy_function=shutil.copyfile)
    base_scores, finetuned_scores = _scores(base, dealt), _scores(finetuned, dealt)
    rows: list[Row] = []

    def add(name: str, command: str, scores: tuple[Score, Score]) -> None:
        inside, outside = scores
        floor, goal = finetuned_scores[1].right, base_scores[1].right
        row = Row(
            name=name,
            command=command,
            in_domain=inside,
            out_of_domain=outside,
            of_base=outside.right / goal if goal else None,
            of_loss=(outside.right - floor) / (goal - floor) if goal != floor else None,
        )
        rows.append(row)
        if on_row is not None:
            on_row(row)

    add(BASE, "", base_scores)
    add(FINETUNED, "", finetuned_scores)
    for job in jobs:
        folder = out / job.name
        job.call(base, finetuned, folder, overwrite=overwrite, quiet=True)
        add(job.name, job.command, _scores(folder, dealt))

    report = DemoReport(tuple(rows), hands, seed, _versions())
    (out / f"{_REPORT}.json").write_text(
        json.dumps(report.as_dict(), indent=2) + "\n", encoding="utf-8"
    )
    (out / f"{_REPORT}.md").write_text(markdown(report), encoding="utf-8")
    shown = [out / name for name in _SHOWN]
    uvmerge.diff(base, finetuned, *shown).save(out / _DIFF, overwrite=True)
    return report


def _scores(folder: Path, hands: list[cards.Hand]) -> tuple[Score, Score]:
    """Measure a checkpoint in and out of domain."""
    inside, outside = cards.accuracies(folder, (cards.IN_DOMAIN, cards.OUT_OF_DOMAIN), hands)
    return Score(inside, len(hands)), Score(outside, len(hands))


def _plain(score: Score) -> dict[str, Any]:
    return {
        "right": score.right,
        "total": score.total,
        "accuracy": score.accuracy,
        "wilson_95": list(score.interval),
    }


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = "not installed as a package"
    return found


def _share(value: float | None) -> str:
    return "n/a" if value is None else f"{round(value, 2) + 0.0:.2f}"


def _cells(row: Row) -> tuple[str, ...]:
    return (
        row.name,
        str(row.in_domain),
        str(row.out_of_domain),
        _share(row.of_base),
        _share(row.of_loss),
    )


_HEADINGS = ("checkpoint", "in domain (95 %)", "out of domain (95 %)", "of base", "of loss")
_WIDTHS = (22, 21, 21, 7, 7)
_LEGEND = (
    f"in domain: rule '{cards.IN_DOMAIN}', which fine-tuning continued on."
    f" out of domain: rule '{cards.OUT_OF_DOMAIN}'.\n"
    "The hands are the same for every checkpoint and both rules; in brackets, 95 % Wilson"
    " intervals.\n"
    "of base: out-of-domain accuracy / the base's.\n"
    "of loss: share of the out-of-domain accuracy lost in fine-tuning that is won back."
)


def _line(cells: tuple[str, ...]) -> str:
    first, *rest = zip(cells, _WIDTHS, strict=True)
    return "  ".join([first[0].ljust(first[1]), *(cell.rjust(width) for cell, width in rest)])


def text_header() -> str:
    """Return the two heading lines of the plain text table."""
    return _line(_HEADINGS) + "\n" + _line(tuple("-" * width for width in _WIDTHS))


def text_row(row: Row) -> str:
    """Return one line of the plain text table."""
    return _line(_cells(row))


def _program() -> str:
    """How this command line was started, for commands to copy."""
    started = Path(sys.argv[0])
    return str(started) if started.name == "uvmerge" else "uvmerge"


def text_footer(out: str | Path) -> str:
    """Return the legend of the plain text table and where the report is."""
    return (
        f"\n{_LEGEND}\n\nWritten to {out}: every checkpoint, {_REPORT}.md and {_REPORT}.json, and"
        f" {_DIFF}/report.html, which shows where the weights moved. Next:\n"
        f"  {_program()} check {out}/interpolate-0.3 --load --against {out}/{FINETUNED}\n"
        f"  {_program()} restore --top 0.3 {out}/{BASE} {out}/{FINETUNED} {out}/mine\n"
        "  and the same two commands on your own base and fine-tuned checkpoint."
    )


def text(report: DemoReport) -> str:
    """Return the plain text table, at most 100 columns wide, with its legend."""
    asked = f"{report.hands} hands per rule, drawn with seed {report.seed}."
    return "\n".join([text_header(), *map(text_row, report.rows), "", _LEGEND, asked])


def markdown(report: DemoReport) -> str:
    """Return the report as Markdown, as written to ``report.md``."""
    headings = (*_HEADINGS, "command")
    lines = [
        "# uvmerge demo",
        "",
        "A tiny Llama that was trained on two rules of a card game (the base), the same model after"
        " fine-tuning on the first rule alone, and what each operation makes of the two.",
        "",
        f"A question is a rule word and four cards; the answer is their sum. J, Q and K count 10"
        f" under `{cards.IN_DOMAIN}` (in domain: fine-tuning continued on it) and 11, 12 and 13"
        f" under `{cards.OUT_OF_DOMAIN}` (out of domain). An answer is right if it is the likeliest"
        " next token of the whole vocabulary.",
        "",
        f"Each checkpoint was asked the same {report.hands} hands under each rule (seed"
        f" {report.seed}). No hand was trained on, in any order of its cards, and each holds a"
        " face card. In brackets: 95 % Wilson intervals, which cover the draw of the hands and"
        " nothing else; they do not say how far another pair of models would differ.",
        "",
        "| " + " | ".join(headings) + " |",
        "| --- | ---: | ---: | ---: | ---: | --- |",
    ]
    for row in report.rows:
        command = f"`{row.command}`" if row.command else "(given)"
        lines.append("| " + " | ".join((*_cells(row), command)) + " |")
    lines += [
        "",
        "- of base: out-of-domain accuracy divided by the base's. The fine-tuned model's own value"
        " is what doing nothing scores.",
        "- of loss: (accuracy - fine-tuned) / (base - fine-tuned), out of domain. 0 is the"
        " fine-tuned model, 1 the base.",
        "",
        "Every row that was run is shown. This is one small pair and one task: it shows that the"
        " operations run and what they do here, and is no forecast for another model.",
        "",
        "Versions: " + ", ".join(f"{name} {v}" for name, v in report.versions.items()) + ".",
        "",
    ]
    return "\n".join(lines)
