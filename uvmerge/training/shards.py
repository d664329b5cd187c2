"""Matrices of which each process holds some rows: the parameters of `fully_shard` (FSDP2)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..errors import InputRefused

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup


def is_sharded(tensor: Any) -> bool:
    """Whether a tensor is a DTensor."""
    if type(tensor) in (Tensor, torch.nn.Parameter) or not torch.distributed.is_available():
        return False
    from torch.distributed.tensor import DTensor

    return isinstance(tensor, DTensor)


def whole(tensor: Any) -> Tensor:
    """The tensor with all of its rows; where it is sharded, every process has to call this."""
    return tensor.full_tensor() if is_sharded(tensor) else tensor


def local(tensor: Any) -> Tensor:
    """The rows that this process holds."""
    return tensor.to_local() if is_sharded(tensor) else tensor


@dataclass(frozen=True)
class Rows:
    """The rows of a matrix that this process holds.

    Attributes:
        first, end: the rows are those from `first` to `end`, `end` not included.
        group: the processes that hold the other rows; None where this one holds all rows.
        replicated: whether the rows are those of a DTensor of which each process holds all.
    """

    first: int
    end: int
    group: ProcessGroup | None = None
    replicated: bool = False

    @property
    def whole(self) -> bool:
        """Whether this process holds all rows, in a tensor that is not sharded."""
        return self.group is None and not self.replicated

    @property
    def begins(self) -> bool:
        """Whether this process holds the first row."""
        return self.first == 0 and self.end > 0

    def of(self, matrix: Tensor) -> Tensor:
        """These rows of a matrix; a copy where they are not all of them."""
        return matrix if self.group is None else matrix[self.first : self.end].clone()

    def total(self, summand: Tensor) -> Tensor:
        """The sum over the processes; the derivative to the own summand is the identity.

        Each process takes the derivative by its own rows alone, of a sum that all of them know.
        """
        return summand if self.group is None else _Total.apply(summand, self.group)


def rows_of(name: str, parameter: Any) -> Rows:
    """The rows that this process holds of a parameter.

    Args:
        name: of the parameter, for the message.
        parameter: sharded or not.

    Raises:
        InputRefused: the parameter is not sharded by rows alone.
    """
    if not is_sharded(parameter):
        return Rows(0, parameter.shape[0])
    mesh, placements = parameter.device_mesh, parameter.placements
    sharded = [axis for axis, each in enumerate(placements) if not each.is_replicate()]
    by_rows = all(type(placements[axis]).__name__ == "Shard" for axis in sharded)
    if len(sharded) > 1 or not by_rows or not all(placements[axis].is_shard(0) for axis in sharded):
        what = f"is placed as {', '.join(map(str, placements))}; only rows may be sharded, once"
        do = "Shard the model by fully_shard alone (FSDP2), without tensor parallelism."
        raise InputRefused(name, what, do)
    if not sharded:
        return Rows(0, parameter.shape[0], replicated=True)
    most = -(-parameter.shape[0] // mesh.size(sharded[0]))  # as torch.chunk cuts
    first = min(parameter.shape[0], most * mesh.get_local_rank(sharded[0]))
    end = min(parameter.shape[0], first + most)
    return Rows(first, end, mesh.get_group(sharded[0]))


def add(parameter: Any, gradient: Tensor) -> None:
    """Add to the gradient of a parameter.

    Args:
        parameter: sharded or not.
        gradient: of the rows that this process holds, in the parameter's dtype.
    """
    if parameter.grad is not None:
        local(parameter.grad).add_(gradient)
    elif not is_sharded(parameter):
        parameter.grad = gradient
    else:
        from torch.distributed.tensor import DTensor

        parameter.grad = DTensor.from_local(
            gradient,
            parameter.device_mesh,
            parameter.placements,
            run_check=False,
            shape=parameter.shape,
            stride=parameter.stride(),
        )


class _Total(torch.autograd.Function):
    """An all-reduce whose derivative is the identity."""

    @staticmethod
    def forward(context: Any, summand: Tensor, group: ProcessGroup) -> Tensor:
        total = summand.detach().clone()
        torch.distributed.all_reduce(total, group=group)
        return total

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return gradients[0], None
