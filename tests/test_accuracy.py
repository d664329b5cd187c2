"""Results against float64 references, measured relative to the edit, and facts that must hold."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import reference
import torch
from reference import Array

from uvmerge import operations
from uvmerge.operations.denoise import gavish_donoho_factor, marchenko_pastur_median
from uvmerge.spectral import Factors
from uvmerge.spectral.matrix import DenseMatrix
from uvmerge.spectral.precision import EXACT, FAST, Precision, single_threaded

Pair = tuple[Array, Array]
Options = dict[str, Any]
DELTAS = [1e-1, 1e-2, 1e-3, 1e-4]
# Smallest edit, as a share of the matrix, for which the bound of a policy is meant.
SMALLEST = {EXACT: 1e-7, FAST: 1e-3}


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    with single_threaded():
        yield


def edit(
    name: str,
    W_b: Any,
    W_f: Any,
    precision: Precision = EXACT,
    stored: torch.dtype = torch.float64,
    **options: Any,
) -> Array:
    """What the operation makes of two arrays, in float64."""
    operands = [
        DenseMatrix(role, torch.as_tensor(np.array(W), dtype=stored), precision)
        for role, W in (("base", W_b), ("finetuned", W_f))
    ]
    result = operations.get(name).function(*operands, **options)
    tensor = result if isinstance(result, torch.Tensor) else result.tensor
    return np.asarray(tensor.double())


def ranks(r: int) -> list[int]:
    return sorted({1, max(r // 5, 1), max(r // 2, 1), max(r - 1, 1), r})


def attempts(W_b: Array, W_f: Array, k: int) -> Iterator[tuple[str, Options, Array]]:
    """Operations at rank k, with the results that their formulas give."""
    r = min(W_b.shape)
    for values in ("finetuned", "base"):
        expected = reference.restore(W_b, W_f, k, values=values)
        yield "restore", {"rank": k, "values": values}, expected
        expected = reference.restore(W_b, W_f, 0, k, values, alpha=0.5)
        yield "restore", {"tail": k / r, "values": values, "alpha": 0.5}, expected
    if 2 * k < r:
        both = {"top": k / r, "tail": k / r}
        yield "restore", both, reference.restore(W_b, W_f, k, k)
    for side in ("left", "right"):
        for align in ("procrustes", "match", "sign"):
            expected = reference.swap(W_b, W_f, k, side, align)
            yield "swap", {"rank": k, side: True, "align": align}, expected
        expected = reference.swap(W_b, W_f, k, side, alpha=0.25)
        yield "swap", {"rank": k, side: True, "alpha": 0.25}, expected
    for side in ("two", "left", "right"):
        yield "project", {"rank": k, "side": side}, reference.project(W_b, W_f, k, side)
    half = reference.project(W_b, W_f, k, alpha=0.5)
    yield "project", {"rank": k, "alpha": 0.5}, half
    for alpha in (1.0, 0.25):
        yield "values", {"rank": k, "alpha": alpha}, reference.values(W_b, W_f, k, alpha)
    yield "truncate", {"rank": k}, reference.truncate(W_b, W_f, k)
    yield "truncate", {"rank": k, "drop": True}, reference.truncate(W_b, W_f, k, drop=True)


def errors(
    W_b: Array, W_f: Array, cuts: list[int], precision: Precision, **edit_options: Any
) -> dict[str, float]:
    """Error relative to the edit of every attempt, by what was attempted."""
    return {
        f"{name} {options}": reference.error(
            edit(name, W_b, W_f, precision, **edit_options, **options),
            expected,
            W_f,
            SMALLEST[precision],
        )
        for k in cuts
        for name, options, expected in attempts(W_b, W_f, k)
    }


def assert_below(bound: float, found: dict[str, float]) -> None:
    above = {key: f"{value:.1e}" for key, value in found.items() if not value <= bound}
    assert not above, f"above {bound:g}: {above}"


# --- the bound of each policy ------------------------------------------------------------------


@pytest.mark.parametrize("delta", DELTAS)
@pytest.mark.parametrize("kind", ["tall", "wide", "square", "row", "column"])
def test_exact_is_within_a_millionth_of_the_edit(kind: str, delta: float) -> None:
    W_b, W_f = reference.pair(kind, delta)
    assert_below(1e-6, errors(W_b, W_f, ranks(min(W_b.shape)), EXACT))


@pytest.mark.parametrize("delta", DELTAS)
def test_exact_where_both_are_rank_deficient(delta: float) -> None:
    W_b, W_f = reference.pair("rank_deficient", delta)
    assert_below(1e-6, errors(W_b, W_f, [1, 6, reference.RANK], EXACT))
    for k in (reference.RANK + 1, min(W_b.shape)):  # zeros on both sides take part
        result = edit("restore", W_b, W_f, rank=k)
        assert reference.error(result, reference.restore(W_b, W_f, k), W_f) < 1e-6


@pytest.mark.parametrize("delta", DELTAS)
@pytest.mark.parametrize("shape", [(48, 48), (60, 36), (36, 60)])
def test_exact_where_values_span_eight_decades(shape: tuple[int, int], delta: float) -> None:
    random = np.random.default_rng(3)
    W_b = reference.with_values(np.logspace(0, -8, min(shape)), *shape, random)
    W_f = reference.perturbed(W_b, delta, random)
    assert_below(1e-6, errors(W_b, W_f, ranks(min(shape)), EXACT))


@pytest.mark.parametrize("angle", DELTAS)
def test_exact_where_singular_values_repeat(angle: float) -> None:
    """The blocks are the same in both, so that the result is unique at their ends."""
    S = np.repeat([5.0, 3.0, 2.0, 1.0, 0.5], [3, 5, 8, 1, 7])
    random = np.random.default_rng(5)
    U, V = reference.basis(40, 24, random), reference.basis(30, 24, random)
    turned = [np.linalg.qr(reference.perturbed(side, angle, random))[0] for side in (U, V)]
    W_b, W_f = (U * S) @ V.T, (turned[0] * S) @ turned[1].T
    for k in (3, 8, 16, 17, 24):
        found = {
            "values": reference.error(
                edit("restore", W_b, W_f, rank=k), reference.restore(W_b, W_f, k), W_f
            ),
            "triplets": reference.error(
                edit("restore", W_b, W_f, rank=k, values="base"),
                W_f - reference.best(W_f, k) + reference.best(W_b, k),
                W_f,
            ),
            "project": reference.error(
                edit("project", W_b, W_f, rank=k), reference.project(W_b, W_f, k), W_f
            ),
        }
        assert_below(1e-6, found)


@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_exact_at_the_ends_of_float32(scale: float) -> None:
    W_b, W_f = (np.float64(np.float32(W * scale)) for W in reference.pair("wide", 1e-3))
    assert_below(1e-6, errors(W_b, W_f, [7, 36], EXACT, stored=torch.float32))


@pytest.mark.parametrize("stored", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("kind", ["tall", "wide"])
def test_exact_on_16_bit_inputs(stored: torch.dtype, kind: str) -> None:
    W_b, W_f = (np.asarray(torch.tensor(W).to(stored).double()) for W in reference.pair(kind, 1e-2))
    assert_below(1e-6, errors(W_b, W_f, ranks(36), EXACT, stored=stored))


def test_exact_where_a_side_is_zero() -> None:
    W, _ = reference.pair("tall", 0.1)
    zero = np.zeros_like(W)
    assert not edit("restore", zero, zero, top=0.5).any()
    assert not edit("values", zero, W, top=1.0).round(12).any()
    assert np.array_equal(edit("restore", W, zero, top=0.5), zero)
    removed = edit("restore", zero, W, rank=9, values="base")
    np.testing.assert_allclose(removed, W - reference.best(W, 9), atol=1e-12)


@pytest.mark.parametrize("delta", DELTAS)
@pytest.mark.parametrize("kind", ["tall", "wide", "square"])
def test_fast_is_within_a_thousandth_of_an_edit_of_a_thousandth(kind: str, delta: float) -> None:
    """In float32 no result is nearer than 1e-7 or so of the matrix, however small the edit."""
    W_b, W_f = (np.float64(np.float32(W)) for W in reference.pair(kind, delta))
    assert_below(1e-3, errors(W_b, W_f, [1, 18, 36], FAST, stored=torch.float32))


@pytest.mark.parametrize("precision", [EXACT, FAST], ids=["exact", "fast"])
def test_denoise_and_damp_intruders(precision: Precision) -> None:
    bound = {"exact": 1e-6, "fast": 1e-3}[precision.name]
    for kind in ("tall", "wide", "square"):
        W_b, W_f = planted(kind)
        result = edit("denoise", W_b, W_f, precision)
        assert reference.error(result, reference.denoise(W_b, W_f), W_f) < bound
        for options in ({}, {"first": 3, "threshold": 0.7, "damping": 0.0}):
            expected = reference.damp_intruders(W_b, W_f, **options)
            assert np.linalg.norm(expected - W_f) > 0.1  # an intruder was there
            result = edit("damp_intruders", W_b, W_f, precision, **options)
            assert reference.error(result, expected, W_f) < bound


def planted(kind: str, rank: int = 3) -> Pair:
    """A pair whose difference is a strong change of low rank, and noise."""
    W_b, noisy = reference.pair(kind, 0.2)
    strong = reference.with_values([3.0, 2.0, 1.5][:rank], *W_b.shape, np.random.default_rng(11))
    return W_b, noisy + strong


@pytest.mark.parametrize("panel_bytes", [1, 1000, 16_000_000])
def test_accuracy_does_not_hang_on_the_panels(
    panel_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("uvmerge.spectral.recombine.PANEL_BYTES", panel_bytes)
    monkeypatch.setattr("uvmerge.spectral.recombine.PANEL_ROWS", panel_bytes // 100 + 1)
    for kind in ("tall", "wide"):
        W_b, W_f = reference.pair(kind, 1e-2)
        expected = reference.restore(W_b, W_f, 9)
        assert reference.error(edit("restore", W_b, W_f, rank=9), expected, W_f) < 1e-9


# --- facts of the specification ----------------------------------------------------------------

K = 8
SEEN = {  # remaining ‖W′ - W_b‖ / ‖Δ‖ after planting a pure change of 0.3 rad in the leading K
    "inside": {
        "restore base": 0, "restore finetuned": 0, "values": 1,
        "project two": 0, "project left": 0, "project right": 0,
    },
    "outside": {
        "restore base": 0, "restore finetuned": 0, "values": 1,
        "project two": 0.989, "project left": 0.989, "project right": 0,
    },
    "values": {
        "restore base": 0, "restore finetuned": 1, "values": 0,
        "project two": 0, "project left": 0, "project right": 0,
    },
}  # fmt: skip


def plant(change: str) -> Pair:
    """A base and the base with its leading K triplets changed: U turned, or values stretched."""
    random = np.random.default_rng(1)
    U, V = reference.basis(60, 32 + K, random), reference.basis(40, 32, random)
    S = np.linspace(3, 1, 32)
    inside, outside = U[:, :32], U[:, 32:]
    lead, changed = inside[:, :K], inside.copy()
    if change == "inside":
        cos, sin = np.cos(0.3), np.sin(0.3)
        changed[:, :K] = lead @ np.kron(np.eye(K // 2), [[cos, -sin], [sin, cos]])
    elif change == "outside":
        changed[:, :K] = lead * np.cos(0.3) + outside * np.sin(0.3)
    S_new = np.r_[S[:K] * (1.1 if change == "values" else 1), S[K:]]
    return (inside * S) @ V.T, (changed * S_new) @ V.T


@pytest.mark.parametrize("change", SEEN)
def test_what_each_edit_can_see(change: str) -> None:
    W_b, W_f = plant(change)
    size = np.linalg.norm(W_f - W_b)
    for words, share in SEEN[change].items():
        name, _, word = words.partition(" ")
        option = {"restore": {"values": word}, "project": {"side": word}}.get(name, {})
        left = np.linalg.norm(edit(name, W_b, W_f, rank=K, **option) - W_b) / size
        assert left == pytest.approx(share, abs=1e-2), words


def test_restore_is_not_monotone() -> None:
    """At a middling k the result can lie farther from the base than the fine-tuned matrix does."""
    random = np.random.default_rng(0)
    W_b = reference.with_values(np.linspace(2, 1, 48), 48, 48, random)
    W_f = reference.perturbed(W_b, 0.1, random)
    reached = [np.linalg.norm(edit("restore", W_b, W_f, rank=k) - W_b) for k in range(49)]
    assert reached[0] == pytest.approx(np.linalg.norm(W_f - W_b))
    assert max(reached[1:-1]) > 2 * reached[0] > 2 * reached[-1]


def test_singular_values_of_the_result_are_not_the_assigned_ones() -> None:
    W_b, W_f = reference.pair("square", 0.3)
    assigned = reference.svd(W_f)[1]
    found = reference.svd(edit("restore", W_b, W_f, rank=24))[1]
    assert abs(found - assigned).max() > 0.01 * assigned[0]


@pytest.mark.parametrize("kind", ["tall", "wide", "square", "row", "column"])
def test_restore_of_everything_is_the_base(kind: str) -> None:
    W_b, W_f = reference.pair(kind, 0.1)
    (U, S_b, Vh), S_f = reference.svd(W_b), reference.svd(W_f)[1]
    assert not np.allclose(S_b, S_f, rtol=1e-3)
    np.testing.assert_allclose(edit("restore", W_b, W_f, top=1.0), (U * S_f) @ Vh, atol=1e-12)
    overlapping = edit("restore", W_b, W_f, top=0.7, tail=0.7)
    np.testing.assert_allclose(overlapping, (U * S_f) @ Vh, atol=1e-12)
    assert np.array_equal(edit("restore", W_b, W_f, top=1.0, values="base"), W_b)
    assert np.array_equal(edit("restore", W_b, W_f, tail=1.0, values="base"), W_b)


def test_the_two_kinds_of_restore_differ_by_the_change_of_values() -> None:
    W_b, W_f = reference.pair("square", 0.1)
    change = abs(reference.svd(W_b)[1] - reference.svd(W_f)[1])
    for k in (1, 10, 48):
        one, other = (edit("restore", W_b, W_f, rank=k, values=v) for v in ("finetuned", "base"))
        assert np.linalg.norm(one - other, 2) == pytest.approx(change[:k].max(), rel=1e-9)


def test_both_sides_swapped_is_restore() -> None:
    W_b, W_f = reference.pair("wide", 0.1)
    both = edit("swap", W_b, W_f, left=True, right=True, top=0.3, alpha=0.7)
    assert np.array_equal(both, edit("restore", W_b, W_f, top=0.3, alpha=0.7))


class Flipped(DenseMatrix):
    """The same matrix with every other singular pair (u, v) negated."""

    def _flip(self, factors: Factors) -> Factors:
        signs = torch.ones_like(factors.S)
        signs[::2] = -1
        return replace(factors, U=factors.U * signs, Vh=factors.Vh * signs[:, None])

    def top(self, k: int) -> Factors:
        return self._flip(super().top(k))

    def tail(self, k: int) -> Factors:
        return self._flip(super().tail(k))


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("restore", {"top": 0.3}),
        ("restore", {"tail": 0.3, "values": "base"}),
        ("swap", {"left": True}),
        ("swap", {"right": True, "align": "match"}),
        ("swap", {"left": True, "align": "sign"}),
        ("project", {}),
        ("values", {}),
        ("damp-intruders", {}),
    ],
)
@pytest.mark.parametrize("side", ["base", "finetuned"])
def test_joint_sign_flips_cancel(name: str, options: Options, side: str) -> None:
    W_b, W_f = planted("tall")
    operands = [
        (Flipped if role == side else DenseMatrix)(role, torch.tensor(W), EXACT)
        for role, W in (("base", W_b), ("finetuned", W_f))
    ]
    result = operations.get(name).function(*operands, **options)
    expected = edit(name, W_b, W_f, **options)
    assert reference.error(expected, W_f, W_f) > 1  # it is an edit
    np.testing.assert_allclose(result.tensor, expected, atol=1e-13)


@pytest.mark.parametrize("side", ["two", "left", "right"])
@pytest.mark.parametrize("kind", ["tall", "wide", "square", "row", "rank_deficient"])
def test_project_is_idempotent_and_never_moves_away(kind: str, side: str) -> None:
    W_b, W_f = reference.pair(kind, 0.3)
    start = np.linalg.norm(W_f - W_b)
    for k in ranks(min(W_b.shape)):
        once = edit("project", W_b, W_f, rank=k, side=side)
        twice = edit("project", W_b, once, rank=k, side=side)
        assert np.linalg.norm(twice - once) < 1e-13 * np.linalg.norm(W_f)
        for alpha in (0.2, 0.7, 1.0):
            result = edit("project", W_b, W_f, rank=k, side=side, alpha=alpha)
            assert np.linalg.norm(result - W_b) <= start * (1 + 1e-13)


def test_project_of_the_whole_block_is_the_base() -> None:
    for kind, sides in {"square": ("two", "left", "right"), "tall": ("right",)}.items():
        W_b, W_f = reference.pair(kind, 0.3)
        for side in sides:
            np.testing.assert_allclose(
                edit("project", W_b, W_f, top=1.0, side=side), W_b, atol=1e-13
            )
    W_b, W_f = reference.pair("tall", 0.3)  # U_r does not span the longer side
    assert np.linalg.norm(edit("project", W_b, W_f, top=1.0, side="left") - W_b) > 0.1


def test_values_changes_values_alone() -> None:
    W_b, W_f = reference.pair("tall", 0.1)
    result = edit("values", W_b, W_f, top=1.0)
    np.testing.assert_allclose(reference.svd(result)[1], reference.svd(W_b)[1], atol=1e-13)
    U, _, Vh = reference.svd(W_f)
    core = U.T @ result @ Vh.T
    np.testing.assert_allclose(core, np.diag(core.diagonal()), atol=1e-13)


@pytest.mark.parametrize("beta", [0.001, 0.05, 0.25, 0.5, 0.75, 0.999, 1.0])
def test_marchenko_pastur_median(beta: float) -> None:
    assert marchenko_pastur_median(beta) == pytest.approx(
        reference.marchenko_pastur_median(beta), rel=1e-6
    )
    # The polynomial that Gavish and Donoho (2014) give as an approximation to 0.02.
    approximation = 0.56 * beta**3 - 0.95 * beta**2 + 1.82 * beta + 1.43
    assert gavish_donoho_factor(beta) == pytest.approx(approximation, abs=0.02)


def test_the_published_factor_of_a_square_matrix() -> None:
    assert gavish_donoho_factor(1.0) == pytest.approx(2.858, abs=5e-4)


@pytest.mark.parametrize("kind", ["tall", "wide", "square"])
def test_denoise_returns_to_the_base_where_the_change_is_noise(kind: str) -> None:
    W_b, W_f = reference.pair(kind, 0.2)
    assert np.array_equal(edit("denoise", W_b, W_f), W_b)


@pytest.mark.parametrize("kind", ["tall", "wide", "square"])
def test_denoise_keeps_what_stands_out(kind: str) -> None:
    W_b, W_f = planted(kind)
    kept = edit("denoise", W_b, W_f) - W_b
    np.testing.assert_allclose(kept, reference.best(W_f - W_b, 3), atol=1e-12)


@pytest.mark.parametrize("shape", [(48, 48), (47, 47), (60, 36), (35, 60)])
def test_denoise_cuts_at_its_multiple_of_the_median(shape: tuple[int, int]) -> None:
    random = np.random.default_rng(0)
    W_b = random.standard_normal(shape)
    for decades in (1, 2, 3):
        S = np.logspace(0, -decades, min(shape))
        W_f = W_b + reference.with_values(S, *shape, random)
        expected = reference.denoise(W_b, W_f)
        assert 1 < np.linalg.matrix_rank(expected - W_b, tol=1e-9) < 20
        np.testing.assert_allclose(edit("denoise", W_b, W_f), expected, atol=1e-12)


def test_denoise_keeps_all_of_a_change_of_low_rank() -> None:
    """Its median singular value is zero, or what rounding makes of zero."""
    W_b = reference.pair("square", 0.1)[0]
    low = reference.with_values([3.0, 2.0, 1.5], 48, 48, np.random.default_rng(2))
    np.testing.assert_allclose(edit("denoise", W_b, W_b + low), W_b + low, atol=1e-7)


def test_truncate_and_drop_are_complements() -> None:
    W_b, W_f = reference.pair("wide", 0.3)
    for k in ranks(36):
        kept = edit("truncate", W_b, W_f, rank=k)
        left = edit("truncate", W_b, W_f, rank=k, drop=True)
        np.testing.assert_allclose(kept + left, W_b + W_f, atol=1e-13)
        assert np.linalg.matrix_rank(kept - W_b, tol=1e-10) == k


def test_damp_intruders_touches_intruders_alone() -> None:
    W_b, W_f = planted("square", rank=1)
    before, after = reference.svd(W_f), reference.svd(edit("damp_intruders", W_b, W_f))
    changed = ~np.isclose(np.sort(before[1]), np.sort(after[1]), rtol=1e-9)
    assert before[1][0] == pytest.approx(after[1].max() / 0.75, rel=1e-9)
    assert changed.any()


def test_a_direction_of_the_base_is_no_intruder_however_far_it_rises() -> None:
    W_b = reference.pair("square", 0.1)[0]
    U, _, Vh = reference.svd(W_b)
    risen = W_b + 3 * np.outer(U[:, 30], Vh[30])
    assert np.array_equal(edit("damp_intruders", W_b, risen), risen)
    unmoved = reference.pair("square", 1e-2)
    assert np.array_equal(edit("damp_intruders", *unmoved), unmoved[1])
