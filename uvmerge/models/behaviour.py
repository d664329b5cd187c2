"""How models answer, from real forward passes on the user's prompts (`uvmerge diff --kl`).

The norm of a weight change says little about what a model forgets; the divergence of its next-token
distributions from the base's says more (arXiv 2509.04259).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import InputRefused, RunFailed, UsageError
from ..measure.findings import Behaviour
from .load import load_causal
from .prompts import Prompt
from .sealing import first_line, sealed
from .tokens import token_ids

if TYPE_CHECKING:
    from torch import Tensor

LIKELIEST = 10
POSITIONS = 32  # compared at a time in float64: 40 MB per model with a vocabulary of 150,000


def behaviours(
    base_folder: str | Path,
    folders: Sequence[str | Path],
    prompts: Sequence[Prompt],
    *,
    device: str = "cpu",
    most_tokens: int = 1024,
) -> list[Behaviour]:
    """How the models in `folders` answer compared with the base, one `Behaviour` for each folder.

    All models are in memory at the same time, with weights in float32 on the CPU and in their stored
    dtype on a GPU. The next-token distributions after every token are compared in float64. Where a
    chat does not end with a message of the assistant, the template appends the opening of its answer.
    Prompts are run one at a time, with eager attention, so that results depend neither on padding nor
    on installed kernels; a model compared with itself gives exactly 0.

    Args:
        device: as torch names it.
        most_tokens: a prompt is cut after so many tokens, or at the smallest context of the models.

    Raises:
        InputRefused: a checkpoint is no causal language model of transformers, has no tokenizer, or
            its tokenizer or size of vocabulary differs from the base's.
        UsageError: a prompt has no tokens, or has messages while the base has no template for them.
        RunFailed: a model cannot be run.
    """
    if not prompts:
        raise UsageError("prompts", "there are none", "Give at least one.")
    paths = [Path(base_folder), *map(Path, folders)]
    try:
        sequences = token_ids(paths, prompts)
        models = [_Model.load(path, device) for path in paths]
        _check_vocabularies(models, max(map(max, sequences)))
    except InputRefused as refused:
        do = f"{refused.do} Or leave out --kl." if refused.do else "Leave out --kl."
        raise InputRefused(refused.where, refused.what, do) from refused
    most = int(min([most_tokens, *(model.positions for model in models)]))
    sums = [_Sums() for _ in folders]
    with sealed():
        for ids in sequences:
            base = models[0].logits(ids[:most])
            for model, found in zip(models[1:], sums):
                found.add(base, model.logits(ids[:most]))
    return [found.behaviour() for found in sums]


@dataclass(frozen=True)
class _Model:
    """A model that is ready to run.

    Attributes:
        folder: where the checkpoint lies.
        model: a `transformers.PreTrainedModel`.
        vocabulary: number of entries of the next-token distribution.
        positions: largest number of tokens; infinite where the config has no limit.
    """

    folder: Path
    model: Any
    vocabulary: int
    positions: float

    @classmethod
    def load(cls, folder: Path, device: str) -> _Model:
        """Load the model in `folder`: in float32 on the CPU, in its stored dtype on a GPU.

        Raises:
            InputRefused: the model cannot be loaded, or lacks a weight.
        """
        model, positions = load_causal(folder, device)
        return cls(folder, model, model.config.get_text_config().vocab_size, positions)

    def logits(self, ids: Sequence[int]) -> Tensor:
        """Logits (tokens, vocabulary) for the token ids of one prompt, in the dtype of the model."""
        import torch

        try:
            with torch.inference_mode():
                input_ids = torch.tensor([ids], device=self.model.device)
                logits: Tensor = self.model(input_ids=input_ids, use_cache=False).logits[0]
        except Exception as error:
            raise RunFailed(
                self.folder,
                f"a forward pass fails: {first_line(error)}",
                "Try --device cpu, fewer checkpoints at a time, or leave out --kl.",
            ) from None
        if bool((logits.isnan() | logits.isposinf()).any()):
            raise RunFailed(self.folder, "a forward pass gives NaN or Inf", "`uvmerge check` it.")
        return logits


def _check_vocabularies(models: Sequence[_Model], largest_id: int) -> None:
    base = models[0]
    if largest_id >= base.vocabulary:
        raise InputRefused(
            base.folder,
            f"its tokenizer gives the id {largest_id}, its vocabulary has"
            f" {base.vocabulary:,} entries",
            "Is it the tokenizer of this model?",
        )
    for model in models[1:]:
        if model.vocabulary != base.vocabulary:
            raise InputRefused(
                model.folder,
                f"its vocabulary has {model.vocabulary:,} entries, the base's {base.vocabulary:,}",
                "Distributions over different vocabularies do not compare.",
            )


@dataclass
class _Sums:
    """Sums over tokens, of one model compared with the base.

    Attributes:
        tokens, kl: for each prompt, its number of tokens and the sum of their KL divergences.
        totals: sums over all tokens of base entropy, entropy, overlap and agreement.
    """

    tokens: list[int] = field(default_factory=list)
    kl: list[float] = field(default_factory=list)
    totals: list[float] = field(default_factory=lambda: [0.0] * 4)

    def add(self, base: Tensor, other: Tensor) -> None:
        """Add one prompt, by the logits (tokens, vocabulary) of both models."""
        self.tokens.append(len(base))
        self.kl.append(0.0)
        for pair in zip(base.split(POSITIONS), other.split(POSITIONS)):
            kl, *rest = _compared(*pair)
            self.kl[-1] += kl
            self.totals = [total + more for total, more in zip(self.totals, rest)]

    def behaviour(self) -> Behaviour:
        """Means over tokens, and the standard error of the divergence over prompts."""
        tokens = sum(self.tokens)
        kl, prompts = sum(self.kl) / tokens, len(self.tokens)
        spread = sum((x - kl * n) ** 2 for x, n in zip(self.kl, self.tokens))
        error = math.sqrt(spread * prompts / (prompts - 1)) / tokens if prompts > 1 else None
        base_entropy, entropy, overlap, agreement = (total / tokens for total in self.totals)
        return Behaviour(prompts, tokens, kl, error, base_entropy, entropy, overlap, agreement)


def _compared(base: Tensor, other: Tensor) -> Iterator[float]:
    """Five sums over tokens, from the logits (tokens, vocabulary) of two models.

    They are, in this order: KL(base ‖ other), the entropy of the base and that of the other model, all
    in nats; the share of the base's ten likeliest tokens among the other's ten; and 1 where both have
    the same likeliest token.
    """
    import torch

    log_p, log_q = (logits.double().log_softmax(-1) for logits in (base, other))
    p, q = log_p.exp(), log_q.exp()
    kl = torch.where(p > 0, p * (log_p - log_q), 0.0).sum(-1).clamp(min=0)
    yield float(kl.sum())
    yield float(torch.special.entr(p).sum())
    yield float(torch.special.entr(q).sum())
    count = min(LIKELIEST, base.shape[-1])
    ours, theirs = (logits.topk(count).indices for logits in (base, other))
    yield float((ours[:, :, None] == theirs[:, None, :]).any(-1).double().mean(-1).sum())
    yield float((ours[:, 0] == theirs[:, 0]).sum())
