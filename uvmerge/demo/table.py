"""The table of the demo: rows of scores, as text, Markdown and data."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..tasks.statistics import wilson
from ..text import html_table, two_lines
from . import sums

BASE = "base"
"""Name of the base model's row."""

FINETUNED = "finetuned"
"""Name of the fine-tuned model's row."""

REPORT, DIFF = "report", "diff"  # names of the files and the folder beside the checkpoints


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
        return wilson(self.right, self.total)

    def __str__(self) -> str:
        low, high = self.interval
        return f"{self.accuracy:.3f} ({low:.3f}-{high:.3f})"


@dataclass(frozen=True)
class Row:
    """One checkpoint and its scores.

    Attributes:
        name: the checkpoint's folder name.
        command: what a user types to make it; empty for the two embedded checkpoints.
        in_domain: score under the rule that was fine-tuned on.
        out_of_domain: score under the other rule.
        of_base: out-of-domain accuracy divided by the base's; None if the base's is 0.
        of_loss: which share of the out-of-domain accuracy that fine-tuning lost is won back; None
            if fine-tuning lost nothing and won nothing.
    """

    name: str
    command: str
    in_domain: Score
    out_of_domain: Score
    of_base: float | None
    of_loss: float | None


@dataclass(frozen=True)
class DemoReport:
    """All rows, base and fine-tuned model first, with draw of hands and versions."""

    rows: tuple[Row, ...]
    hands: int
    seed: int
    versions: dict[str, str]

    def __repr__(self) -> str:
        names = ", ".join(row.name for row in self.rows)
        return two_lines("DemoReport", f"{self.hands} hands under each rule", names)

    def __str__(self) -> str:
        return text(self)

    def _repr_html_(self) -> str:
        return html_table(
            (*_HEADINGS, "command"), [(*_cells(row), row.command) for row in self.rows]
        )

    def as_dict(self) -> dict[str, Any]:
        """The report as JSON-able data, as in `report.json`."""
        return {
            "task": {
                "in_domain_rule": sums.IN_DOMAIN,
                "out_of_domain_rule": sums.OUT_OF_DOMAIN,
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


def _plain(score: Score) -> dict[str, Any]:
    return {
        "right": score.right,
        "total": score.total,
        "accuracy": score.accuracy,
        "wilson_95": list(score.interval),
    }


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
    f"in domain: rule '{sums.IN_DOMAIN}', which fine-tuning continued on."
    f" out of domain: rule '{sums.OUT_OF_DOMAIN}'.\n"
    "The hands are the same for every checkpoint and both rules; in brackets, 95 % Wilson"
    " intervals.\n"
    "of base: out-of-domain accuracy / the base's.\n"
    "of loss: share of the out-of-domain accuracy lost in fine-tuning that is won back."
)


def _line(cells: tuple[str, ...]) -> str:
    first, *rest = zip(cells, _WIDTHS, strict=True)
    return "  ".join([first[0].ljust(first[1]), *(cell.rjust(width) for cell, width in rest)])


def text_header() -> str:
    """The two heading lines of the plain text table."""
    return _line(_HEADINGS) + "\n" + _line(tuple("-" * width for width in _WIDTHS))


def text_row(row: Row) -> str:
    """One line of the plain text table."""
    return _line(_cells(row))


def _program() -> str:
    """The command as the user typed it, so that the commands of the footer can be copied."""
    started = Path(sys.argv[0])
    return str(started) if started.name == "uvmerge" else "uvmerge"


def text_footer(out: str | Path) -> str:
    """The legend of the plain text table, and where the report is."""
    return (
        f"\n{_LEGEND}\n\nWritten to {out}: every checkpoint, {REPORT}.md and {REPORT}.json, and"
        f" {DIFF}/report.html, which shows where the weights moved. Next:\n"
        f"  {_program()} check {out}/interpolate-0.3 --load --against {out}/{FINETUNED}\n"
        f"  {_program()} restore --top 0.3 {out}/{BASE} {out}/{FINETUNED} {out}/mine\n"
        "  and the same two commands on your own base and fine-tuned checkpoint."
    )


def text(report: DemoReport) -> str:
    """The plain text table, at most 100 columns wide, with its legend."""
    asked = f"{report.hands} hands per rule, drawn with seed {report.seed}."
    return "\n".join([text_header(), *map(text_row, report.rows), "", _LEGEND, asked])


def markdown(report: DemoReport) -> str:
    """The report in Markdown, as in `report.md`."""
    headings = (*_HEADINGS, "command")
    lines = [
        "# uvmerge demo",
        "",
        "A tiny Llama that was trained on two rules of a card game (the base), the same model after"
        " fine-tuning on the first rule alone, and what each operation makes of the two.",
        "",
        f"A question is a rule word and four cards; the answer is their sum. J, Q and K count 10"
        f" under `{sums.IN_DOMAIN}` (in domain: fine-tuning continued on it) and 11, 12 and 13"
        f" under `{sums.OUT_OF_DOMAIN}` (out of domain). An answer is right if it is the likeliest"
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
