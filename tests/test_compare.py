"""Measures of a matrix against its base: planted turns come back, chance is called chance, and a dense
float64 computation from the definitions gives the same numbers."""

from __future__ import annotations

import gc
import itertools
import math
import weakref
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import reference
import torch
from reference import Array
from torch import Tensor

from uvmerge.measure.compare import Distances, chordal, measure, measure_all
from uvmerge.measure.measures import Measures
from uvmerge.measure.null import RandomSubspaces
from uvmerge.spectral import Factors
from uvmerge.spectral.matrix import DenseMatrix
from uvmerge.spectral.precision import EXACT, FAST, Precision, single_threaded

Random = np.random.Generator

POLICIES = pytest.mark.parametrize("precision", [EXACT, FAST], ids=["exact", "fast"])
SHAPES = pytest.mark.parametrize(
    "shape", [(60, 36), (36, 60), (48, 48)], ids=["tall", "wide", "square"]
)
ANGLES = (1e-6, 1e-5, 1e-3, 0.1, 0.7, 1.5)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    with single_threaded():
        yield


def matrix(
    W: Any, precision: Precision = EXACT, stored: torch.dtype = torch.float32
) -> DenseMatrix:
    return DenseMatrix("W", torch.as_tensor(W).to(stored), precision)


def measured(
    W_b: Any,
    W_f: Any,
    k: int,
    precision: Precision = EXACT,
    stored: torch.dtype = torch.float32,
) -> Measures:
    (found,) = measure(matrix(W_b, precision, stored), [matrix(W_f, precision, stored)], k)
    return found


def planted(
    shape: tuple[int, int], S: Array, left: Sequence[float], right: Sequence[float], seed: int = 0
) -> tuple[Array, Array]:
    """W of the values S, and W with its first vectors turned by these angles into later ones."""
    (m, n), random = shape, np.random.default_rng(seed)
    U, V = reference.basis(m, len(S), random), reference.basis(n, len(S), random)
    return (U * S) @ V.T, (turned(U, left) * S) @ turned(V, right).T


def turned(Q: Array, angles: Sequence[float]) -> Array:
    k, c, s = len(angles), np.cos(angles), np.sin(angles)
    a, b = Q[:, :k], Q[:, k : 2 * k]
    return np.hstack([a * c + b * s, b * c - a * s, Q[:, 2 * k :]])


def clear(r: int, k: int) -> Array:
    """Values with a wide gap behind the k-th."""
    return np.r_[np.linspace(2, 1, k), np.linspace(0.1, 0.05, r - k)]


def graded(r: int, k: int) -> Array:
    """Leading values over three decades."""
    return np.r_[np.logspace(0, -3, k), np.linspace(1e-4, 5e-5, r - k)]


def pair(shape: tuple[int, int], delta: float = 0.05, seed: int = 0) -> tuple[Array, Array]:
    """A base of slowly falling spectrum, and the base plus noise, as float32 holds them."""
    random = np.random.default_rng(seed)
    W_b = reference.with_values(np.arange(1, min(shape) + 1) ** -0.7, *shape, random)
    W_f = reference.perturbed(W_b, delta, random)
    return W_b.astype(np.float32).astype(float), W_f.astype(np.float32).astype(float)


# --- planted turns -----------------------------------------------------------------------------

SIDES = pytest.mark.parametrize("side", ["left", "right", "both"])


def expected_turns(side: str, angles: Sequence[float]) -> tuple[list[float], list[float]]:
    still = [0.0] * len(angles)
    return [list(angles) if side != other else still for other in ("right", "left")]  # type: ignore[return-value]


@pytest.mark.parametrize("angle", ANGLES)
@SIDES
@SHAPES
def test_planted_turns_are_recovered(shape: tuple[int, int], side: str, angle: float) -> None:
    """Of 8 vectors at once, from float32; relative to the angle, and 1e-7."""
    left, right = expected_turns(side, [angle] * 8)
    found = measured(*planted(shape, clear(min(shape), 8), left, right), 8)
    assert found.k == 8
    for turn, expected in ((found.left, left), (found.right, right)):
        error = abs(np.array(turn.angles) - expected)
        assert (error <= 1e-7 + 1e-4 * np.array(expected)).all()
        assert turn.chordal == pytest.approx(math.sin(expected[0]), rel=1e-4, abs=1e-7)
        assert turn.mean == pytest.approx(expected[0], rel=1e-4, abs=1e-7)


@SIDES
@SHAPES
def test_turns_of_different_angles_at_once_are_told_apart(
    shape: tuple[int, int], side: str
) -> None:
    angles = [*ANGLES, 0.0, 0.01]
    left, right = expected_turns(side, angles)
    found = measured(*planted(shape, clear(min(shape), 8), left, right), 8)
    for turn, expected in ((found.left, left), (found.right, right)):
        error = abs(np.array(turn.angles) - np.sort(expected))
        assert (error <= 1e-7 + 1e-4 * np.sort(expected)).all()


@pytest.mark.parametrize("angle", ANGLES)
@SHAPES
def test_turns_of_graded_values_are_recovered(shape: tuple[int, int], angle: float) -> None:
    W_b, W_f = planted(shape, graded(min(shape), 8), [angle] * 8, [angle] * 8)
    found = measured(W_b, W_f, 8, stored=torch.float64)
    for turn in (found.left, found.right):
        assert (abs(np.array(turn.angles) - angle) <= 1e-7 + 1e-4 * angle).all()


