"""Ways to fine-tune, and edits after the fact, against the interpolation line. Pure.

Every pair has a line of its own. A row is the mean over pairs of the difference between a model and the
line of its pair, at the model's own loss in domain and at its own accuracy in domain.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .line import Point, above_line, line_at
from .stage import Measured
from .verdicts import against_line, claim, summary

# The level in domain at which a model meets the line, and its sign: more is better.
LEVELS = {"at_equal_loss": ("loss", -1), "at_equal_accuracy": ("in_domain", 1)}
SCORES = ("loss", "in_domain", "out_of_domain", "training_loss", "block")
RPSFT, HALF_RATE, SFT = "rpsft-two-0.2-1.0", "rate-0.5", "sft"


def rows(
    regime: str,
    measured: Sequence[Measured],
    labels: Mapping[str, tuple[str, str]],
    line: Sequence[str],
) -> list[dict[str, Any]]:
    """A row for each model, in the order of `labels`, of those measured on every pair.

    Args:
        regime: of the pairs.
        measured: the pairs; by the key of each model `loss`, `in_domain` and `out_of_domain`, and of
            one that was trained `training_loss` and `drift`, of which the square becomes `block`.
        labels: kind and label by key.
        line: the keys of the line, in order.
    """
    found = []
    for name, (kind, label) in labels.items():
        if all(name in pair.values for pair in measured):
            scores = [_with_block(pair.values[name]) for pair in measured]
            row: dict[str, Any] = {"regime": regime, "name": name, "kind": kind, "label": label}
            row |= {
                score: summary([each[score] for each in scores])
                for score in SCORES
                if all(score in each for each in scores)
            }
            if kind != "line":
                row |= _differences(name, measured, line)
            found.append(row)
    return found


def _with_block(scores: Mapping[str, float]) -> dict[str, float]:
    """Scores with the energy of the movement in the leading block, Σ‖Uᵀ(W − W₀)V‖²."""
    return {**scores, "block": scores["drift"] ** 2} if "drift" in scores else dict(scores)


def _differences(name: str, measured: Sequence[Measured], line: Sequence[str]) -> dict[str, Any]:
    """The differences to the line at each level, and how many lie beyond its ends."""
    found = {}
    for key, (level, sign) in LEVELS.items():
        differences, beyond = [], 0
        for pair in measured:
            ours, along = pair.values[name], [pair.values[point] for point in line]
            point, points = _point(ours, level, sign), [_point(each, level, sign) for each in along]
            at = line_at(points, point[0])
            beyond += at.is_beyond
            crossed = _crossed(ours, along, level, sign)
            differences.append(point[1] - at.value if crossed is None else crossed)
        said = summary(differences)
        ends = said["interval_95"]
        word = against_line(None if ends is None else (ends[0], ends[1]))
        found[key] = {**said, "beyond": beyond, "verdict": word}
    return found


def _point(scores: Mapping[str, Any], level: str, sign: int) -> Point:
    return sign * scores[level], scores["out_of_domain"]


def _crossed(
    ours: Mapping[str, Any], along: Sequence[Mapping[str, Any]], level: str, sign: int
) -> float | None:
    """The difference to the line whose place was chosen on the other half; None without halves."""
    if any("halves" not in each for each in (ours, *along)):
        return None
    first, second = (
        (
            [_point(a["halves"][i], level, sign) for a in along],
            _point(ours["halves"][i], level, sign),
        )
        for i in (0, 1)
    )
    return (above_line(first, second) + above_line(second, first)) / 2


def claims(found: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The claims on RPSFT with its defaults (two-sided, λ = 1, top 20 %), for each regime."""
    said = []
    for regime in dict.fromkeys(row["regime"] for row in found):
        by_name = {row["name"]: row for row in found if row["regime"] == regime}
        if any(name not in by_name for name in (RPSFT, HALF_RATE, SFT)):
            continue
        ours, half, plain = (by_name[name] for name in (RPSFT, HALF_RATE, SFT))
        out = "out_of_domain"
        said += [
            claim("At the same learning rate, RPSFT keeps more out of domain than SFT.", regime,
                  _minus(ours[out], plain[out])),
            claim("At equal loss in domain, RPSFT keeps more out of domain than interpolation"
                  " after SFT.", regime, ours["at_equal_loss"]["values"]),
            claim("At equal loss in domain, RPSFT keeps more out of domain than SFT at half of the"
                  " learning rate (both as differences to the line).", regime,
                  _minus(ours["at_equal_loss"], half["at_equal_loss"])),
        ]  # fmt: skip
    return said


def _minus(first: Mapping[str, Any], second: Mapping[str, Any]) -> list[float]:
    return [a - b for a, b in zip(first["values"], second["values"], strict=True)]


def flat(found: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The rows of a summary with numbers and texts alone, for a CSV file."""
    flat_rows = []
    for row in found["rows"]:
        one = {key: row[key] for key in ("regime", "kind", "name", "label")}
        for key in (*SCORES, *LEVELS):
            said = row.get(key) or {}
            low, high = said.get("interval_95") or (None, None)
            one |= {key: said.get("mean"), f"{key}_sd": said.get("sd")}
            one |= {f"{key}_low": low, f"{key}_high": high}
        one |= {f"{key}_verdict": (row.get(key) or {}).get("verdict") for key in LEVELS}
        one["pairs"] = row["loss"]["pairs"]
        flat_rows.append(one)
    return flat_rows
