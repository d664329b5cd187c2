"""The diagonal Fisher information of a base in the coordinates of its own singular vectors.

A matrix W₀ = U S Vᵀ with all of its singular vectors gives each change Δ the coordinates c = UᵀΔV, in
which the leading block is the first k × k of them. F_ij is the mean square of the derivative of
log p(answer) with respect to c_ij, over questions and over answers drawn from the base itself. Then
½ Σ F c² approximates the divergence that the change causes, by parts that add up.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .ranks import spearman

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Coordinates:
    """All singular vectors of a matrix (m, n) of the base.

    Attributes:
        U: (m, m).
        V: (n, n).
        k: how many lead.
    """

    U: Tensor
    V: Tensor
    k: int

    @classmethod
    def of(cls, W: Tensor, top: float) -> Coordinates:
        """Those of W (m, n)."""
        import torch

        U, _, Vh = torch.linalg.svd(W.detach().double(), full_matrices=True)
        return cls(U.float(), Vh.mT.float(), int(top * min(W.shape) + 0.5))

    def take(self, D: Tensor) -> Tensor:
        """c = UᵀDV of D (m, n)."""
        return self.U.mT @ D @ self.V

    def block(self, c: Tensor) -> float:
        """The sum of the leading k × k entries of c."""
        return float(c[: self.k, : self.k].double().sum())


def fisher(
    model: Any, questions: Tensor, coordinates: Mapping[str, Coordinates], seed: int
) -> dict[str, Tensor]:
    """F (m, n) of each matrix, by the name of its parameter.

    Args:
        model: the base.
        questions: (count, tokens).
        coordinates: by the name of the parameter.
        seed: of the draw of answers.
    """
    import torch

    dice = torch.Generator().manual_seed(seed)
    parameters = {name: W for name, W in model.named_parameters() if name in coordinates}
    total = {name: torch.zeros_like(W) for name, W in parameters.items()}
    for question in questions.split(1):
        logits = model(input_ids=question, use_cache=False, logits_to_keep=1).logits[0, -1]
        log_probs = logits.log_softmax(-1)
        drawn = torch.multinomial(log_probs.detach().exp(), 1, generator=dice)
        gradients = torch.autograd.grad(log_probs[drawn].sum(), list(parameters.values()))
        for (name, sums), gradient in zip(total.items(), gradients, strict=True):
            sums += coordinates[name].take(gradient).square()
    return {name: sums / len(questions) for name, sums in total.items()}


def shares(
    changes: Mapping[str, Tensor],
    coordinates: Mapping[str, Coordinates],
    sensitive: Mapping[str, Tensor],
) -> dict[str, float]:
    """What of a change lies in the leading blocks, over all matrices together.

    Returns:
        `area`, the share of the coordinates that are in the blocks; `energy`, that of ‖Δ‖²;
        `information`, that of ΣF; `weighted`, that of ΣFc²; `weighted_chance`, the same for a change of
        the same size of each matrix that has no structure; `rank_block` and `rank_whole`, Spearman's
        ρ over matrices between ΣFc² and ‖c‖² of the block, or ‖Δ‖².

    Args:
        changes: Δ by name.
        sensitive: F by name.
    """
    parts = [
        _of_matrix(coordinates[name], coordinates[name].take(D).square(), sensitive[name])
        for name, D in changes.items()
    ]
    sums = {key: sum(part[key] for part in parts) for key in parts[0]}
    whole = [part["weighted"] for part in parts]
    found = {
        key: sums[f"{key}_block"] / sums[key] if sums[key] else 0.0
        for key in ("area", "energy", "information", "weighted", "weighted_chance")
    }
    found["rank_block"] = spearman([part["energy_block"] for part in parts], whole)
    found["rank_whole"] = spearman([part["energy"] for part in parts], whole)
    return found


def _of_matrix(where: Coordinates, squares: Tensor, F: Tensor) -> dict[str, float]:
    """Sums over a matrix and over its block; `squares` are c²."""
    mean = float(squares.double().mean())
    weighted = squares * F
    return {
        "area": float(F.numel()), "area_block": float(where.k**2),
        "energy": float(squares.double().sum()), "energy_block": where.block(squares),
        "information": float(F.double().sum()), "information_block": where.block(F),
        "weighted": float(weighted.double().sum()), "weighted_block": where.block(weighted),
        "weighted_chance": mean * float(F.double().sum()),
        "weighted_chance_block": mean * where.block(F),
    }  # fmt: skip