@pytest.mark.parametrize("angle", ANGLES)
def test_float32_holds_small_values_directions_no_better_than_its_rounding(angle: float) -> None:
    """What it rounds off turns vectors by its norm over the gap (Wedin); nothing is added to that."""
    S = graded(36, 8)
    both = planted((60, 36), S, [angle] * 8, [angle] * 8)
    rounded = sum(np.linalg.norm(W.astype(np.float32) - W, 2) for W in both)
    found = measured(*both, 8)
    for turn in (found.left, found.right):
        error = abs(np.array(turn.angles) - angle)
        assert (error <= 1e-7 + 1e-4 * angle + 2 * rounded / (S[7] - S[8])).all()


# Measured floors of `fast` here: 2e-7 to 1e-6 for values of one size, 1e-8 σ_1/σ_k for graded ones.
FAST_FLOOR = 2e-6
FAST_GRADED = 5e-8


@pytest.mark.parametrize("angle", (0.0, *ANGLES))
@pytest.mark.parametrize("shape", [(60, 36), (36, 60), (48, 48), (300, 260), (260, 300)])
def test_fast_recovers_turns_down_to_its_floor(shape: tuple[int, int], angle: float) -> None:
    """From 256 on, its vectors are corrected."""
    for values, ratio in ((clear, 2), (graded, 1e3)):
        W_b, W_f = planted(shape, values(min(shape), 8), [angle] * 8, [angle] * 8)
        found = measured(W_b, W_f, 8, FAST, torch.float64)
        for turn in (found.left, found.right):
            error = abs(np.array(turn.angles) - angle)
            assert (error <= FAST_FLOOR + FAST_GRADED * ratio + 1e-4 * angle).all()


def test_turns_are_recovered_where_matrices_are_reduced() -> None:
    angles = [*ANGLES] * 20
    W_b, W_f = planted((1100, 1024), clear(1024, len(angles)), angles, angles[::-1])
    found = measured(W_b, W_f, len(angles))
    assert found.methods == ("tridiagonal",)
    for turn in (found.left, found.right):
        assert (abs(np.array(turn.angles) - np.sort(angles)) <= 1e-7 + 1e-4 * np.sort(angles)).all()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("angle", (0.0, *ANGLES))
def test_chordal_distances_are_as_exact_as_the_angles(angle: float, dtype: torch.dtype) -> None:
    Q = reference.basis(60, 40, np.random.default_rng(0))
    P, Q = (torch.tensor(X[:, :12]).to(dtype) for X in (Q, turned(Q, [angle] * 12)))
    floor = 1e-14 if dtype == torch.float64 else 1e-6
    assert chordal(P, Q) == pytest.approx(math.sin(angle), rel=1e-6, abs=floor)


def test_nothing_is_no_distance_away() -> None:
    assert chordal(torch.zeros(5, 0), torch.zeros(5, 0)) == 0


# --- chance ------------------------------------------------------------------------------------


def independent(shape: tuple[int, int], seed: int = 0) -> tuple[Array, Array]:
    random = np.random.default_rng(seed)
    W_b, W_f = 0.02 * random.standard_normal((2, *shape))
    return W_b, W_f


