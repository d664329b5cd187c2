"""Two hundred hostile pairs: every result is within the promise of its policy, or refused.

The promise (`spectral.precision`): `exact` misses the float64 result by 1e-6 of the edit at most, `fast`
by 1e-3 of the edit or 1e-6 of the matrix. A result is asked for where it exists: where the singular value at
the cut repeats, the leading space is any of many, and the factors alone are judged.
"""

from __future__ import annotations

import dataclasses
import zlib
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import pytest
import reference
import torch
from reference import Array

import uvmerge
from uvmerge import operations
from uvmerge.spectral.matrix import DenseMatrix
from uvmerge.spectral.precision import EXACT, FAST, Precision, single_threaded
from uvmerge.spectral.recombine import rows_of

Random = np.random.Generator

SHAPES = [(60, 36), (36, 60), (48, 48), (1, 40), (40, 1), (1, 1), (2, 2), (97, 101)]
SHAPES += [(3000, 4), (4, 3000), (128, 896), (896, 128)]
RANDOM_SHAPES = 4  # more, from 2 to 90 on either side
LARGE = [(300, 260), (260, 700), (512, 512)]
STORED = [torch.float32, torch.bfloat16, torch.float32, torch.float16]


class Bounds(NamedTuple):
    """What is asked of factors, relative to σ_1 but for the angles."""

    residual: float  # ‖W v − σ u‖ and ‖Wᵀu − σ v‖
    angles: float  # |uᵢᵀuⱼ − δᵢⱼ|
    value: float
    tail: float  # the same of `tail`, which is a full SVD


EAGER = dataclasses.replace(EXACT, smallest_refined=256)  # exact, as it treats large matrices
BOUNDS = {
    EXACT: Bounds(1e-9, 2e-10, 1e-10, 1e-12),
    EAGER: Bounds(1e-9, 2e-10, 1e-10, 1e-12),
    FAST: Bounds(1e-5, 2e-5, 1e-5, 1e-6),
}


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    with single_threaded():
        yield


# --- hostile pairs -----------------------------------------------------------------------------


def flat(m: int, n: int, random: Random) -> Array:
    """Orthonormal rows or columns."""
    return reference.with_values(np.ones(min(m, n)), m, n, random)


def clustered(m: int, n: int, random: Random) -> Array:
    """A few values, each many times."""
    S = np.sort(random.choice([4.0, 2.0, 1.0, 0.25], min(m, n)))[::-1]
    return reference.with_values(S, m, n, random)


