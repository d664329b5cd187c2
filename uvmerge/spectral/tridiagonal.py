"""Eigenvectors of a symmetric tridiagonal matrix T, many at once, and corrections of them.

For an eigenvalue λ, T − λ is eliminated from above and from below, and both eliminations meet at the
row r where the pivot of their combination is smallest: the twisted factorisation of Dhillon and
Parlett (2004, doi:10.1137/S0895479803439113), whose solution z with z_r = 1 is the eigenvector. We
leave out their tree of representations: the eigenvalues of trained weights lie far enough apart, the
result is checked for orthogonality, and where the check fails LAPACK's `stemr` takes over.

Every λ is a column of the arrays, and the loops run over the rows, so that the bits of one vector do
not depend on the others. Everything is in float64.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .lapack import Array


@dataclass(frozen=True)
class Twisted:
    """The eliminations of T − λ for several λ.

    Attributes:
        above, below: pivots (r, b) of the eliminations from the first and from the last row.
        at: rows (b,) where the eliminations meet.
    """

    off: Array
    above: Array
    below: Array
    at: Array

    @classmethod
    def of(cls, d: Array, e: Array, values: Array) -> Twisted:
        """Eliminate T − λ for each λ of `values` (b,), T with diagonal d (r,) and off-diagonal e."""
        shifted = d[:, None] - values
        above, below = shifted.copy(), shifted.copy()
        squares = e * e
        with np.errstate(all="ignore"):
            for i in range(1, len(d)):
                above[i] -= squares[i - 1] / above[i - 1]
            for i in range(len(d) - 2, -1, -1):
                below[i] -= squares[i] / below[i + 1]
            twist = np.abs(above + below - shifted)
        twist[np.isnan(twist)] = np.inf
        return cls(e, above, below, twist.argmin(0))

    def vectors(self) -> Array:
        """Eigenvectors Z (r, b) of length 1; not finite where a pivot is zero."""
        Z = np.zeros_like(self.above)
        Z[self.at, np.arange(Z.shape[1])] = 1.0
        with np.errstate(all="ignore"):
            for i in range(int(self.at.max()) - 1, -1, -1):
                step = -self.off[i] / self.above[i] * Z[i + 1]
                np.copyto(Z[i], step, where=i < self.at)
            for i in range(int(self.at.min()), len(Z) - 1):
                step = -self.off[i] / self.below[i + 1] * Z[i]
                np.copyto(Z[i + 1], step, where=i >= self.at)
            Z /= np.sqrt((Z * Z).sum(0))
        return Z

    def solved(self, right: Array) -> Array:
        """x (r, b) with (T − λ) x = `right` up to a multiple of the eigenvector, per column.

        `right` must be orthogonal to the eigenvector. The row where the eliminations meet is left
        out: x is 0 there, and the caller removes what x has along the eigenvectors.
        """
        down, up = right.copy(), right.copy()
        rows = np.arange(len(right))[:, None]
        with np.errstate(all="ignore"):
            for i in range(1, len(right)):
                down[i] -= self.off[i - 1] / self.above[i - 1] * down[i - 1]
            for i in range(len(right) - 2, -1, -1):
                up[i] -= self.off[i] / self.below[i + 1] * up[i + 1]
            x = np.where(rows < self.at, down / self.above, up / self.below)
            x[self.at, np.arange(x.shape[1])] = 0.0
            for i in range(int(self.at.max()) - 1, -1, -1):
                step = x[i] - self.off[i] / self.above[i] * x[i + 1]
                np.copyto(x[i], step, where=i < self.at)
            for i in range(int(self.at.min()) + 1, len(x)):
                step = x[i] - self.off[i - 1] / self.below[i] * x[i - 1]
                np.copyto(x[i], step, where=i > self.at)
        return x
