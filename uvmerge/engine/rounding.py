"""Results rounded to the dtype in which they are stored, in one rounding."""

from __future__ import annotations

import operator

import torch
from torch import Tensor

from ..spectral.compared import count, indices, tested


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
        tie = tested(lambda bits: (bits & 0xFFFF) == 0x8000, bits)
    else:
        tie = tested(lambda bits: (bits & 0x1FFF) == 0x1000, bits)
        size = single.abs()
        small = tested(lambda size: size < 2.0**-14, size)
        if count(small):  # float16 has evenly spaced numbers, 2^-24 apart, under 2^-14
            tie = torch.where(small, size * 2.0**25 % 2 == 1, tie)
    if count(tie) > tie.numel() // 64:  # then most ties are exact
        tie &= tested(operator.ne, single.to(torch.float64), values)
    at = indices(tie)
    if len(at):
        exact, near = values.view(-1)[at].abs(), single.view(-1)[at].double().abs()
        step = (near < exact).int() - (near > exact).int()
        bits.view(-1)[at] += torch.where(near.isfinite() & (near != 0), step, 0)
    return single.to(dtype)
