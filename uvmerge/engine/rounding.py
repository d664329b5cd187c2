"""Results rounded to the dtype in which they are stored, in one rounding."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


def round_once(values: Tensor, dtype: torch.dtype) -> Tensor:
    """`values` rounded to the nearest `dtype`, ties to even, in one rounding.

    torch converts float64 to the 16-bit types by way of float32, which rounds twice. Two roundings
    differ from one where the float32 lies half-way between two 16-bit numbers. There, the float32 is
    moved by one unit in its last place towards the float64.
    """
    if values.dtype != torch.float64 or dtype.itemsize > 2:
        return values.to(dtype)
    values = values.contiguous()
    single = values.to(torch.float32)
    bits = single.view(torch.int32)
    if dtype == torch.bfloat16:
        tie = (bits & 0xFFFF) == 0x8000
    else:  # float16 has evenly spaced numbers, 2^-24 apart, under 2^-14
        small = single.abs() < 2.0**-14
        tie = torch.where(small, single.abs() * 2.0**25 % 2 == 1, (bits & 0x1FFF) == 0x1000)
    if int(tie.count_nonzero()) > tie.numel() // 64:  # then most ties are exact
        tie &= single.to(torch.float64) != values
    if tie.is_cpu:  # numpy finds them 20 times as fast as torch
        at = torch.from_numpy(np.flatnonzero(tie.numpy()))
    else:
        at = tie.view(-1).nonzero().view(-1)
    if len(at):
        exact, near = values.view(-1)[at].abs(), single.view(-1)[at].double().abs()
        step = (near < exact).int() - (near > exact).int()
        bits.view(-1)[at] += torch.where(near.isfinite() & (near != 0), step, 0)
    return single.to(dtype)
