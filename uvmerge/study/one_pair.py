"""The margin of one edit over the line on one pair, with an interval clustered by unordered hand. Pure.

It tells how sure the answer is on this pair; whether it holds on others, the pairs together tell.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..tasks.goals import parse_goals
from ..tasks.margins import place
from ..tasks.scores import Items, Score, score_of_items
from .kinds import KINDS
from .lab import HANDS_SEED
from .stage import Measured

GOALS = parse_goals(("in_domain:max", "out_of_domain:max"))


def margin(measured: Measured, line: Sequence[str], name: str) -> dict[str, Any]:
    """By how much an edit lies above the line at equal accuracy in domain, on one pair.

    Args:
        measured: the pair; by key the digits `right` of each model, as `Answered.digits` writes them.
        line: the keys of the line, in order.
        name: the key of the edit.

    Returns:
        The pair, `value`, and its 95 % percentile interval over resampled unordered hands.
    """
    module = KINDS[measured.regime].module
    right = {key: measured.values[key]["right"] for key in (*line, name)}
    hands = module.deal(len(right[name]), HANDS_SEED, "report")
    keys = [str(number).encode() for number in range(len(hands))]
    items = Items(keys, [module.unordered(hand) for hand in hands])
    others = len(module.OUT_OF_DOMAIN)
    scored = {key: _scores(items, digits, others) for key, digits in right.items()}
    found = place({key: scored[key] for key in line}, {name: scored[name]}, GOALS)
    first = found[name].over_line[0]
    ends = None if first.interval is None else list(first.interval)
    return {
        "regime": measured.regime, "seed": measured.seed, "value": first.value, "interval_95": ends,
    }  # fmt: skip


def _scores(items: Items, digits: str, others: int) -> Mapping[str, Score]:
    bits = np.array([int(digit, 16) for digit in digits])
    right = (bits[:, None] >> np.arange(others + 1)) & 1
    return {
        "in_domain": score_of_items(items, right[:, 0].astype(np.float64)),
        "out_of_domain": score_of_items(items, right[:, 1:].mean(axis=1)),
    }
