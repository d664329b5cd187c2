"""Sizes of values anywhere in the range of float64, where squares of them would leave it.

A matrix is divided by a power of two before it is decomposed or measured, if its largest value is far
from 1; that rounds nothing but what is 1e-180 of the largest value and less.
"""

from __future__ import annotations

import math
import sys

import torch
from torch import Tensor

# Sums of squares of values between 2^-400 and 2^400 are far within the range of float64.
SQUARABLE = 400
# Values of a float64 matrix whose largest is between these are at home in float32, as are their products
# with singular values.
FLOAT32_RANGE = (1e-30, 1e30)


def largest(values: Tensor) -> float:
    """The largest absolute value; 0 where there is none."""
    return max(map(abs, map(float, values.aminmax()))) if values.numel() else 0.0


def exponent_of(size: float) -> int:
    """The e for which values of a matrix, the largest of about `size`, are divided by 2^e before they
    are squared; 0 where their squares stay in the range of float64 without."""
    exponent = math.frexp(min(size, sys.float_info.max))[1]
    return 0 if abs(exponent) <= SQUARABLE else max(-1000, min(1000, exponent))


def norm(values: Tensor) -> float:
    """The Frobenius norm in float64, of values whose squares float64 may not hold."""
    found = float(torch.linalg.vector_norm(values, dtype=torch.float64))
    if 1e-150 < found < 1e150:
        return found
    exponent = exponent_of(largest(values))
    if not exponent:
        return found
    scaled = values.to(torch.float64) * 2.0**-exponent
    return float(torch.linalg.vector_norm(scaled)) * 2.0**exponent
