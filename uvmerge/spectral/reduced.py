"""The rungs of matrices that are reduced to tridiagonal form: `tridiagonal`, and `corrected`.

`tridiagonal` computes everything in float64. `corrected` multiplies and reduces in float32, at half
the cost, and then removes what that has missed: the span of the computed vectors V is tilted against
the leading singular subspace by about 1e-4. With W v_i = y_i and θ_i = ‖y_i‖² / ‖v_i‖², first-order
perturbation theory over the r − k vectors behind the cut, none of which is formed, gives the step

    x_i = −(T − θ_i)⁺ Qᵀ (Wᵀ y_i − θ_i v_i),    made orthogonal to the leading vectors of T,

and v_i + Q x_i is correct to the square of the tilt, or to float32. A vector near the cut needs it
most: ‖x_q‖² falls about like 1/q for the q-th column before the cut. ‖x‖_F is the tilt that was
removed, and √2 σ_k ‖x‖_F its effect on W.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .gram import LARGEST_CONDITION, Eigenpairs
from .lapack import Array
from .recombine import BLOCK
from .reduction import Reduction, block_size, is_available
from .side import Side
from .source import Source

LEAST_CORRECTED = 64  # columns before the cut
LARGEST_STEP = 1e-2  # ‖x‖_F; a larger one means that equal values lie on both sides of the cut


class Reduced:
    """Leading eigenvectors of the Gram matrix of a source, by blocks of `block_size` columns.

    Args:
        dtype: of the products, of the reduction and of the vectors.
    """

    def __init__(self, source: Source, dtype: torch.dtype) -> None:
        self.source, self.dtype = source, dtype
        self.rung = f"tridiagonal-{str(dtype).removeprefix('torch.')}"
        self.size = block_size(source.r)
        self.bound = 1e-10 if dtype == torch.float64 else 1e-5
        self._blocks: list[Eigenpairs] = []
        self._reduction: Reduction | None = None
        self._has_failed = False

    @property
    def is_offered(self) -> bool:
        """Whether the source is of a size and on a device for which there is this rung."""
        source = self.source
        return source.r >= source.precision.smallest_reduced and is_available(source.W.device)

    @property
    def is_computed(self) -> bool:
        """Whether the matrix was reduced here, and not only recalled from a shelf."""
        return self._reduction is not None

    def reduction(self) -> Reduction | None:
        """The reduction, computed at most once; None where it fails."""
        if self._reduction is None and not self._has_failed:
            self._reduction = Reduction.of(self.source.gram(self.dtype), self.dtype)
            self._has_failed = self._reduction is None
        return self._reduction

    def values(self) -> Tensor | None:
        """All r eigenvalues in float64, descending."""
        r = self.source.r
        kept = self.source.recalled(f"{self.rung}-values", 0, r, self.dtype)
        if kept is not None and len(kept.values):
            return kept.values
        reduction = self.reduction()
        if reduction is None:
            return None
        values, none = reduction.eigenvalues, self.source.nothing(self.dtype).vectors
        self.source.keep(f"{self.rung}-values", Eigenpairs(values, none, None))
        return values

    def blocks(self, k: int) -> list[Eigenpairs] | None:
        """Whole blocks that hold the leading k eigenpairs; None where one cannot be computed."""
        count = -(-k // self.size)
        while len(self._blocks) < count:
            if self._blocks and not len(self._blocks[-1].values):
                return None
            self._blocks.append(self._block(len(self._blocks)))
        found = self._blocks[:count]
        return found if all(len(block.values) for block in found) else None

    def _block(self, number: int) -> Eigenpairs:
        source = self.source
        begin, end = number * self.size, min(source.r, (number + 1) * self.size)
        pairs = source.recalled(f"{self.rung}-{end}", end - begin, end - begin, self.dtype)
        if pairs is not None:
            return pairs
        pairs, reduction = source.nothing(self.dtype), self.reduction()
        Z = None if reduction is None else reduction.block(number, self.bound)
        if reduction is not None and Z is not None:
            values = reduction.eigenvalues
            following = float(values[end]) if end < source.r else None
            pairs = Eigenpairs(values[begin:end].clone(), reduction.back(Z), following)
        source.keep(f"{self.rung}-{end}", pairs)
        return pairs


class TridiagonalRung:
    """Any number of triplets, from a reduction in float64."""

    name = "tridiagonal"

    def __init__(self, source: Source) -> None:
        self.reduced = Reduced(source, torch.float64)
        self._sides: dict[int, Side] = {}

    def side(self, k: int) -> Side | None:
        """At least the leading k triplets; None where this rung is not offered or fails."""
        if not k or not self.reduced.is_offered:
            return None
        blocks = self.reduced.blocks(k)
        if blocks is None:
            return None
        if len(blocks) not in self._sides:
            self._sides[len(blocks)] = Side.of(self.name, blocks)
        return self._sides[len(blocks)]


class CorrectedRung:
    """The leading k triplets from a reduction in float32, corrected from W itself."""

    name = "corrected"

    def __init__(self, source: Source) -> None:
        self.source = source
        self.reduced = Reduced(source, torch.float32)
        self._sides: dict[tuple[int, int], Side | None] = {}

    def side(self, k: int, wholly: bool) -> Side | None:
        """The leading k triplets; None where this rung is not offered or not accurate enough.

        Args:
            wholly: correct every vector, and not only the last eighth before the cut.
        """
        combine = self.source.precision.combine
        if not k or combine != torch.float32 or not self.reduced.is_offered:
            return None
        last = k if wholly else min(k, max(LEAST_CORRECTED, k // 8))
        if (k, last) not in self._sides:
            self._sides[k, last] = self._side(k, last)
        return self._sides[k, last]

    def _side(self, k: int, last: int) -> Side | None:
        blocks = self.reduced.blocks(k)
        if blocks is None:
            return None
        values = torch.cat([block.values for block in blocks])
        if not values[k - 1] * LARGEST_CONDITION > values[0]:
            return None
        V, tilt = torch.cat([block.vectors for block in blocks], dim=1)[:, :k], 0.0
        if k < self.source.r:
            corrected = self._recalled(V, values[:k], last)
            if corrected is None:
                return None
            tilt = _tilt_left(corrected - V[:, k - last :], k)
            V = torch.cat([V[:, : k - last], corrected], dim=1)
        others = self.source.project(V.split(BLOCK, dim=1))
        lengths = torch.cat([_lengths(other) for other in others])
        low = float(values[k]) if k < len(values) else blocks[-1].following
        following = None if low is None else min(low**0.5, float(lengths[k - 1]))
        side = Side(self.name, lengths, V, following, tilt)
        side.extend(k, lambda _: others)
        return side

    def _recalled(self, V: Tensor, values: Tensor, last: int) -> Tensor | None:
        """The corrected last columns of V (r, k), from the shelf or computed; None where correcting
        them is no way."""
        k = V.shape[1]
        rung = f"{self.name}-{k}-last-{last}"
        kept = self.source.recalled(rung, last, last, torch.float32)
        if kept is None:
            corrected = self._corrected(V, last)
            kept = self.source.nothing(torch.float32)
            if corrected is not None:
                kept = Eigenpairs(values[k - last :], corrected, None)
            self.source.keep(rung, kept)
        return kept.vectors if len(kept.values) else None

    def _corrected(self, V: Tensor, last: int) -> Tensor | None:
        """The last columns of V (r, k), corrected (r, last)."""
        reduction, k = self.reduced.reduction(), V.shape[1]
        if reduction is None:
            return None
        known = [reduction.block(i, self.reduced.bound) for i in range(-(-k // self.reduced.size))]
        Z = torch.cat([block for block in known if block is not None], dim=1)[:, :k]
        parts, total = [], 0.0
        for at in range(k - last, k, self.reduced.size):
            columns = slice(at, min(k, at + self.reduced.size))
            X = self._steps(reduction, V[:, columns], Z, reduction.values[columns])
            total += float(X.square().sum())
            if not total <= LARGEST_STEP**2:
                return None
            parts.append(V[:, columns] + reduction.back(X))
        corrected = torch.cat(parts, dim=1)
        is_orthonormal = (corrected.mT @ corrected - torch.eye(last)).abs().max()
        return corrected if bool(is_orthonormal <= self.reduced.bound) else None

    def _steps(self, reduction: Reduction, part: Tensor, Z: Tensor, values: Array) -> Tensor:
        """x (r, b) in float64 for columns V (r, b), in the coordinates of T.

        Args:
            Z: the leading eigenvectors of T (r, k).
            values: the eigenvalues of T (b,) that belong to the columns.
        """
        others = self.source.project(part.split(BLOCK, dim=1))
        products = torch.cat(self.source.across(others), dim=1)
        theta = torch.cat([_lengths(other).square() for other in others])
        theta /= _lengths(part).square()
        residuals = products - part * theta.float()
        size = float(residuals.abs().max()) or 1.0  # keeps float32 from underflowing
        R = reduction.forth(residuals / size)
        R -= Z @ (Z.mT @ R)
        X = reduction.solved(values, R).mul_(-size / reduction.scale)
        return X - Z @ (Z.mT @ X)


def _lengths(columns: Tensor) -> Tensor:
    """‖·‖ of each column, in float64."""
    return torch.linalg.vector_norm(columns.double(), dim=0)


def _tilt_left(steps: Tensor, k: int) -> float:
    """The tilt that is left in the columns before the last, estimated from the steps of the last.

    ‖x_q‖² falls like 1/q with the distance q from the cut, so that between c and k lies ln(k/c) / ln 2
    of what lies between c/2 and c.
    """
    count = steps.shape[1]
    farther = steps[:, : count - count // 2].double().square().sum()
    return float(farther * math.log(k / count) / math.log(2)) ** 0.5
