"""Whether what was chosen on one half of the hands holds on the other, and on another pair. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean

from .line import Point, above_line

Halves = tuple[Point, Point]
"""(in domain, out of domain) on the half to search on, and on the one to report on."""


def margin(line: Sequence[Halves], setting: Halves) -> float:
    """By how much a setting lies above the line on the half to report on, at equal accuracy in domain.

    The place on the line is chosen on the half to search on.
    """
    (searched, reported), (ours, judged) = zip(*line, strict=True), setting
    return above_line((searched, ours), (reported, judged))


def chosen(line: Sequence[Halves], settings: Mapping[str, Halves]) -> tuple[str, float]:
    """The setting that lies highest above the line on the half to search on, and its margin on the
    other; no setting and 0 where none lies above the line, so that interpolation is what is chosen."""
    searched = [point for point, _ in line]
    found = {
        name: above_line((searched, point), (searched, point))
        for name, (point, _) in settings.items()
    }
    best = max(found, key=lambda name: found[name], default="")
    if not best or found[best] <= 0:
        return "", 0.0
    return best, margin(line, settings[best])


def leave_one_out(margins: Sequence[Mapping[str, float]]) -> list[tuple[str, float]]:
    """For each pair, the setting of the largest mean margin on all others, and its margin on this one.

    Args:
        margins: of each pair, by setting, its distance from the line; at least two pairs.
    """
    shared = [name for name in margins[0] if all(name in pair for pair in margins)]
    found = []
    for left, own in enumerate(margins):
        others = [pair for place, pair in enumerate(margins) if place != left]
        best = max(shared, key=lambda name: fmean(pair[name] for pair in others))
        found.append((best, own[best]))
    return found
