"""What several checkpoints show together, in sentences. Pure."""

from __future__ import annotations

from statistics import median

from ..measure.findings import Findings, Pair
from ..text import brief
from .column import mean
from .columns import column_of
from .format import number


def over_checkpoints(findings: Findings) -> list[str]:
    """How far each related checkpoint moved and turned, in the order given."""
    related = [each for each in findings.compared if each.verdict == "related"]
    related = [each for each in related if each.related_matrices]
    if len(related) < 2:
        return []
    of_weights = column_of("relative_delta")
    sizes = [median(of_weights.values(each.related_matrices)) for each in related]
    parts = [f"relative change {' → '.join(map(of_weights.unit.text, sizes))}"]
    for side in ("left", "right"):
        of_side = column_of(f"{side}_mean")
        angles = [mean(of_side.telling_values(each.related_matrices)) for each in related]
        if None not in angles:
            parts.append(f"{side} {' → '.join(map(of_side.unit.text, angles))}")
    who = "" if len(related) == len(findings.compared) else " related"
    return [f"Over the{who} checkpoints, in order: {'; '.join(parts)}."]


def turning_back(findings: Findings) -> list[str]:
    """Whether the last step comes nearer to the base or to a checkpoint before it."""
    last = len(findings.compared)
    if any(compared.verdict == "unrelated" for compared in findings.compared[-2:]):
        return []
    distances = {frozenset((pair.first, pair.second)): pair for pair in findings.pairs}
    labels = ["the base", *(brief(compared.label) for compared in findings.compared)]
    steps = [
        (distances.get(frozenset((i, last - 1))), distances.get(frozenset((i, last))), labels[i])
        for i in range(last - 1)
    ]
    asked = [(before, after, label) for before, after, label in steps if before and after]
    nearer = [step for step in asked if step[1].is_nearer_than(step[0])]
    step = f"The last step, from {labels[last - 1]} to {labels[last]},"
    if nearer:
        before, after, label = min(nearer, key=_share_kept)
        most = f", the most of {len(nearer)} that it comes nearer to" if len(nearer) > 1 else ""
        where = f"{label} ({_distances(before, after)})"
        return [f"{step} turns the leading vectors back towards {where}{most}."]
    no = "does not turn back towards the base or an earlier checkpoint."
    return [f"{step} {no}"] if asked else []


def _share_kept(step: tuple[Pair, Pair, str]) -> float:
    """What is left of a distance after a step, of 1."""
    before, after, _ = step
    return (after.left + after.right) / (before.left + before.right)


def _distances(before: Pair, after: Pair) -> str:
    return (
        f"chordal distance left {number(before.left)} → {number(after.left)},"
        f" right {number(before.right)} → {number(after.right)}; of weights"
        f" {number(before.distance)} → {number(after.distance)}"
    )
