"""The Gram matrix, the refined rung, and sums of terms: nothing depends on what else was asked."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import pytest
import reference
import torch
from torch import Tensor

import uvmerge
from uvmerge.spectral import Factors
from uvmerge.spectral.gram import _STRIPE, Eigenpairs, Refiner, gram
from uvmerge.spectral.matrix import DenseMatrix
from uvmerge.spectral.precision import EXACT, FAST, Precision, single_threaded
from uvmerge.spectral.recombine import BLOCK, rows_of

R = 260  # of the matrices here; blocks of the refined rung hold a fifth
SHAPES = [(300, R), (R, 300), (R, R)]
POWER_LAW = np.arange(1, R + 1) ** -0.7
CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    with single_threaded():
        yield


@pytest.fixture
def no_reduction(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a GPU, or without scipy: no matrix is reduced to tridiagonal form."""
    monkeypatch.setattr("uvmerge.spectral.reduction.functions", lambda: None)


refining = pytest.mark.usefixtures("no_reduction")


def with_values(S: object, m: int = 300, n: int = R) -> Tensor:
    return torch.tensor(reference.with_values(S, m, n, np.random.default_rng(0))).float()


def fast(stored: Tensor) -> DenseMatrix:
    return DenseMatrix("W", stored, FAST)


# --- the Gram matrix ---------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("r", [1, 2, _STRIPE - 1, _STRIPE, _STRIPE + 1, 2 * _STRIPE, 500])
def test_gram_is_the_transpose_times_the_matrix(r: int, dtype: torch.dtype) -> None:
    W = torch.randn(2 * r + 3, r, generator=torch.Generator().manual_seed(r), dtype=dtype)
    expected = W.double().mT @ W.double()
    bound = (1e-14 if dtype == torch.float64 else 1e-6) * float(expected.abs().max())
    for rows in (1, 7, r, len(W)) if r < 300 else (r,):
        G = gram(W.split(rows), r, CPU)
        assert G.dtype == torch.float64
        assert (G - G.mT).abs().max() <= bound
        assert (G - expected).abs().max() <= bound


@pytest.mark.parametrize("exponent", [0, 30, 60, 120, -30, -60, -120, -140])
def test_products_of_any_float32_are_in_range(exponent: int) -> None:
    """Of small whole numbers times a power of two, down to subnormal ones: nothing is rounded."""
    draw = torch.Generator().manual_seed(0)
    W = torch.randint(-3, 4, (40, 7), generator=draw).double()
    panels = (W * 2.0**exponent).float().split(16)
    assert torch.equal(gram(panels, 7, CPU), W.mT @ W * 4.0**exponent)


def test_panels_of_both_orientations_have_the_same_gram_matrix() -> None:
    W = with_values(POWER_LAW)
    for oriented in (W, W.mT.contiguous()):
        panels = fast(oriented).panels(torch.float64)
        G = gram(panels, R, CPU)
        torch.testing.assert_close(G, W.double().mT @ W.double(), rtol=0, atol=1e-13)


# --- the refined rung --------------------------------------------------------------------------


@refining
@pytest.mark.parametrize("shape", SHAPES)
def test_fast_refines_up_to_two_fifths_of_the_triplets(shape: tuple[int, int]) -> None:
    stored = with_values(POWER_LAW, *shape)
    methods = {}
    for k in (1, 52, 53, 104, 105, R):
        methods[k] = fast(stored).top(k).method
    refined = dict.fromkeys((1, 52, 53, 104), "refined")
    assert methods == {**refined, 105: "gram", R: "gram"}


@refining
def test_small_matrices_and_exact_are_not_refined() -> None:
    small = fast(with_values(POWER_LAW[:255], 300, 255))
    exact = DenseMatrix("W", with_values(POWER_LAW), EXACT)
    for operand in (small, exact):
        assert operand.top(20).method == "gram"


