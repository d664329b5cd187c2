"""The table of the demo: rows of scores, as text, Markdown and data."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from ..tasks.margins import Estimate
from ..tasks.statistics import Floats, Interval, cluster_standard_error, clustered_interval
from ..text import html_table, two_lines
from . import sums
from .evaluator import Answers

BASE = "base"
"""Name of the base model's row."""

FINETUNED = "finetuned"
"""Name of the fine-tuned model's row."""

REPORT, DIFF = "report", "diff"  # names of the files and the folder beside the checkpoints


@dataclass(frozen=True, eq=False)
class Score:
    """The share of right answers, and how sure it is.

    Attributes:
        values: of each hand asked, between 0 and 1: (hands,).
        clusters: of each hand its unordered hand.
    """

    values: Floats
    clusters: Sequence[str]

    @property
    def accuracy(self) -> float:
        """The mean over the hands."""
        return float(self.values.mean())

    @cached_property
    def interval(self) -> Interval:
        """The 95 % interval of the accuracy, by a bootstrap over unordered hands."""
        return clustered_interval(self.values, self.clusters)

    @property
    def standard_error(self) -> float:
        """The standard error of the accuracy, robust to answers that are alike in a cluster."""
        return cluster_standard_error(self.values, self.clusters)

    def __str__(self) -> str:
        low, high = self.interval
        return f"{self.accuracy:.3f} ({low:.3f}-{high:.3f})"


@dataclass(frozen=True, eq=False)
class Row:
    """One checkpoint and its scores.

    Attributes:
        name: the checkpoint's folder name.
        command: what a user types to make it; empty for the two embedded checkpoints.
        answers: to every hand.
        of_base: out-of-domain accuracy divided by the base's; None if the base's is 0.
        of_loss: which share of the out-of-domain accuracy that fine-tuning lost is won back; None
            if fine-tuning lost nothing and won nothing.
        over_line: out-of-domain accuracy above that of interpolation at the same accuracy in domain;
            None for the points of the line themselves.
        is_control: whether the row tells what a part of the model does, and is no repair.
    """

    name: str
    command: str
    answers: Answers
    of_base: float | None
    of_loss: float | None
    over_line: Estimate | None = None
    is_control: bool = False

    @cached_property
    def in_domain(self) -> Score:
        """Score under the rule that was fine-tuned on."""
        return Score(self.answers.in_domain, self.answers.clusters)

    @cached_property
    def out_of_domain(self) -> Score:
        """Score under the other rules, of each hand the mean over them."""
        return Score(self.answers.out_of_domain, self.answers.clusters)


@dataclass(frozen=True, eq=False)
class DemoReport:
    """All rows, base and fine-tuned model first, with pair, draw of hands and versions."""

    rows: tuple[Row, ...]
    pair: str
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
                "pair": self.pair,
                "in_domain_rule": sums.IN_DOMAIN,
                "out_of_domain_rules": list(sums.OUT_OF_DOMAIN),
                "hands_per_rule": self.hands,
                "hands_seed": self.seed,
            },
            "versions": self.versions,
            "hands": [list(hand) for hand in sums.deal(self.hands, self.seed)],
            "rows": [
                {
                    "name": row.name,
                    "command": row.command,
                    "in_domain": _plain(row.in_domain),
                    "out_of_domain": _plain(row.out_of_domain),
                    "recovered_of_base": row.of_base,
                    "recovered_of_loss": row.of_loss,
                    "over_line": _margin_data(row.over_line),
                    "answers": {
                        rule: "".join("01"[int(each)] for each in right)
                        for rule, right in row.answers.right.items()
                    },
                }
                for row in self.rows
            ],
            "verdict": verdict(self.rows),
        }


def _plain(score: Score) -> dict[str, Any]:
    return {
        "accuracy": score.accuracy,
        "interval_95": list(score.interval),
        "standard_error": score.standard_error,
    }


def _margin_data(margin: Estimate | None) -> dict[str, Any] | None:
    if margin is None:
        return None
    return {"value": margin.value, "interval_95": list(margin.interval or ()) or None}


def verdict(rows: Sequence[Row]) -> str:
    """What the margins say of the rows against interpolation, in one or two sentences."""
    judged = {
        f"{row.name} (a control)" if row.is_control else row.name: row.over_line.interval
        for row in rows
        if row.over_line is not None and row.over_line.interval
    }
    above = [name for name, interval in judged.items() if interval[0] > 0]
    below = sum(interval[1] < 0 for interval in judged.values())
    rest = f"Of {len(judged)} rows, {below} lie below the line"
    rest += "; the others cannot be told from it." if len(above) + below < len(judged) else "."
    if not above:
        return f"Nothing beats interpolation. {rest}"
    beats = "beats" if len(above) == 1 else "beat"
    return f"{', '.join(above)} {beats} interpolation on this pair. {rest}"


def _share(value: float | None) -> str:
    return "n/a" if value is None else f"{round(value, 2) + 0.0:.2f}"


