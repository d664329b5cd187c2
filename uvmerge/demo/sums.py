"""Card sums: the task of the embedded demo pair.

A question is a rule word, four cards and an equals sign. Its answer is the sum of the cards as one
token:

    ten J Q 3 4 =    27
    rank J Q 3 4 =   30

An ace counts 1 and a number card its number under both rules. Under `ten` each of J, Q and K counts
10; under `rank` J counts 11, Q 12 and K 13. The base model was trained on both rules, the
fine-tuned model further on `ten` alone, so `ten` is in the domain of the fine-tuning and `rank` out
of it.

Ranks are drawn uniformly with replacement, so there are 13 ** 4 = 28,561 ordered hands. A training
run could see all of them. One fifth of the unordered hands (`is_held_out`) is therefore kept out of
training, in any order of the cards, and a test asks held-out hands only.

Every test hand holds at least one face card, under both rules. Out of domain the face card is
needed: the rules agree on a hand without one, and such a hand says nothing about the second rule.
In domain the face card is not needed; the same hands are asked, so that nothing but the rule word
differs between the two accuracies.

Importing this module imports neither torch nor transformers; `accuracies` imports both.
"""

from __future__ import annotations

import itertools
import random
import zlib
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

__all__ = [
    "FACES",
    "HAND_SIZE",
    "IN_DOMAIN",
    "OUT_OF_DOMAIN",
    "RANKS",
    "RULES",
    "Hand",
    "accuracies",
    "answer",
    "count_right",
    "deal",
    "encode",
    "hands_of",
    "is_held_out",
    "tensors",
    "vocabulary",
]

Hand = tuple[str, ...]
"""Four rank names in the order in which they are asked."""

HAND_SIZE = 4
"""Cards in a hand."""

RANKS: Hand = ("A", "2", "3", "4", "5", "6", "7", "8", "9", "10", "J", "Q", "K")
"""The ranks, lowest first."""

FACES: Hand = ("J", "Q", "K")
"""The ranks on which the two rules differ."""

IN_DOMAIN = "ten"
"""The rule that fine-tuning continues on: face cards count 10."""

OUT_OF_DOMAIN = "rank"
"""The rule that fine-tuning never shows: face cards count 11, 12 and 13."""

_RANK_VALUES = {rank: place for place, rank in enumerate(RANKS, start=1)}

RULES: dict[str, dict[str, int]] = {
    IN_DOMAIN: {rank: min(value, 10) for rank, value in _RANK_VALUES.items()},
    OUT_OF_DOMAIN: _RANK_VALUES,
}
"""Rule word -> rank -> what the card counts."""

_HELD_OUT_ONE_IN = 5


def is_held_out(hand: Hand) -> bool:
    """Whether a hand is kept out of training, whatever the order of its cards.

    The choice is a fixed checksum of the sorted ranks, so it depends on no seed and no run.
    """
    return zlib.crc32(" ".join(sorted(hand)).encode("ascii")) % _HELD_OUT_ONE_IN == 0


@cache
def hands_of(*, held_out: bool, face_required: bool) -> tuple[Hand, ...]:
    """Every ordered hand of the training part or of the held-out part.

    Args:
        held_out: True for the hands kept out of training, False for those trained on.
        face_required: leave out the hands without a J, Q or K.
    """
    return tuple(
        hand
        for hand in itertools.product(RANKS, repeat=HAND_SIZE)
        if is_held_out(hand) == held_out
        and (not face_required or any(card in FACES for card in hand))
    )


def deal(count: int, seed: int) -> list[Hand]:
    """Test hands: held out of training, at least one face card in each.

    The draws are uniform and independent (a hand can come twice), so the share of right answers
    estimates the accuracy over all held-out hands with a face card, and `statistics.wilson` gives the
    interval of that estimate.

    Args:
        count: how many hands to draw, at least 1.
        seed: seed of the draw; the same seed gives the same hands.

    Raises:
        ValueError: `count` is under 1.
    """
    if count < 1:
        raise ValueError(f"count must be at least 1, got {count}")
    return random.Random(seed).choices(hands_of(held_out=True, face_required=True), k=count)


def encode(rule: str, hand: Hand) -> str:
    """The text of a question, such as `ten J Q 3 4 =`."""
    if rule not in RULES:
        raise ValueError(f"unknown rule {rule!r}; the rules are {', '.join(RULES)}")
    return " ".join((rule, *hand, "="))


def answer(rule: str, hand: Hand) -> str:
    """The one token of the right answer, such as `27`."""
    return str(sum(RULES[rule][card] for card in hand))


def vocabulary() -> list[str]:
    """All words of the task: rule words, the equals sign, ranks and sums, none twice.

    A number card and the sum of the same name are one word, as in running text.
    """
    sums = range(HAND_SIZE, HAND_SIZE * max(_RANK_VALUES.values()) + 1)
    return list(dict.fromkeys((*RULES, "=", *RANKS, *map(str, sums))))


def tensors(
    tokenizer: PreTrainedTokenizerBase, rule: str, hands: Sequence[Hand]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids of the questions (hands × tokens) and of the right answers (hands), both int64.

    Raises:
        ValueError: the tokenizer does not take every word of the task as one token.
    """
    import torch

    questions = tokenizer([encode(rule, hand) for hand in hands], add_special_tokens=False)
    answers = tokenizer([answer(rule, hand) for hand in hands], add_special_tokens=False)
    unknown = tokenizer.unk_token_id
    for ids, length in ((questions["input_ids"], HAND_SIZE + 2), (answers["input_ids"], 1)):
        if any(len(row) != length or unknown in row for row in ids):
            raise ValueError("the tokenizer does not take every word of the task as one token")
    return torch.tensor(questions["input_ids"]), torch.tensor(answers["input_ids"])[:, 0]


def count_right(
    model: PreTrainedModel, questions: torch.Tensor, answers: torch.Tensor, *, batch: int = 250
) -> int:
    """How many questions have the answer as likeliest next token of the whole vocabulary."""
    import torch

    right = 0
    with torch.inference_mode():
        for start in range(0, len(questions), batch):
            part = slice(start, start + batch)
            logits = model(input_ids=questions[part], use_cache=False, logits_to_keep=1).logits
            right += int((logits[:, -1].argmax(dim=-1) == answers[part]).sum())
    return right


def accuracies(
    folder: str | Path, rules: Sequence[str], hands: Sequence[Hand], *, batch: int = 250
) -> list[int]:
    """How many hands a checkpoint, loaded through transformers, answers right under each rule.

    The checkpoint is read from the folder alone (nothing is downloaded) and run in float32 on the
    CPU.

    Args:
        folder: the checkpoint folder.
        rules: rule words, keys of `RULES`.
        hands: the hands to ask, such as those of `deal`.
        batch: hands in one forward pass.

    Returns:
        The number of right answers, in the order of `rules`.
    """
    import torch

    from ..models.load import load_model, load_tokenizer

    tokenizer = load_tokenizer(folder)
    model = load_model(folder, dtype=torch.float32, causal=True).model
    return [count_right(model, *tensors(tokenizer, rule, hands), batch=batch) for rule in rules]
