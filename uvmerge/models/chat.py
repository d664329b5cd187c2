"""Answers of a model on this disk, generated in batches."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import RunFailed
from .load import load_causal, load_tokenizer
from .prompts import Prompt
from .sealing import first_line, sealed
from .tokens import token_ids

if TYPE_CHECKING:
    from torch import Tensor

Chat = Sequence[dict[str, str]] | str


@dataclass(frozen=True)
class LocalModel:
    """A model that is ready to answer.

    Attributes:
        folder: where the checkpoint lies.
        model: a `transformers.PreTrainedModel`.
        tokenizer: a `transformers.PreTrainedTokenizerBase`.
        positions: largest number of tokens; infinite where the config has no limit.
        batch: how many chats are answered at the same time.
    """

    folder: Path
    model: Any
    tokenizer: Any
    positions: float
    batch: int

    @classmethod
    def load(cls, folder: Path, device: str, batch: int) -> LocalModel:
        """Load the model in `folder`.

        Raises:
            InputRefused: the checkpoint is no causal language model of transformers, or lacks a weight
                or a tokenizer.
        """
        tokenizer = load_tokenizer(folder)
        model, positions = load_causal(folder, device)
        return cls(folder, model, tokenizer, positions, batch)

    def answers(
        self,
        chats: Sequence[Chat],
        seeds: Sequence[int],
        *,
        max_tokens: int,
        temperature: float,
        stop: str | None = None,
    ) -> Iterator[tuple[int, str]]:
        """The number of each chat and its answer, a batch after the other.

        A chat that is a text is taken as it is. The chat template makes messages a text; without one
        their contents follow each other. Where a chat is too long for the model, its beginning is cut.
        Randomness depends on the seed of a chat alone, not on the batch that it is in.

        Args:
            temperature: 0 for the likeliest token at every step.
            stop: an answer ends before this text.

        Raises:
            InputRefused, UsageError: the tokenizer or the chat template fails.
            RunFailed: the model cannot be run.
        """
        prompts = [self._prompt(number, chat) for number, chat in enumerate(chats)]
        new = int(min(max_tokens, self.positions // 2))
        most = None if self.positions == float("inf") else int(self.positions) - new
        sequences = [ids[-most:] if most else ids for ids in token_ids([self.folder], prompts)]
        for start in range(0, len(sequences), self.batch):
            part = slice(start, start + self.batch)
            noise = _Noise(seeds[part], temperature) if temperature else None
            for number, ids in enumerate(self._generated(sequences[part], new, noise), start):
                text: str = self.tokenizer.decode(ids, skip_special_tokens=True)
                yield number, text if stop is None else text.partition(stop)[0]

    def _prompt(self, number: int, chat: Chat) -> Prompt:
        where = f"question {number + 1}"
        if isinstance(chat, str):
            return Prompt(where, chat)
        if self.tokenizer.chat_template:
            return Prompt(where, tuple(chat))
        return Prompt(where, "\n".join(message["content"] for message in chat))

    def _generated(
        self, sequences: Sequence[Sequence[int]], new: int, noise: _Noise | None
    ) -> list[list[int]]:
        """The ids that follow each sequence, padding included."""
        import torch

        width = max(map(len, sequences))
        ends = self._ends()
        padding = self.tokenizer.pad_token_id
        padding = padding if padding is not None else next(iter(ends), 0)
        ids = torch.tensor([[padding] * (width - len(s)) + list(s) for s in sequences])
        mask = torch.tensor([[0] * (width - len(s)) + [1] * len(s) for s in sequences])
        # The checkpoint's own settings (beams, penalties, sampling) are left out.
        settings = type(self.model.generation_config)(
            max_new_tokens=new, do_sample=False, pad_token_id=padding, eos_token_id=ends or None
        )
        try:
            with sealed(), torch.inference_mode():
                out = self.model.generate(
                    input_ids=ids.to(self.model.device), attention_mask=mask.to(self.model.device),
                    generation_config=settings, logits_processor=[noise] if noise else [],
                )  # fmt: skip
        except Exception as error:
            do = "Try --device cpu, or a smaller --batch."
            what = f"generating an answer fails: {first_line(error)}"
            raise RunFailed(self.folder, what, do) from None
        found: list[list[int]] = out[:, width:].tolist()
        return found

    def _ends(self) -> list[int]:
        """The ids of the tokens that end an answer."""
        named = self.model.generation_config.eos_token_id
        ids = [*(named if isinstance(named, list) else [named]), self.tokenizer.eos_token_id]
        return sorted({int(each) for each in ids if each is not None})


class _Noise:
    """Makes the likeliest token a random draw at a temperature, by Gumbel noise on the logits.

    Each row has a generator of its own on the CPU, so that a draw does not depend on the other rows.
    """

    def __init__(self, seeds: Sequence[int], temperature: float) -> None:
        import torch

        self.temperature = temperature
        self.generators = [torch.Generator().manual_seed(seed) for seed in seeds]

    def __call__(self, ids: Tensor, scores: Tensor) -> Tensor:
        import torch

        count, tiny = scores.shape[-1], torch.finfo(torch.float32).tiny
        drawn = torch.stack([torch.rand(count, generator=g) for g in self.generators])
        gumbel = -(-drawn.clamp(tiny, 1 - 2**-24).log()).log()
        return scores / self.temperature + gumbel.to(scores.device)