def _margin(margin: Estimate | None) -> str:
    if margin is None:
        return "the line"
    low, high = margin.interval or (float("nan"), float("nan"))
    return f"{100 * margin.value:+.1f} ({100 * low:+.1f}, {100 * high:+.1f})"


def _cells(row: Row) -> tuple[str, ...]:
    return (
        row.name,
        str(row.in_domain),
        str(row.out_of_domain),
        _share(row.of_base),
        _share(row.of_loss),
        _margin(row.over_line),
    )


_HEADINGS = (
    "checkpoint", "in domain (95 %)", "out of domain (95 %)", "of base", "of loss",
    "over line, points",
)  # fmt: skip
_WIDTHS = (17, 19, 20, 7, 7, 20)
_RULES = ", ".join(f"'{rule}'" for rule in sums.OUT_OF_DOMAIN)
_MARGIN = (
    "accuracy out of domain, in points, above the most that interpolation (base, finetuned and"
    " what lies between them) has at no less accuracy in domain; the intervals hold for all rows"
    " at once."
)
_LEGEND = (
    f"in domain: rule '{sums.IN_DOMAIN}', which fine-tuning continued on. out of domain: the mean"
    f" over the rules\n{_RULES}.\n"
    "The hands are the same for every checkpoint and rule; in brackets, 95 % intervals by bootstrap"
    "\nover unordered hands.\n"
    "of base: out-of-domain accuracy / the base's.\n"
    "of loss: share of the out-of-domain accuracy lost in fine-tuning that is won back.\n"
    "over line: out-of-domain accuracy above the most that interpolation has at no less accuracy\n"
    "in domain; the intervals hold for all rows at once."
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


def text_footer(out: str | Path, report: DemoReport) -> str:
    """The legend of the plain text table, where the report is, and what the margins say."""
    return (
        f"\n{_LEGEND}\n\nWritten to {out}: every checkpoint, {REPORT}.md and {REPORT}.json, and"
        f" {DIFF}/report.html, which shows where the weights moved. Next:\n"
        f"  {_program()} check {out}/interpolate-0.3 --load --against {out}/{FINETUNED}\n"
        f"  {_program()} restore --top 0.3 {out}/{BASE} {out}/{FINETUNED} {out}/mine\n"
        f"  and the same two commands on your own base and fine-tuned checkpoint.\n\n"
        f"{verdict(report.rows)}"
    )


def text(report: DemoReport) -> str:
    """The plain text table, at most 100 columns wide, with its legend."""
    asked = f"{report.hands} hands per rule, drawn with seed {report.seed}."
    lines = [text_header(), *map(text_row, report.rows), "", _LEGEND, asked, verdict(report.rows)]
    return "\n".join(lines)


def markdown(report: DemoReport) -> str:
    """The report in Markdown, as in `report.md`."""
    headings = (*_HEADINGS, "command")
    lines = [
        "# uvmerge demo",
        "",
        "A tiny Llama that was trained on rules of a card game (the base), the same model after"
        f" fine-tuning on the rule `{sums.IN_DOMAIN}` alone, and what each operation makes of the"
        f" two. The pair is `{report.pair}`: {sums.REGIMES[report.pair]}.",
        "",
        "A question is a rule word and five cards; the answer is their sum. J, Q and K count 10"
        f" under `{sums.IN_DOMAIN}` (in domain: fine-tuning continued on it); 11, 12 and 13 under"
        " `rank`, 1, 2 and 3 under `low`, and nothing under `zero` (out of domain: the mean over the"
        " three). An answer is right if it is the likeliest next token of the whole vocabulary.",
        "",
        f"Each checkpoint was asked the same {report.hands} hands under each rule (seed"
        f" {report.seed}). No hand was trained on, in any order of its cards, and each holds a"
        " face card. In brackets: 95 % intervals by bootstrap over unordered hands, which cover the"
        " draw of the hands and nothing else; they do not say how far another pair of models would"
        " differ.",
        "",
        "| " + " | ".join(headings) + " |",
        "| --- | ---: | ---: | ---: | ---: | ---: | --- |",
    ]
    for row in report.rows:
        command = f"`{row.command}`" if row.command else "(given)"
        command += " (control)" if row.is_control else ""
        lines.append("| " + " | ".join((*_cells(row), command)) + " |")
    lines += [
        "",
        "- of base: out-of-domain accuracy divided by the base's. The fine-tuned model's own value"
        " is what doing nothing scores.",
        "- of loss: (accuracy - fine-tuned) / (base - fine-tuned), out of domain. 0 is the"
        " fine-tuned model, 1 the base.",
        f"- over line: {_MARGIN}",
        "",
        f"{verdict(report.rows)} Every row that was run is shown. This is one small pair and one"
        " task: it shows that the operations run and what they do here, and is no forecast for"
        " another model.",
        "",
        "Versions: " + ", ".join(f"{name} {v}" for name, v in report.versions.items()) + ".",
        "",
    ]
    return "\n".join(lines)
