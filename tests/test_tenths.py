"""Turn by position in the spectrum: what a whole decomposition gives, from few vectors."""

from __future__ import annotations

import math
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from findings import base_matrix, compare, entry, moved, pair

from uvmerge.engine.factors import FactorFolder
from uvmerge.measure.compare import measure
from uvmerge.measure.null import edges_of
from uvmerge.report import as_data
from uvmerge.spectral.matrix import DenseMatrix
from uvmerge.spectral.precision import EXACT, FAST, Precision
from uvmerge.spectral.source import Shelf


def reference(base: torch.Tensor, other: torch.Tensor) -> tuple[list[float], list[float]]:
    """The angles of the tenths from all vectors of two float64 decompositions."""
    (U, _, Vh), (U2, _, Vh2) = (
        torch.linalg.svd(W.double(), full_matrices=False) for W in (base, other)
    )
    edges = edges_of(min(base.shape))

    def angle(P: torch.Tensor, Q: torch.Tensor) -> float:
        sines = torch.linalg.vector_norm(P - Q @ (Q.mT @ P)).square() / P.shape[1]
        return math.asin(min(1.0, float(sines) ** 0.5))

    left, right = (
        [angle(A[:, a:b], B[:, a:b]) for a, b in pairwise(edges)]
        for A, B in ((U, U2), (Vh.mT, Vh2.mT))
    )
    return left, right


@pytest.mark.parametrize("shape", [(40, 40), (96, 40), (40, 96), (10, 10)])
@pytest.mark.parametrize("scale", [1e-3, 1.0])
def test_of_small_matrices_every_vector_counts(shape: tuple[int, int], scale: float) -> None:
    generator = torch.Generator().manual_seed(1)
    W = base_matrix(*shape, generator)
    F = moved(W, scale, generator)
    (found,) = compare(W, [F], 4)
    left, right = reference(W, F)
    assert found.left.tenths == pytest.approx(left, rel=1e-6)
    assert found.right.tenths == pytest.approx(right, rel=1e-6)


@pytest.mark.parametrize("policy", [EXACT, FAST], ids=lambda policy: policy.name)
def test_of_large_matrices_few_vectors_tell_it_about_right(policy: Precision) -> None:
    """Under `fast`, float32 vectors before they are corrected, also for the smallest values."""
    generator = torch.Generator().manual_seed(2)
    W = torch.randn(1030, 1030, generator=generator)
    F = W + 0.01 * torch.randn(1030, 1030, generator=generator)
    (found,) = measure(DenseMatrix("b", W, policy), [DenseMatrix("f", F, policy)], 200)
    assert found.methods == ("corrected" if policy is FAST else "tridiagonal",)
    for turn, wanted in zip((found.left, found.right), reference(W, F)):
        ratios = [angle / want for angle, want in zip(turn.tenths, wanted) if angle is not None]
        assert len(ratios) == 10
        assert all(0.6 < ratio < 1.6 for ratio in ratios)
        assert 0.9 < sum(ratios) / 10 < 1.1


def test_independent_matrices_have_the_angles_of_chance() -> None:
    generator = torch.Generator().manual_seed(3)
    W, F = (base_matrix(120, 80, generator) for _ in range(2))
    (found,) = compare(W, [F], 16)
    for turn in (found.left, found.right):
        assert turn.tenths == pytest.approx(turn.chance_of_tenths, rel=0.08)
    assert found.left.chance_of_tenths == pytest.approx([math.asin(math.sqrt(1 - 8 / 120))] * 10)


def test_a_turn_of_the_smallest_values_alone_shows_in_the_last_tenth_alone() -> None:
    generator = torch.Generator().manual_seed(4)
    U, S, Vh = torch.linalg.svd(base_matrix(60, 60, generator))
    turned = U.clone()
    cosine, sine = math.cos(0.3), math.sin(0.3)
    turned[:, 54:] = cosine * U[:, 54:] + sine * U[:, 40:46]
    turned[:, 40:46] = cosine * U[:, 40:46] - sine * U[:, 54:]
    (found,) = compare((U * S) @ Vh, [(turned * S) @ Vh], 12)
    left = found.left.tenths
    assert left[9] == pytest.approx(0.3, abs=1e-6)
    assert max(left[i] or 0.0 for i in (0, 1, 2, 3, 4, 5, 8)) < 1e-6
    assert max(angle or 0.0 for angle in found.right.tenths) < 1e-6


