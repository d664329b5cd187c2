"""The hands of cards that models are asked, frozen in `hands.json`.

Ranks are drawn uniformly with replacement, and a hand is drawn again until it can be solved and has not
come before in the same order. Under the rule `id`, in domain, J, Q and K count 10; under `ood`, out of
domain, they count 11, 12 and 13, and every hand holds one of them. The file also holds one solution of
each hand, so that no task has to solve hands when it is imported.

`python -m uvmerge.tasks.hands` writes the file.
"""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from .solver import HAND_SIZE, solve

RANKS = ("A", "2", "3", "4", "5", "6", "7", "8", "9", "10", "J", "Q", "K")
FACES = ("J", "Q", "K")
_AT_FACE_VALUE = {rank: place for place, rank in enumerate(RANKS, start=1)}
RULES = {"id": {rank: min(n, 10) for rank, n in _AT_FACE_VALUE.items()}, "ood": _AT_FACE_VALUE}
"""Rule -> rank -> what the card counts."""

PUBLISHED, LARGE = 234, 2000
"""Hands that the published evaluations ask under each rule, and hands in the file; 234 cannot tell models
apart whose accuracies differ by five points."""

SEEDS = {"id": 2508, "ood": 16546}
FILE = Path(__file__).with_name("hands.json")


@dataclass(frozen=True)
class Hand:
    """Four cards under a rule.

    Attributes:
        rule: a key of `RULES`.
        cards: ranks, in the order in which they are asked.
        solution: the shortest formula that solves the hand.
    """

    rule: str
    cards: tuple[str, ...]
    solution: str

    @property
    def values(self) -> tuple[int, ...]:
        """What the cards count."""
        return tuple(RULES[self.rule][card] for card in self.cards)

    @property
    def unordered(self) -> str:
        """The ranks from low to high: the same for hands that differ by their order alone."""
        return " ".join(sorted(self.cards, key=RANKS.index))


@cache
def frozen(rule: str) -> tuple[Hand, ...]:
    """The 2,000 hands of a rule; the first 234 of them are the task of published size."""
    hands = json.loads(FILE.read_text(encoding="ascii"))[rule]
    return tuple(Hand(rule, tuple(cards.split()), solution) for cards, solution in hands)


def deal(rule: str, count: int, seed: int) -> list[Hand]:
    """Draw hands as those of the file were drawn."""
    draw = random.Random(seed)
    dealt: dict[tuple[str, ...], Hand] = {}
    while len(dealt) < count:
        cards = tuple(RANKS[int(draw.random() * len(RANKS))] for _ in range(HAND_SIZE))
        if cards in dealt or (rule == "ood" and not set(cards) & set(FACES)):
            continue
        if formulas := _solved(tuple(sorted(RULES[rule][card] for card in cards))):
            dealt[cards] = Hand(rule, cards, formulas[0])
    return list(dealt.values())


@cache
def _solved(values: tuple[int, ...]) -> Sequence[str]:
    return solve(values)


def file_text() -> str:
    """The text of the file, made anew."""
    parts = []
    for rule, seed in SEEDS.items():
        rows = [json.dumps([" ".join(h.cards), h.solution]) for h in deal(rule, LARGE, seed)]
        parts.append(f'"{rule}": [\n' + ",\n".join(rows) + "\n]")
    return "{" + ",\n".join(parts) + "}\n"


if __name__ == "__main__":
    FILE.write_text(file_text(), encoding="ascii")
