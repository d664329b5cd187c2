"""How the hidden states of one layer moved, each measure beside what chance gives.

X and Y (n, d) hold the states of n prompts in the base and in another model. What chance gives is an
exact mean: over all ways to pair the prompts of X with those of Y (for `cka` and `cosine`), and over
all ways to swap the two models in some of the prompts (for `shift` and `mmd`).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .findings import HiddenLayer

_SPREAD = 1e-12  # relative to the states: states that spread less are equal but for rounding


def measure_layers(base: Tensor, other: Tensor) -> tuple[HiddenLayer, ...]:
    """The measures of each layer, from the states (n, layers, d) of both models."""
    pairs = zip(base.unbind(1), other.unbind(1))
    return tuple(measure_layer(i, X.double(), Y.double()) for i, (X, Y) in enumerate(pairs))


def measure_layer(layer: int, X: Tensor, Y: Tensor) -> HiddenLayer:
    """The measures of one layer; X and Y (n, d) in float64."""
    return HiddenLayer(layer, *_cka(X, Y), *_cosine(X, Y), *_shift(X, Y), *_mmd(X, Y))


def _centred(X: Tensor) -> Tensor | None:
    """X (n, d) less its mean over prompts; None where all of its rows are equal."""
    centred = X - X.mean(0)
    spreads = float(centred.square().sum()) > _SPREAD**2 * float(X.square().sum())
    return centred if spreads else None


def _cka(X: Tensor, Y: Tensor) -> tuple[float | None, float | None]:
    """Linear CKA, ‖YcᵀXc‖² / (‖XcᵀXc‖ ‖YcᵀYc‖) (Kornblith et al. 2019), and its mean over pairings.

    The mean over all permutations of the rows is tr K tr L / ((n − 1) ‖K‖ ‖L‖), with the Gram
    matrices K and L of the centred states.
    """
    Xc, Yc = _centred(X), _centred(Y)
    if Xc is None or Yc is None:
        return None, None
    K, L = Xc @ Xc.mT, Yc @ Yc.mT
    norms = math.sqrt(float((K * K).sum()) * float((L * L).sum()))
    chance = float(K.trace() * L.trace()) / (len(X) - 1) / norms
    return min(float((K * L).sum()) / norms, 1.0), min(chance, 1.0)


def _cosine(X: Tensor, Y: Tensor) -> tuple[float | None, float | None]:
    """Mean cosine of a prompt's states in both models, and that of prompts paired at random."""
    squares = X.square().sum(1) * Y.square().sum(1)
    if not bool((squares > 0).all()):
        return None, None
    cosines = (X * Y).sum(1) / squares.sqrt()
    directions = [(Z / Z.norm(dim=1, keepdim=True)).mean(0) for Z in (X, Y)]
    return float(cosines.clamp(-1, 1).mean()), float(directions[0] @ directions[1])


def _shift(X: Tensor, Y: Tensor) -> tuple[float | None, float | None]:
    """Distance of the two means over prompts, over the root mean square distance of the base's states
    from their mean; and the root mean square of that distance over all swaps."""
    Xc = _centred(X)
    if Xc is None:
        return None, None
    n, spread = len(X), math.sqrt(float(Xc.square().sum()) / len(X))
    moved = Y - X
    by_chance = math.sqrt(float(moved.square().sum())) / n
    return float(moved.mean(0).norm()) / spread, by_chance / spread


def _mmd(X: Tensor, Y: Tensor) -> tuple[float | None, float | None]:
    """Maximum mean discrepancy of both sets of states (Gretton et al. 2012), and the root mean square
    over all swaps.

    MMD² = mean k(X, X) + mean k(Y, Y) − 2 mean k(X, Y), with k(x, y) = exp(−‖x − y‖² / 2s²) and s the
    median distance of two of the base's states. A swap of the prompts i changes the sign of each term
    that pairs i with another prompt, so that only the terms of one prompt are left in the mean.
    """
    n, middle = len(X), X.mean(0)
    X, Y = X - middle, Y - middle
    within = _squared_distances(X, X)
    pairs = within[tuple(torch.triu_indices(n, n, 1))]
    width = 2 * float(pairs.median()) if n > 1 else 0.0
    if width <= _SPREAD**2 * float(X.square().sum()):
        return None, None
    across = _squared_distances(X, Y)
    across.diagonal().copy_((X - Y).square().sum(1))  # without cancellation
    of_pairs = float((1 - (-across.diagonal() / width).exp()).mean())
    by_chance = math.sqrt(2 * of_pairs / n)
    if torch.equal(X, Y):
        return 0.0, by_chance
    means = [
        float((-each / width).exp().mean()) for each in (within, _squared_distances(Y, Y), across)
    ]
    return math.sqrt(max(0.0, means[0] + means[1] - 2 * means[2])), by_chance


def _squared_distances(X: Tensor, Y: Tensor) -> Tensor:
    squares = X.square().sum(1)[:, None] + Y.square().sum(1)
    return (squares - 2 * X @ Y.mT).clamp(min=0)
