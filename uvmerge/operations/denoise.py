from __future__ import annotations

import math
from functools import lru_cache

from ..spectral import Edited, Matrix
from .options import leaves_equal_inputs_alone


@leaves_equal_inputs_alone
def denoise(base: Matrix, finetuned: Matrix) -> Edited:
    """Drop the part of the fine-tuning that cannot be told from noise.

    Formula: W_b + D', with D' the triplets of D = W_f - W_b whose σ > λ*(β) median(σ) / √μ_β;
        β = min/max of the shape, λ*(β) = √(2(β + 1) + 8β / ((β + 1) + √(β² + 14β + 1))), μ_β the
        median of the Marchenko-Pastur law.
    Exact: where nothing is dropped the bytes stay as fine-tuned, where all is they are the base's.
    Cost: one decomposition, of D.
    Source: Gavish and Donoho 2014, arXiv 1305.5870 (factor 2.858 at β = 1), used as DG-Hard in
        arXiv 2605.20296.
    """
    delta = finetuned - base
    S = delta.values()
    short, long = sorted(delta.shape)
    threshold = gavish_donoho_factor(short / long) * S.quantile(0.5)
    kept = delta.rank(rank=int((threshold < S).sum()))
    if kept == 0:
        return base
    if kept == len(S):
        return finetuned
    U, S, Vh = delta.top(kept)
    return base.plus((S * U, Vh))


@lru_cache(maxsize=256)
def gavish_donoho_factor(beta: float) -> float:
    """λ*(β)/√μ_β, the threshold in units of the median singular value, for 0 < β ≤ 1."""
    b = beta + 1
    optimal = math.sqrt(2 * b + 8 * beta / (b + math.sqrt(beta * beta + 14 * beta + 1)))
    return optimal / math.sqrt(marchenko_pastur_median(beta))


def marchenko_pastur_median(beta: float, steps: int = 4000) -> float:
    """Median of the Marchenko-Pastur law of ratio β: density √((b-x)(x-a)) / (2πβx) on [a, b].

    With x = s², s = 1 - √β cos t, the integrand is smooth, up to β = 1, so the midpoint rule
    converges fast; the median is where the running sum crosses a half, interpolated.
    """
    root, step, mass = math.sqrt(beta), math.pi / steps, 0.0
    for i in range(steps):
        s = 1 - root * math.cos((i + 0.5) * step)
        density = math.sqrt((1 + s) ** 2 - beta) / (math.pi * s)
        piece = density * math.sin((i + 0.5) * step) ** 2 * step
        if mass + piece >= 0.5:
            return (1 - root * math.cos((i + (0.5 - mass) / piece) * step)) ** 2
        mass += piece
    raise ArithmeticError(f"no median for β = {beta}")
