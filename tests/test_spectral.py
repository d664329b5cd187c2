"""Rank, factors, the ladder of decompositions, alignment, and what happens when one of them fails."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import reference
import torch
import zoo
from torch import Tensor
from torch.linalg import LinAlgError  # type: ignore[attr-defined]

import uvmerge
from uvmerge.engine import compute, reading
from uvmerge.spectral import Log, leading_count
from uvmerge.spectral.align import align_block
from uvmerge.spectral.matrix import DenseMatrix
from uvmerge.spectral.precision import EXACT, FAST, single_threaded
from uvmerge.spectral.recombine import rows_of

REAL_SVD, REAL_EIGH = torch.linalg.svd, torch.linalg.eigh


def matrix(W: Any, name: str = "W") -> DenseMatrix:
    return DenseMatrix(name, torch.tensor(np.asarray(W, dtype=np.float64)), EXACT)


def noted(W: Any) -> tuple[DenseMatrix, Log]:
    """A matrix, and the log of what is asked of it."""
    log = Log()
    stored = torch.tensor(np.asarray(W, dtype=np.float64))
    return DenseMatrix("W", stored, EXACT, log=log, operand="base"), log


def spread(decades: float, m: int = 40, n: int = 30) -> reference.Array:
    """Singular values from 1 down to 10**-decades."""
    return reference.with_values(
        np.logspace(0, -decades, min(m, n)), m, n, np.random.default_rng(0)
    )


def crooked(Q: Tensor) -> float:
    """How far columns are from orthonormal."""
    return float((Q.mT @ Q - torch.eye(Q.shape[1], dtype=Q.dtype)).abs().max())


# --- k -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("r", "top", "k"),
    [
        (1024, 0.2, 205),
        (10, 0.25, 3),  # halves go up
        (10, 0.249, 2),
        (25, 0.1, 3),
        (100, 0.29, 29),  # 28.999999999999996 in floating point
        (100, 0.145, 15),  # 14.499999999999998
        (1, 0.5, 1),
        (1, 0.49, 0),
        (7, 0.0, 0),
        (7, 1.0, 7),
    ],
)
def test_top_is_the_nearest_count(r: int, top: float, k: int) -> None:
    assert leading_count(r, top=top) == k


def test_top_of_k_out_of_r_is_k() -> None:
    assert all(leading_count(r, top=k / r) == k for r in range(1, 150) for k in range(r + 1))


def test_rank_is_clamped_and_one_of_both_is_needed() -> None:
    assert [leading_count(512, rank=k) for k in (0, 511, 512, 768)] == [0, 511, 512, 512]
    with pytest.raises(ValueError, match="top or rank"):
        leading_count(8)


@pytest.mark.parametrize(
    ("energy", "k"), [(0, 0), (0.1, 1), (4 / 6, 1), (0.667, 2), (5 / 6, 2), (0.9, 3), (1, 3)]
)
def test_energy_is_the_smallest_k_that_holds_it(energy: float, k: int) -> None:
    """Squares 4, 1, 1, 0, 0."""
    W = reference.with_values([2, 1, 1, 0, 0], 9, 5, np.random.default_rng(0))
    for oriented in (W, W.T):
        assert matrix(oriented).rank(energy=energy) == k


@pytest.mark.parametrize("decades", [7, 8, 12])
@pytest.mark.parametrize("shape", [(40, 30), (30, 40)], ids=str)
def test_all_of_the_energy_is_in_the_small_values_too(shape: tuple[int, int], decades: int) -> None:
    """Squares of the last ones are 1e-24 of the first; a Gram matrix holds none under 1e-16."""
    W, log = noted(spread(decades, *shape))
    assert W.rank(energy=1) == 30
    assert [asked.method for asked in log.decompositions] == ["svd"]
    assert matrix(spread(decades, *shape)).rank(energy=1 - 1e-8) < 30


def test_values_that_float64_cannot_tell_from_zero_hold_no_energy() -> None:
    for smallest, k in ((1e-13, 5), (1e-17, 4)):
        W = reference.with_values([2, 1, 1, 1e-9, smallest], 9, 5, np.random.default_rng(0))
        assert matrix(W).rank(energy=1) == k


@pytest.mark.parametrize("energy", [0.3, 0.9, 0.999, 1 - 1e-6, 1 - 1e-8, 1 - 1e-12])
def test_energy_is_counted_from_the_smallest_value_on(energy: float) -> None:
    S = np.logspace(0, -7, 30)
    left = [math.fsum(S[k:] ** 2) / math.fsum(S**2) for k in range(31)]
    expected = next(k for k in range(31) if left[k] <= 1 - energy)
    assert matrix(spread(7)).rank(energy=energy) == expected


@pytest.mark.parametrize("scale", [1e-300, 1e-200, 1e-150, 1e150, 1e200, 1e300])
def test_factors_of_a_float64_matrix_know_no_scale(scale: float) -> None:
    """Squares of these values leave the range of float64."""
    W = spread(2)
    S, operand = reference.svd(W)[1], matrix(W * scale)
    assert [operand.rank(energy=share) for share in (0.5, 1)] == [
        matrix(W).rank(energy=share) for share in (0.5, 1)
    ]
    np.testing.assert_allclose(operand.values() / scale, S, rtol=1e-12)
    for call in ("top", "tail"):
        found, plain = getattr(operand, call)(5), getattr(matrix(W), call)(5)
        expected = (plain.U * plain.S) @ plain.Vh
        np.testing.assert_allclose((found.U * (found.S / scale)) @ found.Vh, expected, atol=1e-14)
        assert found.gap == pytest.approx(plain.gap) and found.method == plain.method
    terms = torch.tensor(W * scale), torch.eye(30, dtype=torch.float64)
    of_terms = DenseMatrix("W", torch.zeros(40, 30), EXACT, (terms,))
    np.testing.assert_allclose(of_terms.values() / scale, S, rtol=1e-12)


def test_a_singular_value_beyond_float64_is_said() -> None:
    W = np.full((40, 30), 1.5e308)
    for ask in (DenseMatrix.values, lambda W: W.top(3), lambda W: W.rank(energy=0.5)):
        with pytest.raises(uvmerge.RunFailed, match=r"^q_proj: its largest singular .* float64"):
            ask(matrix(W, "q_proj"))


def test_fast_leaves_values_beyond_float32_to_exact() -> None:
    wide, narrow = torch.ones(3, 2, dtype=torch.float64), torch.ones(3, 2)
    for values in (wide, 1e29 * wide, 1e-29 * wide, 0 * wide, narrow * 1e38, narrow * 1e-38):
        assert FAST.holding([narrow, values]) is FAST
    for values in (1e31 * wide, -1e300 * wide, 1e-31 * wide, 5e-324 * wide):
        assert FAST.holding([narrow, values]) is EXACT is EXACT.holding([values])


def test_energy_of_zeros_is_nothing() -> None:
    assert matrix(np.zeros((4, 3))).rank(energy=0.9) == 0


# --- factors -----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["tall", "wide", "square", "row", "column"])
def test_factors_are_those_of_the_svd(kind: str) -> None:
    W = reference.pair(kind, 0.1)[0]
    r, operand = min(W.shape), matrix(W)
    S = reference.svd(W)[1]
    np.testing.assert_allclose(operand.values(), S, rtol=1e-12)
    for k in sorted({0, 1, r // 2, r}):
        U, values, Vh = operand.top(k)
        assert (U.shape, values.shape, Vh.shape) == ((W.shape[0], k), (k,), (k, W.shape[1]))
        np.testing.assert_allclose((U * values) @ Vh, reference.best(W, k), atol=1e-13)
        np.testing.assert_allclose(values, S[:k], rtol=1e-12)
        U_last, values_last, Vh_last = operand.tail(r - k)
        np.testing.assert_allclose(values_last, S[k:], rtol=1e-12)
        whole = (U * values) @ Vh + (U_last * values_last) @ Vh_last
        np.testing.assert_allclose(whole, W, atol=1e-13)


def test_fast_keeps_factors_in_float32_and_decomposes_in_float64() -> None:
    stored = torch.tensor(spread(2)).float()
    fast = DenseMatrix("W", stored, FAST)
    assert {factor.dtype for factor in (*fast.top(7), *fast.tail(7), fast.tensor)} == {
        torch.float32
    }
    exact = DenseMatrix("W", stored, EXACT).values()
    np.testing.assert_allclose(fast.values().double(), exact, rtol=1e-7)  # float32 SVD: 1e-5


def test_the_gap_at_each_cut_is_relative_to_the_value_before() -> None:
    W = matrix(reference.with_values([4, 2, 2, 0.5], 6, 4, np.random.default_rng(0)))
    assert [W.top(k).gap for k in (1, 2, 3)] == pytest.approx([0.5, 0, 0.75], abs=1e-12)
    assert W.top(0).gap is W.top(4).gap is W.tail(4).gap is W.tail(0).gap is None
    assert W.tail(1).gap == pytest.approx(0.75)
    assert matrix(np.zeros((4, 3))).top(1).gap == 0.0


def test_factors_are_three_tensors_and_what_is_known_of_them() -> None:
    factors = matrix(spread(2)).top(7)
    U, S, Vh = factors
    assert U is factors.U and S is factors.S and Vh is factors.Vh
    assert factors.method == "gram" and 0 < (factors.gap or 0) < 1


def test_a_matrix_decomposes_itself_at_most_once(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    monkeypatch.setattr(torch.linalg, "eigh", lambda W: calls.append("eigh") or REAL_EIGH(W))
    monkeypatch.setattr(
        torch.linalg, "svd", lambda W, **options: calls.append("svd") or REAL_SVD(W, **options)
    )
    W = matrix(spread(2))
    for k in (10, 3, 30, 17):
        W.top(k), W.values(), W.rank(energy=0.5)
    assert calls == ["eigh"]
    for k in (1, 5, 30):
        W.tail(k), W.top(k)
    assert calls == ["eigh", "svd"]


def test_a_sum_of_terms_is_a_matrix_like_any_other(monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(0)
    W, A, B = (random.standard_normal(shape) for shape in ((30, 20), (30, 3), (3, 20)))
    terms = torch.tensor(A), torch.tensor(B)
    for panel_bytes in (100, 3000, 10**9):
        monkeypatch.setattr("uvmerge.spectral.recombine.PANEL_BYTES", panel_bytes)
        monkeypatch.setattr("uvmerge.spectral.recombine.PANEL_ROWS", panel_bytes // 100 + 1)
        for flip in (False, True):
            left, right = (terms[1].mT, terms[0].mT) if flip else terms
            expected = (W + 2 * A @ B).T if flip else W + 2 * A @ B
            total = matrix(W.T if flip else W).plus((left, right)).plus((left, right))
            np.testing.assert_allclose(total.tensor, expected, atol=1e-13)
            np.testing.assert_allclose(
                torch.cat([panel for (panel,) in rows_of([total.sum], torch.float64)]),
                expected,
                atol=1e-13,
            )
            np.testing.assert_allclose(total.values(), reference.svd(expected)[1], rtol=1e-12)
            U, S, Vh = total.top(5)
            np.testing.assert_allclose((U * S) @ Vh, reference.best(expected, 5), atol=1e-12)
            difference = total - matrix(expected)
            assert difference.tensor.abs().max() < 1e-13


# --- the ladder --------------------------------------------------------------------------------


def test_the_gram_matrix_is_used_where_it_is_exact_enough() -> None:
    U, _, Vh = found = matrix(spread(2)).top(30)
    assert found.method == "gram"
    assert max(crooked(U), crooked(Vh.mT)) < 1e-10


@pytest.mark.parametrize("shape", [(40, 30), (30, 40)])
def test_the_gram_matrix_is_rejected_where_it_loses_orthogonality(
    shape: tuple[int, int],
) -> None:
    U, _, Vh = found = matrix(spread(6, *shape)).top(30)
    assert found.method == "svd"
    assert max(crooked(U), crooked(Vh.mT)) < 1e-13

    lenient = dataclasses.replace(EXACT, orthogonality=1.0)
    U, _, Vh = found = DenseMatrix("W", torch.tensor(spread(6, *shape)), lenient).top(30)
    assert found.method == "gram"
    assert max(crooked(U), crooked(Vh.mT)) > 1e-7  # this is what was rejected


def test_leading_triplets_of_an_ill_conditioned_matrix_come_from_the_gram_matrix() -> None:
    W = matrix(spread(8))
    assert [W.top(k).method for k in (5, 30, 5)] == ["gram", "svd", "gram"]


@pytest.mark.parametrize("decades", [3, 5, 8])
def test_values_are_exact_however_small(decades: int) -> None:
    """Of the Gram matrix alone they would be wrong by 1e-8 of the largest."""
    W = spread(decades)
    np.testing.assert_allclose(matrix(W).values(), reference.svd(W)[1], rtol=0, atol=1e-10)


def fail(*_: object, **__: object) -> Any:
    raise LinAlgError("did not converge")


def fail_unless(transposed: bool) -> Any:
    def svd(W: Tensor, **options: Any) -> Any:
        return REAL_SVD(W, **options) if (W.shape[0] < W.shape[1]) == transposed else fail()

    return svd


def test_an_svd_that_does_not_converge_is_tried_on_the_transpose(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.linalg, "svd", fail_unless(transposed=True))
    tall = spread(8)
    U, S, Vh = found = matrix(tall).top(30)
    assert found.method == "svd of the transpose"
    np.testing.assert_allclose((U * S) @ Vh, tall, atol=1e-14)
    assert (U.shape, Vh.shape) == ((40, 30), (30, 30))


def test_an_svd_that_converges_to_something_else_is_not_believed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def wrong(W: Tensor, **options: Any) -> Any:
        U, S, Vh = REAL_SVD(W, **options)
        return (U, S * 1.000001, Vh) if W.shape[0] > W.shape[1] else (U, S, Vh)

    monkeypatch.setattr(torch.linalg, "svd", wrong)
    found = matrix(spread(8)).tail(30)
    np.testing.assert_allclose(found.S, np.logspace(0, -8, 30), atol=1e-14)
    assert found.method == "svd of the transpose"

    monkeypatch.setattr(torch.linalg, "svd", lambda W, **_: (0 * v for v in REAL_SVD(W, **_)))
    with pytest.raises(uvmerge.RunFailed):
        matrix(spread(8)).tail(3)


def test_a_matrix_that_nothing_decomposes_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.linalg, "svd", fail)
    with pytest.raises(uvmerge.RunFailed, match=r"^layers\.3\.q_proj: .*converged") as error:
        matrix(spread(8), "layers.3.q_proj").top(30)
    assert "--exclude" in error.value.do


@pytest.mark.parametrize("call", ["top", "values", "energy", "tail"])
def test_an_eigh_that_does_not_converge_leads_to_the_svd(
    call: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.linalg, "eigh", fail)
    W, log = noted(spread(2))
    if call == "energy":
        assert W.rank(energy=1) == 30
    elif call == "values":
        np.testing.assert_allclose(W.values(), np.logspace(0, -2, 30), rtol=1e-12)
    else:
        U, S, Vh = getattr(W, call)(30)
        np.testing.assert_allclose((U * S) @ Vh, spread(2), atol=1e-14)
    assert [asked.method for asked in log.decompositions] == ["svd"]


# --- within a run ------------------------------------------------------------------------------


def test_a_run_that_cannot_decompose_names_the_tensor_and_resumes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pair, out = zoo.pair("llama", tmp_path), tmp_path / "out"
    name = "model.layers.1.self_attn.o_proj.weight"
    with monkeypatch.context() as patch:
        patch.setattr(torch.linalg, "svd", fail)
        with pytest.raises(uvmerge.RunFailed, match=name):
            uvmerge.restore(*pair, out, tail=0.2, include=name)
    assert not out.exists()
    result = uvmerge.restore(*pair, out, tail=0.2, include=name)
    assert result.edits[name]["method"] == ["svd"]


def test_an_operation_whose_own_algebra_fails_names_the_tensor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Procrustes alignment has a small SVD of its own."""
    pair, name = zoo.pair("llama", tmp_path), "model.layers.1.self_attn.o_proj.weight"
    monkeypatch.setattr(torch.linalg, "svd", fail)
    with pytest.raises(uvmerge.RunFailed, match=name):
        uvmerge.swap(*pair, tmp_path / "out", left=True, include=name)


