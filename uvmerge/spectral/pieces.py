"""Merges in pieces: which values of a difference are kept is found in a few passes, and nothing of the
size of a tensor is made but the result as it is stored.

Values are selected without a sort. Bits of floating-point numbers of at least 0 are ordered like the
numbers, so that counting by the leading bits leaves few values to be compared.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Protocol

import torch
from torch import Tensor

from .compared import count as count_of, indices, tested
from .operand import Whole
from .recombine import converted

# Elements of a piece, which should fit a processor's cache; on a GPU it should fill the GPU.
PIECE, DEVICE_PIECE = 2**17, 2**24
# So many bits are counted in one pass, and so many values are compared with each other.
BITS, FEW = 16, 2**21
# A tensor of so few is not counted at all.
TINY = 2**16

Passes = Callable[[], Iterable[Tensor]]  # a new pass over the values of a vector, piece by piece


class Pieces(Protocol):
    """The same; or over every so-many-th of the values, for a sample."""

    def __call__(self, every: int = 1) -> Iterable[Tensor]: ...


class Piecewise:
    """A result of an operation whose values are computed piece by piece, whenever they are asked for.

    Attributes:
        name: name of the tensor.
        shape: its shape.
        pieces: a new pass over its values, in float64 and in the order of the flat tensor.
    """

    def __init__(self, name: str, shape: tuple[int, ...], pieces: Passes) -> None:
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
    return lambda every=1: (
        converted(piece, torch.float64) for piece in flat[::every].split(_piece_of(flat))
    )


def _piece_of(flat: Tensor) -> int:
    return DEVICE_PIECE if flat.is_cuda else PIECE


def changes(base: Pieces, model: Pieces) -> Pieces:
    """Passes over δ = model − base."""
    return lambda every=1: (
        after.sub_(before) for after, before in zip(model(every), base(every), strict=True)
    )


def magnitudes(values: Pieces) -> Pieces:
    """Passes over |x|."""
    return lambda every=1: (piece.abs() for piece in values(every))


def whole(vector: Tensor) -> Pieces:
    """Passes over a vector in one piece."""
    return lambda every=1: [vector[::every]]


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


def value_at(sizes: Pieces, count: int, place: int) -> Found:
    """The value at a place of the ascending order of so many, counted from 0.

    A sample tells between which values it lies, to six standard deviations; then one pass is enough.
    Where the sample is wrong, as of values in a pattern, values are counted by their leading bits.

    Args:
        sizes: float64 values of at least 0.
    """
    if count <= TINY:
        return _among(torch.cat(list(sizes())), place)
    every = math.isqrt(count) // 8 | 1  # odd, as rows and columns are not
    sample = torch.cat(list(sizes(every))).sort().values
    at, margin = place // every, 3 * math.isqrt(len(sample))
    low = float(sample[at - margin]) if at >= margin else -1.0
    high = float(sample[at + margin]) if at + margin < len(sample) else math.inf
    room = sample.new_empty(min(count, 4 * margin * every))  # twice of what is expected
    return _within(sizes, place, low, high, room) or _counted_out(sizes, count, place)


def _among(values: Tensor, place: int, smaller: int = 0) -> Found:
    """The value at a place of the order of `values` and of so many that are smaller than all of them."""
    value = values.kthvalue(place - smaller + 1).values
    below, equal = int((values < value).sum()), int((values == value).sum())
    return Found(float(value), smaller + below, equal)


def _within(sizes: Pieces, place: int, low: float, high: float, room: Tensor) -> Found | None:
    """The value at a place, if it is from `low` to `high`: only what is strictly between is kept.

    Args:
        room: memory for that. Small tensors, made one by one between large ones that come and go,
            would leave holes in which no large one fits.
    """
    below = at_low = between = at_high = 0
    for piece in sizes():
        below += count_of(tested(lambda x: x < low, piece))
        at_low += count_of(tested(lambda x: x == low, piece))
        if high > low:
            at_high += count_of(tested(lambda x: x == high, piece))
            inside = indices(tested(lambda x: (x > low) & (x < high), piece))
            if between + len(inside) > len(room):
                return None
            room[between : between + len(inside)] = piece[inside]
            between += len(inside)
    start = below + at_low
    stop = start + between
    if below <= place < start:
        return Found(low, below, at_low)
    if start <= place < stop:
        return _among(room[:between], place, start)
    return Found(high, stop, at_high) if stop <= place < stop + at_high else None


def _counted_out(sizes: Pieces, count: int, place: int) -> Found:
    """The value at a place, by counting leading bits until few values share those of the place."""
    prefix, known, smaller = 0, 0, 0  # the leading bits, how many are known, values below them
    while known < 63 and count > FEW:
        step = min(BITS, 63 - known)
        counts = sum(_counted(piece, prefix, known, step) for piece in sizes())
        assert isinstance(counts, Tensor)
        up_to = counts.cumsum(0)
        chosen = int(torch.searchsorted(up_to, place - smaller, right=True))
        smaller += int(up_to[chosen - 1]) if chosen else 0
        prefix, known, count = prefix << step | chosen, known + step, int(counts[chosen])
    if known == 63:
        return Found(float(torch.tensor(prefix).view(torch.float64)), smaller, count)
    few, filled = torch.empty(0), 0
    for piece in sizes():
        found = _with_prefix(piece, prefix, known)
        few = few if filled else found.new_empty(count)
        few[filled : filled + len(found)] = found
        filled += len(found)
    return _among(few, place, smaller)


def _bits(piece: Tensor) -> Tensor:
    return piece.abs().view(torch.int64)  # abs: a zero may have a sign


def _with_prefix(piece: Tensor, prefix: int, known: int) -> Tensor:
    """The values whose leading bits are `prefix`."""
    if not known:
        return piece
    return piece[indices(tested(lambda bits: bits >> (63 - known) == prefix, _bits(piece)))]


def _counted(piece: Tensor, prefix: int, known: int, step: int) -> Tensor:
    """How many values with the leading bits `prefix` there are of each of the next `step` bits."""
    bits = _bits(_with_prefix(piece, prefix, known))
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
        low = value_at(sizes, count, start) if start > 0 else None
        high = value_at(sizes, count, stop - 1) if stop < count else None
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
            taken = tested(lambda sizes: sizes > self.low, sizes)
            if self.high != torch.inf:
                taken &= tested(lambda sizes: sizes < self.high, sizes)
            for value, quota in left.items():
                if quota:
                    equal = indices(tested(partial(operator.eq, value), sizes))[:quota]
                    taken[equal] = True
                    left[value] -= len(equal)
            return taken.to(sizes.dtype)

        return of_piece


def kept_places(delta: Pieces, count: int, places: tuple[int, int], rescale: bool) -> Passes:
    """Passes over δ with zeros in place of all that does not hold some places of its magnitudes' order.

    Args:
        delta: passes over δ.
        count: how many values it has.
        places: from which place to before which.
        rescale: whether what is kept is multiplied so that Σ |δ| stays; where that is zero, it is not.
    """
    if places == (0, count):
        return delta
    chosen = Places.of(magnitudes(delta), count, *places)

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
