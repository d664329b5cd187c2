"""How models answer, from real forward passes on the user's prompts (`uvmerge diff --kl`).

The norm of a weight change says little about what a model forgets; the divergence of its next-token
distributions from the base's says more (arXiv 2509.04259).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import InputRefused, UsageError
from ..measure.findings import Behaviour, Overlap
from .prompts import Prompt
from .runner import Runner, without
from .sealing import sealed
from .tokens import token_ids

if TYPE_CHECKING:
    from torch import Tensor

LIKELIEST = 10
CURVE = (1, 2, 5, 10, 20, 50, 100)  # numbers of likeliest tokens of the overlap curve
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
        models = [Runner.load(path, device) for path in paths]
        _check_vocabularies(models, max(map(max, sequences)))
    except InputRefused as refused:
        raise without(refused, "--kl") from refused
    most = int(min([most_tokens, *(model.positions for model in models)]))
    sums = [_Sums() for _ in folders]
    with sealed():
        for ids in sequences:
            base = models[0].logits(ids[:most])
            for model, found in zip(models[1:], sums):
                found.add(base, model.logits(ids[:most]))
    return [found.behaviour() for found in sums]


def _check_vocabularies(models: Sequence[Runner], largest_id: int) -> None:
    base = models[0]
    base.check_ids(largest_id)
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
        totals: sums over all tokens of the other figures, in the order of `_compared`.
        vocabulary: number of entries of the distributions.
    """

    tokens: list[int] = field(default_factory=list)
    kl: list[float] = field(default_factory=list)
    totals: list[float] = field(default_factory=list)
    vocabulary: int = 0

    def add(self, base: Tensor, other: Tensor) -> None:
        """Add one prompt, by the logits (tokens, vocabulary) of both models."""
        self.tokens.append(len(base))
        self.kl.append(0.0)
        self.vocabulary = base.shape[-1]
        for pair in zip(base.split(POSITIONS), other.split(POSITIONS)):
            kl, *rest = _compared(*pair)
            self.kl[-1] += kl
            before = self.totals or [0.0] * len(rest)
            self.totals = [total + more for total, more in zip(before, rest, strict=True)]

    def behaviour(self) -> Behaviour:
        """Means over tokens, and the standard error of the divergence over prompts."""
        tokens = sum(self.tokens)
        kl, prompts = sum(self.kl) / tokens, len(self.tokens)
        spread = sum((x - kl * n) ** 2 for x, n in zip(self.kl, self.tokens))
        error = math.sqrt(spread * prompts / (prompts - 1)) / tokens if prompts > 1 else None
        base_entropy, entropy, overlap, agreement, js, base_margin, margin, *curve = (
            total / tokens for total in self.totals
        )
        counts = _counts(self.vocabulary)
        overlaps = (Overlap(k, s, k / self.vocabulary) for k, s in zip(counts, curve, strict=True))
        return Behaviour(
            prompts, tokens, kl, error, base_entropy, entropy, overlap, agreement,
            js, base_margin, margin, tuple(overlaps),
        )  # fmt: skip


def _counts(vocabulary: int) -> list[int]:
    """The numbers of likeliest tokens of the curve that are less than all tokens."""
    return [k for k in CURVE if k < vocabulary]


def _compared(base: Tensor, other: Tensor) -> Iterator[float]:
    """Sums over tokens, from the logits (tokens, vocabulary) of two models.

    They are, in this order: KL(base ‖ other), the entropy of the base and that of the other model, all
    in nats; the share of the base's ten likeliest tokens among the other's ten; 1 where both have
    the same likeliest token; the Jensen–Shannon divergence in nats; the margin of the base and that
    of the other model; and for each of `_counts` the share of the base's likeliest tokens.
    """
    import torch

    log_p, log_q = (logits.double().log_softmax(-1) for logits in (base, other))
    p, q = log_p.exp(), log_q.exp()
    kl = torch.where(p > 0, p * (log_p - log_q), 0.0).sum(-1).clamp(min=0)
    yield float(kl.sum())
    yield float(torch.special.entr(p).sum())
    yield float(torch.special.entr(q).sum())
    counts = _counts(base.shape[-1])
    most = max([min(LIKELIEST, base.shape[-1]), *counts])
    ours, theirs = (logits.topk(most).indices for logits in (base, other))
    yield _shared(ours, theirs, LIKELIEST)
    yield float((ours[:, 0] == theirs[:, 0]).sum())
    yield _jensen_shannon(p, q)
    yield _margin(p)
    yield _margin(q)
    for k in counts:
        yield _shared(ours, theirs, k)


def _shared(ours: Tensor, theirs: Tensor, k: int) -> float:
    """Sum over tokens of the share of the first k of `ours` (tokens, ·) among those of `theirs`."""
    equal = ours[:, :k, None] == theirs[:, None, :k]
    return float(equal.any(-1).double().mean(-1).sum())


def _jensen_shannon(p: Tensor, q: Tensor) -> float:
    """Sum over tokens of (KL(p ‖ m) + KL(q ‖ m)) / 2, with m = (p + q) / 2; exactly 0 for p = q."""
    import torch

    m = (p + q) / 2
    of_p, of_q = (torch.where(each > 0, each * (each / m).log(), 0.0) for each in (p, q))
    return float(((of_p + of_q) / 2).sum(-1).clamp(min=0).sum())


def _margin(p: Tensor) -> float:
    """Sum over tokens of the probability of the likeliest less that of the second likeliest."""
    top = p.topk(min(2, p.shape[-1])).values
    return float((top[:, 0] - top[:, 1:].sum(-1)).sum())