def test_without_gpu_memory_a_tensor_is_done_on_the_cpu_and_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pair = zoo.pair("gpt_oss", tmp_path)
    expected = uvmerge.restore(*pair, tmp_path / "cpu", top=0.2)
    assert not any("device" in entry for entry in expected.edits.values())
    real, tried = compute.Editor._compute, []

    def starved(self: Any, requests: Any, number: int, device: str) -> Any:
        tried.append(device)
        if device != "cpu" and "experts" in requests[0][1].tensor:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return real(self, requests, number, "cpu")

    monkeypatch.setattr(compute.Editor, "_compute", starved)
    monkeypatch.setattr(reading, "resolve_devices", lambda _: ("cuda:0",))
    monkeypatch.setattr(compute.Editor, "prepare_thread", lambda self: torch.set_num_threads(1))
    result = uvmerge.restore(*pair, tmp_path / "gpu", top=0.2)
    assert zoo.raw(result.out) == zoo.raw(expected.out)
    assert set(tried) == {"cuda:0", "cpu"}
    for name, entry in result.edits.items():
        said = "cpu (out of GPU memory)" if "experts" in name else None
        assert entry.pop("device", None) == said
        assert entry == expected.edits[name]


# --- alignment ---------------------------------------------------------------------------------


@pytest.fixture
def block() -> Tensor:
    return torch.tensor(reference.basis(20, 6, np.random.default_rng(4)))


