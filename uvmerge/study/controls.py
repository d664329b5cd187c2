"""Controls of the repair: an edit with something else in the place of the base's leading directions.

They are not operations of uvmerge, because nobody would repair a model so. An edit that does no better
than its control owes nothing to the leading directions of the base.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import demo
from ..spectral.rank import leading_count
from .edits import Ask
from .lab import Pair, load

if TYPE_CHECKING:
    from torch import Tensor

_ELSEWHERE = {"random": "random directions", "stranger": "leading directions of a stranger"}


@dataclass(frozen=True)
class Control:
    """An edit with other directions.

    Attributes:
        operation: `restore` or `project`.
        directions: `random`, or `stranger`: the leading ones of another base.
        top: how many, as a share.
    """

    operation: str
    directions: str
    top: float

    @property
    def name(self) -> str:
        """In the journal."""
        return f"{self.directions}-{self.operation}-{self.top}"

    @property
    def label(self) -> str:
        """In tables."""
        return f"{self.operation} --top {self.top}, {_ELSEWHERE[self.directions]}"


@dataclass(frozen=True)
class Matrices:
    """One matrix of a pair and of the stranger, and what draws directions for it."""

    base: Tensor
    finetuned: Tensor
    stranger: Tensor
    generator: Any


def controls(quick: bool = False) -> list[Control]:
    """The controls of a study."""
    found = [
        Control(operation, directions, top)
        for top in (0.5, 0.2)
        for operation in ("project", "restore")
        for directions in _ELSEWHERE
    ]
    return found[:4] if quick else found


def control_scores(
    pair: Pair, finetuned: Path, control: Control, ask: Ask | None = None
) -> dict[str, Any]:
    """Edit the matrices of the layers in memory, round them as a checkpoint has them, and measure.

    Args:
        ask: measures a model; `Pair.scores` by default.
    """
    import torch

    model = load(finetuned)
    base = load(pair.base).state_dict()
    other = load(stranger(pair)).state_dict() if control.directions == "stranger" else base
    edit = _EDITS[control.operation, control.directions]
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if ".layers." in name and weight.ndim == 2:
                seed = zlib.crc32(f"{pair.seed} {name}".encode())
                generator = torch.Generator().manual_seed(seed)
                matrices = Matrices(base[name], weight, other[name], generator)
                weight.copy_(edit(matrices, leading_count(min(weight.shape), top=control.top)))
    return (ask or pair.scores)(model.to(torch.bfloat16).float())


def stranger(pair: Pair) -> Path:
    """A base with the same shapes and other seeds: that of the demo, and for the demo's own pair one
    that is trained for it."""
    if pair.seed != 0:
        return demo.pair("part")[0]
    schedule = replace(pair.schedule, seed=pair.schedule.seed + 1)
    return pair.checkpoint("stranger", lambda: (pair.trained_base(schedule), {}))


def _random_block(matrices: Matrices, k: int) -> Tensor:
    """`project` with orthonormal directions that are drawn evenly from all."""
    import torch

    drawn = [torch.randn((n, k), generator=matrices.generator) for n in matrices.base.shape]
    U, V = (torch.linalg.qr(each).Q for each in drawn)
    return _without_block(matrices, U, V)


def _strange_block(matrices: Matrices, k: int) -> Tensor:
    """`project` with the leading directions of the stranger."""
    U, _, Vh = _svd(matrices.stranger)
    return _without_block(matrices, U[:, :k], Vh[:k].mT)


def _without_block(matrices: Matrices, U: Tensor, V: Tensor) -> Tensor:
    """W_f − U (Uᵀ Δ V) Vᵀ."""
    delta = matrices.finetuned - matrices.base
    return matrices.finetuned - U @ (U.mT @ delta @ V) @ V.mT


def _random_triplets(matrices: Matrices, k: int) -> Tensor:
    """`restore` of as many triplets at random places of the spectrum."""
    import torch

    r = min(matrices.base.shape)
    chosen = torch.randperm(r, generator=matrices.generator)[:k]
    return _exchanged(matrices, matrices.base, chosen)


def _strange_triplets(matrices: Matrices, k: int) -> Tensor:
    """`restore` with the leading directions of the stranger."""
    import torch

    return _exchanged(matrices, matrices.stranger, torch.arange(k))


def _exchanged(matrices: Matrices, donor: Tensor, chosen: Tensor) -> Tensor:
    """W_f − U_f S_f Vh_f + U_d S_f Vh_d over the chosen triplets, with U_d and Vh_d of the donor."""
    (U_f, S, Vh_f), (U_d, _, Vh_d) = _svd(matrices.finetuned), _svd(donor)
    there = (U_d[:, chosen] * S[chosen]) @ Vh_d[chosen]
    return matrices.finetuned - (U_f[:, chosen] * S[chosen]) @ Vh_f[chosen] + there


def _svd(W: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    import torch

    U, S, Vh = torch.linalg.svd(W, full_matrices=False)
    return U, S, Vh


_EDITS: Mapping[tuple[str, str], Callable[[Matrices, int], Tensor]] = {
    ("project", "random"): _random_block,
    ("project", "stranger"): _strange_block,
    ("restore", "random"): _random_triplets,
    ("restore", "stranger"): _strange_triplets,
}
