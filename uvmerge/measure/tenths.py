"""How singular vectors turned by their place in the spectrum: in each tenth of it, from the largest
values to the smallest.

A tenth of the base's spectrum is compared with the same tenth of the other matrix's: the angle is
arcsin √(mean sin²θ) over vectors of the base, θ being the angle of a vector with the span of the
other matrix's vectors. Of a large matrix some vectors of each tenth are taken; the span is always
whole. The decompositions that gave the leading triplets give these vectors too.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TypeAlias, Union

import torch
from torch import Tensor

from ..spectral.ladder import Basis
from ..spectral.matrix import DenseMatrix
from ..spectral.precision import SMALLEST_VALUE
from . import judgement
from .null import edges_of

EDGE, BETWEEN = 6, 12  # vectors taken at each end of a tenth and, evenly spaced, between the ends
# Singular vectors of the longer side from float32 eigenvectors whose σ/σ_1 is smaller are not
# orthogonal: they are made so, and those under the second number are rounding errors.
NOT_ORTHOGONAL, SMALLEST_SINGLE = 3e-3, 3e-6
Angles: TypeAlias = tuple[Union[float, None], ...]  # noqa: UP007 (an alias is evaluated)
NOT_TURNED: tuple[Angles, Angles] = ((), ())


@dataclass(frozen=True)
class Taken:
    """Vectors of a base (m, n) with r = min(m, n), some of each tenth of its spectrum.

    Attributes:
        short, long: (r, t) and (max(m, n), t), vectors of the shorter and of the longer side.
        weights: (t,), how many vectors of its tenth each vector stands for.
        tenths: the columns of each tenth.
        is_known: of each tenth, whether its vectors are those of no other tenth.
    """

    short: Tensor
    long: Tensor
    weights: Tensor
    tenths: tuple[slice, ...]
    is_known: tuple[bool, ...]

    @classmethod
    def of(cls, matrix: DenseMatrix, basis: Basis) -> Taken:
        """From a matrix and what its decomposition knows."""
        chosen: list[tuple[int, float]] = []
        tenths = []
        for begin, end in pairwise(edges_of(len(basis.values))):
            found = _chosen(begin, end)
            tenths.append(slice(len(chosen), len(chosen) + len(found)))
            chosen += found
        short = basis.vectors[:, [place for place, _ in chosen]].contiguous()
        short = short.to(matrix.precision.combine)
        long = _along(matrix, short)
        sizes = torch.linalg.vector_norm(long, dim=0)
        floor = _floor(basis)
        return cls(
            short, long / sizes.clamp(min=1e-300),
            short.new_tensor([weight for _, weight in chosen]), tuple(tenths),
            tuple(
                is_apart and float(sizes[columns].min()) > floor
                for is_apart, columns in zip(_are_apart(basis), tenths)
            ),
        )  # fmt: skip


def turned_tenths(matrix: DenseMatrix, basis: Basis, base: Taken) -> tuple[Angles, Angles]:
    """The angles of the tenths in radians, of left and of right vectors; None where a tenth has no
    vectors of its own: they are rounding errors, or a value on its edge is there several times.

    Args:
        matrix: with the shape of the base.
    """
    known, S, floor = list(base.is_known), basis.values, _floor(basis)
    across = _across(matrix, base.long)
    within, back = torch.zeros_like(base.short), torch.zeros_like(base.short)
    straight: dict[int, Tensor] = {}  # projections of the longer side, by tenth
    for i, ((begin, end), is_apart) in enumerate(
        zip(pairwise(edges_of(len(S))), _are_apart(basis))
    ):
        columns, V = base.tenths[i], basis.vectors[:, begin:end].contiguous()
        V = V.to(base.short.dtype)
        within[:, columns] = V @ (V.mT @ base.short[:, columns])
        smallest = float(S[end - 1])
        if basis.vectors.dtype == torch.float32 and smallest <= NOT_ORTHOGONAL * float(S[0]):
            images = _along(matrix, V)
            smallest = float(torch.linalg.vector_norm(images, dim=0).min())
            Q = torch.linalg.qr(images).Q
            straight[i] = Q @ (Q.mT @ base.long[:, columns])
        else:
            squares = S[begin:end].square().clamp(min=1e-300).to(V.dtype)
            back[:, columns] = V @ ((V.mT @ across[:, columns]) / squares[:, None])
        known[i] = known[i] and is_apart and smallest > floor
    projected = _along(matrix, back)
    for i, projection in straight.items():
        projected[:, base.tenths[i]] = projection
    short = _angles(base.short, within, base, known)
    long = _angles(base.long, projected, base, known)
    return (long, short) if matrix.shape[0] > matrix.shape[1] else (short, long)


def _chosen(begin: int, end: int) -> list[tuple[int, float]]:
    """The vectors to take of a tenth, each with how many it stands for: those next to its ends turn
    most, and stand for themselves."""
    if end - begin <= 2 * EDGE + BETWEEN:
        return [(i, 1.0) for i in range(begin, end)]
    inside = end - begin - 2 * EDGE
    between = [begin + EDGE + (2 * i + 1) * inside // (2 * BETWEEN) for i in range(BETWEEN)]
    ends = [*range(begin, begin + EDGE), *range(end - EDGE, end)]
    return sorted([(i, 1.0) for i in ends] + [(i, inside / BETWEEN) for i in between])


def _floor(basis: Basis) -> float:
    """The singular value under which vectors are rounding errors."""
    share = SMALLEST_SINGLE if basis.vectors.dtype == torch.float32 else SMALLEST_VALUE
    return share * float(basis.values[0])


def _are_apart(basis: Basis) -> list[bool]:
    """Whether no value of a tenth is there in a neighbouring tenth too."""
    S = basis.values
    edges = edges_of(len(S))
    cuts = [0 < i < len(S) and bool(S[i - 1] - S[i] <= judgement.EQUAL * S[i - 1]) for i in edges]
    return [not (before or after) for before, after in pairwise(cuts)]


def _along(matrix: DenseMatrix, short: Tensor) -> Tensor:
    """W V, or Wᵀ U where W is wide, for vectors (r, t) of the shorter side."""
    return torch.cat([panel @ short for panel in matrix.panels(short.dtype)])


def _across(matrix: DenseMatrix, long: Tensor) -> Tensor:
    """Wᵀ U, or W V where W is wide, for vectors (·, t) of the longer side."""
    total, start = long.new_zeros(min(matrix.shape), long.shape[1]), 0
    for panel in matrix.panels(long.dtype):
        total.addmm_(panel.mT, long[start : start + len(panel)])
        start += len(panel)
    return total


def _angles(vectors: Tensor, within: Tensor, base: Taken, known: Sequence[bool]) -> Angles:
    """The angle of each tenth, from vectors and their projections on the other matrix's spans."""
    squares = (vectors - within).square().sum(0) / vectors.square().sum(0).clamp(min=1e-300)
    means = [
        float(squares[columns] @ base.weights[columns] / base.weights[columns].sum())
        for columns in base.tenths
    ]
    return tuple(
        math.asin(min(1.0, mean**0.5)) if is_known else None for mean, is_known in zip(means, known)
    )
