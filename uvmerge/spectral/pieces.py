"""Merges in pieces: which values of a difference are kept is found in a few passes, and nothing of the
size of a tensor is made but the result as it is stored.

Values are selected without a sort. Bits of floating-point numbers of at least 0 are ordered like the
numbers, so that counting by the leading bits leaves few values to be compared.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor

from .operand import Whole
from .recombine import converted

# Elements of a piece, which should fit a processor's cache; on a GPU it should fill the GPU.
PIECE, DEVICE_PIECE = 2**17, 2**24
# So many bits are counted in one pass, and so many values are compared with each other.
BITS, FEW = 16, 2**21

Pieces = Callable[[], Iterable[Tensor]]  # a new pass over the values of a vector, piece by piece


class Piecewise:
    """A result of an operation whose values are computed piece by piece, whenever they are asked for.

    Attributes:
        name: name of the tensor.
        shape: its shape.
        pieces: a new pass over its values, in float64 and in the order of the flat tensor.
    """

    def __init__(self, name: str, shape: tuple[int, ...], pieces: Pieces) -> None:
        self.name, self.shape, self.pieces = name, shape, pieces

    @cached_property
    def tensor(self) -> Tensor:
        """All values at once."""
        return torch.cat(list(self.pieces())).reshape(self.shape)

    @property
    def kept(self) -> Tensor:
        """The same."""
        return self.tensor


def values_of(operand: Whole) -> Pieces:
    """Passes over an operand's values in float64, the tensor as one vector."""
    flat = operand.kept.reshape(-1)
    return lambda: (converted(piece, torch.float64) for piece in flat.split(_piece_of(flat)))


def _piece_of(flat: Tensor) -> int:
    return DEVICE_PIECE if flat.is_cuda else PIECE


def changes(base: Pieces, model: Pieces) -> Pieces:
    """Passes over δ = model − base."""
    return lambda: (after.sub_(before) for after, before in zip(model(), base(), strict=True))


@dataclass(frozen=True)
class Found:
    """A value at a place of the ascending order.

    Attributes:
        value: the value.
        smaller: how many values are smaller.
        equal: how many are equal to it.
    """

    value: float
    smaller: int
    equal: int


def value_at(sizes: Pieces, place: int) -> Found:
    """The value at a place of the ascending order, counted from 0.

    Args:
        sizes: float64 values of at least 0.
    """
    prefix, known, smaller = 0, 0, 0  # the leading bits, how many are known, values below them
    while known < 63:
        step = min(BITS, 63 - known)
        counts = sum(_counted(piece, prefix, known, step) for piece in sizes())
        assert isinstance(counts, Tensor)
        up_to = counts.cumsum(0)
        chosen = int(torch.searchsorted(up_to, place - smaller, right=True))
        smaller += int(up_to[chosen - 1]) if chosen else 0
        prefix, known, count = prefix << step | chosen, known + step, int(counts[chosen])
        if count <= FEW:
            shift = 63 - known
            few = torch.cat([piece[_bits(piece) >> shift == prefix] for piece in sizes()])
            value = few.kthvalue(place - smaller + 1).values
            below, equal = int((few < value).sum()), int((few == value).sum())
            return Found(float(value), smaller + below, equal)
    return Found(float(torch.tensor(prefix).view(torch.float64)), smaller, count)


def _bits(piece: Tensor) -> Tensor:
    return piece.abs().view(torch.int64)  # abs: a zero may have a sign


def _counted(piece: Tensor, prefix: int, known: int, step: int) -> Tensor:
    """How many values with the leading bits `prefix` there are of each of the next `step` bits."""
    bits = _bits(piece)
    if known:
        bits = bits[bits >> (63 - known) == prefix]
    following = (bits >> (63 - known - step)).bitwise_and_(2**step - 1)
    return torch.bincount(following, minlength=2**step)


