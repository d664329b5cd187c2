"""How far one matrix has moved from another: subspaces, values, and the change itself.

Every measure is invariant to what a decomposition leaves open: signs, and rotations among vectors of
equal singular values.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from .dense import DenseMatrix
from .gram import gram
from .measures import Change, Measures, Turn
from .precision import SMALLEST_VALUE

EQUAL = 1e-6  # neighbouring singular values closer than this to each other, relatively, are equal
CELLS = 24  # rows and columns of the picture of C
INTRUDERS, INTRUDER_COSINE = 10, 0.5  # how many leading vectors, and the |cosine| under which


class Leading:
    """The leading k triplets of a matrix, U (m, k), S (k,), Vh (k, n), with equal values grouped.

    Attributes:
        methods: the rungs that these came from, whatever else was asked of the matrix.
    """

    def __init__(self, matrix: DenseMatrix, k: int) -> None:
        self.matrix, self.k = matrix, k
        noted = matrix.methods.copy()
        matrix.methods.clear()
        self.U, self.S, self.Vh = matrix.top(k)
        self.gap, self.methods = matrix.cuts.get(k), tuple(matrix.methods)
        matrix.methods[:] = dict.fromkeys([*noted, *self.methods])

    @property
    def resolved(self) -> int:
        """How many of the values are not zero but for rounding."""
        return int((SMALLEST_VALUE * self.S[:1] < self.S).sum())

    def cut(self, k: int) -> Leading:
        """The first k of them."""
        return self if k == self.k else Leading(self.matrix, k)

    def groups(self) -> Tensor:
        """(k,) int64: a number per group of equal singular values, from 0."""
        if not self.k:
            return self.S.long()
        apart = self.S[:-1] - self.S[1:] > EQUAL * self.S[:-1]
        return torch.cat([apart.new_zeros(1), apart]).cumsum(0)


def measure(base: DenseMatrix, others: Sequence[DenseMatrix], k: int) -> list[Measures]:
    """Each of `others` against `base`, all of shape (m, n), at rank 0 ≤ k ≤ min(m, n)."""
    leading = Leading(base, k)
    return [_measures(leading, Leading(other, k)) for other in others]


def _measures(base: Leading, other: Leading) -> Measures:
    k = min(base.resolved, other.resolved)
    base, other = base.cut(k), other.cut(k)
    cosines = base.U.mT @ other.U, base.Vh @ other.Vh.mT
    left = _turn(base, other, base.U, other.U, cosines[0])
    right = _turn(base, other, base.Vh.mT, other.Vh.mT, cosines[1])
    found = Measures(
        k, _plain(base.S), _plain(other.S), left, right, base.gap, other.gap,
        _change(base, other.matrix),
        None,
        tuple(sorted({*base.methods, *other.methods})),
    )  # fmt: skip
    if found.is_chance:
        return found
    return replace(found, intruders=_intruders(base, other, cosines[0]))


def principal_angles(P: Tensor, Q: Tensor, cosines: Tensor | None = None) -> Tensor:
    """Angles (k,) between the spans of P and Q (d, k), orthonormal columns, ascending, in radians.

    Small ones come from sines, the singular values of (1 − P Pᵀ) Q, large ones from cosines, those of
    Pᵀ Q (Björck and Golub 1973, doi:10.1090/S0025-5718-1973-0348991-3): arccos alone could not tell
    an angle under the square root of the rounding error from zero.

    Args:
        cosines: Pᵀ Q, if it is there already.
    """
    C = P.mT @ Q if cosines is None else cosines
    sines = torch.linalg.svdvals(torch.addmm(Q, P, C, alpha=-1)).flip(0).clamp(max=1)
    cosine = torch.linalg.svdvals(C).clamp(max=1)
    return torch.where(sines.square() < 0.5, sines.asin(), cosine.acos())


def chordal(P: Tensor, Q: Tensor) -> float:
    """√ of the mean of sin²θ over the principal angles of the spans of P and Q (d, k).

    From (1 − P Pᵀ) Q, as the sum of the cosines could not tell small angles from rounding.
    """
    k = P.shape[1]
    sines = torch.linalg.vector_norm(torch.addmm(Q, P, P.mT @ Q, alpha=-1))
    return min(1.0, float(sines) / k**0.5) if k else 0.0


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


def _change(base: Leading, other: DenseMatrix) -> Change:
    matrix, to = base.matrix, base.matrix.precision.multiply
    (m, n), k = matrix.shape, base.k
    long, short = (base.U, base.Vh) if m > n else (base.Vh.mT, base.U.mT)  # (·, k), (k, r)
    half = long.new_zeros(k, min(m, n), dtype=to)  # of C, or of its transpose
    squares = [0.0, 0.0]  # ‖W_b‖², ‖W_f‖²

    def differences() -> Iterator[Tensor]:
        start = 0
        for before, after in zip(matrix.panels(to), other.panels(to)):
            for i, panel in enumerate((before, after)):
                squares[i] += float(torch.linalg.vector_norm(panel, dtype=torch.float64)) ** 2
            delta = after - before
            half.addmm_(long[start : start + len(delta)].mT.to(to), delta)
            start += len(delta)
            yield delta

    G = gram(differences(), min(m, n), long.device)
    energy = float(G.diagonal().sum())
    C = half.double() @ short.mT.double()
    C = C if m > n else C.mT
    if energy == 0:
        nothing = _picture(C, base.groups())
        return Change((m, n), 0.0, 1.0, (0.0,) * min(m, n), 0.0, 0.0, nothing)
    diagonal = _diagonal_energy(C, base.groups()) / energy
    rotation = max(0.0, float(C.square().sum()) / energy - diagonal)
    norms = squares[0] ** 0.5 * squares[1] ** 0.5
    cosine = (squares[0] + squares[1] - energy) / (2 * norms) if norms else 0.0
    relative = (energy / squares[0]) ** 0.5 if squares[0] else torch.inf
    picture = _picture(C * (m * n / energy) ** 0.5, base.groups())
    return Change((m, n), relative, cosine, _values(G, to), diagonal, rotation, picture)


def _values(G: Tensor, products: torch.dtype) -> tuple[float, ...]:
    """Singular values of what G (r, r) is the Gram matrix of, descending."""
    size = 2.0 ** math.frexp(float(G.diagonal().max()))[1]  # G / size is in the range of float32
    S = (
        torch.linalg.eigvalsh((G / size).to(products))
        .flip(0)
        .clamp(min=0)
        .double()
        .mul(size)
        .sqrt()
    )
    smallest = SMALLEST_VALUE if products == torch.float64 else 1e-3
    return _plain(torch.where(smallest * S[0] < S, S, 0.0))


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


def _intruders(base: Leading, other: Leading, cosines: Tensor) -> int:
    if not base.k:
        return 0
    groups = other.groups()
    cosines = cosines[:, : int((groups <= groups[:INTRUDERS][-1]).sum())]
    unlike = _closest(base, other, cosines) < INTRUDER_COSINE
    within = _mean(cosines.square().sum(0, keepdim=True), groups[: len(unlike)])[0]
    beyond = (1 - within).clamp(min=0).sqrt()  # along vectors after the k-th
    if bool((unlike & (beyond >= INTRUDER_COSINE)).any()):
        whole = Leading(base.matrix, min(base.matrix.shape))
        whole = whole.cut(whole.resolved)  # vectors of zero values may be any
        unlike = _closest(whole, other, whole.U.mT @ other.U[:, : len(unlike)]) < INTRUDER_COSINE
    return int(unlike[:INTRUDERS].sum())


def _plain(values: Tensor) -> tuple[float, ...]:
    return tuple(values.double().tolist())
