"""Arithmetic of merges on whole tensors: differences, elected signs, largest values, unit vectors.

A tensor counts as one vector here, whatever its shape. Everything is in float64, whatever the policy
says: which sign is elected, which values are kept and how far two models lie apart hang on the last
bits of a difference.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .magnitude import norm
from .operand import Operand

# A sum of weights as small as that is no divisor.
NO_WEIGHT = 1e-8
# Magnitudes are counted by their leading bits (11 of exponent, 5 of fraction) before any are compared.
LEADING_BITS = 16


def exact(operand: Operand) -> Tensor:
    """The values of an operand in float64, in memory that it may share."""
    return operand.tensor.to(torch.float64)


def differences(base: Operand, models: Sequence[Operand]) -> tuple[Tensor, list[Tensor]]:
    """(base, δ_i = model_i − base of every model) in float64."""
    start = exact(base)
    return start, [exact(model) - start for model in models]


def weighted_sum(deltas: Sequence[Tensor], weights: Sequence[float], normalize: bool) -> Tensor:
    """Σ w_i δ_i, over Σ w_i where `normalize` is set.

    A sum of weights of less than 1e-8 divides nothing.

    Args:
        deltas: tensors of one shape, at least one.
        weights: one for each of them.
    """
    total = torch.zeros_like(deltas[0])
    for delta, weight in zip(deltas, weights, strict=True):
        total.add_(delta, alpha=weight)
    divisor = sum(weights)
    return total.div_(divisor) if normalize and abs(divisor) >= NO_WEIGHT else total


def agreeing_sum(deltas: Sequence[Tensor], weights: Sequence[float], normalize: bool) -> Tensor:
    """Σ w_i δ_i of those that have the elected sign, over Σ w_i of the same where `normalize` is set.

    The sign of Σ w_i δ_i is elected for each element; a sum of zero elects plus, and a w_i δ_i of zero
    agrees with nothing. A sum of weights of zero divides nothing.

    Args:
        deltas: tensors of one shape, at least one.
        weights: one for each of them, which may be negative.
    """
    elected = weighted_sum(deltas, weights, normalize=False) >= 0
    total, divisor = torch.zeros_like(deltas[0]), torch.zeros_like(deltas[0])
    for delta, weight in zip(deltas, weights, strict=True):
        if weight == 0:
            continue
        part = weight * delta
        agrees = torch.where(elected, part > 0, part < 0)
        total += part.mul_(agrees)
        divisor.add_(agrees, alpha=weight)
    return total.div_(divisor.masked_fill_(divisor == 0, 1)) if normalize else total


def largest(magnitudes: Tensor, count: int) -> Tensor:
    """Where the `count` largest values are; of equal ones, those of lower index come first.

    Args:
        magnitudes: values of at least 0, of any shape, in float64.
        count: how many, from 0 to all.

    Returns:
        A mask of the same shape that is true exactly `count` times.
    """
    flat = magnitudes.reshape(-1)
    if count <= 0 or count >= len(flat):
        return torch.full_like(magnitudes, count > 0, dtype=torch.bool)
    threshold = _value_at(flat, len(flat) - count)
    kept = flat > threshold
    equal = (flat == threshold).nonzero().squeeze(1)
    kept[equal[: count - int(kept.sum())]] = True
    return kept.reshape(magnitudes.shape)


def smallest(magnitudes: Tensor, count: int) -> Tensor:
    """Where the `count` smallest values are; like `largest`, with equal ones by lower index too."""
    flat = magnitudes.reshape(-1)
    if count <= 0 or count >= len(flat):
        return torch.full_like(magnitudes, count > 0, dtype=torch.bool)
    threshold = _value_at(flat, count - 1)
    kept = flat < threshold
    equal = (flat == threshold).nonzero().squeeze(1)
    kept[equal[: count - int(kept.sum())]] = True
    return kept.reshape(magnitudes.shape)


def in_order(values: Tensor, positions: Sequence[int]) -> list[float]:
    """The values at some positions of the ascending order, counted from 0."""
    flat = values.reshape(-1)
    return [float(_value_at(flat, position)) for position in positions]


def _value_at(flat: Tensor, position: int) -> Tensor:
    """The value at a position of the ascending order of values of at least 0.

    Bits of such floating-point numbers are ordered like the numbers, so that counting the leading bits
    leaves few values to be compared.
    """
    bins = flat.abs().view(torch.int64) >> (63 - LEADING_BITS)
    up_to = torch.bincount(bins, minlength=2**LEADING_BITS).cumsum(0)
    chosen = int(torch.searchsorted(up_to, position, right=True))
    below = int(up_to[chosen - 1]) if chosen else 0
    return flat[bins == chosen].kthvalue(position - below + 1).values


def keep_largest(delta: Tensor, density: float) -> Tensor:
    """δ with zeros in place of all but its largest share of values by magnitude.

    As many as int(density · n) of n values are kept, and at least one; all where the density is 1 or
    more, none where it is 0 or less.
    """
    if density >= 1 or delta.numel() == 0:
        return delta
    count = max(1, int(density * delta.numel())) if density > 0 else 0
    return delta * largest(delta.abs(), count)


def rescaled(kept: Tensor, delta: Tensor) -> Tensor:
    """What was kept of δ, times ‖δ‖₁ / ‖kept‖₁; as it is where one of these is 0."""
    before, after = float(delta.abs().sum()), float(kept.abs().sum())
    return kept * (before / after) if before and after else kept


def unit(vector: Tensor) -> tuple[Tensor, float]:
    """(x / ‖x‖, ‖x‖); zeros stay zeros."""
    size = norm(vector)
    return (vector / size if size else vector), size


def dot(one: Tensor, other: Tensor) -> float:
    """The inner product of two tensors, each as one vector."""
    return float(torch.dot(one.reshape(-1), other.reshape(-1)))
