"""The deterministic merges as their papers have them, in plain numpy and float64, by sorting."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Weights = Sequence[float]


def linear(models: Sequence[Array], weight: Weights, normalize: bool = True) -> Array:
    total = sum(w * x for w, x in zip(weight, models))
    return np.asarray(total / math.fsum(weight) if normalize else total)


def task_arithmetic(
    base: Array, models: Sequence[Array], weight: Weights, scale: float = 1.0
) -> Array:
    return base + scale * sum(w * (x - base) for w, x in zip(weight, models))


def arc(x: Array, y: Array, t: float, is_straight: Callable[[float], bool]) -> Array:
    """Slerp of two vectors of one axis."""
    sizes = np.linalg.norm(x) * np.linalg.norm(y)
    cosine = float(x @ y / sizes) if sizes else 0.0
    if is_straight(cosine):
        return (1 - t) * x + t * y
    theta = np.arccos(np.clip(cosine, -1, 1))
    return np.asarray((np.sin((1 - t) * theta) * x + np.sin(t * theta) * y) / np.sin(theta))


def slerp(x: Array, y: Array, t: float) -> Array:
    return arc(x.ravel(), y.ravel(), t, lambda c: abs(c) > 0.9995).reshape(x.shape)


def nuslerp(
    x: Array, y: Array, weight: Weights, vectors: str = "whole", base: Array | None = None
) -> Array:
    if base is not None:
        return base + nuslerp(x - base, y - base, weight, vectors)
    t = weight[1] / (weight[0] + weight[1])
    if vectors == "whole" or x.ndim == 1:
        return arc(x.ravel(), y.ravel(), t, lambda c: 1 - c * c <= 1e-16).reshape(x.shape)
    axis = -1 if vectors == "rows" else 0
    ends = np.moveaxis(x, axis, -1), np.moveaxis(y, axis, -1)
    rows = zip(*(end.reshape(-1, end.shape[-1]) for end in ends))
    found = np.stack([arc(a, b, t, lambda c: 1 - c * c <= 1e-16) for a, b in rows])
    return np.moveaxis(found.reshape(ends[0].shape), -1, axis)


def multislerp(models: Sequence[Array], weight: Weights, base: Array | None = None) -> Array:
    """With the step in the tangent space, which is a step of length zero."""
    if base is not None:
        return base + multislerp([x - base for x in models], weight)
    shares = np.array(weight) / sum(weight)
    sizes = np.array([np.linalg.norm(x) for x in models])
    units = np.stack([x.ravel() / size for x, size in zip(models, sizes)])
    mean = shares @ units
    mean /= np.linalg.norm(mean)
    tangent = shares @ (units - np.outer(units @ mean, mean))
    assert np.linalg.norm(tangent) < 1e-14
    return np.asarray((mean * (shares @ sizes)).reshape(models[0].shape))


def karcher(models: Sequence[Array], rounds: int = 10, shortest: float = 1e-5) -> Array:
    sizes = [np.linalg.norm(x) for x in models]
    units = [x.ravel() / size for x, size in zip(models, sizes)]
    mean = np.mean(units, axis=0)
    mean /= np.linalg.norm(mean)
    for _ in range(rounds):
        logs = []
        for u in units:
            theta = np.arccos(np.clip(u @ mean, -1, 1))
            logs.append(theta / np.sin(theta) * (u - (u @ mean) * mean))
        step = np.mean(logs, axis=0)
        size = np.linalg.norm(step)
        if size < shortest:
            break
        mean = np.cos(size) * mean + np.sin(size) * step / size
    return np.asarray((mean * np.mean(sizes)).reshape(models[0].shape))


def kept_largest(delta: Array, density: float) -> Array:
    if density >= 1:
        return delta
    count = max(1, int(density * delta.size)) if density > 0 else 0
    kept = np.zeros(delta.size, dtype=bool)
    kept[np.argsort(-np.abs(delta.ravel()), kind="stable")[:count]] = True
    return delta * kept.reshape(delta.shape)


def kept_middle(delta: Array, density: float, gamma: float) -> Array:
    """By one value after another; equal magnitudes in the order of their indices, at both ends."""
    if density >= 1:
        return delta
    count = int(density * delta.size)
    start = max(0, delta.size - count - int(gamma * delta.size))
    sizes = np.abs(delta.ravel())
    order = np.argsort(sizes, kind="stable")
    places: dict[float, int] = {}
    for place in range(start, start + count):
        size = sizes[order[place]]
        places[size] = places.get(size, 0) + 1
    kept = np.zeros(delta.size, dtype=bool)
    for index, size in enumerate(sizes):
        if places.get(size, 0):
            kept[index], places[size] = True, places[size] - 1
    return delta * kept.reshape(delta.shape)


def elected(
    deltas: Sequence[Array], weight: Weights, normalize: bool, votes: Weights | None = None
) -> Array:
    """Σ w δ / Σ w of those with the elected sign; a sum of zero, but for rounding, elects plus."""
    by_model = [-1, *[1] * deltas[0].ndim]
    stack = np.stack([w * d for w, d in zip(weight, deltas)])
    voted = np.stack(deltas) * np.reshape(weight if votes is None else votes, by_model)
    sign = np.where(voted.sum(0) >= -1e-14 * np.abs(voted).sum(0), 1, -1)
    agrees = np.sign(stack) == sign
    total = (stack * agrees).sum(0)
    divisor = (np.reshape(weight, by_model) * agrees).sum(0)
    return np.asarray(total / np.where(divisor == 0, 1, divisor) if normalize else total)


def ties(base: Array, models: Sequence[Array], weight: Weights, density: Weights, scale: float = 1.0,
         normalize: bool = True) -> Array:  # fmt: skip
    deltas = [kept_largest(x - base, d) for x, d in zip(models, density)]
    return base + scale * elected(deltas, weight, normalize)


def breadcrumbs(
    base: Array, models: Sequence[Array], weight: Weights, density: Weights, gamma: Weights
) -> Array:
    deltas = [kept_middle(x - base, d, g) for x, d, g in zip(models, density, gamma)]
    return np.asarray(base + sum(w * d for w, d in zip(weight, deltas)))


def breadcrumbs_ties(
    base: Array, models: Sequence[Array], weight: Weights, density: Weights, gamma: Weights
) -> Array:
    deltas = [kept_middle(x - base, d, g) for x, d, g in zip(models, density, gamma)]
    return base + elected(deltas, weight, normalize=False)


def model_stock(base: Array, models: Sequence[Array], filter_wise: bool = False) -> Array:
    if filter_wise and base.ndim > 1:
        rows = [x.reshape(-1, x.shape[-1]) for x in (base, *models)]
        return np.stack([model_stock(row[0], row[1:]) for row in zip(*rows)]).reshape(base.shape)
    deltas = [(x - base).ravel() for x in models]
    cosines = []
    for a, b in combinations(deltas, 2):
        sizes = np.linalg.norm(a) * np.linalg.norm(b)
        cosines.append(a @ b / sizes if sizes else 0.0)
    cosine, n = np.mean(cosines), len(models)
    divisor = 1 + (n - 1) * cosine
    t = n * cosine / divisor if abs(divisor) >= 1e-6 else 0.0
    return np.asarray(t * np.mean(models, axis=0) + (1 - t) * base)


def sce(base: Array, models: Sequence[Array], share: float = 1.0) -> Array:
    deltas = np.stack([x - base for x in models])
    if share < 1:
        apart = deltas - deltas[0]
        variance = (len(models) * (apart**2).sum(0) - apart.sum(0) ** 2).ravel()
        count = int(share * np.count_nonzero(variance))
        kept = np.zeros(variance.size, dtype=bool)
        kept[np.argsort(-variance, kind="stable")[:count]] = True
        deltas = deltas * kept.reshape(base.shape)
    weight = [float((d**2).mean()) for d in deltas]
    return base + elected(list(deltas), weight, normalize=True, votes=(1.0,) * len(models))


def nearswap(base: Array, model: Array, t: float) -> Array:
    apart = np.abs(base - model)
    w = np.clip(t / np.where(apart == 0, 1, apart), 0, 1)
    return np.asarray(w * model + (1 - w) * base)


def arcee_fusion(base: Array, model: Array) -> Array:
    p, q = (np.exp(x) / np.exp(x).sum(-1, keepdims=True) for x in (model, base))
    score = np.abs(model - base) * (p * np.log(p / q)).sum(-1, keepdims=True)
    ordered = np.sort(score.ravel())
    low, middle, high = (ordered[int(f * (score.size - 1))] for f in (0.25, 0.5, 0.75))
    return np.asarray(np.where(score >= middle + 1.5 * (high - low), model, base))