def deficient(m: int, n: int, random: Random) -> Array:
    rank = max(1, min(m, n) // 3)
    return reference.with_values(np.arange(1, rank + 1) ** -0.5, m, n, random)


def zero(m: int, n: int, random: Random) -> Array:
    return np.zeros((m, n))


def graded(m: int, n: int, random: Random) -> Array:
    """Eight decades."""
    return reference.with_values(np.logspace(0, -8, min(m, n)), m, n, random)


def power_law(m: int, n: int, random: Random) -> Array:
    return reference.with_values(np.arange(1, min(m, n) + 1) ** -0.7, m, n, random)


def noise(m: int, n: int, random: Random) -> Array:
    """Marchenko–Pastur."""
    return random.standard_normal((m, n)) / np.sqrt(n)


def outlier(m: int, n: int, random: Random) -> Array:
    """One direction a thousand times as strong as the rest."""
    left, right = reference.basis(m, 1, random), reference.basis(n, 1, random)
    size = np.linalg.norm(rest := noise(m, n, random), 2)
    return rest + 1e3 * size * left @ right.T


def tiny(m: int, n: int, random: Random) -> Array:
    return power_law(m, n, random) * 1e-30


def huge(m: int, n: int, random: Random) -> Array:
    return power_law(m, n, random) * 1e30


def repeated(m: int, n: int, random: Random) -> Array:
    """Rows and columns that are there twice."""
    W = power_law(m, n, random)
    W[m - m // 2 :] = W[: m // 2]
    W[:, n - n // 2 :] = W[:, : n // 2]
    return W


def one_entry(m: int, n: int, random: Random) -> Array:
    return power_law(m, n, random)


SPECTRA: dict[str, Callable[[int, int, Random], Array]] = {
    make.__name__: make
    for make in (flat, clustered, deficient, zero, graded, power_law, noise, outlier, tiny, huge,
                 repeated, one_entry)
}  # fmt: skip
EXTREME = ("tiny", "huge")  # out of the range of 16 bit


def tuned(kind: str, W: Array, random: Random) -> Array:
    """A fine-tuning of W: dense, of low rank, or of one entry."""
    strength = 10.0 ** random.integers(-3, 0)
    if kind == "one_entry":
        changed = W.copy()
        changed[random.integers(len(W)), random.integers(W.shape[1])] += strength * abs(W).max()
        return changed
    if kind == "zero":
        return random.choice([0.0, 1.0]) * noise(*W.shape, random)
    m, n = W.shape
    size = np.linalg.norm(W)
    if random.integers(2):
        rank = min(m, n, 3)
        low = reference.with_values(np.arange(rank, 0, -1.0), m, n, random)
        return W + low * (strength * size / np.linalg.norm(low))
    return reference.perturbed(W, strength, random)


def pairs(kind: str, large: bool = False) -> Iterator[tuple[str, Array, Array, torch.dtype]]:
    """Base and fine-tuned as they are stored, by a name that says how they came about."""
    random = np.random.default_rng(zlib.crc32(kind.encode()))
    shapes = [*SHAPES, *map(tuple, random.integers(2, 91, (RANDOM_SHAPES, 2)))]
    for number, (m, n) in enumerate(LARGE if large else shapes):
        stored = torch.float32 if kind in EXTREME else STORED[number % len(STORED)]
        W = SPECTRA[kind](int(m), int(n), random)
        both = [W, tuned(kind, W, random)]
        if kind == "zero" and number % 2:
            both.reverse()
        W_b, W_f = (np.asarray(torch.tensor(W).to(stored).double()) for W in both)
        yield f"{kind} {m}x{n} {stored}", W_b, W_f, stored


def test_there_are_two_hundred() -> None:
    assert sum(1 for kind in SPECTRA for _ in pairs(kind)) + len(REFINED) * len(LARGE) >= 200


# --- what is asked of a pair -------------------------------------------------------------------


def has_gap(S: Array, k: int) -> bool:
    """Whether the leading k directions are told apart from the others, zeros included."""
    after = S[k] if k < len(S) else 0.0
    return bool(S[k - 1] > 1e-9 * S[0] and S[k - 1] - after > 1e-6 * S[k - 1])


def asked(W_b: Array, W_f: Array, k: int) -> Iterator[tuple[str, dict[str, Any], Array | None]]:
    """Operations, and their result where there is one alone."""
    S_b, S_f, S_d = (reference.svd(W)[1] for W in (W_b, W_f, W_f - W_b))
    if has_gap(S_b, k):
        yield "project", {"rank": k}, reference.project(W_b, W_f, k)
        if has_gap(S_f, k):
            expected = W_f - reference.best(W_f, k) + reference.best(W_b, k)
            yield "restore", {"rank": k, "values": "base"}, expected
    is_posed = has_gap(S_f, k) and all(has_gap(S_b, i + 1) for i in range(k))
    yield "restore", {"rank": k}, reference.restore(W_b, W_f, k) if is_posed else None
    if has_gap(S_d, k) or k == len(S_d):
        yield "truncate", {"rank": k}, reference.truncate(W_b, W_f, k)


def broken_promises(
    name: str, W_b: Array, W_f: Array, stored: torch.dtype, precision: Precision
) -> Iterator[str]:
    """What is not as promised; nothing where all is."""
    r = min(W_b.shape)
    size, rounding = np.linalg.norm(W_f), 1e-13 * np.linalg.norm([W_b, W_f])
    for k in sorted({1, -(-r // 5), -(-2 * r // 5), r - 1, r} - {0}):
        for operation, options, expected in asked(W_b, W_f, k):
            operands = operands_of(W_b, W_f, stored, precision)
            try:
                result = operations.get(operation).function(*operands, **options)
                found = np.asarray(
                    torch.cat([p for (p,) in rows_of([result.sum], precision.combine)]).double()
                )
            except uvmerge.RunFailed:
                continue
            if expected is None:
                if not np.isfinite(found).all():
                    yield f"{name}: {operation} {options}: NaN or Inf"
                continue
            error = np.linalg.norm(found - expected)
            edit = np.linalg.norm(expected - W_f)
            bound = max(1e-3 * edit, 1e-6 * size) if precision is FAST else 1e-6 * edit
            if not error <= max(bound, rounding):  # the reference has no more to give
                yield f"{name}: {operation} {options}: {error / bound:.1e} times the bound"
    for role, W, operand in zip(
        ("base", "finetuned"), (W_b, W_f), operands_of(W_b, W_f, stored, precision)
    ):
        for problem in broken_factors(W, operand, BOUNDS[precision]):
            yield f"{name}: {role}: {problem}"


def operands_of(
    W_b: Array, W_f: Array, stored: torch.dtype, precision: Precision
) -> list[DenseMatrix]:
    return [
        DenseMatrix(role, torch.tensor(W).to(stored), precision)
        for role, W in (("base", W_b), ("finetuned", W_f))
    ]


def broken_factors(W: Array, operand: DenseMatrix, bounds: Bounds) -> Iterator[str]:
    r, S = min(W.shape), reference.svd(W)[1]
    for k in sorted({1, -(-r // 5), -(-2 * r // 5), r - 1, r} - {0}):
        for call, values in (("top", S[:k]), ("tail", S[r - k :])):
            try:
                factors = getattr(operand, call)(k)
            except uvmerge.RunFailed:
                continue
            U, found, Vh = (np.asarray(f.double()) for f in factors)
            shapes = (U.shape, found.shape, Vh.shape)
            if shapes != ((len(W), k), (k,), (k, W.shape[1])):
                yield f"{call}({k}): shapes {shapes}"
                continue
            scale = S[0] or 1.0
            is_tail = call == "tail"
            missed = {
                "residual": max(
                    abs(W @ Vh.T - U * found).max(), abs(W.T @ U - Vh.T * found).max()
                ) / scale / (bounds.tail if is_tail else bounds.residual),
                "value": abs(found - values).max() / scale
                / (bounds.tail if is_tail else bounds.value),
                "angle": max(crooked(U), crooked(Vh.T)) / bounds.angles,
            }  # fmt: skip
            for what, share in missed.items():
                if not share <= 1:
                    yield f"{call}({k}) from {factors.method}: {what} {share:.1e} times the bound"
    found = np.asarray(operand.values().double())
    if not abs(found - S).max() <= bounds.value * (S[0] or 1.0):
        yield f"values(): off by {abs(found - S).max() / S[0]:.1e}"


def crooked(Q: Array) -> float:
    """How far columns are from orthonormal."""
    return float(abs(Q.T @ Q - np.eye(Q.shape[1])).max())


# --- the promise -------------------------------------------------------------------------------

POLICIES = pytest.mark.parametrize("precision", [EXACT, FAST], ids=["exact", "fast"])


@POLICIES
@pytest.mark.parametrize("kind", SPECTRA)
def test_every_result_is_within_its_promise_or_refused(kind: str, precision: Precision) -> None:
    problems = [
        problem
        for name, W_b, W_f, stored in pairs(kind)
        for problem in broken_promises(name, W_b, W_f, stored, precision)
    ]
    assert not problems, "\n".join(problems)


REFINED = ("power_law", "noise", "outlier", "clustered")


@pytest.mark.parametrize("precision", [EXACT, EAGER, FAST], ids=["exact", "eager", "fast"])
@pytest.mark.parametrize("kind", REFINED)
def test_large_matrices_are_within_their_promise_too(kind: str, precision: Precision) -> None:
    """Here the first rung is entered."""
    assert all(min(shape) >= EAGER.smallest_refined == FAST.smallest_refined for shape in LARGE)
    problems = [
        problem
        for name, W_b, W_f, stored in pairs(kind, large=True)
        for problem in broken_promises(name, W_b, W_f, stored, precision)
    ]
    assert not problems, "\n".join(problems)


@POLICIES
def test_where_the_cut_falls_among_equal_values_the_result_is_one_of_many(
    precision: Precision,
) -> None:
    """What all of them have in common: k directions of the base are in, k of the fine-tuned out."""
    for name, W_b, W_f, stored in pairs("flat"):
        k = -(-min(W_b.shape) // 2)
        base, finetuned = operands_of(W_b, W_f, stored, precision)
        result = operations.get("restore").function(base, finetuned, rank=k)
        found = np.asarray(
            torch.cat([panel for (panel,) in rows_of([result.sum], precision.combine)]).double()
        )
        assert np.isfinite(found).all(), name
        (_, S, _), (U_b, _, Vh_b) = finetuned.top(k), base.top(k)
        (U_f, _, Vh_f) = (np.asarray(f.double()) for f in finetuned.top(k))
        again = W_f + np.asarray((U_b.double() * S) @ Vh_b.double()) - (U_f * np.asarray(S)) @ Vh_f
        assert np.linalg.norm(found - again) < 1e-6 * np.linalg.norm(W_f), name
