"""The mathematics of rotation-preserving fine-tuning, on tensors alone.

    penalty   R = ‖P(W − W₀)‖²      P(W) = UᵀWV, or UᵀW, WV and W for the other sides
    gradient  2 Pᵀ(P(W − W₀))       Pᵀ(D) = UDVᵀ, or UD, DVᵀ and D

U (m, k) and V (n, k) are leading singular vectors of the start W₀ (m, n). Of the block UᵀΔV, a part may
be taken: its diagonal (the singular values) or the rest (the rotation).

A trained matrix is `Dense`; one that stays and has an adapter, W₀ + s·BA, is `LowRank`.

What is exact: the penalty of the start is 0, whatever the rounding of U and V. Cost: about 4mnk
floating-point operations for penalty and gradient of a dense matrix, 2r(m + n)k and less for an adapter
of rank r; neither depends on the number of tokens.

Source: arXiv 2605.10973. There the factors are computed from a copy of W₀ and then rounded, so that the
penalty does not begin at 0; and W₀ is kept.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

PARTS = ("block", "rot", "diag")
SIDES = ("two", "left", "right")


@dataclass
class Projection:
    """P: what the penalty sees of a matrix (m, n).

    Attributes:
        U: (m, k), or None for no projection of the outputs.
        V: (n, k), or None for no projection of the inputs.
        part: one of `PARTS`; another one than `block` needs both U and V.
    """

    U: Tensor | None = None
    V: Tensor | None = None
    part: str = "block"

    def of(self, W: Tensor) -> Tensor:
        """UᵀWV (k, k), before any part is taken of it; UᵀW (k, n), WV (m, k) or W."""
        if self._tall:
            return self.of_inputs(self.of_outputs(W))
        return self.of_outputs(self.of_inputs(W))

    @property
    def _tall(self) -> bool:
        """Whether the products with U come first in P, and last in Pᵀ: the order of least cost."""
        return self.U is None or self.V is None or self.U.shape[0] >= self.V.shape[0]

    def of_outputs(self, B: Tensor) -> Tensor:
        """UᵀB of B (m, r)."""
        return B if self.U is None else self.U.to(B.dtype).T @ B

    def of_inputs(self, A: Tensor) -> Tensor:
        """AV of A (r, n)."""
        return A if self.V is None else A @ self.V.to(A.dtype)

    def to_outputs(self, L: Tensor) -> Tensor:
        """UL of L (k, r): the adjoint of `of_outputs`."""
        return L if self.U is None else self.U.to(L.dtype) @ L

    def to_inputs(self, R: Tensor) -> Tensor:
        """RVᵀ of R (r, k): the adjoint of `of_inputs`."""
        return R if self.V is None else R @ self.V.to(R.dtype).T

    def of_part(self, D: Tensor) -> Tensor:
        """D, the diagonal of D, or the rest of it, by `part`."""
        if self.part == "block":
            return D
        diagonal = torch.diag(D.diagonal())
        return diagonal if self.part == "diag" else D - diagonal

    def adjoint(self, D: Tensor) -> Tensor:
        """UDVᵀ (m, n), or UD, DVᵀ and D."""
        if self._tall:
            return self.to_outputs(self.to_inputs(D))
        return self.to_inputs(self.to_outputs(D))

    def cast(self, dtype: torch.dtype) -> Projection:
        """The same with factors of a dtype, for several products with them."""
        U, V = (None if each is None else each.to(dtype) for each in (self.U, self.V))
        return Projection(U, V, self.part)

    def to(self, device: torch.device) -> None:
        """Move the factors to a device, if they are elsewhere."""
        self.U = None if self.U is None else self.U.to(device)
        self.V = None if self.V is None else self.V.to(device)


def compute_dtype(dtype: torch.dtype) -> torch.dtype:
    """The dtype in which a parameter of `dtype` is multiplied: its own, or float32 for float16.

    In float16, products of small differences are 0.
    """
    return torch.float32 if dtype == torch.float16 else dtype


def needs_start(dtype: torch.dtype) -> bool:
    """Whether UᵀWV − UᵀW₀V would lose the difference, so that W₀ itself must be kept.

    It would in 16 bit (8 to 11 bits of a product, where the change is in the last ones), and in float32
    where torch may multiply with fewer bits (TF32).
    """
    coarse = torch.get_float32_matmul_precision() != "highest"
    return dtype in (torch.float16, torch.bfloat16) or (dtype == torch.float32 and coarse)


@dataclass
class Dense:
    """The penalty on a trained matrix, or on those of its rows that this process holds.

    Attributes:
        projection: P, with the same rows of U.
        start: W₀ in the parameter's dtype where `keeps_start`, else P(W₀) before any part is taken.
        keeps_start: whether `start` is the matrix itself; then P is taken of the difference.
        total: sums a tensor over the processes that hold the other rows, with the identity as its
            derivative; here the identity.
    """

    projection: Projection
    start: Tensor
    keeps_start: bool
    total: Callable[[Tensor], Tensor] = lambda summand: summand

    @classmethod
    def at(cls, W: Tensor, projection: Projection) -> Dense:
        """The penalty that is 0 at W (m, n)."""
        W = W.detach()
        if needs_start(W.dtype):
            return cls(projection, W.clone(), True)
        # What is not projected is W itself, which training changes in place.
        start = projection.of(W)
        return cls(projection, start.clone() if start is W else start, False)

    def change(self, W: Tensor) -> Tensor:
        """P(W − W₀), the part that is penalised, in float32 or float64."""
        dtype = compute_dtype(W.dtype)
        if self.keeps_start:
            D = self.projection.of((W - self.start.to(W.dtype)).to(dtype))
        else:
            D = self.projection.of(W.to(dtype)) - self.start
        D = D if D.dtype == torch.float64 else D.float()
        if self.projection.U is not None:
            D = self.total(D)
        return self.projection.of_part(D)

    def cast(self, dtype: torch.dtype) -> Dense:
        """The same, with factors in the dtype in which a parameter of `dtype` is multiplied."""
        projection = self.projection.cast(compute_dtype(dtype))
        return Dense(projection, self.start, self.keeps_start, self.total)

    def value(self, D: Tensor) -> Tensor:
        """R of what `change` returned: a scalar."""
        R = D.square().sum()
        return self.total(R) if self.projection.U is None else R

    def gradient(self, D: Tensor, scale: float, dtype: torch.dtype) -> Tensor:
        """scale · ∂R/∂W (m, n) in the dtype of a parameter, of what `change` returned."""
        return self.projection.adjoint((2 * scale * D).to(compute_dtype(dtype))).to(dtype)

    def follow(self, device: torch.device) -> None:
        """Move factors and start to the device of the parameter, if they are elsewhere."""
        if self.start.device != device:
            self.projection.to(device)
            self.start = self.start.to(device)


@dataclass
class LowRank:
    """The penalty on W₀ + s·BA, in which B (m, r) and A (r, n) are trained; BA is never formed.

    Attributes:
        projection: P.
        scale: s.
    """

    projection: Projection
    scale: float

    def sides(self, B: Tensor, A: Tensor) -> tuple[Tensor, Tensor]:
        """s·UᵀB (k, r) and AV (r, k), whose product is P(s·BA), in float32 or float64."""
        self.projection.to(B.device)
        L = self.projection.of_outputs(B.to(compute_dtype(B.dtype)))
        R = self.projection.of_inputs(A.to(compute_dtype(A.dtype)))
        wide = torch.float64 if L.dtype == torch.float64 else torch.float32
        return self.scale * L.to(wide), R.to(wide)

    def value(self, L: Tensor, R: Tensor) -> Tensor:
        """R of what `sides` returned: a scalar.

        ‖LR‖² = ⟨LᵀL, RRᵀ⟩, and the diagonal of LR takes one product for each entry.
        """
        diagonal = (L * R.T).sum(1).square().sum() if self.projection.part != "block" else 0.0
        if self.projection.part == "diag":
            return torch.as_tensor(diagonal)
        return ((L.T @ L) * (R @ R.T)).sum() - diagonal

    def gradients(self, L: Tensor, R: Tensor, scale: float) -> tuple[Tensor, Tensor]:
        """scale · ∂R/∂B (m, r) and ∂R/∂A (r, n) of what `sides` returned.

        With C = LR, these are 2s·U·C·Rᵀ and 2·Lᵀ·C·Vᵀ (L has the factor s already).
        """
        CR, LC = torch.zeros_like(L), torch.zeros_like(R)
        if self.projection.part != "diag":
            CR, LC = L @ (R @ R.T), (L.T @ L) @ R
        if self.projection.part != "block":
            diagonal = (L * R.T).sum(1, keepdim=True)
            sign = 1 if self.projection.part == "diag" else -1
            CR, LC = CR + sign * diagonal * R.T, LC + sign * (diagonal * L).T
        B = self.projection.to_outputs(2 * scale * self.scale * CR)
        return B, self.projection.to_inputs(2 * scale * LC)
