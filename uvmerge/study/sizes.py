"""How large a study is."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from .kinds import KINDS

SEEDS, QUICK_SEEDS = 5, 3


@dataclass(frozen=True)
class Sizes:
    """What is measured on each pair, and how large it is.

    Attributes:
        quick: fewer settings of each method.
        hands: hands that a model is asked under each rule.
        steps: optimiser steps of a training run of the prevention stage.
        batch: hands in a step.
        rate: peak learning rate.
    """

    quick: bool = False
    hands: int = 500
    steps: int = 100
    batch: int = 32
    rate: float = 3e-4

    def as_data(self) -> dict[str, Any]:
        """The sizes as JSON-able data."""
        return asdict(self)


FULL = Sizes()
QUICK = Sizes(quick=True, hands=200, steps=40, rate=6e-4)


def names(seeds: int, quick: bool = False) -> list[tuple[str, int]]:
    """The pairs of a study, (regime, seed), all regimes of a seed one after the other."""
    often = {
        regime: 1 if quick else kind.often
        for regime, kind in KINDS.items()
        if kind.in_quick or not quick
    }
    return [
        (regime, seed)
        for seed in range(seeds * max(often.values()))
        for regime, times in often.items()
        if seed < seeds * times
    ]
