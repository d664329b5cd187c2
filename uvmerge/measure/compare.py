"""How far one matrix has moved from another: subspaces, singular values, and the change itself.

No measure depends on what a decomposition leaves open: the signs of singular vectors, and rotations
among those of equal singular values.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import combinations

import torch
from torch import Tensor

from ..errors import RunFailed
from ..spectral import Factors
from ..spectral.gram import gram, in_range
from ..spectral.magnitude import exponent_of, largest
from ..spectral.matrix import DenseMatrix
from ..spectral.precision import SMALLEST_VALUE
from .angles import chordal, principal_angles
from .block import diagonal_energy, diagonal_squares, mean_over_groups, picture, residual
from .leading import INTRUDERS, Leading, groups_of, numerical_rank, wide_enough
from .measures import Change, Measures, Turn

INTRUDER_COSINE = 0.5  # with every base vector less than this, and a leading vector is an intruder


@dataclass(frozen=True)
class Distances:
    """Distances of two matrices W_i and W_j among several.

    Attributes:
        first, second: i and j; 0 is the base.
        left, right: chordal distances of their leading left and right singular vectors.
        norm: ‖W_i − W_j‖_F.
    """

    first: int
    second: int
    left: float
    right: float
    norm: float


def measure(base: DenseMatrix, others: Sequence[DenseMatrix], k: int) -> list[Measures]:
    """The measures of each of `others` against `base`, all (m, n), at rank 0 ≤ k ≤ min(m, n)."""
    return measure_all(base, others, k, between=False)[0]


def measure_all(
    base: DenseMatrix, others: Sequence[DenseMatrix], k: int, between: bool
) -> tuple[list[Measures], list[Distances]]:
    """`measure`, and the distances of each two of all matrices.

    Args:
        others: matrices of the shape of `base`. If `base` itself is among them, there are no measures
            of it, but there are distances.
        between: whether distances are computed; else their list is empty.
    """
    if not others:
        return [], []
    everyone = [base, *others]
    if any(matrix.sum.exponent for matrix in everyone):
        exponent = exponent_of(max(largest(matrix.stored) for matrix in everyone))
        if exponent:
            return _measure_scaled(everyone, k, between, exponent)
    first = Leading.of(base, k)
    leading = [
        first,
        *(first if other is base else Leading.of(other, k, first) for other in others),
    ]

    @cache
    def whole() -> Leading:
        """All triplets of the base but those of zero values, whose vectors are arbitrary."""
        every = Leading.of(base, min(base.shape))
        return every.cut(numerical_rank(every.S))

    found = [_measures(first, other, whole) for other in leading[1:] if other is not first]
    if not between:
        return found, []
    measured = iter(found)
    of_base = [None if other is first else next(measured) for other in leading]
    k = min(numerical_rank(factors.S) for factors in leading)
    cut = [factors.cut(k) for factors in leading]
    return found, [
        Distances(i, j, *_distances(cut[i], cut[j], of_base[j] if i == 0 else None))
        for i, j in combinations(range(len(cut)), 2)
    ]


def _measure_scaled(
    matrices: Sequence[DenseMatrix], k: int, between: bool, exponent: int
) -> tuple[list[Measures], list[Distances]]:
    """`measure_all` of a base and others whose squares leave the range of float64: of all of them
    over 2^exponent. What has the unit of the matrices is multiplied by 2^exponent.

    Raises:
        RunFailed: a singular value is beyond the range of float64.
    """
    scaled = {id(matrix): matrix.over(exponent) for matrix in matrices}
    base, *others = (scaled[id(matrix)] for matrix in matrices)
    found, distances = measure_all(base, others, k, between)
    size = 2.0**exponent
    found = [each.times(size) for each in found]
    distances = [replace(each, norm=each.norm * size) for each in distances]
    sizes = [each.norm for each in distances]
    for each in found:
        sizes += [*each.base_values[:1], *each.finetuned_values[:1], each.change.norm]
    if not all(map(math.isfinite, sizes)):
        raise RunFailed(
            matrices[0].name,
            "its singular values, or those of a counterpart, are beyond the range of float64",
            "Leave it out with --exclude.",
        )
    return found, distances


def _distances(one: Leading, other: Leading, known: Measures | None) -> tuple[float, float, float]:
    """Left and right chordal distance, and ‖W_i − W_j‖_F.

    Args:
        known: the measures of `other` against `one`, if `one` is the base.
    """
    if one.matrix is other.matrix:
        return 0.0, 0.0, 0.0
    if known is not None and known.k == one.k:
        return known.left.chordal, known.right.chordal, known.change.norm
    norm = 0.0
    for panel in _Difference(one, other).panels():
        norm = math.hypot(norm, float(torch.linalg.vector_norm(panel, dtype=torch.float64)))
    return chordal(one.U, other.U), chordal(one.Vh.mT, other.Vh.mT), norm


def _measures(base: Leading, other: Leading, whole: Callable[[], Leading]) -> Measures:
    k = min(numerical_rank(base.S), numerical_rank(other.S))
    base, other = base.cut(k), other.cut(k)
    cosines = base.U.mT @ other.U, base.Vh @ other.Vh.mT
    r = min(base.matrix.shape)
    left = _turn(base, other, base.U, other.U, cosines[0])
    right = _turn(base, other, base.Vh.mT, other.Vh.mT, cosines[1])
    left, right = (
        replace(turn, tenths=angles, r=r) for turn, angles in zip((left, right), other.turned)
    )
    found = Measures(
        k, _floats(base.S), _floats(other.S), left, right, base.gap, other.gap,
        _change(base, other),
        None,
        tuple(sorted({base.method, other.method})),
    )  # fmt: skip
    if found.is_chance:
        return found
    return replace(found, intruders=_intruders(base.first, other.first, whole))


def _turn(base: Leading, other: Leading, P: Tensor, Q: Tensor, cosines: Tensor) -> Turn:
    if not base.k:
        return Turn(len(P), (), 1.0)
    alignment = float(_closest(other.S, base.S, cosines.mT).mean())
    return Turn(len(P), _floats(principal_angles(P, Q, cosines)), alignment)


def _closest(S_rows: Tensor, S_columns: Tensor, cosines: Tensor) -> Tensor:
    """Largest |cosine| (b,) of each vector of the columns with a vector of the rows.

    Vectors of equal singular values count as one: those of the rows as the subspace that they span,
    those of the columns by their root mean square.

    Args:
        S_rows, S_columns: (a,) and (b,), the singular values of the vectors, descending.
        cosines: (a, b).
    """
    rows, columns = groups_of(S_rows), groups_of(S_columns)
    squares = cosines.new_zeros(int(rows[-1]) + 1, len(columns))
    squares.index_add_(0, rows, cosines.square())
    return mean_over_groups(squares, columns).amax(0).clamp(max=1).sqrt()


def _change(base: Leading, other: Leading) -> Change:
    m, n = base.matrix.shape
    groups, delta = groups_of(base.S), _Difference(base, other)
    projection = _Projection(base, delta.dtype)
    G = gram((projection.add(panel) for panel in delta.panels()), min(m, n), projection.long.device)
    C, energy = projection.block(), float(G.diagonal().sum())
    if energy == 0:
        nothing, still = picture(C, groups), residual(base.S.diag(), base.energy)
        zeros = (0.0,) * min(m, n)
        return Change(
            (m, n), 0.0, 1.0, zeros, 0.0, 0.0, 0.0, nothing, zeros[: base.k], still, still
        )
    diagonal = diagonal_energy(C, groups) / energy
    rotation = max(0.0, float(C.square().sum()) / energy - diagonal)
    before, after = base.energy, other.energy
    norms = before**0.5 * after**0.5
    is_accurate = norms > 1e-10 * (before + after)  # else rounding is as large as the inner product
    cosine = (before + after - energy) / (2 * norms) if is_accurate else math.nan
    relative = (energy / before) ** 0.5 if before else torch.inf
    cells = picture(C * (m * n / energy) ** 0.5, groups)
    values = _floats(_values(G, delta))
    structureless = projection.structureless / energy
    return Change(
        (m, n), relative, cosine, values, diagonal, rotation, structureless, cells,
        _floats(diagonal_squares(C, groups).sqrt()),
        residual(base.S.diag() + C, after), residual(base.S.diag(), before),
    )  # fmt: skip


class _Difference:
    """D = W_f − W_b, or Dᵀ where D is wide, in row panels (rows, min(m, n)), never as a whole.

    D is formed in float32 where both are stored in 32 bits or fewer, so that an entry is rounded once.
    """

    def __init__(self, base: Leading, other: Leading) -> None:
        self.pair = base.matrix, other.matrix
        self.dtype = max(map(wide_enough, self.pair), key=lambda dtype: dtype.itemsize)
        self.exact = base.matrix.precision.multiply == torch.float64

    def panels(self) -> Iterator[Tensor]:
        for before, after in zip(*(matrix.panels(self.dtype) for matrix in self.pair)):
            yield after - before


class _Projection:
    """C = U_b,kᵀ D V_b,k, computed panel by panel: first the longer side's vectors times D.

    Attributes:
        structureless: Σ_ij D_ij² p_i q_j, with the leverage scores p, q: the sums of squares over the
            rows of U_b,k and V_b,k.
    """

    def __init__(self, base: Leading, dtype: torch.dtype) -> None:
        m, n = base.matrix.shape
        self.is_tall = m > n
        self.long, self.short = (base.U, base.Vh.mT) if m > n else (base.Vh.mT, base.U)  # (·, k)
        self.product = self.long.new_zeros(base.k, min(m, n), dtype=dtype)
        self.leverage = self.long.square().sum(1), self.short.square().sum(1)
        self.structureless, self.start = 0.0, 0

    def add(self, panel: Tensor) -> Tensor:
        """Add the next panel of D (or of Dᵀ, where D is wide), and return it."""
        given = panel
        rows = slice(self.start, self.start + len(panel))
        self.product.addmm_(self.long[rows].mT.to(panel.dtype), panel)
        panel, size = in_range(panel)
        p, q = (leverage.to(panel.dtype) for leverage in self.leverage)
        self.structureless += size * float(p[rows] @ (panel.square() @ q))
        self.start += len(panel)
        return given

    def block(self) -> Tensor:
        """C (k, k) in float64."""
        C = self.product.double() @ self.short.double()
        return C if self.is_tall else C.mT


def _values(G: Tensor, delta: _Difference) -> Tensor:
    """Singular values of D (r,), descending, from its Gram matrix G (r, r).

    Values that cannot be told from rounding errors are 0: those under 1e-6 σ_1, or under 1e-3 σ_1
    where products are in float32. Where many values are small, `exact` computes a float32 G anew from
    products in float64.
    """
    S = _roots(G, delta.dtype, 1e-3 if delta.dtype == torch.float32 else SMALLEST_VALUE)
    if (
        delta.exact
        and delta.dtype == torch.float32
        and bool((0.01 * S[0] < S).float().mean() < 0.9)
    ):
        r = len(G)
        delta.dtype = torch.float64
        return _roots(gram(delta.panels(), r, G.device), delta.dtype, SMALLEST_VALUE)
    return S


def _roots(G: Tensor, dtype: torch.dtype, smallest: float) -> Tensor:
    """Square roots (r,) of the eigenvalues of G, descending; those under `smallest` σ_1 are 0."""
    size = 2.0 ** math.frexp(float(G.diagonal().max()))[1]  # G / size is in the range of float32
    squares = torch.linalg.eigvalsh((G / size).to(dtype)).flip(0).clamp(min=0).double()
    S = squares.mul(size).sqrt()
    return torch.where(smallest * S[0] < S, S, 0.0)


def _intruders(base: Factors, other: Factors, whole: Callable[[], Leading]) -> int | None:
    """See `Measures.intruders`.

    Args:
        base, other: the leading triplets, ten at least where there are as many.
        whole: gives all triplets of the base, which are only needed where its first do not decide.
    """
    known, count = numerical_rank(base.S), numerical_rank(other.S)
    if not known or not count:
        return None
    groups = groups_of(other.S[:count])
    count = int((groups <= groups[:INTRUDERS][-1]).sum())
    U, S, groups = other.U[:, :count], other.S[:count], groups[:count]
    cosines = base.U[:, :known].mT @ U
    unlike = _closest(base.S[:known], S, cosines) < INTRUDER_COSINE
    within = mean_over_groups(cosines.square().sum(0, keepdim=True), groups)[0]
    beyond = (1 - within).clamp(min=0).sqrt()  # cosine with all base vectors that are not known
    if bool((unlike & (beyond >= INTRUDER_COSINE)).any()):
        every = whole()
        unlike = _closest(every.S, S, every.U.mT @ U) < INTRUDER_COSINE
    return int(unlike[:INTRUDERS].sum())


def _floats(values: Tensor) -> tuple[float, ...]:
    return tuple(values.double().tolist())
