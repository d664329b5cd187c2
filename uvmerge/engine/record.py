"""The record of an edited matrix in the manifest: its decompositions, and its relative change."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ..spectral import Log
from ..spectral.magnitude import norm


def decomposition_entry(log: Log, chain: Sequence[int], of_several: bool) -> dict[str, Any]:
    """`steps`, `k`, `gap` and `method` of the record, as far as each is known.

    Args:
        log: what the whole chain asked of its matrices.
        chain: numbers of the recipe's steps that edited the matrix.
        of_several: whether the recipe has several steps; only then `steps` is in the record.
    """
    entry: dict[str, Any] = {"steps": list(chain)} if of_several else {}
    ranks = [log.ranks.get(step) for step in chain]
    if any(k is not None for k in ranks):
        entry["k"] = ranks
    gaps: dict[str, dict[int, float | None]] = {}
    for asked in log.decompositions:
        if asked.k:
            gaps.setdefault(asked.operand, {})[asked.k] = _three_digits(asked.gap)
    if gaps:
        entry["gap"] = {
            operand: {str(k): gap for k, gap in sorted(cuts.items())}
            for operand, cuts in sorted(gaps.items())
        }
    methods = sorted({asked.method for asked in log.decompositions})
    return entry | ({"method": methods} if methods else {})


def _three_digits(gap: float | None) -> float | None:
    return None if gap is None else float(f"{gap:.3g}")


class Change:
    """How far an output is from the input tensor that it replaces, summed over pieces."""

    def __init__(self) -> None:
        self.norm = self.distance = 0.0
        self.changed, self.is_zero = False, True

    def add(self, after: Tensor, before: Tensor) -> None:
        """Add a piece of the output and the same piece of the input, both in their stored dtypes."""
        wide = torch.float64 if torch.float64 in (after.dtype, before.dtype) else torch.float32
        old, new = before.to(wide), after.to(wide)
        self.is_zero = self.is_zero and not bool(after.any())
        self.changed |= not torch.equal(after.to(before.dtype), before)
        sizes = [float(torch.linalg.vector_norm(values)) for values in (old, new - old)]
        if not all(1e-15 < size < 1e15 for size in sizes):  # `wide` may not hold their squares
            old, new = before.to(torch.float64), after.to(torch.float64)
            sizes = [norm(values) for values in (old, new - old)]
        self.norm = math.hypot(self.norm, sizes[0])
        self.distance = math.hypot(self.distance, sizes[1])

    @property
    def entry(self) -> dict[str, Any]:
        """For the record: `relative_change`, ‖W′ − W‖_F / ‖W‖_F to four digits; `changed`, whether any
        value changed; and `zero`, where every value of the output is zero."""
        relative = self.distance / self.norm if self.norm else 0.0
        entry = {"relative_change": float(f"{relative:.4g}"), "changed": self.changed}
        return entry | ({"zero": True} if self.is_zero else {})
