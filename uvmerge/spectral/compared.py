"""Comparisons of tensors: on the CPU numpy does them some four times as fast as torch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

# Compares arrays, by operators that numpy and torch share.
Test = Callable[..., Any]


def tested(test: Test, *values: Tensor) -> Tensor:
    """Which values pass a test: a mask of their shape."""
    if all(each.is_cpu for each in values):
        return torch.from_numpy(test(*(each.numpy() for each in values)))
    return test(*values)


def indices(mask: Tensor) -> Tensor:
    """Where a mask is set, in the flat tensor."""
    if mask.is_cpu:
        return torch.from_numpy(np.flatnonzero(mask.numpy()))
    return mask.reshape(-1).nonzero().view(-1)


def count(mask: Tensor) -> int:
    """How many values of a mask are set."""
    return int(np.count_nonzero(mask.numpy()) if mask.is_cpu else mask.count_nonzero())
