"""Asks a checkpoint card sums: which of the same held-out hands does it answer right?

Importing this module imports neither torch nor transformers; `answers` imports both.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from . import sums

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

__all__ = ["HANDS", "SEED", "Answers", "answers", "tensors"]

HANDS = 1000
"""How many hands are asked under each rule, unless told otherwise."""

SEED = 1927
"""The seed of their draw, unless told otherwise."""

_BATCH = 250  # questions in one forward pass


@dataclass(frozen=True)
class Answers:
    """What a checkpoint answered to the same hands under every rule.

    Attributes:
        clusters: of every hand its unordered hand, as `sums.unordered` writes it: (hands,).
        right: by rule word, whether each hand was answered right: (hands,), bool.
    """

    clusters: tuple[str, ...]
    right: Mapping[str, NDArray[np.bool_]]

    @property
    def in_domain(self) -> NDArray[np.float64]:
        """1 or 0 for each hand under the rule that was fine-tuned on: (hands,), float64."""
        return self.right[sums.IN_DOMAIN].astype(np.float64)

    @property
    def out_of_domain(self) -> NDArray[np.float64]:
        """The share of the other rules under which each hand was answered right: (hands,), float64."""
        others = [self.right[rule] for rule in sums.OUT_OF_DOMAIN]
        return np.asarray(np.mean(others, axis=0), dtype=np.float64)

    @property
    def accuracies(self) -> tuple[float, float]:
        """The mean accuracy in domain and out of domain."""
        return float(self.in_domain.mean()), float(self.out_of_domain.mean())


def answers(
    checkpoint: str | Path | PreTrainedModel,
    *,
    tokenizer: PreTrainedTokenizerBase | None = None,
    split: str = "all",
    hands: int = HANDS,
    seed: int = SEED,
) -> Answers:
    """Ask a checkpoint the hands of `sums.deal` under every rule.

    An answer is right if it is the likeliest next token of the whole vocabulary. A folder is loaded
    through transformers alone (nothing is downloaded) and run in float32 on the CPU; a model in
    memory is run as it is.

    Args:
        checkpoint: the checkpoint folder, or a model.
        tokenizer: that of a model in memory.
        split: which held-out hands to ask: `all`, or the half to `search` or to `report` on.
        hands: how many hands to ask under each rule.
        seed: seed of their draw; checkpoints asked with the same seed are asked the same hands.

    Raises:
        ValueError: there is no such split, or `hands` is under 1, or the tokenizer does not take
            every word of the task as one token, or a model came without one.
    """
    dealt = sums.deal(hands, seed, split)
    if isinstance(checkpoint, (str, Path)):
        import torch

        from ..models.load import load_model, load_tokenizer

        tokenizer = load_tokenizer(checkpoint)
        checkpoint = load_model(checkpoint, dtype=torch.float32, causal=True).model
    if tokenizer is None:
        raise ValueError("a model in memory needs its tokenizer")
    right = {r: _right(checkpoint, *tensors(tokenizer, r, dealt)) for r in sums.RULES}
    return Answers(tuple(map(sums.unordered, dealt)), right)


def tensors(
    tokenizer: PreTrainedTokenizerBase, rule: str, hands: Sequence[sums.Hand], task: Any = sums
) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids of the questions (hands × tokens) and of the right answers (hands), both int64.

    Args:
        task: the module of the task.

    Raises:
        ValueError: the tokenizer does not take every word of the task as one token.
    """
    import torch

    questions = tokenizer([task.encode(rule, hand) for hand in hands], add_special_tokens=False)
    expected = tokenizer([task.answer(rule, hand) for hand in hands], add_special_tokens=False)
    unknown = tokenizer.unk_token_id
    for ids, length in ((questions["input_ids"], task.HAND_SIZE + 2), (expected["input_ids"], 1)):
        if any(len(row) != length or unknown in row for row in ids):
            raise ValueError("the tokenizer does not take every word of the task as one token")
    return torch.tensor(questions["input_ids"]), torch.tensor(expected["input_ids"])[:, 0]


def _right(
    model: PreTrainedModel, questions: torch.Tensor, expected: torch.Tensor
) -> NDArray[np.bool_]:
    """Which questions have the answer as likeliest next token."""
    import torch

    parts = []
    was_training = model.training
    model.train(False)
    with torch.inference_mode():
        for start in range(0, len(questions), _BATCH):
            part = slice(start, start + _BATCH)
            logits = model(input_ids=questions[part], use_cache=False, logits_to_keep=1).logits
            parts.append(logits[:, -1].argmax(dim=-1) == expected[part])
    model.train(was_training)
    return np.asarray(torch.cat(parts).numpy(), dtype=np.bool_)
