"""The comparison with the interpolation line as text: a table for each regime, and what follows. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..errors import counted
from .kinds import KINDS
from .verdicts import BETTER, WORSE

_HEAD = (
    "| | loss in domain | in domain | out of domain | to the line at equal loss | to the line at"
    " equal accuracy | Σ‖UᵀΔV‖² |\n|---|---|---|---|---|---|---|"
)


def section(summary: Mapping[str, Any]) -> str:
    """The section of a stage that compares with the line, in Markdown, without its heading."""
    regimes = dict.fromkeys(row["regime"] for row in summary["rows"])
    parts = [claim_table(summary["claims"])] if summary["claims"] else []
    parts += [_regime(regime, summary["rows"]) for regime in regimes]
    return "\n\n".join([*parts, _caution(summary["rows"])])


def claim_table(claims: Sequence[Mapping[str, Any]]) -> str:
    """The claims with their intervals and verdicts."""
    lines = ["| claim | where | difference (95 %) | pairs | verdict |", "|---|---|---|---|---|"]
    lines += [
        f"| {one['claim']} | {one['regime']} | {difference(one)} | {one['pairs']} |"
        f" **{one['verdict']}** |"
        for one in claims
    ]
    return "\n".join(lines)


def _regime(regime: str, rows: Sequence[Mapping[str, Any]]) -> str:
    """The table of a regime, and which rows lie above and below the line."""
    own = [row for row in rows if row["regime"] == regime]
    lines = [
        _row(row)
        for kind in ("line", "training", "edit", "control")
        for row in own
        if row["kind"] == kind
    ]
    pairs = counted(own[0]["loss"]["pairs"], "pair")
    spread = " ± standard deviation" if own[0]["loss"]["sd"] is not None else ""
    told = f"**{regime}**: {KINDS[regime].told}. Means{spread} over {pairs}."
    return "\n".join([told, "", _HEAD, *lines, "", outcome(own)])


def _row(row: Mapping[str, Any]) -> str:
    cells = [mean(row[key]) for key in ("loss", "in_domain", "out_of_domain")]
    for key in ("at_equal_loss", "at_equal_accuracy"):
        cells.append(against(row[key]) if key in row else "")
    cells.append(f"{row['block']['mean']:.4f}" if "block" in row else "")
    return f"| {row['label']} | {' | '.join(cells)} |"


def mean(found: Mapping[str, Any]) -> str:
    """`0.633 ± 0.021`: the mean over pairs and their standard deviation."""
    spread = "" if found["sd"] is None else f" ± {found['sd']:.3f}"
    return f"{found['mean']:.3f}{spread}"


def against(found: Mapping[str, Any]) -> str:
    """A difference to the line, bold where its interval excludes 0."""
    said = difference(found)
    said = f"**{said}**" if found["verdict"] in (BETTER, WORSE) else said
    return f"{said} *" if found["beyond"] else said


def difference(found: Mapping[str, Any]) -> str:
    """`+0.031 (−0.010 to +0.072)`."""
    ends = found["interval_95"]
    said = signed(found["mean"])
    return said if ends is None else f"{said} ({signed(ends[0])} to {signed(ends[1])})"


def signed(value: float) -> str:
    """`+0.031`, `−0.010` or `0.000`."""
    shown = f"{value:+.3f}"
    return (shown if float(shown) else "0.000").replace("-", "−")


def outcome(rows: Sequence[Mapping[str, Any]]) -> str:
    """Which rows lie above the line and how many below it, at equal loss and at equal accuracy."""
    said = []
    for key, words in (("at_equal_loss", "loss"), ("at_equal_accuracy", "accuracy")):
        compared = [row for row in rows if key in row]
        above = [row["label"] for row in compared if row[key]["verdict"] == BETTER]
        below = sum(row[key]["verdict"] == WORSE for row in compared)
        names = f" ({'; '.join(above)})" if above else ""
        said.append(
            f"At equal {words} in domain, {len(above)} of {len(compared)} rows lie above the"
            f" interpolation line{names}, and {below} below it; of the others one cannot tell."
        )
    return " ".join(said)


def _caution(rows: Sequence[Mapping[str, Any]]) -> str:
    compared = sum("at_equal_loss" in row for row in rows)
    return (
        "Intervals are 95 % t-intervals over pairs, each with a base of its own; bold ones exclude 0."
        f" There are {2 * compared} of them: about one in twenty excludes 0 by chance. The line is the"
        " best that interpolation has at no less than the same level in domain; `*`: on some pair it"
        " does not reach the level, and its best point in domain stands in."
    )
