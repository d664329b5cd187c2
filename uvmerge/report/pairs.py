"""How far each two of several checkpoints are apart: what is drawn, and on which scales. Pure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ..measure.findings import Findings, Pair, with_measures
from .column import mean
from .format import number
from .heat import Scale
from .svg import Axis


@dataclass(frozen=True)
class Distance:
    """One distance between two checkpoints.

    Attributes:
        key: its name in report.json.
        of_spans: whether it is the chordal distance of leading spans, whose scale ends at chance.
    """

    key: str
    title: str
    axis: str
    value: Callable[[Pair], float]
    of_spans: bool = True


DISTANCES = (
    Distance("left", "Chordal distance, left", "chordal distance", lambda pair: pair.left),
    Distance("right", "Chordal distance, right", "chordal distance", lambda pair: pair.right),
    Distance("distance", "Distance of the weights", "‖W_i − W_j‖ / ‖W_b‖",
             lambda pair: pair.distance, of_spans=False),
)  # fmt: skip


def scale_of(distance: Distance, findings: Findings) -> Scale:
    """From 0 to the largest distance; those of spans share a scale, on which chance is marked."""
    alike = [other for other in DISTANCES if other.of_spans == distance.of_spans]
    ends = [other.value(pair) for other in alike for pair in findings.pairs]
    chance = _chance(findings) if distance.of_spans else None
    if not chance:
        return Scale(Axis(0.0, max(ends) or 1.0))
    return Scale(Axis(0.0, max(*ends, chance)), marks=[(chance, f"chance {number(chance)}")])


def _chance(findings: Findings) -> float | None:
    """Mean chordal distance that independent spans of these matrices would have."""
    return mean([
        turn.chance.chordal
        for compared in findings.compared
        for _, found in with_measures(compared.entries)
        if found.k
        for turn in (found.left, found.right)
    ])  # fmt: skip
