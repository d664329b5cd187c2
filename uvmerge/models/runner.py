"""A model of a checkpoint that is run on one prompt at a time: its logits and its hidden states."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import InputRefused, RunFailed
from .load import load_causal
from .sealing import first_line

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Runner:
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
    def load(cls, folder: Path, device: str) -> Runner:
        """Load the model in `folder`: in float32 on the CPU, in its stored dtype on a GPU.

        Raises:
            InputRefused: the model cannot be loaded, or lacks a weight.
        """
        model, positions = load_causal(folder, device)
        return cls(folder, model, model.config.get_text_config().vocab_size, positions)

    def check_ids(self, largest_id: int) -> None:
        """Refuse token ids that are beyond the vocabulary."""
        if largest_id >= self.vocabulary:
            raise InputRefused(
                self.folder,
                f"its tokenizer gives the id {largest_id}, its vocabulary has"
                f" {self.vocabulary:,} entries",
                "Is it the tokenizer of this model?",
            )

    def logits(self, ids: Sequence[int]) -> Tensor:
        """Logits (tokens, vocabulary) for the token ids of one prompt, in the dtype of the model."""
        logits: Tensor = self._output(ids, "--kl").logits[0]
        if bool((logits.isnan() | logits.isposinf()).any()):
            raise self._not_finite()
        return logits

    def last_states(self, ids: Sequence[int]) -> Tensor:
        """Hidden states (layers + 1, width) of a prompt's last token, in float32 on the CPU.

        The first is the input of the first layer, the last what the output head reads.
        """
        return self.pooled_states(ids, "--hidden", average=False)

    def pooled_states(self, ids: Sequence[int], option: str, *, average: bool) -> Tensor:
        """Like `last_states`; or the mean over the tokens of the prompt.

        Args:
            option: what a message advises to leave out.
        """
        import torch

        states = self._output(ids, option, output_hidden_states=True).hidden_states
        if not states:
            what = f"its model class {type(self.model).__name__} gives no hidden states"
            raise InputRefused(self.folder, what, f"Leave out {option}.")
        wide = (state[0].to("cpu", torch.float32) for state in states)
        pooled = torch.stack([each.mean(dim=0) if average else each[-1] for each in wide])
        if not bool(pooled.isfinite().all()):
            raise self._not_finite()
        return pooled

    def _output(self, ids: Sequence[int], option: str, **more: Any) -> Any:
        import torch

        try:
            with torch.inference_mode():
                input_ids = torch.tensor([ids], device=self.model.device)
                return self.model(input_ids=input_ids, use_cache=False, **more)
        except Exception as error:
            raise RunFailed(
                self.folder,
                f"a forward pass fails: {first_line(error)}",
                f"Try --device cpu, fewer checkpoints at a time, or leave out {option}.",
            ) from None

    def _not_finite(self) -> RunFailed:
        return RunFailed(self.folder, "a forward pass gives NaN or Inf", "`uvmerge check` it.")


def without(refused: InputRefused, option: str) -> InputRefused:
    """The refusal with the advice to leave out an option that needs the model."""
    do = f"{refused.do} Or leave out {option}." if refused.do else f"Leave out {option}."
    return InputRefused(refused.where, refused.what, do)