def test_procrustes_undoes_any_rotation(block: Tensor) -> None:
    Q = torch.tensor(reference.basis(6, 6, np.random.default_rng(5)))
    torch.testing.assert_close(align_block(block @ Q, block, "procrustes"), block)


def test_match_undoes_any_order_and_signs(block: Tensor) -> None:
    signs = torch.tensor([1, -1, -1, 1, -1, 1.0])
    turned = (block * signs)[:, [3, 0, 5, 1, 4, 2]]
    torch.testing.assert_close(align_block(turned, block, "match"), block, rtol=0, atol=0)


def test_sign_undoes_signs_alone(block: Tensor) -> None:
    signs = torch.tensor([1, -1, -1, 1, -1, 1.0], dtype=torch.float64)
    torch.testing.assert_close(align_block(block * signs, block, "sign"), block, rtol=0, atol=0)
    swapped = block[:, [1, 0, 2, 3, 4, 5]]
    assert torch.equal(align_block(swapped, block, "sign").abs(), swapped.abs())


@pytest.mark.parametrize("how", ["procrustes", "match", "sign"])
def test_aligned_blocks_span_the_same_and_come_nearer(how: str, block: Tensor) -> None:
    noise = torch.tensor(reference.basis(20, 6, np.random.default_rng(6)))
    target = torch.linalg.qr(block.flip(1) + 0.5 * noise).Q
    aligned = align_block(block, target, how)
    assert crooked(aligned) < 1e-14
    torch.testing.assert_close(aligned @ aligned.mT, block @ block.mT)
    assert (aligned - target).norm() < (block - target).norm()
    best = align_block(block, target, "procrustes")
    assert (best - target).norm() <= (aligned - target).norm() + 1e-12


def test_match_takes_the_most_similar_pair_first() -> None:
    """Column 0 would take row 0, but row 0 is more similar to column 1."""
    cos = torch.tensor([[0.8, 0.9], [0.6, 0.1]], dtype=torch.float64)
    block = torch.eye(3, 2, dtype=torch.float64)
    target = torch.cat([cos, torch.zeros(1, 2)])
    assert torch.equal(align_block(block, target, "match"), block[:, [1, 0]])


# --- settings ----------------------------------------------------------------------------------


def test_threads_and_tf32_come_back_even_after_an_error() -> None:
    before = torch.get_num_threads(), torch.get_float32_matmul_precision()
    torch.set_num_threads(2)
    torch.set_float32_matmul_precision("high")
    try:
        with pytest.raises(KeyError), single_threaded():
            assert torch.get_num_threads() == 1
            assert torch.get_float32_matmul_precision() == "highest"
            raise KeyError
        assert (torch.get_num_threads(), torch.get_float32_matmul_precision()) == (2, "high")
    finally:
        torch.set_num_threads(before[0])
        torch.set_float32_matmul_precision(before[1])
