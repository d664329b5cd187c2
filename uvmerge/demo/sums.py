"""Card sums: the task of the embedded demo pairs.

A question is a rule word, five cards and an equals sign. Its answer is the sum of the cards as one
token:

    ten J Q 3 4 A =    28
    rank J Q 3 4 A =   31
    low J Q 3 4 A =    11
    zero J Q 3 4 A =   8

An ace counts 1 and a number card its number under every rule. Each of J, Q and K counts 10 under
`ten`; J counts 11, Q 12 and K 13 under `rank`; J counts 1, Q 2 and K 3 under `low`; and none of them
counts anything under `zero`. A base model is trained on all rules or on all but `ten`; the
fine-tuned model is trained further on `ten` alone, so `ten` is in the domain of the fine-tuning and
the other rules are out of it. `REGIMES` says how well the base knows `ten`.

There are 6,188 hands if the order of the cards is left out. One in three of them (`is_held_out`) is
kept out of training, in any order of its cards, and a test asks held-out hands only. The answers to
orders of one hand are alike, so the unordered hand (`unordered`) is the unit of every interval.
`half_of` splits the unordered hands into two halves: one to search settings on, one to report on.

Every test hand holds at least one face card, under all rules. Out of domain the face card is
needed: the rules agree on a hand without one, and such a hand says nothing about the other rules.
In domain the face card is not needed; the same hands are asked, so that nothing but the rule word
differs between the two accuracies.

Importing this module imports neither torch nor transformers.
"""

from __future__ import annotations

import itertools
import random
import zlib
from functools import cache

__all__ = [
    "FACES",
    "HAND_SIZE",
    "IN_DOMAIN",
    "OUT_OF_DOMAIN",
    "RANKS",
    "REGIMES",
    "RULES",
    "SPLITS",
    "Hand",
    "answer",
    "deal",
    "encode",
    "half_of",
    "is_held_out",
    "unordered",
    "unordered_hands",
    "vocabulary",
]

Hand = tuple[str, ...]
"""Five rank names in the order in which they are asked."""

HAND_SIZE = 5
"""Cards in a hand."""

RANKS: Hand = ("A", "2", "3", "4", "5", "6", "7", "8", "9", "10", "J", "Q", "K")
"""The ranks, lowest first."""

FACES: Hand = ("J", "Q", "K")
"""The ranks on which the rules differ."""

IN_DOMAIN = "ten"
"""The rule that fine-tuning continues on: face cards count 10."""

OUT_OF_DOMAIN = ("rank", "low", "zero")
"""The rules that fine-tuning never shows."""

_NUMBERS = {rank: place for place, rank in enumerate(RANKS, start=1) if rank not in FACES}

RULES: dict[str, dict[str, int]] = {
    word: _NUMBERS | dict(zip(FACES, counts, strict=True))
    for word, counts in (
        ("ten", (10, 10, 10)),
        ("rank", (11, 12, 13)),
        ("low", (1, 2, 3)),
        ("zero", (0, 0, 0)),
    )
}
"""Rule word -> rank -> what the card counts."""

REGIMES = {
    "part": "the base knows the rule of the fine-tuning in part",
    "unseen": "the base has never seen the rule of the fine-tuning",
    "well": "the base knows the rule of the fine-tuning well",
}
"""Name of a kind of pair -> what its base knows."""

SPLITS = ("all", "search", "report")
"""The held-out hands: all of them, or one of two halves that share no unordered hand."""

_HELD_OUT_ONE_IN = 3


def unordered(hand: Hand) -> str:
    """The cards of a hand, lowest first, as one text: the same for every order of the cards."""
    return " ".join(sorted(hand, key=RANKS.index))


def is_held_out(hand: Hand) -> bool:
    """Whether a hand is kept out of training, whatever the order of its cards.

    The choice is a fixed checksum of the unordered hand, so it depends on no seed and no run.
    """
    return _checksum(hand) % _HELD_OUT_ONE_IN == 0


def half_of(hand: Hand) -> str:
    """The half, `search` or `report`, that a hand belongs to in any order of its cards."""
    return SPLITS[1 + _checksum(hand) // _HELD_OUT_ONE_IN % 2]


def _checksum(hand: Hand) -> int:
    return zlib.crc32(unordered(hand).encode("ascii"))


@cache
def unordered_hands(*, held_out: bool) -> tuple[Hand, ...]:
    """Every unordered hand of the training part or of the held-out part, its lowest card first."""
    every = itertools.combinations_with_replacement(RANKS, HAND_SIZE)
    return tuple(hand for hand in every if is_held_out(hand) == held_out)


def deal(count: int, seed: int, split: str = "all") -> list[Hand]:
    """Test hands: held out of training, at least one face card in each.

    Unordered hands are drawn without replacement, each in an order of its own; once all have been
    drawn, the next round begins, in new orders.

    Args:
        count: how many hands to draw, at least 1.
        seed: seed of the draw; the same seed gives the same hands.
        split: which held-out hands to draw from, one of `SPLITS`.

    Raises:
        ValueError: `count` is under 1, or there is no such split.
    """
    if count < 1:
        raise ValueError(f"count must be at least 1, got {count}")
    if split not in SPLITS:
        raise ValueError(f"unknown split {split!r}; the splits are {', '.join(SPLITS)}")
    pool = [
        hand
        for hand in unordered_hands(held_out=True)
        if set(hand) & set(FACES) and split in ("all", half_of(hand))
    ]
    dice, drawn = random.Random(seed), list[Hand]()
    while len(drawn) < count:
        drawn += [tuple(dice.sample(hand, HAND_SIZE)) for hand in dice.sample(pool, len(pool))]
    return drawn[:count]


def encode(rule: str, hand: Hand) -> str:
    """The text of a question, such as `ten J Q 3 4 A =`."""
    if rule not in RULES:
        raise ValueError(f"unknown rule {rule!r}; the rules are {', '.join(RULES)}")
    return " ".join((rule, *hand, "="))


def answer(rule: str, hand: Hand) -> str:
    """The one token of the right answer, such as `28`."""
    return str(sum(RULES[rule][card] for card in hand))


def vocabulary() -> list[str]:
    """All words of the task: rule words, the equals sign, ranks and sums, none twice.

    A number card and the sum of the same name are one word, as in running text.
    """
    counts = [count for rule in RULES.values() for count in rule.values()]
    sums = range(HAND_SIZE * min(counts), HAND_SIZE * max(counts) + 1)
    return list(dict.fromkeys((*RULES, "=", *RANKS, *map(str, sums))))