@refining
def test_a_refined_matrix_costs_no_large_float64_eigenproblem(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    real, seen = torch.linalg.eigh, []
    monkeypatch.setattr(torch.linalg, "eigh", lambda A: seen.append((A.dtype, len(A))) or real(A))
    operand = fast(with_values(POWER_LAW))
    for k in (52, 104, 7):
        operand.top(k)
    assert [entry for entry in seen if entry[0] == torch.float32] == [(torch.float32, R)]
    assert all(size < R // 3 for dtype, size in seen if dtype == torch.float64)


@pytest.mark.parametrize("S", [POWER_LAW, np.linspace(2, 1, R), np.logspace(0, -3, R)])
def test_refined_pairs_are_those_of_the_float32_gram_matrix(S: reference.Array) -> None:
    """To the residual of the policy, which a float32 eigenproblem does not reach."""
    G = gram(fast(with_values(S)).panels(torch.float32), R, CPU)
    refiner = Refiner(G.clone(), FAST)
    before = torch.zeros(R, 0, dtype=torch.float64)
    values = torch.linalg.eigvalsh(G).flip(0)
    for begin, end in ((0, 52), (52, 104)):
        pairs = refiner.block(begin, end, before, lambda dtype: G.clone())
        assert pairs is not None
        V, theta = pairs.vectors, pairs.values
        missed = torch.linalg.vector_norm(G @ V - V * theta, dim=0) / theta
        assert missed.max() <= FAST.residual * 1.01
        torch.testing.assert_close(theta, values[begin:end], rtol=1e-9, atol=0)
        assert pairs.following == pytest.approx(float(values[end]), rel=1e-5)
        before = torch.cat([before, V], dim=1)
        eye = torch.eye(end, dtype=torch.float64)
        torch.testing.assert_close(before.mT @ before, eye, rtol=0, atol=1e-13)
    start = refiner.start
    assert start is not None
    raw = start.vectors[:, :104].double()
    missed = torch.linalg.vector_norm(G @ raw - raw * values[:104], dim=0) / values[:104]
    assert missed.max() > 10 * FAST.residual


@refining
@pytest.mark.parametrize(
    ("what", "S", "refined", "given_up"),
    [
        ("flat", np.ones(R), [], [1, 52, 104]),
        ("a cut among equal values", np.repeat([4.0, 2.0, 1.0, 0.5], 65), [52], []),
        ("graded over eight decades", np.logspace(0, -8, R), [52], [53, 104]),
        ("of rank 30", np.r_[np.linspace(2, 1, 30), np.zeros(R - 30)], [], [10, 52, 104]),
        ("zero", np.zeros(R), [], [1, 52]),
    ],
)
def test_what_cannot_be_refined_goes_to_the_next_rung(
    what: str, S: reference.Array, refined: list[int], given_up: list[int]
) -> None:
    stored = with_values(S)
    for k in refined:
        assert fast(stored).top(k).method == "refined", (what, k)
    for k in given_up:
        U, _, Vh = found = fast(stored).top(k)
        assert found.method in ("gram", "svd"), (what, k)
        for Q in (U, Vh.mT):
            assert (Q.mT @ Q - torch.eye(k)).abs().max() < 1e-5, (what, k)


@refining
@pytest.mark.parametrize("shape", SHAPES)
def test_exact_refines_large_matrices_to_its_own_residual(shape: tuple[int, int]) -> None:
    stored = with_values(POWER_LAW, *shape).double()
    eager = DenseMatrix("W", stored, dataclasses.replace(EXACT, smallest_refined=R))
    U, S, Vh = found = eager.top(52)
    assert found.method == "refined"
    np.testing.assert_allclose((U * S) @ Vh, reference.best(np.asarray(stored), 52), atol=1e-10)
    assert max(float((Q.mT @ Q - torch.eye(52)).abs().max()) for Q in (U, Vh.mT)) < 1e-12


@refining
@pytest.mark.parametrize("scale", [1e-30, 1e-12, 1e12, 1e30])
def test_refining_knows_no_scale(scale: float) -> None:
    """What over- or underflows in float32 goes to the next rung; everything else is refined."""
    U, S, Vh = found = fast(with_values(POWER_LAW * scale)).top(52)
    assert found.method == ("refined" if 1e-20 < scale < 1e20 else "svd")
    np.testing.assert_allclose(S.double() / scale, POWER_LAW[:52], rtol=2e-6)
    assert all((Q.mT @ Q - torch.eye(52)).abs().max() < 1e-5 for Q in (U, Vh.mT))


@refining
def test_a_refiner_that_does_not_get_there_says_so() -> None:
    impossible = dataclasses.replace(FAST, residual=1e-30)
    operand = DenseMatrix("W", with_values(POWER_LAW), impossible)
    assert operand.top(10).method == "gram"


# --- the same bits, whatever was asked before --------------------------------------------------

EAGER = dataclasses.replace(EXACT, smallest_refined=R)  # exact, as it treats large matrices
REDUCING = dataclasses.replace(FAST, smallest_reduced=R)  # fast, as it treats large matrices
REDUCED = {  # policy, singular values, and the rungs that top(k) takes for the ks below
    "tridiagonal": (EXACT, POWER_LAW),
    "corrected": (REDUCING, POWER_LAW),
    "corrected, then tridiagonal, then svd": (REDUCING, np.logspace(0, -8, R)),
    "tridiagonal, then svd": (EXACT, np.logspace(0, -6, R)),
}
REFINED = {
    "gram": (EXACT, POWER_LAW),
    "refined": (FAST, POWER_LAW),
    "refined, exactly": (EAGER, POWER_LAW),
    "refined, then gram": (FAST, np.logspace(0, -8, R)),
    "gram, then svd": (EXACT, np.logspace(0, -6, R)),
}
KS = (0, 1, BLOCK - 1, BLOCK, BLOCK + 1, 51, 52, 53, 104, 105, 2 * BLOCK, R - 1, R)


def tops(operand: DenseMatrix, ks: Sequence[int]) -> dict[int, Factors]:
    return {k: operand.top(k) for k in ks}


def same(one: Iterable[Tensor], other: Iterable[Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("rungs", REDUCED)
@pytest.mark.parametrize("shape", [(300, R), (R, 300)])
def test_top_gives_the_same_bits_whatever_was_asked_before(
    rungs: str, shape: tuple[int, int]
) -> None:
    climb(rungs, *REDUCED[rungs], shape)


@refining
@pytest.mark.parametrize("rungs", REFINED)
@pytest.mark.parametrize("shape", [(300, R), (R, 300)])
def test_so_it_does_where_nothing_is_reduced(rungs: str, shape: tuple[int, int]) -> None:
    climb(rungs, *REFINED[rungs], shape)


def climb(rungs: str, precision: Precision, S: reference.Array, shape: tuple[int, int]) -> None:
    stored = with_values(S, *shape)
    alone = {k: DenseMatrix("W", stored, precision).top(k) for k in KS}
    shuffled = [int(k) for k in np.random.default_rng(1).permutation(KS)]
    for order in (KS, KS[::-1], shuffled):
        together = tops(DenseMatrix("W", stored, precision), order)
        assert [k for k in KS if not same(alone[k], together[k])] == [], order
        for one, other in ((alone[k], together[k]) for k in KS):
            assert (one.gap, one.method) == (other.gap, other.method)
    expected = {rung.strip() for rung in rungs.replace("then", "").split(",")} - {"exactly"}
    assert expected <= {found.method for found in alone.values()}


@pytest.mark.parametrize("precision", [EXACT, FAST], ids=["exact", "fast"])
def test_values_and_energy_asked_before_change_no_bit(precision: Precision) -> None:
    stored = with_values(POWER_LAW)
    alone = DenseMatrix("W", stored, precision).top(40)
    asked = DenseMatrix("W", stored, precision)
    asked.values(), asked.rank(energy=0.7), asked.tail(3)
    assert same(alone, asked.top(40))


@pytest.mark.parametrize("precision", [EXACT, FAST], ids=["exact", "fast"])
@pytest.mark.parametrize("options", [{"tail": 0.1}, {"values": "base"}, {"alpha": 0.5}], ids=str)
def test_restore_gives_the_same_bits_alone_and_in_a_sweep(
    options: dict[str, object], precision: Precision
) -> None:
    from uvmerge.operations import get

    restore = get("restore").function
    W_b = with_values(POWER_LAW)
    W_f = W_b + 1e-2 * torch.randn(W_b.shape, generator=torch.Generator().manual_seed(1)) / 20
    settings = [{"rank": k, **options} for k in (1, 40, BLOCK, 100, 104, 120, 150)]

    def operands() -> list[DenseMatrix]:
        return [DenseMatrix(role, W, precision) for role, W in (("b", W_b), ("f", W_f))]

    alone = [rows(restore(*operands(), **setting)) for setting in settings]
    base, finetuned = operands()
    for order in (settings, settings[::-1]):
        results = [restore(base, finetuned, **setting) for setting in order]
        together = all_rows(results)
        expected = alone if order is settings else alone[::-1]
        assert same(together, expected)


# --- several sums at once ----------------------------------------------------------------------


def panels_of(results: Sequence[DenseMatrix]) -> Iterator[list[Tensor]]:
    return rows_of([result.sum for result in results], results[0].precision.combine)


def all_rows(results: Sequence[DenseMatrix]) -> list[Tensor]:
    return [torch.cat(panels) for panels in zip(*panels_of(results), strict=True)]


def rows(result: DenseMatrix) -> Tensor:
    return all_rows([result])[0]


def term(k: int, seed: int) -> tuple[Tensor, Tensor]:
    make = torch.Generator().manual_seed(seed)
    draw = (torch.randn(shape, generator=make, dtype=torch.float64) for shape in ((50, k), (k, 40)))
    left, right = draw
    return left, right


LONG, OTHER = term(200, 1), term(200, 2)
SUMS = {
    "nothing": (),
    "one": (term(10, 3),),
    "another": (term(10, 4),),
    "long": (LONG,),
    "both": (LONG, OTHER),
    **{f"{k} of both": tuple((a[:, :k], b[:k]) for a, b in (LONG, OTHER)) for k in (64, 100, 120)},
    **{
        f"{k} of both, and {last}": (
            *((a[:, :k], b[:k]) for a, b in (LONG, OTHER)), term(last, 5), term(last, 6),
        )
        for k in (100, 120) for last in (10, 20)
    },
}  # fmt: skip


@pytest.mark.parametrize("panel_bytes", [1, 2000, 10**9])
@pytest.mark.parametrize("precision", [EXACT, FAST], ids=["exact", "fast"])
def test_each_sum_is_the_same_alone_and_among_others(
    precision: Precision, panel_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All pairs, all triples of those that share something, and all at once, in any order."""
    monkeypatch.setattr("uvmerge.spectral.recombine.PANEL_BYTES", panel_bytes)
    stored = torch.randn(50, 40, generator=torch.Generator().manual_seed(0)).bfloat16()
    W = DenseMatrix("W", stored, precision)
    results = {name: W.plus(*terms) for name, terms in SUMS.items()}
    alone = {name: rows(result) for name, result in results.items()}
    for name, terms in SUMS.items():
        expected = stored.double() + sum(a @ b for a, b in terms)
        bound = 1e-12 if precision is EXACT else 1e-3
        assert (alone[name].double() - expected).abs().max() < bound, name
    sharing = [name for name in SUMS if "of both" in name]
    groups = [*itertools.permutations(SUMS, 2), *itertools.permutations(sharing, 3)]
    if panel_bytes == 1:
        groups = groups[::7]
    for group in [*groups, tuple(SUMS), tuple(SUMS)[::-1], ("one", "one", "one")]:
        together = all_rows([results[name] for name in group])
        for name, found in zip(group, together, strict=True):
            assert torch.equal(found, alone[name]), (name, group)


def test_sums_on_different_matrices_do_not_mix() -> None:
    make = torch.Generator().manual_seed(0)
    one, other = (torch.randn(50, 40, generator=make) for _ in range(2))
    results = [
        DenseMatrix("W", W, EXACT).plus(*SUMS[name])
        for name in ("100 of both", "120 of both", "both") for W in (one, other)
    ]  # fmt: skip
    assert same(all_rows(results), [rows(result) for result in results])


def test_yielded_panels_are_the_callers_own() -> None:
    """Nothing that a caller does to a panel reaches another result, or the matrix."""
    stored = torch.randn(50, 40, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    kept = stored.clone()
    W = DenseMatrix("W", stored, EXACT)
    results = [W.plus(*SUMS[name]) for name in ("nothing", "100 of both", "120 of both", "both")]
    expected = [rows(result) for result in results]
    for panels in panels_of(results):
        for panel, whole in zip(panels, expected):
            assert torch.equal(panel, whole)
            panel.fill_(torch.nan)
    assert torch.equal(stored, kept)


@refining
def test_eigenpairs_of_what_does_not_converge_are_none(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: Tensor) -> None:
        raise torch.linalg.LinAlgError("did not converge")  # type: ignore[attr-defined]

    monkeypatch.setattr(torch.linalg, "eigh", fail)
    assert Eigenpairs.all_of(torch.eye(3)) is None
    assert fast(with_values(POWER_LAW)).top(20).method == "svd"
    monkeypatch.setattr(torch.linalg, "svd", lambda *_, **__: fail(torch.eye(1)))
    with pytest.raises(uvmerge.RunFailed):
        fast(with_values(POWER_LAW)).top(20)