def test_a_tenth_without_vectors_of_its_own_has_no_angle() -> None:
    generator = torch.Generator().manual_seed(5)
    U, S, Vh = torch.linalg.svd(base_matrix(40, 40, generator))
    equal = S.clone()
    equal[6:10] = S[8]  # across the edge of the second and the third tenth
    deficient = S.clone()
    deficient[38:] = 0
    for values, missing in ((equal, [1, 2]), (deficient, [9])):
        W = (U * values) @ Vh
        (found,) = compare(W, [W + 1e-3 * W.mT], 8)
        at = [i for i, angle in enumerate(found.left.tenths) if angle is None]
        assert set(missing) <= set(at)
    (found,) = compare(W[:9], [1.1 * W[:9]], 3)
    assert found.left.tenths == found.left.chance_of_tenths == ()


def test_kept_factors_give_the_same_angles_without_a_decomposition(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    generator = torch.Generator().manual_seed(6)
    W = torch.randn(1024, 1024, generator=generator)
    F = W + 0.01 * torch.randn(1024, 1024, generator=generator)
    memory = FactorFolder(tmp_path, "cpu")

    def angles(memory: FactorFolder | None) -> object:
        shelves = [None if memory is None else Shelf(memory, name) for name in "bf"]
        base, other = (
            DenseMatrix("x", values, EXACT, shelf=shelf) for values, shelf in zip((W, F), shelves)
        )
        (found,) = measure(base, [other], 204)
        return found.left.tenths, found.right.tenths

    first, second = angles(None), angles(memory)
    monkeypatch.setattr(torch.linalg, "eigh", None)
    monkeypatch.setattr("uvmerge.spectral.gram.Eigenpairs.all_of", None)
    assert angles(memory) == first == second


def test_the_data_holds_radians_and_what_chance_gives() -> None:
    generator = torch.Generator().manual_seed(7)
    W = base_matrix(40, 40, generator)
    (found,) = compare(W, [moved(W, 1.0, generator)], 8)
    data = as_data(pair(entry(found)))["checkpoints"][0]["matrices"][0]
    assert data["left"]["tenths"] == pytest.approx(found.left.tenths, rel=1e-5)
    assert data["right"]["tenths_chance"] == pytest.approx(
        [math.asin(math.sqrt(0.9))] * 10, rel=1e-5
    )


def test_residual_and_diagonal_are_what_their_definitions_say() -> None:
    generator = torch.Generator().manual_seed(8)
    W = base_matrix(50, 30, generator)
    F = moved(W, 1.0, generator)
    (found,) = compare(W, [F], 6)
    U, _, Vh = (part.double() for part in torch.linalg.svd(W, full_matrices=False))
    U, Vh = U[:, :6], Vh[:6]
    for matrix, got in ((F, found.change.residual), (W, found.change.base_residual)):
        outside = matrix - U @ (U.mT @ matrix @ Vh.mT) @ Vh
        assert got == pytest.approx(float(outside.norm() / matrix.norm()), rel=1e-9)
    diagonal = (U.mT @ (F - W) @ Vh.mT).diagonal().abs().tolist()
    assert found.change.diagonal_entries == pytest.approx(diagonal, rel=1e-6)
    assert sum(x * x for x in diagonal) / found.change.norm**2 == pytest.approx(
        found.change.diagonal
    )
    (twice,) = compare(2.0**600 * W, [2.0**600 * F], 6)
    assert twice.change.residual == pytest.approx(found.change.residual)
    assert twice.change.diagonal_entries == pytest.approx([x * 2.0**600 for x in diagonal])
