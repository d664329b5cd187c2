"""Rows of routers: which direction of the hidden states an expert answers to."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import InputRefused, UsageError
from ..spectral.draw import Draw
from .prompts import Prompt
from .runner import Runner
from .sealing import sealed
from .tokens import token_ids

if TYPE_CHECKING:
    from torch import Tensor

# The vector (layers, width) that stands for the token ids of one prompt.
Vector = Callable[[Sequence[int]], "Tensor"]
ALIKE = 0.99  # cosine from which on two rows hardly tell experts apart
_OPTION = "gate_mode: hidden"


def prompted_rows(
    folder: Path,
    prompts: Sequence[tuple[Sequence[Prompt], Sequence[Prompt]]],
    vector: Vector,
) -> Tensor:
    """Rows (experts, layers, width) of unit length, in float64.

    A row is the mean vector of an expert's positive prompts, less that of its negative ones. (A row of
    an expert without prompts is zero.)

    Args:
        folder: where the base with its tokenizer lies.
        prompts: for each expert the positive and the negative prompts.
        vector: what stands for a prompt.

    Raises:
        InputRefused: the base has no tokenizer, or one that exceeds a limit.
        UsageError: a prompt has no tokens.
    """
    import torch

    flat = [prompt for several in prompts for kind in several for prompt in kind]
    ids = dict(zip(map(id, flat), token_ids([folder], flat) if flat else []))
    means: list[list[Tensor | None]] = [
        [_mean([vector(ids[id(p)]) for p in kind]) for kind in several] for several in prompts
    ]
    there = next((m for pair in means for m in pair if m is not None), None)
    if there is None:
        raise UsageError("prompts", "there are none", "Add positive_prompts.")
    zero = torch.zeros_like(there)
    rows = [(zero if a is None else a) - (zero if b is None else b) for a, b in means]
    return unit(torch.stack(rows))


def hidden_vector(folder: Path, device: str, *, average: bool) -> Vector:
    """The hidden states of a model at the entry of each layer.

    Args:
        average: take their mean over the tokens of a prompt, not those of its last token.
    """
    runner = Runner.load(folder, device)

    def vector(ids: Sequence[int]) -> Tensor:
        runner.check_ids(max(ids))
        if len(ids) > runner.positions:
            what = f"a prompt has {len(ids):,} tokens, the model takes {runner.positions:,}"
            raise InputRefused(runner.folder, what, "Shorten the prompts.")
        with sealed():
            return runner.pooled_states(ids, _OPTION, average=average)[:-1].double()

    return vector


def embedding_vector(rows: Callable[[int], Tensor], layers: int) -> Vector:
    """The sum of the embeddings of a prompt's tokens, the same in every layer.

    Args:
        rows: the embedding of a token.
    """
    import torch

    def vector(ids: Sequence[int]) -> Tensor:
        total = torch.stack([rows(each) for each in ids]).double().sum(dim=0)
        return unit(total).expand(layers, -1)

    return vector


def drawn_rows(names: Sequence[str], experts: int, width: int, mode: str, seed: int) -> Tensor:
    """Rows (experts, layers, width) that are drawn, the same ones on every machine.

    Args:
        names: of the routers, by layer.
        mode: `random` for directions that are spread evenly, of unit length; `uniform_random` for
            numbers within 1/√width of 0, with which a linear map begins.
    """
    import torch

    layers = []
    for name in names:
        draw = Draw(seed, name)
        uniform = torch.stack([draw(number, (width,)) for number in range(experts)])
        if mode == "uniform_random":
            layers.append((2 * uniform - 1) / width**0.5)
        else:
            layers.append(unit(torch.special.ndtri(uniform + 2.0**-54)))
    return torch.stack(layers, dim=1)


def alike_layers(rows: Tensor) -> int:
    """In how many layers two rows point nearly the same way."""
    rows = unit(rows)
    cosines = rows.transpose(0, 1) @ rows.permute(1, 2, 0)  # (layers, experts, experts)
    cosines.diagonal(dim1=1, dim2=2).zero_()
    return int((cosines.amax(dim=(1, 2)) > ALIKE).sum())


def unit(vectors: Tensor) -> Tensor:
    """Vectors scaled to unit length along their last axis; a zero vector stays zero."""
    return vectors / vectors.norm(dim=-1, keepdim=True).clamp(min=1e-12)


def _mean(vectors: Sequence[Tensor]) -> Tensor | None:
    import torch

    return torch.stack(list(vectors)).mean(dim=0) if vectors else None
