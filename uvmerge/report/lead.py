"""The first sentence of the page: how far, where most, and how many times chance. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import median

from ..errors import counted
from ..measure.findings import Compared, Entry, Findings
from ..text import brief
from .column import Column, mean
from .columns import column_of
from .format import number, percent


def lead(findings: Findings) -> str:
    """One sentence on the last checkpoint, or on the first that is unrelated to the base."""
    if not findings.compared:
        return f"Nothing was compared with {brief(findings.base)}."
    base, shown = brief(findings.base), findings.compared[-1]
    strangers = [each for each in findings.compared if each.verdict == "unrelated"]
    if strangers:
        count, of = len(strangers[0].unrelated_matrices), len(strangers[0].measured)
        return (
            f"{brief(strangers[0].label)} is unrelated to {base}: {count} of"
            f" {counted(of, 'matrix')} have no more in common with the base's than chance gives."
        )
    if shown.verdict == "identical":
        return f"{brief(shown.label)} is identical to {base}: no tensor that was compared changed."
    moving = moving_matrices(shown)
    if not moving:
        changed = sum(bool(other.relative) for other in shown.others)
        return (
            f"No matrix of {brief(shown.label)} that could be compared moved from {base};"
            f" {counted(changed, 'other tensor')} changed."
        )
    count, name = len(findings.compared), brief(shown.label)
    who = f"{name}, the last of {counted(count, 'checkpoint')}," if count > 1 else name
    return (
        f"{who} moved from {base} by {_how_far(moving)}"
        f"{_where(shown, moving)}{_in_leading_directions(moving)}."
    )


def moving_matrices(compared: Compared) -> list[Entry]:
    """The related matrices that differ from the base's."""
    return [entry for entry in compared.related_matrices if entry.relative > 0]


def typical(column: Column, entries: Sequence[Entry]) -> tuple[float | None, float | None]:
    """What sentences say of a measure over matrices, and of what chance gives: the median of a size,
    which has outliers, and the mean of what is bounded."""
    telling = [entry for entry in entries if not column.is_void(entry)]
    values = list(filter(math.isfinite, column.values(telling)))
    average = median if column.key == "relative_delta" else mean
    chances = column.chances(telling)
    return (average(values) if values else None), (average(chances) if chances else None)


def times(value: float | None, chance: float | None) -> str:
    """`6.6 times`: a value over what chance gives; empty where this says nothing."""
    if value is None or not chance or not 1e-3 < value / chance < 1e3:
        return ""
    return f"{number(value / chance, 2)} times"


def _how_far(moving: Sequence[Entry]) -> str:
    of_weights = column_of("relative_delta")
    size, rounding = typical(of_weights, moving)
    if size is None:
        return "all of its weights, as the base is zero"
    text = f"{of_weights.unit.text(size)} of its norm"
    if of_weights.are_no_finding(moving):
        return f"{text}, no more than rounding makes"
    multiple = times(size, rounding)
    return f"{text}, {multiple} what rounding makes" if multiple else text


def _where(shown: Compared, moving: Sequence[Entry]) -> str:
    most = _largest_layer(moving) if shown.says_where else ""
    return f", most in {most}" if most else ""


def _in_leading_directions(moving: Sequence[Entry]) -> str:
    """How much of the change lies in the leading directions, beside chance."""
    of_block = column_of("in_block")
    inside, chance = typical(of_block, moving)
    multiple = times(inside, chance)
    if inside is None or not multiple:
        return ""
    share = f"; {percent(inside)} of the change lies in the base's leading directions"
    if of_block.are_no_finding(moving):
        return f"{share}, as chance gives"
    return f"{share}, {multiple} what chance gives"


def _largest_layer(moving: Sequence[Entry]) -> str:
    by_layer: dict[int, list[float]] = {}
    for entry in moving:
        if entry.layer is not None and math.isfinite(entry.relative):
            by_layer.setdefault(entry.layer, []).append(entry.relative)
    if len(by_layer) < 2:
        return ""
    size, layer = max((sum(sizes) / len(sizes), layer) for layer, sizes in by_layer.items())
    return f"layer {layer} ({percent(size)})"
