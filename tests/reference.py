"""Every operation in float64 numpy, from its formula alone, and pairs of matrices to try it on.

Nothing here uses uvmerge. Matrices are (m, n) with r = min(m, n).
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

# --- the operations ----------------------------------------------------------------------------


def svd(W: Array) -> tuple[Array, Array, Array]:
    U, S, Vh = _svd(W.tobytes(), *W.shape)
    return U.copy(), S.copy(), Vh.copy()


@lru_cache(maxsize=4)  # the matrices of one pair, asked for again and again
def _svd(content: bytes, m: int, n: int) -> tuple[Array, Array, Array]:
    W = np.frombuffer(content, np.float64).reshape(m, n)
    U, S, Vh = np.linalg.svd(W, full_matrices=False)
    return U, S, Vh


def best(W: Array, k: int) -> Array:
    """[W]_k."""
    U, S, Vh = svd(W)
    return (U[:, :k] * S[:k]) @ Vh[:k]


def restore(
    W_b: Array, W_f: Array, k: int, last: int = 0, values: str = "finetuned", alpha: float = 1.0
) -> Array:
    """[U_b,k | U_f,rest] diag(S) [Vh_b,k ; Vh_f,rest], and `last` triplets at the other end."""
    (U_b, S_b, Vh_b), (U, S, Vh) = svd(W_b), svd(W_f)
    chosen = np.r_[0:k, len(S) - last : len(S)]
    U[:, chosen], Vh[chosen] = U_b[:, chosen], Vh_b[chosen]
    if values == "base":
        S[chosen] = S_b[chosen]
    return W_f + alpha * ((U * S) @ Vh - W_f)


def swap(
    W_b: Array, W_f: Array, k: int, side: str, align: str = "procrustes", alpha: float = 1.0
) -> Array:
    """W_f + a (aligned U_b,k - U_f,k) S_f,k Vh_f,k, or its mirror image."""
    if side == "right":
        return swap(W_b.T, W_f.T, k, "left", align, alpha).T
    U_b, (U, S, Vh) = svd(W_b)[0][:, :k], svd(W_f)
    return W_f + alpha * ((aligned(U_b, U[:, :k], align) - U[:, :k]) * S[:k]) @ Vh[:k]


def aligned(block: Array, target: Array, how: str) -> Array:
    if how == "procrustes":
        A, _, B = svd(block.T @ target)
        return block @ A @ B
    if how == "match":
        similarity, order = abs(block.T @ target), np.zeros(block.shape[1], int)
        for _ in order:
            i, j = np.unravel_index(similarity.argmax(), similarity.shape)
            similarity[i, :] = similarity[:, j] = -1
            order[j] = i
        block = block[:, order]
    return block * np.where((block * target).sum(0) < 0, -1, 1)


def project(W_b: Array, W_f: Array, k: int, side: str = "two", alpha: float = 1.0) -> Array:
    U, _, Vh = svd(W_b)
    left = np.eye(len(W_b)) if side == "right" else U[:, :k] @ U[:, :k].T
    right = np.eye(W_b.shape[1]) if side == "left" else Vh[:k].T @ Vh[:k]
    return W_f - alpha * left @ (W_f - W_b) @ right


def values(W_b: Array, W_f: Array, k: int, alpha: float = 1.0) -> Array:
    U, S, Vh = svd(W_f)
    S_new = np.r_[svd(W_b)[1][:k], S[k:]]
    return W_f + alpha * (U * (S_new - S)) @ Vh


def interpolate(W_b: Array, W_f: Array, scale: float) -> Array:
    return W_b + scale * (W_f - W_b)


def lines(W_b: Array, W_f: Array, layer: int, depth: int, alpha: float, beta: float) -> Array:
    return interpolate(W_b, W_f, alpha + beta * layer / (depth - 1))


def denoise(W_b: Array, W_f: Array) -> Array:
    U, S, Vh = svd(W_f - W_b)
    short, long = sorted(W_b.shape)
    b = short / long
    optimal = np.sqrt(2 * (b + 1) + 8 * b / ((b + 1) + np.sqrt(b * b + 14 * b + 1)))
    threshold = optimal * np.median(S) / np.sqrt(marchenko_pastur_median(b))
    return W_b + (U * np.where(threshold < S, S, 0)) @ Vh


def marchenko_pastur_median(beta: float) -> float:
    """The median found by bisection, the mass by Gauss quadrature over s = √x.

    The law of s has the density √((b - s²)(s² - a)) / (πβs) on [√a, √b] = [1 - √β, 1 + √β].
    """
    nodes, weights = np.polynomial.legendre.leggauss(400)
    a, b = (1 - np.sqrt(beta)) ** 2, (1 + np.sqrt(beta)) ** 2
    middle, radius = (np.sqrt(a) + np.sqrt(b)) / 2, (np.sqrt(b) - np.sqrt(a)) / 2

    def mass(angle: float) -> float:
        t = (nodes + 1) * angle / 2
        s = middle - radius * np.cos(t)
        density = np.sqrt(np.maximum((b - s * s) * (s * s - a), 0)) / (np.pi * beta * s)
        return float((weights * density * radius * np.sin(t)).sum() * angle / 2)

    low, high = 0.0, np.pi
    for _ in range(60):
        angle = (low + high) / 2
        low, high = (angle, high) if mass(angle) < 0.5 else (low, angle)
    return float((middle - radius * np.cos(low)) ** 2)


def truncate(W_b: Array, W_f: Array, k: int, drop: bool = False) -> Array:
    leading = best(W_f - W_b, k)
    return W_f - leading if drop else W_b + leading


def damp_intruders(
    W_b: Array, W_f: Array, threshold: float = 0.5, damping: float = 0.75, first: int = 10
) -> Array:
    U_b, (U, S, Vh) = svd(W_b)[0], svd(W_f)
    for i in range(min(first, len(S))):
        if abs(U_b.T @ U[:, i]).max() < threshold:
            S[i] *= damping
    return (U * S) @ Vh


# --- pairs of matrices -------------------------------------------------------------------------

SHAPES = {
    "tall": (60, 36),
    "wide": (36, 60),
    "square": (48, 48),
    "row": (1, 40),
    "column": (40, 1),
    "rank_deficient": (50, 40),
}
RANK = 12  # of rank_deficient, in both matrices


def basis(rows: int, columns: int, random: np.random.Generator) -> Array:
    """Orthonormal columns."""
    return np.linalg.qr(random.standard_normal((rows, columns)))[0]


def with_values(S: Any, m: int, n: int, random: np.random.Generator) -> Array:
    """A random matrix of shape (m, n) with the singular values S."""
    return (basis(m, len(S), random) * np.asarray(S)) @ basis(n, len(S), random).T


def pair(kind: str, delta: float, seed: int = 0) -> tuple[Array, Array]:
    """A base of slowly falling spectrum, and the base plus noise of `delta` times its norm."""
    (m, n), random = SHAPES[kind], np.random.default_rng(seed)
    rank = RANK if kind == "rank_deficient" else min(m, n)
    values = np.arange(1, rank + 1) ** -0.7
    if kind == "rank_deficient":  # moved, and as deficient as before
        A, B = basis(m, rank, random) * values, basis(n, rank, random).T
        return A @ B, perturbed(A, delta, random) @ perturbed(B, delta, random)
    W_b = with_values(values, m, n, random)
    return W_b, perturbed(W_b, delta, random)


def perturbed(W: Array, delta: float, random: np.random.Generator) -> Array:
    noise = random.standard_normal(W.shape)
    return W + noise * (delta * np.linalg.norm(W) / np.linalg.norm(noise))


def error(result: Any, expected: Array, W_f: Array, smallest: float = 1e-7) -> float:
    """‖W′ - W′₆₄‖ / ‖W′₆₄ - W_f‖; an edit under `smallest` of the matrix counts as that."""
    size = max(np.linalg.norm(expected - W_f), smallest * np.linalg.norm(W_f))
    distance = np.linalg.norm(np.asarray(result, np.float64) - expected)
    return float(distance / size if size else distance)


# --- rounding ----------------------------------------------------------------------------------

FORMATS = {"bfloat16": (8, -126), "float16": (11, -14)}  # binary digits, smallest exponent


def nearest(values: Array, name: str = "bfloat16") -> Array:
    """Each value rounded to nearest, ties to even: exact, because powers of two divide exactly."""
    digits, smallest_exponent = FORMATS[name]
    exponents = np.maximum(np.frexp(values)[1] - 1, smallest_exponent) - digits + 1
    return np.ldexp(np.rint(np.ldexp(values, -exponents)), exponents)
