"""Random masks of merges: which elements of a difference δ are kept, and how those are rescaled.

An element is kept where its uniform number in [0, 1) lies under its probability. `rescale` says what
happens to what is kept: `probability` divides each element by its probability, so that δ is kept in
expectation; `norm` multiplies all of them by one number, so that the sum of magnitudes stays; False
leaves them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..errors import UsageError
from .draw import Draw
from .operand import Operand

if TYPE_CHECKING:
    from torch import Tensor


def thinned(delta: Tensor, numbers: Tensor, density: float, rescale: str | bool) -> Tensor:
    """DARE: δ with each element kept with the probability `density`.

    Args:
        delta: of any shape, in float64.
        numbers: uniform numbers of the same shape, on any device.
        density: all is kept from 1 on, and nothing at 0.
    """
    if density >= 1:
        return delta
    kept = delta * (numbers.to(delta.device) < density)
    return _rescaled(kept, delta, density, rescale)


def thinned_by_rank(
    delta: Tensor, numbers: Tensor, density: float, epsilon: float, rescale: str | bool
) -> Tensor:
    """DELLA: δ with small elements kept more rarely: probabilities run from `density` − ε for the
    smallest of a row to `density` + ε for the largest, by rank.

    A tensor of one dimension is one row; equal magnitudes are ranked by their place. Arguments as of
    `thinned`.
    """
    if density >= 1:
        return delta
    rows = delta.reshape(-1, delta.shape[-1]) if delta.dim() else delta.reshape(1, 1)
    order = rows.abs().argsort(dim=-1, stable=True)
    ranks = order.argsort(dim=-1).to(delta.dtype).reshape(delta.shape)
    last = rows.shape[-1] - 1
    middle = 2 * ranks / last - 1 if last else 0 * ranks  # from −1 to 1
    probabilities = density + epsilon * middle if density > 0 else 0 * ranks
    kept = delta * (numbers.to(delta.device) < probabilities)
    return _rescaled(kept, delta, probabilities, rescale)


def kept_by_rank(
    base: Operand,
    models: Sequence[Operand],
    draw: Draw,
    ranges: Sequence[tuple[float, float]],
    rescale: str | bool,
) -> tuple[Tensor, list[Tensor]]:
    """(base, what is kept of the difference of each model) in float64.

    Args:
        ranges: for each model the middle of its probabilities, and half their range.

    Raises:
        UsageError: a probability would lie outside 0 to 1.
    """
    from .vectors import differences

    for density, epsilon in ranges:
        if 0 < density < 1 and not epsilon <= min(density, 1 - density):
            raise UsageError(
                "--epsilon",
                f"{epsilon:g} is too much for a density of {density:g}",
                f"Give at most {min(density, 1 - density):g}: density - epsilon and density +"
                " epsilon are probabilities.",
            )
    start, deltas = differences(base, models)
    return start, [
        thinned_by_rank(delta, draw(i, base.shape), density, epsilon, rescale)
        for i, (delta, (density, epsilon)) in enumerate(zip(deltas, ranges))
    ]


def _rescaled(
    kept: Tensor, delta: Tensor, probability: Tensor | float, rescale: str | bool
) -> Tensor:
    from .vectors import number_beside, rescaled

    if rescale == "probability":
        if isinstance(probability, float):
            probability = number_beside(kept, probability)
        return kept.where(kept == 0, kept / probability)
    return rescaled(kept, delta) if rescale == "norm" else kept
