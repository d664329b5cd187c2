"""Card sums: the task of the embedded demo pair.

A question is a rule word, four cards and an equals sign, and its answer is the sum of the cards
as one token::

    ten J Q 3 4 =    27
    rank J Q 3 4 =   30

An ace counts 1 and a number card its number under both rules. Under ``ten`` each of J, Q and K
counts 10; under ``rank`` they count 11, 12 and 13. The base model was trained on both rules, the
fine-tuned one further on ``ten`` alone, so ``ten`` is in the domain of the fine-tuning and
``rank`` out of it.

Ranks are drawn uniformly with replacement, which makes 13 ** 4 = 28,561 ordered hands. That is
few enough for a training run to see them all, so one fifth of the unordered hands
(:func:`is_held_out`) is kept out of training, in any order of the cards, and only those are
asked in a test.

Every test hand holds at least one face card, under both rules. Out of domain that is needed: the
rules agree on a hand without one, and such a hand says nothing about the second rule. In domain
it is not needed but done all the same, so that the two accuracies are measured on the very same
hands and nothing but the rule word differs between them.

Importing this module imports neither torch nor transformers; :func:`accuracies` does.
"""

from __future__ import annotations

import itertools
import math
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
    "wilson",
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
    """Say whether a hand is kept out of training, whatever the order of its cards.

    The choice is a fixed checksum of the sorted ranks, so it depends on no seed and no run.
    """
    return zlib.crc32(" ".join(sorted(hand)).encode("ascii")) % _HELD_OUT_ONE_IN == 0


@cache
def hands_of(*, held_out: bool, face_required: bool) -> tuple[Hand, ...]:
    """Return every ordered hand of the training part or of the held-out part.

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
    """Draw test hands: held out of training, at least one face card in each.

    The draws are uniform and independent (a hand can come twice), so the share of right answers
    estimates the accuracy over all held-out hands with a face card, and :func:`wilson` gives the
    interval of that estimate.

    Args:
        count: hands to draw, at least 1.
        seed: seed of the draw; the same seed gives the same hands.
    """
    if count < 1:
        raise ValueError(f"count must be at least 1, got {count}")
    return random.Random(seed).choices(hands_of(held_out=True, face_required=True), k=count)


def encode(rule: str, hand: Hand) -> str:
    """Return the question's text, such as ``ten J Q 3 4 =``."""
    if rule not in RULES:
        raise ValueError(f"unknown rule {rule!r}; the rules are {', '.join(RULES)}")
    return " ".join((rule, *hand, "="))


def answer(rule: str, hand: Hand) -> str:
    """Return the right answer's one token, such as ``27``."""
    return str(sum(RULES[rule][card] for card in hand))


def vocabulary() -> list[str]:
    """Return all words of the task: rule words, the equals sign, ranks and sums, none twice.

    A number card and the sum of the same name are one word, as they would be in running text.
    """
    sums = range(HAND_SIZE, HAND_SIZE * max(_RANK_VALUES.values()) + 1)
    return list(dict.fromkeys((*RULES, "=", *RANKS, *map(str, sums))))


def tensors(
    tokenizer: PreTrainedTokenizerBase, rule: str, hands: Sequence[Hand]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Turn hands into token ids (hands x tokens) and the ids of the right answers (hands).

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
    """Count the questions whose likeliest next token, of the whole vocabulary, is the answer."""
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
    """Load a checkpoint through transformers, ask it every hand and count the right answers.

    The checkpoint is read from the folder alone (nothing is fetched) and run in float32 on the CPU.

    Args:
        folder: the checkpoint folder.
        rules: rule words, keys of :data:`RULES`.
        hands: the hands to ask, such as those of :func:`deal`.
        batch: hands in one forward pass.

    Returns:
        The number of hands answered right, for each rule.
    """
    import torch

    from ..models.load import load_model, load_tokenizer

    tokenizer = load_tokenizer(folder)
    model = load_model(folder, dtype=torch.float32, causal=True).model
    return [count_right(model, *tensors(tokenizer, rule, hands), batch=batch) for rule in rules]


def wilson(right: int, total: int, z: float = 1.96) -> tuple[float, float]:
    """Return the Wilson score interval of a proportion.

    With p = right / total the bounds are::

        (p + z^2 / (2 n) -+ z sqrt(p (1 - p) / n + z^2 / (4 n^2))) / (1 + z^2 / n)

    Source: E. B. Wilson, "Probable Inference, the Law of Succession, and Statistical Inference",
    Journal of the American Statistical Association 22 (158), 1927, pages 209-212.

    Args:
        right: successes.
        total: trials, at least 1.
        z: the normal quantile; 1.96 gives a 95 % interval.
    """
    if total < 1 or not 0 <= right <= total:
        raise ValueError(f"need 0 <= right <= total and total >= 1, got {right} of {total}")
    share = right / total
    middle = share + z * z / (2 * total)
    spread = z * math.sqrt(share * (1 - share) / total + z * z / (4 * total * total))
    scale = 1 + z * z / total
    return max(0.0, (middle - spread) / scale), min(1.0, (middle + spread) / scale)