@POLICIES
@pytest.mark.parametrize("shape", [(60, 36), (36, 60), (48, 48), (200, 150), (40, 400)])
def test_independent_matrices_are_chance_at_any_rank(
    shape: tuple[int, int], precision: Precision
) -> None:
    r = min(shape)
    for k in (1, 2, r // 5, r // 2, 9 * r // 10, r):
        found = measured(*independent(shape, seed=k), k, precision)
        assert found.is_chance
        assert found.intruders is None  # all ten would be, and say nothing
        for turn in (found.left, found.right):
            low, high = (np.array(side) for side in turn.chance.band())
            assert (low - 2e-6 <= turn.angles).all() and (turn.angles <= high + 2e-6).all()
            low_distance, high_distance = turn.chance.chordal_band
            assert low_distance - 2e-6 <= turn.chordal <= high_distance + 2e-6
            assert turn.is_chance == turn.chance.can_be_distinguished


def test_seven_hundred_and_sixty_eight_of_a_thousand_and_twenty_four_share_512_dimensions() -> None:
    found = measured(*independent((1024, 1024)), 768)
    assert found.is_chance
    for turn in (found.left, found.right):
        assert sum(angle < 1e-5 for angle in turn.angles) == turn.chance.zeros == 512
        assert turn.chordal == pytest.approx(0.5, abs=0.01)
        assert turn.alignment == pytest.approx(turn.chance_alignment, rel=0.05)


@pytest.mark.parametrize("k", [1, 3, 8, 30])
def test_a_matrix_that_hardly_changed_is_related_wherever_the_cut_falls(k: int) -> None:
    """Equal values leave their vectors to chance; a change of 3.5 percent is none."""
    random = np.random.default_rng(0)
    flat = reference.with_values(np.ones(40), 50, 40, random)
    for W_b in (flat, random.standard_normal((50, 40))):
        found = measured(W_b, reference.perturbed(W_b, 0.035, random), k)
        assert not found.is_chance


def test_vectors_of_chance_around_one_that_is_shared_make_strangers() -> None:
    """Two unrelated matrices may share their mean, which carries a part of their energy."""
    W_b, W_f = (W + 0.015 for W in independent((200, 150)))
    found = measured(W_b, W_f, 60)
    assert 0.2 < found.change.cosine < 0.5 and found.is_chance
    assert sum(angle < 0.5 for angle in found.left.angles[: 1 + found.left.chance.zeros]) == 1


@pytest.mark.parametrize("scale", [-1.0, -3.0])
def test_a_matrix_of_opposite_sign_is_no_stranger(scale: float) -> None:
    W, _ = pair((50, 40))
    found = measured(W, scale * W, 8)
    assert found.change.cosine == pytest.approx(-1)
    assert found.left.largest < 1e-7 and found.right.largest < 1e-7
    assert not found.is_chance


# --- against the definitions -------------------------------------------------------------------


def by_definition(W_b: Array, W_f: Array, k: int) -> dict[str, Any]:
    """Every measure from full float64 decompositions, for distinct values."""
    (U_b, S_b, V_b), (U_f, S_f, V_f) = (
        (U, S, Vh.T) for U, S, Vh in (np.linalg.svd(W) for W in (W_b, W_f))
    )
    D = W_f - W_b
    energy, S = (D**2).sum(), np.linalg.svd(D, compute_uv=False)
    C = U_b[:, :k].T @ D @ V_b[:, :k]
    within = U_b[:, :k] @ C @ V_b[:, :k].T
    shares = S[S > 0] / S.sum()
    cosines = abs(U_b[:, : len(S)].T @ U_f[:, : len(S)])
    return {
        "left": sines(U_b, U_f, k), "right": sines(V_b, V_f, k),
        "left alignment": abs(U_b[:, :k].T @ U_f[:, :k]).max(1).mean(),
        "right alignment": abs(V_b[:, :k].T @ V_f[:, :k]).max(1).mean(),
        "base values": S_b[:k], "finetuned values": S_f[:k],
        "value changes": S_f[:k] / S_b[:k] - 1,
        "value change": np.sqrt(np.mean((S_f[:k] / S_b[:k] - 1) ** 2)),
        "base gap": 1 - S_b[k] / S_b[k - 1] if k < len(S_b) else -1,
        "finetuned gap": 1 - S_f[k] / S_f[k - 1] if k < len(S_f) else -1,
        "relative": np.linalg.norm(D) / np.linalg.norm(W_b),
        "cosine": (W_b * W_f).sum() / np.linalg.norm(W_b) / np.linalg.norm(W_f),
        "values": S / S[0],
        "diagonal": (np.diag(C) ** 2).sum() / energy,
        "rotation": ((C - np.diag(np.diag(C))) ** 2).sum() / energy,
        "outside": ((D - within) ** 2).sum() / energy,
        "stable rank": energy / S[0] ** 2,
        "effective rank": np.exp(-(shares * np.log(shares)).sum()),
        "leading energy": (S[:k] ** 2).sum() / energy,
        "intruders": (cosines[:, :10].max(0) < 0.5).sum(),
        "picture": picture(C, D),
    }  # fmt: skip


def sines(P: Array, Q: Array, k: int) -> Array:
    """Sines and cosines of the principal angles, ascending: those of Q with P's complement."""
    if k == len(P):
        return np.zeros(k)
    found = np.zeros(k)
    S = np.linalg.svd(P[:, k:].T @ Q[:, :k], compute_uv=False)
    found[: len(S)] = S
    return np.sort(found)


def picture(C: Array, D: Array) -> Array:
    """Means over cells whose edges are rounded outwards, where 24 do not divide k."""
    k, cells = len(C), min(len(C), 24)
    edges = [(i * k // cells, -(-(i + 1) * k // cells)) for i in range(cells)]
    means = [[(C[a:b, c:d] ** 2).mean() for c, d in edges] for a, b in edges]
    return np.array(means) / (D**2).mean()


def figures(found: Measures) -> dict[str, Any]:
    """The same from what was measured."""
    change = found.change
    return {
        "left": np.sin(found.left.angles), "right": np.sin(found.right.angles),
        "left alignment": found.left.alignment, "right alignment": found.right.alignment,
        "base values": found.base_values, "finetuned values": found.finetuned_values,
        "value changes": found.value_changes, "value change": found.value_change,
        "base gap": -1 if found.base_gap is None else found.base_gap,
        "finetuned gap": -1 if found.finetuned_gap is None else found.finetuned_gap,
        "relative": change.relative, "cosine": change.cosine,
        "values": np.array(change.values) / change.values[0],
        "diagonal": change.diagonal, "rotation": change.rotation, "outside": change.outside,
        "stable rank": change.stable_rank, "effective rank": change.effective_rank,
        "leading energy": change.leading_energy(found.k),
        "intruders": -1 if found.intruders is None else found.intruders,
        "picture": change.picture,
    }  # fmt: skip


def differing(found: dict[str, Any], expected: dict[str, Any], bound: float) -> list[str]:
    """The figures that miss. Singular values of D come from float32 products: 1e-7 σ_1²/σ_i."""
    assert found.keys() == expected.keys()
    found = found | {"values": np.square(found["values"])}
    expected = expected | {"values": np.square(expected["values"])}
    return [
        f"{name}: {found[name]} and not {expected[name]}"
        for name in found
        if not np.allclose(found[name], expected[name], rtol=bound, atol=bound)
    ]


DENSE_SHAPES = [(60, 36), (36, 60), (48, 48), (2, 2), (3, 50), (50, 3), (97, 101), (300, 30)]


@pytest.mark.parametrize("delta", [1e-3, 0.05, 0.7])
@pytest.mark.parametrize("shape", DENSE_SHAPES, ids=str)
def test_every_measure_is_what_its_definition_says(shape: tuple[int, int], delta: float) -> None:
    W_b, W_f = pair(shape, delta)
    for k in sorted({1, -(-min(shape) // 5), min(shape) // 2, min(shape) - 1, min(shape)}):
        found, expected = measured(W_b, W_f, k), by_definition(W_b, W_f, k)
        if found.is_chance:  # a change by 0.7 may turn the last vectors, all that k < r leaves out
            assert delta == 0.7 and k == min(shape) - 1
            expected["intruders"] = -1
        assert not differing(figures(found), expected, 1e-6), k
        change = found.change
        assert change.inside == change.diagonal + change.rotation
        assert change.norm == pytest.approx(np.linalg.norm(W_f - W_b), rel=1e-6)


@pytest.mark.parametrize("shape", [*DENSE_SHAPES[:4], (300, 260)], ids=str)
def test_fast_measures_it_to_its_own_rounding(shape: tuple[int, int]) -> None:
    W_b, W_f = pair(shape, 0.05)
    k = -(-min(shape) // 5)
    expected = by_definition(W_b, W_f, k)
    expected["values"] = np.where(expected["values"] > 1e-3, expected["values"], 0)
    assert not differing(figures(measured(W_b, W_f, k, FAST)), expected, 2e-5)


@POLICIES
@pytest.mark.parametrize("shape", [*DENSE_SHAPES, (1, 1), (1, 40), (40, 1)], ids=str)
def test_diagonal_rotation_and_outside_are_all_there_is(
    shape: tuple[int, int], precision: Precision
) -> None:
    """Each from a dense decomposition, the outside from what is left of the change itself."""
    for seed, kind in enumerate((torch.float32, torch.bfloat16, torch.float16)):
        W_b, W_f = (torch.tensor(W).to(kind).double() for W in pair(shape, 0.3, seed))
        U, _, Vh = torch.linalg.svd(W_b, full_matrices=False)
        for k in sorted({0, 1, min(shape) // 2, min(shape)}):
            D, P, Q = W_f - W_b, U[:, :k], Vh[:k].mT
            C = P.mT @ D @ Q
            outside = float((D - P @ C @ Q.mT).square().sum() / D.square().sum())
            diagonal = float(C.diagonal().square().sum() / D.square().sum())
            rotation = float((C.square().sum() - C.diagonal().square().sum()) / D.square().sum())
            change = measured(W_b, W_f, k, precision, kind).change
            assert diagonal + rotation + outside == pytest.approx(1, abs=1e-12)
            bound = 1e-6 if precision is EXACT else 1e-5
            assert change.diagonal + change.rotation + outside == pytest.approx(1, abs=bound)
            assert change.diagonal == pytest.approx(diagonal, abs=bound)
            assert change.rotation == pytest.approx(rotation, abs=bound)
            assert change.outside == pytest.approx(outside, abs=bound)
            assert change.outside >= 0


@POLICIES
@pytest.mark.parametrize(
    "kinds",
    [
        (torch.bfloat16, torch.bfloat16), (torch.float16, torch.float16),
        (torch.bfloat16, torch.float32), (torch.float32, torch.float16),
    ],
    ids=str,
)  # fmt: skip
def test_stored_types_are_taken_at_their_values(
    kinds: tuple[torch.dtype, torch.dtype], precision: Precision
) -> None:
    both = [torch.tensor(W).to(kind) for W, kind in zip(pair((60, 36)), kinds)]
    (found,) = measure(
        DenseMatrix("b", both[0], precision), [DenseMatrix("f", both[1], precision)], 8
    )
    expected = by_definition(*(W.double().numpy() for W in both), 8)
    bound = 1e-6
    if precision is FAST:
        bound = 2e-5
        expected["values"] = np.where(expected["values"] > 1e-3, expected["values"], 0)
    assert not differing(figures(found), expected, bound)


def test_alignment_is_the_mean_over_the_vectors_of_the_base() -> None:
    """Two base vectors whose nearest is one and the same fine-tuned vector."""
    U, c, s = np.eye(5), math.cos(0.6), math.sin(0.6)
    tuned = np.stack([(U[0] + U[1]) / math.sqrt(2), c * U[2] + s * U[3], U[4]], axis=1)
    S, V = np.array([3.0, 2.0, 1.0]), np.eye(4)[:, :3]
    found = measured((U[:, :3] * S) @ V.T, (tuned * S) @ V.T, 3, stored=torch.float64)
    assert found.left.alignment == pytest.approx((2 * math.sqrt(0.5) + c) / 3)
    assert found.right.alignment == pytest.approx(1)


@POLICIES
@pytest.mark.parametrize("shape", [(60, 36), (36, 60)], ids=str)
def test_small_values_of_a_float64_difference_are_no_rounding(
    shape: tuple[int, int], precision: Precision
) -> None:
    """Some are flat, so that the Gram matrix at hand is not made anew."""
    random = np.random.default_rng(0)
    S = np.r_[np.linspace(1, 0.5, 33), 1e-4, 1e-5, 2e-6]
    W, D = pair(shape)[0], reference.with_values(S, *shape, random)
    found = measured(W, W + D, 8, precision, torch.float64).change.values
    np.testing.assert_allclose(found, S, rtol=1e-3)
    with_nothing = reference.with_values(np.r_[S[:33], 1e-7, 0, 0], *shape, random)
    found = measured(W, W + with_nothing, 8, precision, torch.float64).change.values
    assert found[33:] == (0.0, 0.0, 0.0)


# --- what a decomposition leaves open ----------------------------------------------------------

Top = Callable[[DenseMatrix, int], Factors]


def with_every_decomposition(
    monkeypatch: pytest.MonkeyPatch, change: Callable[[Tensor], Tensor]
) -> None:
    """From here on, (U, Vhᵀ) come out multiplied by change(S) (k, k)."""
    top: Top = DenseMatrix.top

    def changed(self: DenseMatrix, k: int) -> Factors:
        found = top(self, k)
        R = change(found.S)
        return replace(found, U=found.U @ R, Vh=R.mT @ found.Vh)

    monkeypatch.setattr(DenseMatrix, "top", changed)


def signs(draw: torch.Generator) -> Callable[[Tensor], Tensor]:
    return lambda S: torch.diag(torch.randint(2, (len(S),), generator=draw).mul(2).sub(1)).to(S)


def turns_among_equals(draw: torch.Generator) -> Callable[[Tensor], Tensor]:
    def turns(S: Tensor) -> Tensor:
        R = torch.zeros(len(S), len(S), dtype=S.dtype)
        at = 0
        while at < len(S):
            size = int((S[at] - S[at:] <= 1e-7 * S[0]).sum())
            block = slice(at, at + size)
            R[block, block] = torch.linalg.qr(
                torch.randn(size, size, generator=draw, dtype=S.dtype)
            )[0]
            at += size
        return R

    return turns


@POLICIES
@pytest.mark.parametrize("k", [1, 8, 36])
def test_signs_of_vectors_change_nothing(
    monkeypatch: pytest.MonkeyPatch, precision: Precision, k: int
) -> None:
    both = pair((60, 36), 0.3)
    before = measured(*both, k, precision)
    with_every_decomposition(monkeypatch, signs(torch.Generator().manual_seed(0)))
    after = measured(*both, k, precision)
    assert not differing(figures(after), figures(before), 1e-6)


STEPS = np.r_[3, 3, 3, 2, 2, 1.5, 1.4, 1.3, 1, 1, np.linspace(0.3, 0.2, 26)]


@pytest.mark.parametrize("stored", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("k", [3, 5, 8, 10, 20])
@pytest.mark.parametrize("equal", ["base", "finetuned", "both"])
@SHAPES
def test_turns_among_equal_values_change_nothing(
    monkeypatch: pytest.MonkeyPatch,
    shape: tuple[int, int],
    equal: str,
    k: int,
    stored: torch.dtype,
) -> None:
    """Of the base, of the fine-tuned, of both; also where the two have other values."""
    random = np.random.default_rng(k)
    spread = np.r_[np.linspace(3, 1, 10), np.linspace(0.3, 0.2, 26)]
    W_b, turned_base = planted(shape, STEPS, [0.1, 0.7, 1.5, 0.4], [1.0, 0.2, 0.3, 1.2])
    other = reference.perturbed(planted(shape, spread, [], [])[0], 0.05, random)
    W_b, W_f = {"both": (W_b, turned_base), "base": (W_b, other), "finetuned": (other, W_b)}[equal]
    before = figures(measured(W_b, W_f, k, stored=stored))
    with_every_decomposition(monkeypatch, turns_among_equals(torch.Generator().manual_seed(k)))
    assert not differing(figures(measured(W_b, W_f, k, stored=stored)), before, 1e-6)


@pytest.mark.parametrize("k", [52, 200])
def test_one_strong_direction_makes_no_equals_of_the_others(k: int) -> None:
    """Values apart by thousandths of their own size are distinct beside one 10,000 times theirs."""
    random = np.random.default_rng(0)
    W_b = random.standard_normal((300, 260)) / 16
    W_b += 1e4 * reference.basis(300, 1, random) @ reference.basis(260, 1, random).T
    W_f = W_b + 0.05 * random.standard_normal((300, 260)) / 16
    found = measured(W_b, W_f, k, stored=torch.float64)
    assert not differing(figures(found), by_definition(W_b, W_f, k), 1e-6)


def test_intruders_do_not_depend_on_how_equal_values_are_turned(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One vector of the base and one of nowhere, at equal values, or across the ten that count."""
    random = np.random.default_rng(0)
    U, V = reference.basis(60, 48, random), reference.basis(36, 36, random)
    base = (U[:, :36] * np.linspace(2, 1, 36)) @ V.T
    kept = U[:, :36].copy()
    kept[:, [1, 2, 9, 10]] = U[:, 36:40]
    for S in (
        np.r_[4, 4, 3.5, np.linspace(3, 1, 33)],
        np.r_[np.linspace(4, 3, 9), 2.5, 2.5, np.linspace(2, 1, 25)],
        np.full(36, 2.0),
    ):
        finetuned = (kept * S) @ V.T
        before = measured(base, finetuned, 36, stored=torch.float64).intruders
        with monkeypatch.context() as patch:
            for seed in range(5):
                with_every_decomposition(
                    patch, turns_among_equals(torch.Generator().manual_seed(seed))
                )
                assert measured(base, finetuned, 36, stored=torch.float64).intruders == before


# --- intruders ---------------------------------------------------------------------------------


@pytest.mark.parametrize("k", [0, 4, 10, 20])
@pytest.mark.parametrize("count", [0, 1, 3])
def test_intruders_are_leading_vectors_of_nowhere(count: int, k: int) -> None:
    """Outside of the column space, or spread over many vectors beyond the k-th."""
    random = np.random.default_rng(0)
    U, V = reference.basis(80, 60, random), reference.basis(40, 40, random)
    S = np.linspace(2, 1, 40)
    tail = U[:, 24:40] @ reference.basis(16, 16, random)[:, :count]
    spread = (tail + 2 * U[:, 40 : 40 + count]) / math.sqrt(5)
    W_b = (U[:, :40] * S) @ V.T
    W_f = W_b + 5 * spread @ V[:, 40 - count :].T
    cosines = abs(U[:, :40].T @ reference.svd(W_f)[0][:, :10])
    assert (cosines.max(0) < 0.5).sum() == count
    assert measured(W_b, W_f, k).intruders == count


@POLICIES
@pytest.mark.parametrize("k", [0, 1, 3, 6, 36])
def test_intruders_are_counted_among_ten_whatever_k_is(k: int, precision: Precision) -> None:
    """The fifth, eighth and tenth vector, and the eleventh, which does not count."""
    random = np.random.default_rng(0)
    U, V = reference.basis(60, 40, random), reference.basis(36, 36, random)
    S, kept = np.linspace(2, 1, 36), U[:, :36].copy()
    kept[:, [4, 7, 9, 10]] = U[:, 36:]
    assert measured((U[:, :36] * S) @ V.T, (kept * S) @ V.T, k, precision).intruders == 3


def test_a_vector_that_moved_up_from_beyond_the_cut_is_no_intruder() -> None:
    W_b, _ = planted((60, 36), np.linspace(2, 1, 36), [], [])
    U, S, Vh = reference.svd(W_b)
    S[30] = 5.0
    assert measured(W_b, (U * S) @ Vh, 8).intruders == 0


def test_directions_that_a_deficient_base_lacks_are_intruders_however_its_zeros_are_completed() -> (
    None
):
    random = np.random.default_rng(0)
    U, V = reference.basis(40, 12, random), reference.basis(40, 12, random)
    W_b = (U[:, :8] * np.linspace(2, 1, 8)) @ V[:, :8].T
    for turned_by in np.linalg.qr(random.standard_normal((5, 4, 4)))[0]:
        W_f = W_b + 3 * (U[:, 8:] @ turned_by) @ V[:, 8:].T
        assert measured(W_b, W_f, 8).intruders == 4


# --- edges -------------------------------------------------------------------------------------


@POLICIES
@SHAPES
def test_a_matrix_against_itself_is_at_rest(shape: tuple[int, int], precision: Precision) -> None:
    W, _ = pair(shape)
    found = measured(W, W, 8, precision)
    floor = 1e-14 if precision is EXACT else 1e-6
    assert found.left.largest <= floor and found.right.largest <= floor
    assert found.left.alignment == pytest.approx(1, abs=floor)
    assert found.value_change == 0 and found.change.relative == 0 and found.change.cosine == 1
    assert found.change.stable_rank == found.change.effective_rank == found.change.norm == 0
    assert found.change.outside == 1 and set(found.change.values) == {0.0}
    assert found.intruders == 0 and not found.is_chance


@POLICIES
@SHAPES
def test_twice_a_matrix_has_other_values_and_no_turn(
    shape: tuple[int, int], precision: Precision
) -> None:
    W, _ = pair(shape)
    found = measured(W, 2 * W, 8, precision)
    floor = 1e-14 if precision is EXACT else 1e-6
    assert found.left.largest <= floor and found.right.largest <= floor
    assert set(found.value_changes) == {1.0} and found.value_change == 1
    S = reference.svd(W)[1]
    assert found.change.relative == pytest.approx(1)
    assert found.change.rotation <= floor
    assert found.change.diagonal == pytest.approx((S[:8] ** 2).sum() / (S**2).sum())


@SHAPES
def test_triplets_that_change_places_turn_nothing(shape: tuple[int, int]) -> None:
    U, S, Vh = reference.svd(planted(shape, np.linspace(4, 1, 36), [], [])[0])
    S, Vh = S[:36], Vh[:36]
    swapped = S.copy()
    swapped[[0, 1]] = S[[1, 0]]
    found = measured((U[:, :36] * S) @ Vh, (U[:, :36] * swapped) @ Vh, 8, stored=torch.float64)
    assert found.left.largest < 1e-12 and found.right.largest < 1e-12
    assert found.left.alignment == pytest.approx(1) and found.right.alignment == pytest.approx(1)
    assert found.value_change < 1e-12
    assert found.change.diagonal == pytest.approx(1) and found.change.rotation < 1e-12
    assert found.change.stable_rank == pytest.approx(2)
    assert found.change.effective_rank == pytest.approx(2)


@POLICIES
@pytest.mark.parametrize("k", [0, 8, 36])
def test_zeros_have_no_vectors_to_compare(precision: Precision, k: int) -> None:
    W, zeros = pair((60, 36))[0], np.zeros((60, 36))
    for base, finetuned, relative in ((zeros, W, math.inf), (W, zeros, 1.0), (zeros, zeros, 0.0)):
        found = measured(base, finetuned, k, precision)
        assert found.k == 0 and found.left.angles == found.right.angles == ()
        assert (
            found.left.mean == found.left.largest == found.left.chordal == found.value_change == 0
        )
        assert found.base_gap is None and found.finetuned_gap is None and found.intruders is None
        assert found.change.relative == pytest.approx(relative)
        assert (found.change.inside, found.change.outside) == (0, 1)


@POLICIES
def test_vectors_of_zero_values_are_left_out(precision: Precision) -> None:
    random = np.random.default_rng(0)
    W_b = reference.with_values(np.linspace(2, 1, 12), 50, 40, random)
    W_f = reference.perturbed(W_b, 0.01, random)
    found = measured(W_b, W_f, 20, precision)
    assert found.k == 12 == len(found.left.angles) == len(found.base_values)
    assert found.base_gap == pytest.approx(1, abs=1e-5)
    expected = sines(np.linalg.svd(W_b)[0], np.linalg.svd(W_f)[0], 12)
    assert np.sin(found.left.angles) == pytest.approx(expected, abs=2e-5)


@POLICIES
@pytest.mark.parametrize("shape", [(1, 40), (40, 1), (1, 1)], ids=str)
def test_a_row_a_column_and_a_number_are_matrices(
    shape: tuple[int, int], precision: Precision
) -> None:
    W_b, W_f = pair(shape, 0.1)
    found = measured(W_b, W_f, 1, precision)
    angle = math.acos(min(1, abs((W_b * W_f).sum()) / np.linalg.norm(W_b) / np.linalg.norm(W_f)))
    for turn, d in ((found.left, shape[0]), (found.right, shape[1])):
        assert turn.d == d
        assert turn.largest == pytest.approx(angle if d > 1 else 0, rel=1e-4, abs=1e-6)
    assert found.value_change == pytest.approx(
        abs(np.linalg.norm(W_f) / np.linalg.norm(W_b) - 1), rel=1e-4
    )
    assert found.change.stable_rank == pytest.approx(1)
    assert found.intruders == 0 and not found.is_chance
    assert measured(W_b, W_f, 0, precision).k == 0


@POLICIES
@pytest.mark.parametrize("shape", [(50, 40), (300, 260)], ids=str)
@pytest.mark.parametrize("scale", [2.0**100, 2.0**-100, 2.0**-113])
def test_the_scale_of_weights_changes_nothing(
    shape: tuple[int, int], scale: float, precision: Precision
) -> None:
    """1e30 and 1e-30: squares of them are beyond the range of float32. A tenth of 1e-34 is a
    subnormal number there, and comes rounded."""
    W_b, W_f = pair(shape)
    k = min(shape) // 5
    expected, found = (
        figures(measured(W_b * size, W_f * size, k, precision)) for size in (1.0, scale)
    )
    for name in ("base values", "finetuned values"):
        found[name] = np.array(found[name]) / scale
    bound = 1e-6 if precision is EXACT else 2e-5
    assert not differing(found, expected, bound)


def test_all_and_none_of_the_triplets() -> None:
    W_b, W_f = pair((48, 48), 0.1)
    whole = measured(W_b, W_f, 48)
    assert whole.base_gap is None and whole.finetuned_gap is None
    assert whole.left.largest < 1e-7 and whole.right.largest < 1e-7
    assert whole.change.inside == pytest.approx(1) and whole.change.outside >= 0
    nothing = measured(W_b, W_f, 0)
    assert nothing.k == 0 and nothing.intruders == 0 and nothing.change.picture == ()
    assert nothing.change.outside == 1 and not nothing.is_chance
    assert nothing.change.relative == whole.change.relative


# --- repeated, together, and gone --------------------------------------------------------------


def others() -> list[Array]:
    """Of one base: little changed, of low rank, with vectors of nowhere, unrelated."""
    W, noise = pair((60, 36))
    U, S, Vh = reference.svd(W)
    low = (U[:, :5] * S[:5]) @ Vh[:5]
    nowhere = np.linalg.svd(W)[0][:, 36:39]
    return [nowhere @ Vh[:3] * 4 + W, noise, low, independent((60, 36))[0]]


@POLICIES
@pytest.mark.parametrize("k", [3, 8, 36])
def test_measures_are_the_same_alone_together_and_again(k: int, precision: Precision) -> None:
    W_b, _ = pair((60, 36))
    alone = [measured(W_b, W_f, k, precision) for W_f in others()]
    base, finetuned = matrix(W_b, precision), [matrix(W_f, precision) for W_f in others()]
    assert measure(base, finetuned, k) == alone
    assert measure(base, finetuned, k) == alone
    assert measure(base, finetuned[::-1], k) == alone[::-1]


def test_no_others_give_no_measures() -> None:
    assert measure(matrix(np.eye(3)), [], 2) == []


def test_however_many_have_intruders_the_base_is_decomposed_whole_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[tuple[str, int]] = []
    top: Top = DenseMatrix.top

    def counted(self: DenseMatrix, k: int) -> Factors:
        asked.append((self.name, k))
        return top(self, k)

    monkeypatch.setattr(DenseMatrix, "top", counted)
    base = DenseMatrix("base", torch.tensor(pair((60, 36))[0]), EXACT)
    found = measure(base, [matrix(others()[0]) for _ in range(3)], 8)
    assert [each.intruders for each in found] == [3, 3, 3]
    assert [k for name, k in asked if name == "base"] == [8, 10, 36]


@POLICIES
def test_each_two_of_several_are_as_far_apart_as_a_dense_computation_says(
    precision: Precision,
) -> None:
    W_b, both = pair((60, 36))[0], others()[:2]
    base = matrix(W_b, precision)
    measures, distances = measure_all(
        base, [matrix(W, precision) for W in both] + [base], 8, between=True
    )
    assert measures == [measured(W_b, W, 8, precision) for W in both]
    every = [W_b, *(torch.tensor(W).float().double().numpy() for W in both), W_b]
    expected = []
    for i, j in itertools.combinations(range(4), 2):
        (P, _, Ph), (Q, _, Qh) = (np.linalg.svd(every[x]) for x in (i, j))
        left, right = (np.sqrt((sines(A, B, 8) ** 2).mean()) for A, B in ((P, Q), (Ph.T, Qh.T)))
        expected.append(Distances(i, j, left, right, float(np.linalg.norm(every[i] - every[j]))))
    assert [(each.first, each.second) for each in distances] == [
        (each.first, each.second) for each in expected
    ]
    bound = 1e-7 if precision is EXACT else 1e-5
    for one, other in zip(distances, expected):
        for name in ("left", "right", "norm"):
            assert getattr(one, name) == pytest.approx(getattr(other, name), rel=bound, abs=bound)


@POLICIES
@pytest.mark.parametrize("shape", [(30, 20), (300, 260)], ids=str)
def test_matrices_are_freed_without_the_garbage_collector(
    shape: tuple[int, int], precision: Precision
) -> None:
    gc.collect()
    gc.disable()
    try:
        base, finetuned = (matrix(W, precision) for W in pair(shape))
        found = measure(base, [finetuned], 5)
        alive = [weakref.ref(each) for each in (base, finetuned)]
        del base, finetuned
        assert [ref() for ref in alive] == [None, None]
        assert found[0].k == 5
    finally:
        gc.enable()


def test_measuring_leaves_the_stored_values_alone() -> None:
    W_b, W_f = (torch.tensor(W).float() for W in pair((60, 36)))
    before = W_b.clone(), W_f.clone()
    measure(DenseMatrix("b", W_b, EXACT), [DenseMatrix("f", W_f, EXACT)], 8)
    assert torch.equal(W_b, before[0]) and torch.equal(W_f, before[1])


def test_what_chance_is_goes_by_the_side() -> None:
    found = measured(*pair((60, 36)), 8)
    assert found.left.chance == RandomSubspaces(60, 8)
    assert found.right.chance == RandomSubspaces(36, 8)
    assert (found.change.chance.m, found.change.chance.n) == (60, 36)


# --- a change without structure ------------------------------------------------------------------

SCALES = [(0.0, 0.0), (1.0, 0.0), (0.0, 1.0), (1.0, 1.0)]  # of rows and columns, as log deviations


@pytest.mark.parametrize("k", [1, 6, 25])
@pytest.mark.parametrize("scales", SCALES, ids=str)
def test_random_signs_are_no_finding_whatever_the_sizes_of_rows_and_columns(
    scales: tuple[float, float], k: int
) -> None:
    random = np.random.default_rng(k)
    rows, columns = (
        np.exp(scale * random.standard_normal(size)) for scale, size in zip(scales, (60, 50))
    )
    W = rows[:, None] * random.standard_normal((60, 50)) * columns
    sizes = 1e-3 * rows[:, None] * random.random((60, 50)) * columns
    changes = [
        measured(W, W + sizes * random.choice([-1, 1], (60, 50)), k).change for _ in range(60)
    ]
    shares = np.array([change.inside for change in changes])
    expected = np.mean([change.structureless for change in changes])
    assert abs(shares.mean() - expected) <= 5 * shares.std() / math.sqrt(len(shares)) + 1e-3
    for part in ("inside", "diagonal", "rotation"):
        for change in changes:
            low, high = change.band(part, k)
            assert low <= getattr(change, part) <= high, part


def test_rounding_to_bfloat16_is_no_finding() -> None:
    """The null of equal entries (k²/mn = 0.04) took it for a change of the leading block."""
    random = np.random.default_rng(0)
    rows = np.exp(random.standard_normal(300))
    W = torch.from_numpy(rows[:, None] * random.standard_normal((300, 200))).float()
    found = measured(W.numpy(), W.bfloat16().float().numpy(), 40).change
    low, high = found.band("inside", 40)
    assert low <= found.inside <= high and found.inside > 2 * 40 * 40 / (300 * 200)


def test_a_change_of_the_leading_block_is_one() -> None:
    random = np.random.default_rng(1)
    W = random.standard_normal((60, 50))
    U, _, Vh = np.linalg.svd(W, full_matrices=False)
    D = U[:, :6] @ random.standard_normal((6, 6)) @ Vh[:6]
    found = measured(W, W + 0.01 * D, 6).change
    assert found.inside == pytest.approx(1, abs=1e-6) and found.inside > found.band("inside", 6)[1]


def test_a_turn_among_equal_values_is_a_rotation_and_no_change_of_values() -> None:
    random = np.random.default_rng(2)
    U, V = (np.linalg.qr(random.standard_normal((size, 6)))[0] for size in (40, 30))
    S = np.array([3.0, 3.0, 2.0, 1.5, 1.0, 0.5])
    turned = U.copy()
    turned[:, 0] = math.cos(0.1) * U[:, 0] + math.sin(0.1) * U[:, 1]
    turned[:, 1] = math.cos(0.1) * U[:, 1] - math.sin(0.1) * U[:, 0]
    change = measured((U * S) @ V.T, (turned * S) @ V.T, 4, stored=torch.float64).change
    assert change.diagonal == pytest.approx(math.sin(0.05) ** 2, abs=1e-6)  # cos θ − 1 of each
    assert change.inside == pytest.approx(1, abs=1e-6)
