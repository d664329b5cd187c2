"""Matrices with numbers in them, and how they decompose themselves.

Leading triplets come from the Gram matrix of the shorter side in float64, which is faster and more
exact than a float32 SVD. Squaring costs accuracy at small singular values, which shows as a loss of
orthogonality on the other side; where that exceeds the policy's bound, a full float64 SVD takes
over. Both rungs check their result, and what was used is recorded.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from ..errors import RunFailed
from .operand import Factors, Matrix, Term
from .precision import ORTHOGONALITY, RESIDUAL, SMALLEST_VALUE, Precision
from .rank import leading_count

PANEL_BYTES = 4_000_000  # of the matrix in the decomposition's dtype, converted at a time


class DenseOperand:
    """A tensor, or a piece of one, kept as stored and converted when asked for."""

    def __init__(self, name: str, stored: Tensor, precision: Precision) -> None:
        self.name, self.precision = name, precision
        self.shape = tuple(stored.shape)
        self._stored = stored

    @property
    def tensor(self) -> Tensor:
        return self._stored.to(self.precision.combine)


class DenseMatrix(DenseOperand):
    """A matrix W (m, n) with r = min(m, n); see `operand.Matrix`.

    Args:
        stored: W, or what `terms` are added to, in any floating point dtype.
        terms: pairs left (m, k), right (k, n); W is stored + Σ left @ right.

    Attributes:
        k: what `rank` was first asked for and is not 0, until someone sets it back.
        cuts: relative gap (σ_k − σ_{k+1})/σ_k at each k it was cut at; None at k = r.
        methods: the decompositions that were used, `gram` or `svd`.
        delta_cuts: `cuts` of the last difference `self - …`, which notes its k here as well.
    """

    def __init__(
        self, name: str, stored: Tensor, precision: Precision, terms: tuple[Term, ...] = ()
    ) -> None:
        super().__init__(name, stored, precision)
        self.k: int | None = None
        self.delta_cuts: dict[int, float | None] = {}
        self._noted_by: DenseMatrix | None = None  # of a difference: what it was taken from
        self.cuts: dict[int, float | None] = {}
        self.methods: list[str] = []
        self._terms = terms
        self._gram: tuple[Tensor, Tensor] | None = None  # values (r,), vectors of the short side
        self._svd: Factors | None = None
        self._top: Factors | None = None

    @property
    def tensor(self) -> Tensor:
        return self._slab(0, self.shape[0], self.precision.combine)

    def plus(self, *terms: Term) -> DenseMatrix:
        return DenseMatrix(self.name, self._stored, self.precision, (*self._terms, *terms))

    def __sub__(self, other: Matrix) -> DenseMatrix:
        values = self.tensor - other.tensor
        delta = DenseMatrix(f"{self.name} - {other.name}", values, self.precision)
        delta.methods, delta._noted_by, self.delta_cuts = self.methods, self, delta.cuts
        return delta

    def rows(self) -> Iterator[Tensor]:
        """W in row panels (rows, n) of the policy's dtype."""
        m, n = self.shape
        for start, stop in _spans(m, n, self.precision.combine):
            yield self._slab(start, stop, self.precision.combine)

    def rank(
        self, top: float | None = None, rank: int | None = None, energy: float | None = None
    ) -> int:
        if energy is None:
            k = leading_count(min(self.shape), top=top, rank=rank)
        else:
            k = self._energy_rank(energy)
        noted = self._noted_by or self
        noted.k = noted.k or k
        return k

    def _energy_rank(self, energy: float) -> int:
        squares = self._values().square().cumsum(0)
        if squares[-1] == 0:
            return 0
        reached = squares >= energy * squares[-1] * (1 - 1e-12)
        return int(reached.nonzero()[0]) + 1 if energy > 0 else 0

    def values(self) -> Tensor:
        S = self._values()
        if self._svd is None and bool(S[-1] <= SMALLEST_VALUE * S[0]):
            S = self._full()[1]
        return S.to(self.precision.combine)

    def top(self, k: int) -> Factors:
        if self._top is None or len(self._top[1]) < k:
            U, S, Vh = self._leading(k)
            to = self.precision.combine
            self._top = U.to(to), S.to(to), Vh.to(to)
        self._note_cut(k)
        U, S, Vh = self._top
        return U[:, :k], S[:k], Vh[:k]

    def tail(self, k: int) -> Factors:
        U, S, Vh = self._full()
        r, to = len(S), self.precision.combine
        self._note_cut(r - k)
        return U[:, r - k :].to(to), S[r - k :].to(to), Vh[r - k :].to(to)

    def _values(self) -> Tensor:
        eigen = None if self._svd is not None else self._eigen()
        return self._full()[1] if eigen is None else eigen[0]

    def _leading(self, k: int) -> Factors:
        """The best available leading k triplets, in the decomposition's dtype."""
        eigen = None if self._svd is not None else self._eigen()
        if eigen is not None:
            S, Q = eigen  # (r,), (r, r)
            if k == 0 or S[k - 1] > 1e-7 * S[0]:
                short = Q[:, len(S) - k :].flip(1)  # (short side, k), descending
                other = self._project(short).div_(S[:k])  # (long side, k)
                eye = torch.eye(k, dtype=other.dtype, device=other.device)
                lost = float((other.mT @ other - eye).abs().max()) if k else 0.0
                if lost <= ORTHOGONALITY:
                    self._used("gram")
                    U, V = (other, short) if self._is_tall else (short, other)
                    return U, S[:k], V.mT
        U, S, Vh = self._full()
        return U[:, :k], S[:k], Vh[:k]

    def _eigen(self) -> tuple[Tensor, Tensor] | None:
        """Singular values, descending, and the shorter side's singular vectors, ascending, from
        W Wᵀ or Wᵀ W; None where they do not converge."""
        if self._gram is None:
            r = min(self.shape)
            dtype, device = self.precision.decompose, self._stored.device
            gram = torch.zeros(r, r, dtype=dtype, device=device)
            for panel in self._panels():
                gram.addmm_(panel.mT, panel)
            try:
                squares, Q = torch.linalg.eigh(gram)
            except torch.linalg.LinAlgError:  # type: ignore[attr-defined]
                return None
            self._gram = squares.flip(0).clamp_(min=0).sqrt_(), Q
        return self._gram

    def _project(self, short: Tensor) -> Tensor:
        """The longer side's vectors times their values: W V, or Wᵀ U; (long side, k)."""
        other = short.new_empty(max(self.shape), short.shape[1])
        start = 0
        for panel in self._panels():
            torch.mm(panel, short, out=other[start : start + len(panel)])
            start += len(panel)
        return other

    @property
    def _is_tall(self) -> bool:
        return self.shape[0] > self.shape[1]

    def _panels(self) -> Iterator[Tensor]:
        """W, or Wᵀ where it is wide, in row panels (rows, r) of the decomposition's dtype."""
        m, n = self.shape
        dtype = self.precision.decompose
        for start, stop in _spans(max(m, n), min(m, n), dtype):
            if self._is_tall:
                yield self._slab(start, stop, dtype)
            else:
                yield self._slab(start, stop, dtype, columns=True).mT

    def _slab(self, start: int, stop: int, dtype: torch.dtype, columns: bool = False) -> Tensor:
        """Rows (or columns) `start` to `stop` of W."""
        part = self._stored[:, start:stop] if columns else self._stored[start:stop]
        slab = part.to(dtype)
        for left, right in self._terms:
            left = left if columns else left[start:stop]
            right = right[:, start:stop] if columns else right
            slab = torch.addmm(slab, left.to(dtype), right.to(dtype))
        return slab

    def _full(self) -> Factors:
        """All r triplets from a full SVD, checked; the transposed matrix is the second try."""
        if self._svd is not None:
            return self._svd
        W = self._slab(0, self.shape[0], self.precision.decompose)
        for flip in (False, True):
            try:
                U, S, Vh = torch.linalg.svd(W.mT if flip else W, full_matrices=False)
            except torch.linalg.LinAlgError:  # type: ignore[attr-defined]
                continue
            if flip:
                U, Vh = Vh.mT, U.mT
            if _is_svd(W, U, S, Vh):
                self._used("svd of the transpose" if flip else "svd")
                self._svd = U, S, Vh
                return self._svd
        raise RunFailed(
            self.name, "no singular value decomposition of it converged",
            "Leave the tensor out with --exclude and report the matrix.",
        )  # fmt: skip

    def _used(self, method: str) -> None:
        if method not in self.methods:
            self.methods.append(method)

    def _note_cut(self, k: int) -> None:
        S = self._values()
        if 0 < k < len(S):
            high, low = float(S[k - 1]), float(S[k])
            self.cuts[k] = (high - low) / high if high > 0 else 0.0
        elif k == len(S):
            self.cuts[k] = None


def _spans(length: int, width: int, dtype: torch.dtype) -> Iterator[tuple[int, int]]:
    """(start, stop) of panels of about `PANEL_BYTES`."""
    rows = max(1, PANEL_BYTES // (width * dtype.itemsize))
    for start in range(0, length, rows):
        yield start, min(start + rows, length)


def _is_svd(W: Tensor, U: Tensor, S: Tensor, Vh: Tensor) -> bool:
    """Whether U S Vh is W and both sides are orthonormal, within the policy's bound."""
    eye = torch.eye(len(S), dtype=W.dtype, device=W.device)
    crooked = max((U.mT @ U - eye).abs().max(), (Vh @ Vh.mT - eye).abs().max())
    residual = torch.linalg.norm(W - (U * S) @ Vh)
    return bool(crooked <= RESIDUAL and residual <= RESIDUAL * torch.linalg.norm(W))
