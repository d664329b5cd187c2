"""What an edit costs, estimated from shapes: memory for the crew, work for order and progress. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence

# Estimated working set of an edit per operand, in m × n and in r × r matrices of float64.
_MATRIX_COPIES, _SQUARE_COPIES = 0.75, 3.0
# The same of an operation on whole tensors: a difference and its mask for each operand, beside sums; and
# in r × r matrices where it decomposes them (measured at m = n = 2048 with three models: 2 and 4, 14).
_WHOLE_COPIES, _WHOLE_SUMS, _WHOLE_SQUARES = 2, 4, 14


def working_set(shape: tuple[int, ...], operands: int) -> int:
    """Bytes of memory for the edit of a tensor of this shape."""
    if len(shape) != 2:
        return math.prod(shape) * 8 * 2 * operands
    m, n = shape
    return int(8 * operands * (_MATRIX_COPIES * m * n + _SQUARE_COPIES * min(m, n) ** 2))


def whole_working_set(shape: tuple[int, ...], operands: int, decomposes: bool) -> int:
    """Bytes of memory for an operation that needs all of a tensor of this shape at once.

    Args:
        decomposes: whether the operation decomposes the tensor, if it is a matrix.
    """
    squares = _WHOLE_SQUARES * min(shape) ** 2 if decomposes else 0
    return 8 * ((_WHOLE_COPIES * operands + _WHOLE_SUMS) * math.prod(shape) + squares)


def effort(shape: tuple[int, ...], operands: int, ranks: Sequence[int | None]) -> float:
    """Multiply-adds of a Gram matrix and an eigendecomposition of each operand, in millions."""
    if len(shape) != 2 or not any(k != 0 for k in ranks):
        return 0.0
    m, n = shape
    r = min(m, n)
    return operands * (m * n * r + 4 * r**3) * 1e-6
