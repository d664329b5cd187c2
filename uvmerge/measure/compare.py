"""How far one matrix has moved from another: subspaces, values, and the change itself.

Every measure is invariant to what a decomposition leaves open: signs, and rotations among vectors of
equal singular values.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import combinations

import torch
from torch import Tensor

from ..spectral.gram import gram, in_range
from ..spectral.matrix import DenseMatrix
from ..spectral.precision import SMALLEST_VALUE
from .angles import chordal, principal_angles
from .measures import Change, Measures, Turn

EQUAL = 1e-6  # neighbouring singular values closer than this to each other, relatively, are equal
CELLS = 24  # rows and columns of the picture of C
INTRUDERS, INTRUDER_COSINE = 10, 0.5  # how many leading vectors, and the |cosine| under which


@dataclass(frozen=True)
class Leading:
    """The leading k triplets of a matrix, U (m, k), S (k,), Vh (k, n), without the rest of its
    decomposition. `gap` is (σ_k − σ_{k+1})/σ_k, None where k = min(m, n); `method` the rung of the
    precision ladder; `energy` is ‖W‖_F²."""

    matrix: DenseMatrix
    U: Tensor
    S: Tensor
    Vh: Tensor
    gap: float | None
    method: str
    energy: float

    @classmethod
    def of(cls, matrix: DenseMatrix, k: int) -> Leading:
        found = matrix.top(k)
        matrix.release()
        energy = sum(
            float(torch.linalg.vector_norm(panel, dtype=torch.float64)) ** 2
            for panel in matrix.panels(_wide_enough(matrix))
        )
        return cls(matrix, found.U, found.S, found.Vh, found.gap, found.method, energy)

    @property
    def k(self) -> int:
        return len(self.S)

    @property
    def resolved(self) -> int:
        """How many of the values are not zero but for rounding."""
        return int((SMALLEST_VALUE * self.S[:1] < self.S).sum())

    def cut(self, k: int) -> Leading:
        """The first k of them."""
        if k == self.k:
            return self
        gap = float(1 - self.S[k] / self.S[k - 1]) if k else None
        return replace(self, U=self.U[:, :k], S=self.S[:k], Vh=self.Vh[:k], gap=gap)

    def groups(self) -> Tensor:
        """(k,) int64: a number per group of equal singular values, from 0."""
        if not self.k:
            return self.S.long()
        apart = self.S[:-1] - self.S[1:] > EQUAL * self.S[:-1]
        return torch.cat([apart.new_zeros(1), apart]).cumsum(0)


@dataclass(frozen=True)
class Apart:
    """How far two of several matrices are from each other; 0 is the base.

    Attributes:
        left, right: chordal distance of their leading spans.
        squares: ‖W_i − W_j‖_F².
    """

    first: int
    second: int
    left: float
    right: float
    squares: float


def measure(base: DenseMatrix, others: Sequence[DenseMatrix], k: int) -> list[Measures]:
    """Each of `others` against `base`, all of shape (m, n), at rank 0 ≤ k ≤ min(m, n)."""
    return measure_all(base, others, k, between=False)[0]


def measure_all(
    base: DenseMatrix, others: Sequence[DenseMatrix], k: int, between: bool
) -> tuple[list[Measures], list[Apart]]:
    """`measure`, and with `between` each two of all the matrices against each other.

    Args:
        others: matrices of the shape of `base`. Where `base` itself stands there, it is left out of
            the measures, but not of the distances.
    """
    if not others:
        return [], []
    first = Leading.of(base, k)
    leading = [first, *(first if other is base else Leading.of(other, k) for other in others)]

    @cache
    def whole() -> Leading:
        """All triplets of the base; vectors of zero values, which may be any, are left out."""
        every = Leading.of(base, min(base.shape))
        return every.cut(every.resolved)

    found = [_measures(first, other, whole) for other in leading[1:] if other is not first]
    if not between:
        return found, []
    measured = iter(found)
    of_base = [None if other is first else next(measured) for other in leading]
    k = min(each.resolved for each in leading)
    cut = [each.cut(k) for each in leading]
    return found, [
        Apart(i, j, *_apart(cut[i], cut[j], of_base[j] if i == 0 else None))
        for i, j in combinations(range(len(cut)), 2)
    ]  # fmt: skip


def _apart(one: Leading, other: Leading, known: Measures | None) -> tuple[float, float, float]:
    """Chordal distances, and ‖W_i − W_j‖_F²; `known` has them of the base and another matrix."""
    if one.matrix is other.matrix:
        return 0.0, 0.0, 0.0
    if known is not None and known.k == one.k:
        return known.left.chordal, known.right.chordal, known.change.energy
    squares = 0.0
    for panel in _Difference(one, other).panels():
        squares += float(torch.linalg.vector_norm(panel, dtype=torch.float64)) ** 2
    return chordal(one.U, other.U), chordal(one.Vh.mT, other.Vh.mT), squares


def _measures(base: Leading, other: Leading, whole: Callable[[], Leading]) -> Measures:
    k = min(base.resolved, other.resolved)
    base, other = base.cut(k), other.cut(k)
    cosines = base.U.mT @ other.U, base.Vh @ other.Vh.mT
    left = _turn(base, other, base.U, other.U, cosines[0])
    right = _turn(base, other, base.Vh.mT, other.Vh.mT, cosines[1])
    found = Measures(
        k, _plain(base.S), _plain(other.S), left, right, base.gap, other.gap,
        _change(base, other),
        None,
        tuple(sorted({base.method, other.method})),
    )  # fmt: skip
    if found.is_chance:
        return found
    return replace(found, intruders=_intruders(base, other, cosines[0], whole))


def _turn(base: Leading, other: Leading, P: Tensor, Q: Tensor, cosines: Tensor) -> Turn:
    if not base.k:
        return Turn(len(P), (), 1.0)
    alignment = float(_closest(base, other, cosines).mean())
    return Turn(len(P), _plain(principal_angles(P, Q, cosines)), alignment)


def _closest(base: Leading, other: Leading, cosines: Tensor) -> Tensor:
    """Largest |cosine| of each fine-tuned vector with a base vector, those of equal values counting as
    one: as the subspace of the base, and by their root mean square of the fine-tuned.

    Args:
        cosines: (base.k, ·), of whole groups of fine-tuned vectors, the first ones.
    """
    rows, columns = base.groups(), other.groups()[: cosines.shape[1]]
    squares = cosines.new_zeros(int(rows[-1]) + 1, len(columns))
    squares.index_add_(0, rows, cosines.square())
    return _mean(squares, columns).amax(0).clamp(max=1).sqrt()


def _mean(values: Tensor, groups: Tensor) -> Tensor:
    """Each of `values` (·, b) replaced by the mean of its group (b,) of columns."""
    sizes = groups.bincount()
    sums = values.new_zeros(len(values), len(sizes)).index_add_(1, groups, values)
    return (sums / sizes)[:, groups]


def _change(base: Leading, other: Leading) -> Change:
    m, n = base.matrix.shape
    groups, delta = base.groups(), _Difference(base, other)
    half = _Half(base, delta.dtype)
    G = gram((half.add(panel) for panel in delta.panels()), min(m, n), half.long.device)
    C, energy = half.block(), float(G.diagonal().sum())
    if energy == 0:
        nothing = _picture(C, groups)
        return Change((m, n), 0.0, 1.0, (0.0,) * min(m, n), 0.0, 0.0, 0.0, nothing)
    diagonal = _diagonal_energy(C, groups) / energy
    rotation = max(0.0, float(C.square().sum()) / energy - diagonal)
    before, after = base.energy, other.energy
    norms = before**0.5 * after**0.5
    told = norms > 1e-10 * (before + after)  # else rounding is as large as the inner product
    cosine = (before + after - energy) / (2 * norms) if told else math.nan
    relative = (energy / before) ** 0.5 if before else torch.inf
    picture = _picture(C * (m * n / energy) ** 0.5, groups)
    values = _plain(_values(G, delta))
    structureless = half.structureless / energy
    return Change(
        (m, n), relative, cosine, values, diagonal, rotation, structureless, picture
    )  # fmt: skip


class _Difference:
    """D = W_f − W_b in row panels of the shorter side's length, never as a whole.

    It is formed in float32 where both are stored in 32 bits or fewer, which is exact to D's own last
    bit, and summed up in float64.
    """

    def __init__(self, base: Leading, other: Leading) -> None:
        self.pair = base.matrix, other.matrix
        self.dtype = max(map(_wide_enough, self.pair), key=lambda dtype: dtype.itemsize)
        self.exact = base.matrix.precision.multiply == torch.float64

    def panels(self) -> Iterator[Tensor]:
        for before, after in zip(*(matrix.panels(self.dtype) for matrix in self.pair)):
            yield after - before


def _wide_enough(matrix: DenseMatrix) -> torch.dtype:
    """A dtype that holds the values of a matrix as stored."""
    return torch.float32 if matrix.stored_bytes < 8 else torch.float64


class _Half:
    """Half of C = U_b,kᵀ D V_b,k: the longer side's vectors times D, summed up panel by panel.

    Attributes:
        structureless: Σ_ij D_ij² p_i q_j, with the sums p, q of squares over the rows of U and V.
    """

    def __init__(self, base: Leading, dtype: torch.dtype) -> None:
        m, n = base.matrix.shape
        self.is_tall = m > n
        self.long, self.short = (base.U, base.Vh.mT) if m > n else (base.Vh.mT, base.U)  # (·, k)
        self.product = self.long.new_zeros(base.k, min(m, n), dtype=dtype)
        self.leverage = self.long.square().sum(1), self.short.square().sum(1)
        self.structureless, self.start = 0.0, 0

    def add(self, panel: Tensor) -> Tensor:
        """Take in a panel of D (or of Dᵀ, where it is wide), and hand it on."""
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
    """Singular values of D (r,), descending, from its Gram matrix; those that cannot be told from
    rounding are 0. Where many of them are small, the products of float32 do not suffice."""
    S = _roots(G, delta.dtype, 1e-3)
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
    size = 2.0 ** math.frexp(float(G.diagonal().max()))[1]  # G / size is in the range of float32
    squares = torch.linalg.eigvalsh((G / size).to(dtype)).flip(0).clamp(min=0).double()
    S = squares.mul(size).sqrt()
    return torch.where(smallest * S[0] < S, S, 0.0)


def _diagonal_energy(C: Tensor, groups: Tensor) -> float:
    """‖diag C‖², where among equal singular values the symmetric part stands for the diagonal: its
    eigenvalues are their changes, and it keeps its norm when the vectors are rotated."""
    if not len(groups) or int(groups[-1]) == len(groups) - 1:
        return float(C.diagonal().square().sum())
    together = groups[:, None] == groups
    return float(torch.where(together, (C + C.mT) / 2, 0.0).square().sum())


def _picture(C: Tensor, groups: Tensor) -> tuple[tuple[float, ...], ...]:
    """Mean squares of cells of C; among vectors of equal values they are spread evenly."""
    if not len(C):
        return ()
    cells = min(len(C), CELLS)
    squares = _mean(_mean(C.square(), groups).mT, groups).mT
    means = torch.nn.functional.adaptive_avg_pool2d(squares[None], cells)[0]
    return tuple(map(tuple, means.tolist()))


def _intruders(base: Leading, other: Leading, cosines: Tensor, whole: Callable[[], Leading]) -> int:
    if not base.k:
        return 0
    groups = other.groups()
    cosines = cosines[:, : int((groups <= groups[:INTRUDERS][-1]).sum())]
    unlike = _closest(base, other, cosines) < INTRUDER_COSINE
    within = _mean(cosines.square().sum(0, keepdim=True), groups[: len(unlike)])[0]
    beyond = (1 - within).clamp(min=0).sqrt()  # along vectors after the k-th
    if bool((unlike & (beyond >= INTRUDER_COSINE)).any()):
        every = whole()
        unlike = _closest(every, other, every.U.mT @ other.U[:, : len(unlike)]) < INTRUDER_COSINE
    return int(unlike[:INTRUDERS].sum())


def _plain(values: Tensor) -> tuple[float, ...]:
    return tuple(values.double().tolist())