@dataclass(frozen=True)
class Places:
    """The values that hold the places from `start` to `stop` of the ascending order.

    Attributes:
        low, high: the ends; what is strictly between them is taken.
        quotas: how many of those that equal an end are taken, those of lower index first.
    """

    low: float = -1.0
    high: float = torch.inf
    quotas: dict[float, int] = field(default_factory=dict)

    @classmethod
    def of(cls, sizes: Pieces, count: int, start: int, stop: int) -> Places:
        """The places of `count` values, 0 ≤ start ≤ stop ≤ count."""
        if start == stop:
            return cls(high=-1.0)
        low = value_at(sizes, start) if start > 0 else None
        high = value_at(sizes, stop - 1) if stop < count else None
        quotas = {}
        if low is not None:
            quotas[low.value] = low.smaller + low.equal - start
        if high is not None:
            one_value = low is not None and low.value == high.value
            quotas[high.value] = stop - (start if one_value else high.smaller)
        ends = (low.value if low else -1.0, high.value if high else torch.inf)
        return cls(*ends, quotas)

    def mask(self) -> Callable[[Tensor], Tensor]:
        """Tells of each piece of the values, in their order, which are taken: 1.0, the others 0.0.

        A product with numbers is much faster than one with truth values, or a choice by them.
        """
        left = dict(self.quotas)

        def of_piece(sizes: Tensor) -> Tensor:
            taken = sizes.clone().gt_(self.low)
            if self.high != torch.inf:
                taken.mul_(sizes.clone().lt_(self.high))
            for value, quota in left.items():
                if quota:
                    equal = (sizes == value).nonzero().squeeze(1)[:quota]
                    taken[equal] = 1.0
                    left[value] -= len(equal)
            return taken

        return of_piece


def kept_places(delta: Pieces, count: int, places: tuple[int, int], rescale: bool) -> Pieces:
    """Passes over δ with zeros in place of all that does not hold some places of its magnitudes' order.

    Args:
        delta: passes over δ.
        count: how many values it has.
        places: from which place to before which.
        rescale: whether what is kept is multiplied so that Σ |δ| stays; where that is zero, it is not.
    """
    if places == (0, count):
        return delta
    chosen = Places.of(lambda: (piece.abs() for piece in delta()), count, *places)

    def kept() -> Iterator[Tensor]:
        mask = chosen.mask()
        return (piece.mul_(mask(piece.abs())) for piece in delta())

    if not rescale:
        return kept
    before, after = (sum(float(p.abs().sum()) for p in each()) for each in (delta, kept))
    factor = before / after if before and after else 1.0
    return lambda: (piece.mul_(factor) for piece in kept())


def merged(
    base: Whole,
    models: Sequence[Whole],
    places: Sequence[tuple[int, int]],
    rescale: bool,
    merge: Callable[[Sequence[Tensor]], Tensor],
) -> Piecewise:
    """base + what is made of the models' differences, of each of which some places are kept.

    Args:
        places: for each model, from which place of the ascending order of magnitudes to before which.
        rescale: whether what is kept is scaled to the same sum of magnitudes.
        merge: makes one piece of those of all differences.
    """
    start = values_of(base)
    count = base.kept.numel()
    parts = [
        kept_places(changes(start, values_of(model)), count, ends, rescale)
        for model, ends in zip(models, places, strict=True)
    ]

    def pieces() -> Iterator[Tensor]:
        for before, *deltas in zip(start(), *(part() for part in parts), strict=True):
            yield merge(deltas).add_(before)

    return Piecewise(base.name, base.shape, pieces)


def largest_places(count: int, density: float) -> tuple[int, int]:
    """The places of the int(density · n) largest of n values, and of at least one.

    All places where the density is 1 or more, none where it is 0 or less.
    """
    if density >= 1:
        return 0, count
    kept = max(1, int(density * count)) if density > 0 and count else 0
    return count - kept, count


def middle_places(count: int, density: float, gamma: float) -> tuple[int, int]:
    """The places of int(density · n) values, below the int(gamma · n) largest of n.

    Where both are more than n, fewer of the largest are left out; at a density of 1, none.
    """
    if density >= 1:
        return 0, count
    kept = int(density * count)
    start = max(0, count - kept - int(gamma * count))
    return start, start + kept
