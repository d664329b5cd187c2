"""How the hidden states of models moved, from real forward passes (`uvmerge diff --hidden`).

Each prompt counts once, by the hidden states of its last token, where an answer would begin.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import InputRefused, UsageError
from ..measure.findings import Hidden
from .prompts import Prompt
from .runner import Runner, without
from .sealing import sealed
from .tokens import token_ids

if TYPE_CHECKING:
    from torch import Tensor

MOST_PROMPTS = 1000  # all pairs of prompts are compared: 8 MB for each of a few matrices


def hidden_states(
    base_folder: str | Path,
    folders: Sequence[str | Path],
    prompts: Sequence[Prompt],
    *,
    device: str = "cpu",
    most_tokens: int = 1024,
) -> list[Hidden]:
    """How the hidden states in `folders` differ from the base's, one `Hidden` for each folder.

    The base and one other model are in memory at a time, loaded and run as for `behaviours`; a model compared with itself
    gives exactly 0 and 1.

    Args:
        prompts: the first 1,000 are used.
        device: as torch names it.
        most_tokens: a prompt is cut after so many tokens, or at the context of a model.

    Raises:
        InputRefused: a checkpoint is no causal language model of transformers, has no tokenizer, or
            its tokenizer, its number of layers or its width differs from the base's.
        UsageError: a prompt has no tokens, or has messages while the base has no template for them.
        RunFailed: a model cannot be run.
    """

    if not prompts:
        raise UsageError("prompts", "there are none", "Give at least one.")
    paths = [Path(base_folder), *map(Path, folders)]
    try:
        sequences = token_ids(paths, prompts[:MOST_PROMPTS])
        base = Runner.load(paths[0], device)
        run = cache(lambda most: _states(base, sequences, most))  # of the base
        return [
            _compared(Runner.load(path, device), base, run, sequences, most_tokens)
            for path in paths[1:]
        ]
    except InputRefused as refused:
        raise without(refused, "--hidden") from refused


def _compared(
    other: Runner,
    base: Runner,
    base_states: Callable[[int], Tensor],
    sequences: Sequence[Sequence[int]],
    most_tokens: int,
) -> Hidden:
    """The hidden states of one model against those of the base, at the smaller context of both."""
    from ..measure.hidden import measure_layers

    most = int(min(most_tokens, base.positions, other.positions))
    before, after = base_states(most), _states(other, sequences, most)
    if before.shape != after.shape:
        here, there = (f"{s.shape[1] - 1} layers of width {s.shape[2]}" for s in (after, before))
        what = f"its hidden states have {here}, the base's {there}"
        raise InputRefused(other.folder, what, "Hidden states compare layer by layer.")
    return Hidden(len(sequences), measure_layers(before, after))


def _states(model: Runner, sequences: Sequence[Sequence[int]], most: int) -> Tensor:
    """Hidden states (prompts, layers + 1, width) of the last token of each prompt."""
    import torch

    model.check_ids(max(map(max, sequences)))
    with sealed():
        return torch.stack([model.last_states(ids[:most]) for ids in sequences])
