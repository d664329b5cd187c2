"""What the manifest says of an edited matrix: its decompositions, and how far it moved."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ..spectral import Log


def decompositions(log: Log, chain: Sequence[int], of_several: bool) -> dict[str, Any]:
    """The entries `steps`, `k`, `gap` and `method` of the manifest, without those that say nothing.

    Args:
        log: of the whole chain.
        chain: the steps of the recipe that edited the matrix.
        of_several: whether the recipe has several steps, so that `steps` says which these are.
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
    """How far an output is from the fine-tuned tensor, summed over its pieces."""

    def __init__(self) -> None:
        self.squares = self.distance = 0.0
        self.changed, self.is_zero = False, True

    def add(self, after: Tensor, before: Tensor) -> None:
        """Take in a piece, as stored."""
        wide = torch.float64 if torch.float64 in (after.dtype, before.dtype) else torch.float32
        old, new = before.to(wide), after.to(wide)
        self.is_zero = self.is_zero and not bool(after.any())
        self.changed |= not torch.equal(after.to(before.dtype), before)
        norms = [float(torch.linalg.vector_norm(values)) for values in (old, new - old)]
        if not all(1e-15 < norm < 1e15 for norm in norms):  # float32 may not hold their squares
            old, new = before.to(torch.float64), after.to(torch.float64)
            norms = [float(torch.linalg.vector_norm(values)) for values in (old, new - old)]
        self.squares += norms[0] ** 2
        self.distance += norms[1] ** 2

    @property
    def entry(self) -> dict[str, Any]:
        """For the record: ‖W′ − W_f‖_F / ‖W_f‖_F to four digits, whether anything changed, and
        `zero` where all that was computed is zeros."""
        relative = math.sqrt(self.distance / self.squares) if self.squares else 0.0
        entry = {"relative_change": float(f"{relative:.4g}"), "changed": self.changed}
        return entry | ({"zero": True} if self.is_zero else {})
