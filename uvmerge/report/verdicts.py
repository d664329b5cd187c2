"""Whether checkpoints are related to their base, in sentences, with what was compared. Pure."""

from __future__ import annotations

from statistics import median

from ..errors import counted
from ..measure.findings import Compared, Findings
from ..text import brief
from .columns import column_of


def verdict(base: str, compared: Compared) -> str:
    """What one checkpoint is to its base, and how much of it was compared."""
    name, base = brief(compared.label), brief(base)
    measured, unrelated = len(compared.measured), len(compared.unrelated_matrices)
    identical = sum(entry.state == "identical" for entry in compared.entries)
    if not compared.entries and not compared.others:
        return f"Nothing of {name} could be compared with {base}: they share no tensor."
    if compared.verdict == "unrelated":
        return (
            f"{name} is unrelated to {base}: in {unrelated} of {_matrices(measured)} that"
            f" {'was' if measured == 1 else 'were'} measured, the two have no more in common than"
            " independent matrices, so their angles and values are not interpreted."
            f"{_counts(compared)} Check that this is the base, and that the names fit."
        )
    if compared.verdict == "identical":
        unchanged = f"{name} is identical to {base}: no tensor that was compared changed."
        return unchanged + _counts(compared)
    if measured:
        of_matrices = column_of("cosine")
        cosines = of_matrices.values(compared.related_matrices)
        text = (
            f"{name} is related to {base}: the median cosine of their matrices is"
            f" {of_matrices.unit.text(median(cosines) if cosines else None)}"
            " (about 0 for independent ones)."
        )
    elif identical:
        text = f"All matrices of {name} that could be compared are identical to those of {base}."
    else:
        text = f"No matrix of {name} could be measured against {base}."
    return text + _counts(compared) + _left_out(unrelated, measured)


def _matrices(count: int) -> str:
    return counted(count, "matrix")


def _counts(compared: Compared) -> str:
    """How much was compared, what did not change, and what could not be compared."""
    entries, others = compared.entries, compared.others
    same = sum(entry.state == "identical" for entry in entries)
    broken = sum(entry.state == "nonfinite" for entry in entries)
    unlike = sum(other.relative is None for other in others)
    parts = [f"{_matrices(len(entries))} and {counted(len(others), 'other tensor')} were compared"]
    identical = f"{_matrices(same)} {'is' if same == 1 else 'are'}" if same else "no matrix is"
    parts.append(f"{identical} identical")
    if broken + unlike:
        reasons = [
            f"{_matrices(broken)} with NaN or Inf" if broken else "",
            f"{counted(unlike, 'other tensor')} of another shape or kind" if unlike else "",
        ]
        parts.append("could not be compared: " + ", ".join(filter(None, reasons)))
    else:
        parts.append("none had to be left out")
    return f" {'; '.join(parts)}."


def _left_out(unrelated: int, measured: int) -> str:
    if not unrelated:
        return ""
    return (
        f" In {unrelated} of {_matrices(measured)} the two have no more in common than independent"
        " matrices; what follows leaves them out."
    )


def verdicts(findings: Findings) -> str:
    """What several checkpoints are to their base."""
    count, base = len(findings.compared), brief(findings.base)
    if findings.verdict == "identical":
        who = f"{_all(count)} checkpoints are identical to {base}"
        return f"{who}: no tensor that was compared changed."
    by_verdict = {
        verdict: [brief(c.label) for c in findings.compared if c.verdict == verdict]
        for verdict in ("unrelated", "identical", "related")
    }
    if len(by_verdict["related"]) == count:
        return f"{_all(count)} checkpoints are related to {base}."
    said = [f"{verdict}: {', '.join(who)}" for verdict, who in by_verdict.items() if who]
    return f"Of {count} checkpoints compared with {base}, {'; '.join(said)}."


def _all(count: int) -> str:
    return "Both" if count == 2 else f"All {count}"
