"""The repair stage as text: claims, and for each regime a table of edits, controls and parts. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..errors import counted
from .comparison_page import against, claim_table, mean, outcome
from .kinds import KINDS

_HEAD = (
    "| | in domain | out of domain | of the base's | of the loss won back | to the line at equal"
    " accuracy | at equal loss |\n|---|---|---|---|---|---|---|"
)
_KINDS = {
    "line": "interpolation", "edit": "edits", "control": "controls", "part": "parts of the model",
}  # fmt: skip


def section(summary: Mapping[str, Any]) -> str:
    """The section of the stage, in Markdown, without its heading."""
    parts = [claim_table(summary["claims"])]
    for regime in dict.fromkeys(row["regime"] for row in summary["rows"]):
        parts.append(_regime(regime, [r for r in summary["rows"] if r["regime"] == regime]))
    return "\n\n".join([*parts, _caution(summary["rows"])])


def _regime(regime: str, rows: Sequence[Mapping[str, Any]]) -> str:
    count = counted(rows[0]["loss"]["pairs"], "pair")
    lines = [f"**{regime}**: {KINDS[regime].told}. Means over {count}.", "", _HEAD]
    for kind, title in _KINDS.items():
        own = [row for row in rows if row["kind"] == kind]
        lines += [f"| *{title}* | | | | | | |", *map(_row, own)] if own else []
    return "\n".join([*lines, "", outcome(rows)])


def _row(row: Mapping[str, Any]) -> str:
    cells = [mean(row[key]) for key in ("in_domain", "out_of_domain")]
    cells += [_share(row[key]) for key in ("of_best", "of_lost")]
    cells += [
        against(row[key]) if key in row else "" for key in ("at_equal_accuracy", "at_equal_loss")
    ]
    return f"| {row['label']} | {' | '.join(cells)} |"


def _share(found: Mapping[str, Any] | None) -> str:
    return "–" if found is None else f"{100 * found['mean']:.0f} %".replace("-", "−")


def _caution(rows: Sequence[Mapping[str, Any]]) -> str:
    compared = sum("at_equal_loss" in row for row in rows)
    return (
        "*Of the base's*: the accuracy out of domain as a share of the base's; *of the loss won back*: as"
        " a share of what fine-tuning lost. arXiv 2508.16546 speaks of 70–80 % recovered, which can be"
        " read either way; neither reading says what an edit costs in domain, and interpolation reaches"
        " any share. Intervals are 95 % t-intervals over pairs, each with a base of its own; bold ones"
        f" exclude 0. There are {2 * compared} of them: about one in twenty excludes 0 by chance. The"
        " line is the best that interpolation has at no less than the same level in domain; the place on"
        " it is chosen on one half of the hands and judged on the other. `*`: on some pair the line does"
        " not reach the level, and its best point in domain stands in. The pairs are trained as those of the"
        " demo are (`uvmerge/demo/train.py`), and not as those of the prevention stage."
    )
