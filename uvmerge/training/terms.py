"""The penalty on one parameter of a model: its value, and its gradient where an optimiser finds it."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from . import shards
from .parameters import Adapter, Found
from .rpsft import Dense, LowRank, Projection


@dataclass
class DenseTerm:
    """The penalty on a trained matrix, or on those of its rows that this process holds.

    Attributes:
        parameter: the matrix.
        rows: which of its rows this process holds.
        penalty: the mathematics, on these rows.
    """

    parameter: nn.Parameter
    rows: shards.Rows
    penalty: Dense

    @classmethod
    def of(cls, found: Found, projection: Projection) -> DenseTerm:
        """The penalty that is 0 at the parameter as it is now.

        Args:
            found: the parameter.
            projection: on the device of the parameter, with all rows of U.
        """
        rows = shards.rows_of(found.name, found.parameter)
        if projection.U is not None:
            projection = replace(projection, U=rows.of(projection.U))
        penalty = Dense.at(shards.local(found.parameter), projection)
        return cls(found.parameter, rows, replace(penalty, total=rows.total))

    def moved_to(self, found: Found) -> DenseTerm:
        """The same penalty with the same start, on a parameter that took the place of this one."""
        rows = shards.rows_of(found.name, found.parameter)
        penalty = replace(self.penalty, total=rows.total)
        if self.rows.group is None and rows.group is not None:
            U, start = penalty.projection.U, penalty.start
            if U is not None:
                penalty.projection = replace(penalty.projection, U=rows.of(U))
            if U is None or penalty.keeps_start:
                penalty.start = rows.of(start)
            elif not rows.begins:  # a sum over rows, which the first process contributes alone
                penalty.start = torch.zeros_like(start)
        return DenseTerm(found.parameter, rows, penalty)

    def is_of(self, found: Found) -> bool:
        """Whether the term is on this parameter; one gathered by `fully_shard` is the sharded one."""
        gathered = shards.is_sharded(self.parameter) and not shards.is_sharded(found.parameter)
        return found.adapter is None and (found.parameter is self.parameter or gathered)

    def value(self) -> Tensor:
        """The penalty without its strength: a scalar with a graph."""
        self.penalty.follow(self.parameter.device)
        return self.penalty.value(self.penalty.change(shards.local(self.parameter)))

    def add_gradient(self, scale: float) -> Tensor:
        """Add scale · ∂R/∂W to the parameter's gradient; returns R, a scalar. Without a graph."""
        W, dtype = self.parameter.data, self.parameter.dtype
        self.penalty.follow(W.device)
        penalty = self.penalty.cast(dtype)
        D = penalty.change(W if self.rows.whole else shards.local(W))
        if scale:
            shards.add(self.parameter, penalty.gradient(D, scale, dtype))
        return penalty.value(D)

    @property
    def memory(self) -> tuple[int, int]:
        """Bytes of the factors, and of what is kept of the start."""
        return _factor_bytes(self.penalty.projection), self.penalty.start.nbytes


@dataclass
class AdapterTerm:
    """The penalty on the change s·BA that a LoRA adapter makes.

    Attributes:
        adapter: the trained factors.
        penalty: the mathematics.
    """

    adapter: Adapter
    penalty: LowRank

    @classmethod
    def of(cls, adapter: Adapter, projection: Projection) -> AdapterTerm:
        """The penalty on an adapter; it is 0 where BA is.

        Args:
            projection: in the orientation in which the weight is stored.
        """
        return cls(adapter, LowRank(projection, adapter.scale))

    def moved_to(self, found: Found) -> AdapterTerm:
        """The same penalty on an adapter that took the place of this one."""
        return AdapterTerm(found.adapter or self.adapter, self.penalty)

    def is_of(self, found: Found) -> bool:
        """Whether the term is on this parameter's adapter."""
        if found.adapter is None:
            return False
        B, ours = found.adapter.B, self.adapter.B
        return B is ours or (shards.is_sharded(ours) and not shards.is_sharded(B))

    def value(self) -> Tensor:
        """The penalty without its strength: a scalar with a graph."""
        return self.penalty.value(*self._sides())

    @torch.no_grad()
    def add_gradient(self, scale: float) -> Tensor:
        """Add scale times the derivatives by B and A to their gradients; returns R, a scalar."""
        L, R = self._sides()
        left, right = self.penalty.gradients(L, R, scale)
        if self.adapter.transposed:
            left, right = right.T.contiguous(), left.T.contiguous()
        pairs = ((self.adapter.B, left), (self.adapter.A, right)) if scale else ()
        for parameter, gradient in pairs:
            rows = shards.rows_of("an adapter", parameter)
            shards.add(parameter, rows.of(gradient).to(parameter.dtype))
        return self.penalty.value(L, R)

    def _sides(self) -> tuple[Tensor, Tensor]:
        B, A = shards.whole(self.adapter.B), shards.whole(self.adapter.A)
        return self.penalty.sides(A.T, B.T) if self.adapter.transposed else self.penalty.sides(B, A)

    @property
    def memory(self) -> tuple[int, int]:
        """Bytes of the factors, and of what is kept of the start: nothing."""
        return _factor_bytes(self.penalty.projection), 0


Term = DenseTerm | AdapterTerm


def _factor_bytes(projection: Projection) -> int:
    return sum(factor.nbytes for factor in (projection.U, projection.V) if factor is not None)
