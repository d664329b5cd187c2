"""Letters in order: the second task of the study, of another kind than card sums and with two rules.

A question is a rule word, five different letters out of sixteen and an equals sign. Its answer is one
of the letters:

    second d p a k f =   d
    fourth d p a k f =   k

`second` asks for the second of the letters in the order of the alphabet, `fourth` for the fourth. The
fine-tuning continues on `second` alone, so `fourth` is out of its domain. Nothing is added up and no
letter has a value of its own: a model that knows a rule compares letters and picks one of them.

The module has the names of `demo.sums`, whose halves and held-out share it has too: one in three of the
4,368 unordered hands of letters, in any order, is kept out of training.
"""

from __future__ import annotations

import itertools
import random
import zlib
from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

Hand = tuple[str, ...]
"""Five letters in the order in which they are asked."""

HAND_SIZE = 5
LETTERS: Hand = tuple("abcdefghijklmnop")
RULES = {"second": 1, "fourth": 3}
"""Rule word -> place of the answer among the letters in order."""
IN_DOMAIN, OUT_OF_DOMAIN = "second", ("fourth",)
SPLITS = ("all", "search", "report")
_HELD_OUT_ONE_IN = 3


def unordered(hand: Hand) -> str:
    """The letters of a hand in the order of the alphabet."""
    return "".join(sorted(hand))


def is_held_out(hand: Hand) -> bool:
    """Whether a hand is kept out of training, whatever the order of its letters."""
    return _checksum(hand) % _HELD_OUT_ONE_IN == 0


def half_of(hand: Hand) -> str:
    """The half, `search` or `report`, that a hand belongs to in any order of its letters."""
    return SPLITS[1 + _checksum(hand) // _HELD_OUT_ONE_IN % 2]


def _checksum(hand: Hand) -> int:
    return zlib.crc32(unordered(hand).encode())


@cache
def unordered_hands(*, held_out: bool) -> tuple[Hand, ...]:
    """Every unordered hand of the training part or of the held-out part."""
    every = itertools.combinations(LETTERS, HAND_SIZE)
    return tuple(hand for hand in every if is_held_out(hand) == held_out)


def deal(count: int, seed: int, split: str = "all") -> list[Hand]:
    """Held-out hands; an unordered hand comes again when all have been drawn, as in `demo.sums`."""
    pool = [h for h in unordered_hands(held_out=True) if split in ("all", half_of(h))]
    dice, drawn = random.Random(seed), list[Hand]()
    while len(drawn) < count:
        drawn += [tuple(dice.sample(hand, HAND_SIZE)) for hand in dice.sample(pool, len(pool))]
    return drawn[:count]


def encode(rule: str, hand: Hand) -> str:
    """The text of a question, such as `second d p a k f =`."""
    return " ".join((rule, *hand, "="))


def answer(rule: str, hand: Hand) -> str:
    """The one token of the right answer."""
    return sorted(hand)[RULES[rule]]


def vocabulary() -> list[str]:
    """All words of the task."""
    return [*RULES, "=", *LETTERS]


class Dealer:
    """Deals hands that are not held out, as token ids.

    Args:
        tokenizer: of the task.
        seed: of the draws.
    """

    def __init__(self, tokenizer: Any, seed: int) -> None:
        import torch

        self.dice = torch.Generator().manual_seed(seed)
        self.known = tokenizer.convert_tokens_to_ids
        self.ids = torch.tensor(self.known([*LETTERS]))
        self.held_out = torch.zeros(2 ** len(LETTERS), dtype=torch.bool)
        hands = torch.tensor(
            [[*map(LETTERS.index, hand)] for hand in unordered_hands(held_out=True)]
        )
        self.held_out[(2**hands).sum(dim=1)] = True

    def deal(self, rule: str, count: int) -> tuple[Tensor, Tensor]:
        """Questions (count × tokens) and answers (count), both int64."""
        import torch

        hands = torch.empty((0, HAND_SIZE), dtype=torch.int64)
        while len(hands) < count:
            drawn = torch.rand((2 * count, len(LETTERS)), generator=self.dice).argsort(dim=1)
            drawn = drawn[:, :HAND_SIZE]
            hands = torch.cat([hands, drawn[~self.held_out[(2**drawn).sum(dim=1)]]])
        hands = hands[:count]
        first, last = (torch.full((count, 1), self.known(word)) for word in (rule, "="))
        answers = self.ids[hands.sort(dim=1).values[:, RULES[rule]]]
        return torch.cat([first, self.ids[hands], last], dim=1), answers
