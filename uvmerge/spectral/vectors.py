"""Arithmetic of merges on whole tensors: differences, elected signs, largest values, unit vectors.

A tensor counts as one vector here, whatever its shape. Everything is in float64, whatever the policy
says: which sign is elected, which values are kept and how far two models lie apart hang on the last
bits of a difference.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import combinations

import torch
from torch import Tensor

from .magnitude import exponent_of, largest, norm
from .operand import Operand
from .pieces import Places, largest_places, value_at, whole

# Sums of opposite terms that would be zero are less than this times the sum of their magnitudes.
ROUNDING = 2.0**-48


def exact(operand: Operand) -> Tensor:
    """The values of an operand in float64, in memory that it may share."""
    return operand.tensor.to(torch.float64)


def number_beside(values: Tensor, number: float) -> Tensor:
    """A number as a tensor where some values are, by which every device divides alike.

    By a plain number CUDA does not divide: it multiplies by the reciprocal, and a quotient that lies
    half-way between two stored numbers is then rounded to another one than on a CPU.
    """
    return values.new_tensor(number)


def differences(base: Operand, models: Sequence[Operand]) -> tuple[Tensor, list[Tensor]]:
    """(base, δ_i = model_i − base of every model) in float64."""
    start = exact(base)
    return start, [exact(model) - start for model in models]


def weighted_sum(
    deltas: Sequence[Tensor], weights: Sequence[float], divisor: float = 1.0
) -> Tensor:
    """Σ w_i δ_i over a divisor.

    Args:
        deltas: tensors of one shape, at least one.
        weights: one for each of them.
    """
    total = torch.zeros_like(deltas[0])
    for delta, weight in zip(deltas, weights, strict=True):
        total += weight * delta  # as two steps, which every processor rounds alike
    return total if divisor == 1 else total.div_(number_beside(total, divisor))


def agreeing_sum(
    deltas: Sequence[Tensor],
    weights: Sequence[float],
    normalize: bool,
    votes: Sequence[float] | None = None,
) -> Tensor:
    """Σ w_i δ_i of those that have the elected sign, over Σ w_i of the same where `normalize` is set.

    The sign of Σ w_i δ_i is elected for each element; a sum that is zero but for rounding elects plus,
    so that the order of the models does not matter, and a w_i δ_i of zero agrees with nothing. A sum of
    weights of zero divides nothing.

    Args:
        deltas: tensors of one shape, at least one.
        weights: one for each of them, which may be negative.
        votes: what to elect with in place of the weights.
    """
    elected = _elected(deltas, weights if votes is None else votes)
    total, divisor = torch.zeros_like(deltas[0]), torch.zeros_like(deltas[0])
    for delta, weight in zip(deltas, weights, strict=True):
        part = weight * delta
        agreeing = part.clamp(max=0).addcmul_(elected, part.abs_())  # the part itself, or exactly 0
        total += agreeing
        divisor.add_(agreeing.ne_(0), alpha=weight)
    return total.div_(divisor.add_(divisor.clone().eq_(0))) if normalize else total


def _elected(deltas: Sequence[Tensor], votes: Sequence[float]) -> Tensor:
    """1.0 where plus is elected: Σ w_i δ_i ≥ 0, to rounding; else 0.0."""
    total, size = torch.zeros_like(deltas[0]), torch.zeros_like(deltas[0])
    for delta, vote in zip(deltas, votes, strict=True):
        part = vote * delta
        total += part
        size += part.abs_()
    return total.add_(size, alpha=ROUNDING).ge_(0)


def ranked(magnitudes: Tensor, start: int, stop: int) -> Tensor:
    """Where the values are that hold the places from `start` to `stop` of the ascending order.

    Of equal values on either side of an end, those of lower index are taken.

    Args:
        magnitudes: n values of at least 0, of any shape, in float64.
        start, stop: 0 ≤ start ≤ stop ≤ n.

    Returns:
        A mask of the same shape that is 1.0 exactly stop − start times, else 0.0.
    """
    flat = magnitudes.reshape(-1)
    if stop - start == len(flat):
        return torch.ones_like(magnitudes)
    chosen = Places.of(whole(flat), len(flat), start, stop)
    return chosen.mask()(flat).reshape(magnitudes.shape)


def in_order(values: Tensor, places: Sequence[int]) -> list[float]:
    """The values at some places of the ascending order, counted from 0; none is less than 0."""
    flat = values.reshape(-1)
    return [value_at(whole(flat), len(flat), place).value for place in places]


def keep_largest(delta: Tensor, density: float) -> Tensor:
    """δ with zeros in place of all but its largest values by magnitude (see `largest_places`)."""
    count = delta.numel()
    return delta * ranked(delta.abs(), *largest_places(count, density))


def select_varied(deltas: Sequence[Tensor], share: float) -> list[Tensor]:
    """Each δ with zeros in place of all but the elements of largest variance over the δ.

    Of n elements whose variance is not zero, int(share · n) are kept.
    """
    total, squares = torch.zeros_like(deltas[0]), torch.zeros_like(deltas[0])
    for delta in deltas[1:]:
        apart = delta - deltas[0]  # exactly zero where all are equal
        total += apart
        squares += apart.square_()
    # N² times the variance; among numbers of few bits it is exact, and equal ones are equal.
    variance = squares.mul_(len(deltas)).sub_(total.square_())
    n = variance.numel()
    taken = ranked(variance, n - int(share * int(variance.count_nonzero())), n)
    return [delta * taken for delta in deltas]


def rescaled(kept: Tensor, delta: Tensor) -> Tensor:
    """What was kept of δ, times ‖δ‖₁ / ‖kept‖₁; as it is where one of these is 0."""
    before, after = float(delta.abs().sum()), float(kept.abs().sum())
    return kept * (before / after) if before and after else kept


def unit(vector: Tensor) -> tuple[Tensor, float]:
    """(x / ‖x‖, ‖x‖); zeros stay zeros."""
    size = norm(vector)
    return (vector / size if size else vector), size


def on_arc(
    one: Tensor, other: Tensor, t: float, straight: float, axis: int | None = None
) -> Tensor:
    """(sin((1 − t) θ) x + sin(t θ) y) / sin θ, with θ the angle between vectors x and y.

    Where a vector is zero, θ is a right angle.

    Args:
        one, other: x and y, of one shape.
        t: where on the arc: 0 is x.
        straight: where sin θ is at most this, the result is (1 − t) x + t y.
        axis: the axis along which a tensor holds vectors; None where it is one vector.
    """
    exponent = exponent_of(max(largest(one), largest(other)))
    x, y = (each.reshape(-1) if axis is None else each for each in (one, other))
    if exponent:
        x, y = x * 2.0**-exponent, y * 2.0**-exponent
    u, v = (each / _length(each, axis).clamp(min=5e-324) for each in (x, y))
    theta = 2 * torch.atan2(_length(u - v, axis), _length(u + v, axis))
    sine = theta.sin()
    line = sine <= straight
    theta, sine = theta.masked_fill(line, 1), sine.masked_fill(line, 1)
    share_x = torch.where(line, 1 - t, torch.sin((1 - t) * theta) / sine)
    share_y = torch.where(line, t, torch.sin(t * theta) / sine)
    return (share_x * x + share_y * y).mul_(2.0**exponent).reshape(one.shape)


def _length(x: Tensor, axis: int | None) -> Tensor:
    """‖x‖ along an axis, which stays with length 1."""
    return torch.linalg.vector_norm(x, dim=-1 if axis is None else axis, keepdim=True)


def mean_direction(units: Sequence[Tensor], rounds: int, shortest: float) -> Tensor:
    """The Karcher mean of unit vectors, found from their normalised mean on.

    Args:
        units: unit vectors, at least one.
        rounds: the most steps towards the mean.
        shortest: a step no longer than this, in radians, is not taken, and ends the search.
    """
    mean, size = unit(weighted_sum(units, [1.0] * len(units), len(units)))
    if size <= shortest:
        mean = units[0]
    for _ in range(rounds):
        tangent = torch.zeros_like(mean)
        for each in units:
            cosine = dot(mean, each)
            across = each - cosine * mean
            sine = norm(across)
            if sine > 0:
                tangent.add_(across, alpha=math.atan2(sine, cosine) / sine / len(units))
        step = norm(tangent)
        if step <= shortest:
            break
        mean, _ = unit(math.cos(step) * mean + (math.sin(step) / step) * tangent)
    return mean


def stock_ratio(deltas: Sequence[Tensor], axis: int | None) -> Tensor:
    """t = N c / (1 + (N − 1) c), with c the mean cosine between pairs of N differences.

    t is 0 where the divisor is less than 1e-6; the cosine of a difference of zero is 0.

    Args:
        deltas: N ≥ 2 tensors of one shape.
        axis: the axis along which a tensor holds vectors; None where it is one vector.

    Returns:
        A tensor that is multiplied with a δ.
    """
    count = len(deltas)
    flat = [delta.reshape(-1) if axis is None else delta for delta in deltas]
    lengths = [_length(each, axis) for each in flat]
    cosines = []
    for i, j in combinations(range(count), 2):
        inner = (flat[i] * flat[j]).sum(-1 if axis is None else axis, keepdim=True)
        product = lengths[i] * lengths[j]
        cosines.append((inner / product.masked_fill(product == 0, 1)).clamp_(-1, 1))
    cosine = sum(cosines[1:], cosines[0]) / len(cosines)
    divisor = 1 + (count - 1) * cosine
    undefined = divisor.abs() < 1e-6
    ratio = count * cosine / divisor.masked_fill(undefined, 1)
    ratio = ratio.masked_fill(undefined, 0)
    return ratio.reshape(()) if axis is None else ratio


def row_divergence(x: Tensor, y: Tensor) -> Tensor:
    """KL(softmax(x) ‖ softmax(y)) of every row: (…, n) and (…, n) to (…, 1), at least 0."""
    p, q = x.log_softmax(-1), y.log_softmax(-1)
    return p.exp().mul_(p - q).sum(-1, keepdim=True).clamp_(min=0)


def dot(one: Tensor, other: Tensor) -> float:
    """The inner product of two tensors, each as one vector."""
    return float(torch.dot(one.reshape(-1), other.reshape(-1)))
