"""A search for what is not there: with answers drawn at random, it ends in "nothing beats interpolation"."""

from __future__ import annotations

from pathlib import Path

import faults
import pytest
from searching import GOALS, SPACE, Coins

import uvmerge
from uvmerge.recipe.space import Space


@pytest.mark.slow
def test_nothing_is_found_among_coins_in_at_least_18_of_20_searches(tmp_path: Path) -> None:
    base, finetuned, _ = faults.pair(tmp_path / "pair", layers=1, hidden=16)
    sentences = [
        uvmerge.search(
            Space.parse(SPACE), base, finetuned, tmp_path / str(seed), evaluate=Coins(seed),
            metrics=GOALS, trials=15, seed=seed,
        ).sentence
        for seed in range(20)
    ]  # fmt: skip
    assert sum(s.startswith("Nothing beats interpolation") for s in sentences) >= 18
