"""Merges in singular subspaces: planted subspaces whose merge is known."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from uvmerge.checkpoint.anatomy import Place
from uvmerge.operations import operations
from uvmerge.spectral import singular
from uvmerge.spectral.matrix import DenseOperand
from uvmerge.spectral.precision import EXACT

SHAPES = [(12, 12), (20, 12), (12, 20), (1, 9), (9, 1)]
Deltas = list[Tensor]


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def orthonormal(m: int, k: int, seed: int) -> Tensor:
    return torch.linalg.qr(noise(m, k, seed=seed)).Q


def apart(shape: tuple[int, int], count: int, k: int, overlap: bool = False) -> Deltas:
    """`count` matrices of rank k with values 2k to k + 1, on orthogonal subspaces unless they overlap."""
    U, V = (orthonormal(side, count * k, seed) for seed, side in enumerate(shape, 1))
    S = torch.arange(2 * k, k, -1, dtype=torch.float64)
    spans = [slice(0, k) if overlap else slice(i * k, i * k + k) for i in range(count)]
    return [U[:, span] * S @ V[:, span].mT for span in spans]


def close(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)


def total(deltas: Sequence[Tensor]) -> Tensor:
    return torch.stack(list(deltas)).sum(0)


def mean(deltas: Sequence[Tensor]) -> Tensor:
    return torch.stack(list(deltas)).mean(0)


MERGES: dict[str, Callable[[Deltas], Tensor]] = {
    "tsv": singular.tsv,
    "iso-c": lambda deltas: singular.isotropic(total(deltas)),
    "iso-cts": lambda deltas: singular.isotropic_with_tasks(deltas, 0.8),
    "knots": lambda deltas: singular.in_common_basis(deltas, mean),
    "boosting": lambda deltas: singular.boosted(total(deltas), 0.5),
    "svc": lambda deltas: singular.calibrated(total(deltas), deltas, 1.0),
}
every = pytest.mark.parametrize("merge", MERGES.values(), ids=MERGES)


@every
@pytest.mark.parametrize("shape", SHAPES)
def test_any_shape_gives_a_finite_matrix_and_leaves_its_inputs(
    merge: Callable[[Deltas], Tensor], shape: tuple[int, int]
) -> None:
    deltas = [noise(*shape, seed=i) for i in range(3)]
    before = [delta.clone() for delta in deltas]
    found = merge(deltas)
    assert found.shape == shape and bool(found.isfinite().all())
    assert torch.equal(found, merge(deltas))
    assert all(map(torch.equal, deltas, before))


@every
@pytest.mark.parametrize("shape", SHAPES)
def test_no_difference_merges_to_no_difference(
    merge: Callable[[Deltas], Tensor], shape: tuple[int, int]
) -> None:
    assert not merge([torch.zeros(shape, dtype=torch.float64)] * 2).any()


@every
@pytest.mark.parametrize("shape", SHAPES[:3])
def test_a_transposed_or_rotated_problem_has_the_transposed_or_rotated_result(
    merge: Callable[[Deltas], Tensor], shape: tuple[int, int]
) -> None:
    """No entry of a matrix is special, so none of the merges depends on the basis of its rows; KnOTS,
    Iso-CTS and SVC treat rows and columns differently, and are left out of the first half."""
    deltas = [noise(*shape, seed=i) for i in range(2)]
    if merge in (MERGES["tsv"], MERGES["iso-c"], MERGES["boosting"]):
        close(merge([delta.mT.contiguous() for delta in deltas]).mT, merge(deltas))
    Q, R = orthonormal(shape[0], shape[0], 7), orthonormal(shape[1], shape[1], 8)
    close(merge([Q @ delta @ R for delta in deltas]), Q @ merge(deltas) @ R)


@every
def test_the_order_of_the_models_is_of_no_account(merge: Callable[[Deltas], Tensor]) -> None:
    deltas = [noise(15, 10, seed=i) for i in range(3)]
    close(merge(deltas[::-1]), merge(deltas))


@every
def test_what_is_negligible_does_not_show(merge: Callable[[Deltas], Tensor]) -> None:
    deltas = apart((16, 12), 2, 3)
    dust = [delta + 1e-13 * noise(16, 12, seed=9 + i) for i, delta in enumerate(deltas)]
    torch.testing.assert_close(merge(dust), merge(deltas), rtol=0, atol=1e-9)


# --- each of them ------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", SHAPES[:3])
def test_tsv_of_orthogonal_tasks_is_their_sum(shape: tuple[int, int]) -> None:
    deltas = apart(shape, 3, 4)
    close(singular.tsv(deltas), total(deltas))


def test_tsv_of_one_model_is_its_difference() -> None:
    close(singular.tsv([noise(9, 7)]), noise(9, 7))


def test_tsv_of_a_model_twice_is_its_leading_half() -> None:
    delta = noise(14, 10)
    close(singular.tsv([delta, delta]), _truncated(delta, 5))


def test_tsv_is_the_formula() -> None:
    deltas = [noise(14, 12, seed=i) for i in range(3)]
    parts = [torch.linalg.svd(delta, full_matrices=False) for delta in deltas]
    U = torch.cat([U[:, :4] for U, _, _ in parts], 1)
    S = torch.cat([S[:4] for _, S, _ in parts])
    V = torch.cat([Vh[:4] for _, _, Vh in parts]).mT
    nearest = [(P @ Qh) for P, _, Qh in (torch.linalg.svd(X, full_matrices=False) for X in (U, V))]
    close(singular.tsv(deltas), nearest[0] @ S.diag() @ nearest[1].mT)


@pytest.mark.parametrize("shape", SHAPES[:3])
def test_iso_c_has_equal_singular_values_the_mean_of_those_of_the_sum(
    shape: tuple[int, int],
) -> None:
    delta = noise(*shape)
    S = torch.linalg.svdvals(delta)
    found = singular.isotropic(delta)
    close(torch.linalg.svdvals(found), S.mean().expand(len(S)))
    close(
        found @ found.mT @ delta,
        S.mean() ** 2 * delta if shape[0] <= shape[1] else found @ found.mT @ delta,
    )
    assert float((found * delta).sum()) == pytest.approx(
        float(S.mean() * S.sum())
    )  # same directions


def test_iso_c_of_a_sum_of_low_rank_keeps_its_rank_and_the_sum_of_its_values() -> None:
    (delta,) = apart((16, 12), 1, 4)
    S = torch.linalg.svdvals(singular.isotropic(delta))
    close(S, torch.tensor([6.5] * 4 + [0.0] * 8, dtype=torch.float64))


def test_iso_cts_without_task_directions_is_iso_c() -> None:
    deltas = [noise(14, 10, seed=i) for i in range(2)]
    close(singular.isotropic_with_tasks(deltas, 1.0), singular.isotropic(total(deltas)))


@pytest.mark.parametrize(("common", "each"), [(0.8, 2), (0.5, 3), (0.0, 6)])
def test_iso_cts_is_the_formula(common: float, each: int) -> None:
    deltas = [noise(15, 12, seed=i) for i in range(2)]
    U, S, Vh = torch.linalg.svd(total(deltas), full_matrices=False)
    k = 12 - 2 * each
    left, values, right = [U[:, :k]], [S[:k]], [Vh[:k]]
    for delta in deltas:
        outside = delta - U[:, :k] @ U[:, :k].mT @ delta
        P, own, Qh = torch.linalg.svd(outside, full_matrices=False)
        left, values, right = [*left, P[:, :each]], [*values, own[:each]], [*right, Qh[:each]]
    A, B = (torch.linalg.svd(X) for X in (torch.cat(left, 1), torch.cat(right)))
    factors = [A.U[:, :12] @ A.Vh, B.U @ B.Vh[:12]]
    close(
        singular.isotropic_with_tasks(deltas, common),
        torch.cat(values).mean() * factors[0] @ factors[1],
    )


def test_knots_with_a_linear_merge_is_the_linear_merge() -> None:
    deltas = [noise(9, 14, seed=i) for i in range(3)]
    close(singular.in_common_basis(deltas, mean), mean(deltas))


def test_knots_hands_over_parts_whose_basis_gives_the_differences_back() -> None:
    deltas = apart((20, 12), 2, 3)
    seen: Deltas = []

    def second(parts: Sequence[Tensor]) -> Tensor:
        seen.extend(parts)
        return parts[1]

    close(singular.in_common_basis(deltas, second), deltas[1])
    assert [part.shape for part in seen] == [(6, 12)] * 2
    gram = total([part @ part.mT for part in seen])
    close(gram, gram.diagonal().diag())  # the rows of [S V₁ᵀ, S V₂ᵀ] are orthogonal
    assert gram.diagonal().tolist() == sorted(gram.diagonal().tolist(), reverse=True)


@pytest.mark.parametrize(("share", "head"), [(0.0, 1), (0.25, 2), (0.5, 3), (1.0, 6)])
def test_boosting_leaves_the_head_and_raises_the_rest(share: float, head: int) -> None:
    (delta,) = apart((16, 12), 1, 6)  # values 12, 11, 10, 9, 8, 7 of a sum of 57
    found = torch.linalg.svd(singular.boosted(delta, share))
    expected = [max(value, 13 - head) for value in (12, 11, 10, 9, 8, 7)]
    close(found.S, torch.tensor([*expected, *[0] * 6], dtype=torch.float64))
    close(_truncated(singular.boosted(delta, share), head - 1), _truncated(delta, head - 1))


def test_svc_leaves_tasks_that_share_nothing() -> None:
    deltas = apart((20, 16), 3, 4)
    close(singular.calibrated(total(deltas), deltas, 1.0), total(deltas))


def test_svc_counts_what_all_models_share_once() -> None:
    deltas = apart((20, 16), 3, 4, overlap=True)
    close(singular.calibrated(total(deltas), deltas, 1.0), deltas[0])


def test_svc_is_the_formula() -> None:
    deltas = [noise(10, 8, seed=i) + 0.5 * noise(10, 8, seed=5) for i in range(3)]
    U, S, Vh = torch.linalg.svd(total(deltas), full_matrices=False)
    for alpha in (1.0, 0.3):
        factors = []
        for u, value, v in zip(U.mT, S, Vh):
            overlaps = [float(value * v @ (u @ d)) / float((u @ d) @ (u @ d)) for d in deltas]
            factors.append(3 / sum(max(alpha, each) for each in overlaps))
        expected = U @ (S * torch.tensor(factors, dtype=S.dtype)).diag() @ Vh
        close(singular.calibrated(total(deltas), deltas, alpha), expected)


def _truncated(delta: Tensor, k: int) -> Tensor:
    U, S, Vh = torch.linalg.svd(delta, full_matrices=False)
    return U[:, :k] @ S[:k].diag() @ Vh[:k]


# --- the operations ------------------------------------------------------------------------------

INSIDE = Place(0, 2, "mlp", True)
OUTSIDE = {"norm": Place(0, 2, "other", False), "head": Place(None, 2, "other", True)}
NAMES = ("tsv", "iso-c", "iso-cts", "knots", "subspace-boosting", "svc")
names = pytest.mark.parametrize("name", NAMES)


def call(name: str, base: Tensor, *deltas: Tensor, place: Place = INSIDE, **options: Any) -> Tensor:
    """What an operation adds to the base."""
    operation = operations()[name]
    for parameter in operation.parameters:
        if parameter.per_model:
            given = options.get(parameter.name, parameter.default)
            options[parameter.name] = given if isinstance(given, tuple) else (given,) * len(deltas)
    inputs = [DenseOperand("w", values, EXACT) for values in (base, *(base + d for d in deltas))]
    found: Tensor = operation.function(*inputs, place=place, **options)
    return found - base


def added(name: str, *deltas: Tensor, **options: Any) -> Tensor:
    return call(name, torch.zeros_like(deltas[0]), *deltas, **options)


EXPECTED: dict[str, Callable[[Deltas], Tensor]] = {
    "tsv": singular.tsv,
    "iso-c": lambda deltas: singular.isotropic(total(deltas)),
    "iso-cts": lambda deltas: singular.isotropic_with_tasks(deltas, 0.8),
    "knots": lambda deltas: singular.in_common_basis(deltas, _ties),
    "subspace-boosting": lambda deltas: singular.boosted(total(deltas), 0.01),
    "svc": lambda deltas: singular.calibrated(total(deltas), deltas, 1.0),
}


def _ties(deltas: Sequence[Tensor]) -> Tensor:
    stack = torch.stack(list(deltas))
    agrees = (stack > 0) == (stack.sum(0) >= 0)
    return (stack * agrees).sum(0) / agrees.sum(0).clamp(min=1)


@names
def test_an_operation_adds_its_merge_to_the_base(name: str) -> None:
    deltas, base = [noise(9, 7, seed=i) for i in range(3)], noise(9, 7, seed=9)
    close(call(name, base, *deltas, scale=0.5), 0.5 * EXPECTED[name](deltas))


@names
def test_weights_weigh_the_differences(name: str) -> None:
    deltas = apart((20, 16), 2, 4)
    found = added(name, *deltas, weight=(0.5, 2.0))
    if name == "svc":  # an overlap of 2 of a model with itself is calibrated away
        close(found, 0.5 * deltas[0] + 2 / 1.5 * deltas[1])
    elif name == "knots":
        parts = singular.in_common_basis(
            deltas, lambda each: singular.merged("ties", each, (0.5, 2.0), (1, 1))
        )
        close(found, parts)
    else:
        close(found, EXPECTED[name]([0.5 * deltas[0], 2 * deltas[1]]))


@names
@pytest.mark.parametrize("kind", OUTSIDE)
def test_what_is_no_matrix_of_a_layer_is_merged_without_decompositions(
    name: str, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(singular, "leading", None)
    shape = (7,) if kind == "norm" else (9, 7)
    deltas = [noise(*shape, seed=i) for i in range(3)]
    expected = {"knots": _ties, "subspace-boosting": total, "svc": total}.get(name, mean)
    close(added(name, *deltas, place=OUTSIDE[kind]), expected(deltas))


@pytest.mark.parametrize("method", ["tsv", "iso-c"])
def test_svc_on_a_singular_merge_averages_what_is_no_matrix(method: str) -> None:
    deltas = [noise(7, seed=i) for i in range(3)]
    close(added("svc", *deltas, place=OUTSIDE["norm"], method=method), mean(deltas))


@pytest.mark.parametrize("method", ["task-arithmetic", "ties", "tsv", "iso-c"])
def test_svc_calibrates_what_another_method_merges(method: str) -> None:
    deltas = [noise(9, 7, seed=i) for i in range(2)]
    merges = {
        "task-arithmetic": total,
        "ties": _ties,
        "tsv": EXPECTED["tsv"],
        "iso-c": EXPECTED["iso-c"],
    }
    expected = singular.calibrated(merges[method](deltas), deltas, 0.5)
    close(added("svc", *deltas, method=method, alpha=0.5), expected)


def test_boosting_and_knots_take_the_density_of_ties() -> None:
    deltas = [noise(9, 7, seed=i) for i in range(2)]
    kept = singular.merged("ties", deltas, (1.0, 1.0), (0.4, 0.4))
    assert not torch.equal(kept, _ties(deltas))
    found = added("subspace-boosting", *deltas, method="ties", density=0.4, share=1.0)
    close(found, kept)
    linear = added("knots", *deltas, method="task-arithmetic", density=0.4)
    close(linear, total(deltas))
    assert not torch.allclose(added("knots", *deltas, density=0.4), added("knots", *deltas))


@names
def test_the_study_that_finds_only_task_arithmetic_reliable_is_named(name: str) -> None:
    assert "2511.21437" in (operations()[name].function.__doc__ or "")
