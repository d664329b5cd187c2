"""Reduction to tridiagonal form: LAPACK's calls, twisted factorisations, corrections, hard spectra."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import faults
import numpy as np
import pytest
import reference
import torch
from torch import Tensor

import uvmerge
from uvmerge.engine import decomposed
from uvmerge.operations import get
from uvmerge.spectral import Log, ladder, lapack, reduced, reduction, refined
from uvmerge.spectral.care import care_needed
from uvmerge.spectral.matrix import DenseMatrix
from uvmerge.spectral.precision import EXACT, FAST as POLICY, Precision, single_threaded
from uvmerge.spectral.reduction import Reduction, block_size
from uvmerge.spectral.side import Side
from uvmerge.spectral.tridiagonal import Twisted

R = 300
K = 60
FAST = dataclasses.replace(POLICY, smallest_reduced=R)  # as it treats large matrices
POLICIES = pytest.mark.parametrize("policy", [EXACT, FAST], ids=["exact", "fast"])


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    with single_threaded():
        yield


def spd(r: int, seed: int = 0) -> Tensor:
    W = torch.randn(r + 20, r, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return W.mT @ W


# --- the pieces --------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("r", [1, 2, 3, 127, 128, 129, 130, R])
def test_a_reduction_keeps_the_matrix(r: int, dtype: torch.dtype) -> None:
    """Q T Qᵀ = G and QᵀQ = 1, by applying Q to the identity."""
    G = spd(r)
    made = Reduction.of(G.clone(), dtype)
    assert made is not None
    T = np.diag(made.d) + np.diag(made.e, 1) + np.diag(made.e, -1)
    Q = made.back(torch.eye(r, dtype=torch.float64)).double()
    bound = 1e-12 if dtype == torch.float64 else 2e-5
    eye = torch.eye(r, dtype=torch.float64)
    torch.testing.assert_close(Q.mT @ Q, eye, rtol=0, atol=bound)
    torch.testing.assert_close(made.forth(eye), Q.mT, rtol=0, atol=bound)
    found = Q @ torch.from_numpy(T) @ Q.mT * made.scale
    torch.testing.assert_close(found, G, rtol=0, atol=bound * float(G.abs().max()) * 10)
    values = torch.linalg.eigvalsh(G).flip(0)
    assert float((made.eigenvalues - values).abs().max()) <= bound * float(values[0])


def test_twisted_vectors_are_those_of_lapack() -> None:
    made = Reduction.of(spd(R), torch.float64)
    assert made is not None
    Z = Twisted.of(made.d, made.e, made.values[:K]).vectors()
    robust = lapack.tridiagonal_vectors(made.d, made.e, K)
    assert robust is not None
    assert abs(abs((Z * robust).sum(0)) - 1).max() < 1e-12
    assert abs(Z.T @ Z - np.eye(K)).max() < 1e-11


def test_the_bits_of_a_vector_do_not_depend_on_the_others() -> None:
    made = Reduction.of(spd(R), torch.float64)
    assert made is not None
    together = Twisted.of(made.d, made.e, made.values[:K])
    for i in (0, 7, K - 1):
        alone = Twisted.of(made.d, made.e, made.values[i : i + 1])
        assert np.array_equal(alone.above[:, 0], together.above[:, i])
        assert np.array_equal(alone.below[:, 0], together.below[:, i])


def test_a_solution_lacks_nothing_but_the_eigenvector() -> None:
    made = Reduction.of(spd(R), torch.float64)
    assert made is not None
    T = np.diag(made.d) + np.diag(made.e, 1) + np.diag(made.e, -1)
    twisted = Twisted.of(made.d, made.e, made.values[:5])
    Z = twisted.vectors()
    right = np.random.default_rng(0).standard_normal((R, 5))
    right -= Z * (Z * right).sum(0)
    x = twisted.solved(right)
    missed = T @ x - x * made.values[:5] - right
    missed -= Z * (Z * missed).sum(0)
    assert abs(missed).max() < 1e-9 * abs(T).max()


@pytest.mark.parametrize("count", [1, block_size(R), block_size(R) + 1, R])
def test_blocks_are_orthonormal_as_far_as_one_asks(count: int) -> None:
    made = Reduction.of(spd(R), torch.float64)
    assert made is not None
    blocks = [made.block(i, 1e-10) for i in range(-(-count // made.size))]
    Z = torch.cat([block for block in blocks if block is not None], dim=1)
    eye = torch.eye(Z.shape[1], dtype=Z.dtype)
    assert Z.shape[1] >= count and float((Z.mT @ Z - eye).abs().max()) <= 1e-10


def test_threads_of_the_caller_are_kept_and_change_no_bit() -> None:
    from threadpoolctl import threadpool_info, threadpool_limits

    G = spd(R)
    found = []
    for count in (1, 2):
        with threadpool_limits(count, user_api="blas"):
            made = Reduction.of(G.clone(), torch.float64)
            assert made is not None
            found.append(made)
            held = {i["num_threads"] for i in threadpool_info() if i["user_api"] == "blas"}
            assert held == {count}
    assert np.array_equal(found[0].values, found[1].values)
    assert torch.equal(found[0].reflectors, found[1].reflectors)


def test_the_interpreter_runs_while_lapack_reduces() -> None:
    """Another thread counts on while one reduces a matrix: the call gives up the lock."""
    G, counted, over = spd(1200), [0], threading.Event()

    def count() -> None:
        while not over.is_set():
            counted[0] += 1

    lapack.functions()
    A = G.numpy().copy()
    counter = threading.Thread(target=count)
    counter.start()
    before = counted[0]
    lapack.tridiagonal_form(A)
    inside = counted[0] - before
    over.set()
    counter.join()
    assert inside > 1000


# --- edits of hard pairs -----------------------------------------------------------------------


def power_law() -> np.ndarray:
    return np.arange(1, R + 1) ** -0.6


def equal_across_the_cut() -> np.ndarray:
    S = power_law()
    S[K - 12 : K + 13] = S[K]
    return S


def close_across_the_cut() -> np.ndarray:
    S = power_law()
    S[K - 12 : K + 13] = S[K] * (1 + 1e-7 * np.linspace(1, 0, 25))
    return S


def equal_inside() -> np.ndarray:
    S = power_law()
    S[10:30] = S[20]
    return S


def head(size: float) -> Callable[[], np.ndarray]:
    def values() -> np.ndarray:
        S = power_law()
        S[:3] = S[K] * size * np.array([1.0, 0.9, 0.8])
        return S

    return values


def one_of_1e4() -> np.ndarray:
    S = power_law()
    S[0] = 1e4
    return S


def of_low_rank() -> np.ndarray:
    return np.where(np.arange(R) < K - 10, power_law(), 0.0)


def graded() -> np.ndarray:
    return np.logspace(0, -8, R)


SPECTRA = {
    "power law": power_law,
    "25 equal across the cut": equal_across_the_cut,
    "25 within 1e-7 across the cut": close_across_the_cut,
    "20 equal inside": equal_inside,
    "all equal": lambda: np.ones(R),
    "rank below k": of_low_rank,
    "graded over eight decades": graded,
    "one of 1e4": one_of_1e4,
    "head of 20": head(20),
    "head of 400": head(400),
}


def matrix_of(name: str) -> np.ndarray:
    random = np.random.default_rng(3)
    if name == "identity":
        return np.eye(R)
    if name == "zero":
        return np.zeros((R, R))
    if name == "diagonal":
        return np.diag(power_law())
    if name == "block diagonal":
        W = np.zeros((R, R))
        for at in range(0, R, 50):
            W[at : at + 50, at : at + 50] = random.standard_normal((50, 50))
        return W
    return reference.with_values(SPECTRA[name](), R + 30, R, random)


NAMES = [*SPECTRA, "identity", "zero", "diagonal", "block diagonal"]


@POLICIES
@pytest.mark.parametrize("delta", [1e-4, 1e-3, 1e-2, 5e-2])
@pytest.mark.parametrize("name", NAMES)
def test_edits_of_hard_pairs_keep_the_promise(name: str, delta: float, policy: Precision) -> None:
    """Where leading values of the base are equal, its vectors are any of many: they alone are judged."""
    W_b = matrix_of(name)
    size = np.linalg.norm(W_b) or 1.0
    noise = np.random.default_rng(4).standard_normal(W_b.shape)
    W_f = W_b + delta * size / np.linalg.norm(noise) * noise
    base, finetuned = (torch.tensor(W).float() for W in (W_b, W_f))
    judged_by_factors(base, policy)
    S = torch.linalg.svdvals(base.double())
    if float((S[:K] - S[1 : K + 1]).min()) <= 1e-5 * float(S[0]):
        return
    found, expected = edited(base, finetuned, policy)
    missed = float(torch.linalg.norm(found - expected))
    change = float(torch.linalg.norm(expected))
    bound = 1e-6 if policy is EXACT else 1e-3
    assert missed <= max(bound * change, 0.0 if policy is EXACT else 1e-6 * size)


def judged_by_factors(W: Tensor, policy: Precision) -> None:
    """Both sides orthonormal, and ‖W − W V Vᵀ‖ as small as any k directions make it."""
    U, _, Vh = DenseMatrix("W", W, policy).top(K)
    eye = torch.eye(K, dtype=torch.float64)
    for Q in (U.double(), Vh.double().mT):
        assert float((Q.mT @ Q - eye).abs().max()) <= (2e-10 if policy is EXACT else 2e-5)
    D, V = W.double(), Vh.double().mT
    values = torch.linalg.svdvals(D)
    best, size = float(values[K:].square().sum()) ** 0.5, float(values.square().sum()) ** 0.5
    rest = float(torch.linalg.norm(D - D @ V @ V.mT))
    assert rest <= best + (1e-9 if policy is EXACT else 2e-6) * size


def edited(base: Tensor, finetuned: Tensor, policy: Precision) -> tuple[Tensor, Tensor]:
    """`restore` at rank K as the policy computes it, and from float64 SVDs, without W_f."""
    pair = [DenseMatrix(role, W, policy) for role, W in (("b", base), ("f", finetuned))]
    result = get("restore").function(*pair, rank=K)
    found = sum(left.double() @ right.double() for left, right in result.sum.terms)
    (U, _, Vh), (U2, S2, Vh2) = (
        torch.linalg.svd(W.double(), full_matrices=False) for W in (base, finetuned)
    )
    expected = (U[:, :K] * S2[:K]) @ Vh[:K] - (U2[:, :K] * S2[:K]) @ Vh2[:K]
    return found, expected


# --- the checks: without each, its case fails --------------------------------------------------


def test_without_the_look_at_orthogonality_a_cluster_is_wrong(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    W = torch.tensor(matrix_of("20 equal inside")).float()
    judged_by_factors(W, EXACT)
    monkeypatch.setattr(reduction, "_are_orthonormal", lambda *_: True)
    monkeypatch.setattr(Side, "holds", lambda *_: True)
    with pytest.raises(AssertionError):
        judged_by_factors(W, EXACT)


def test_without_the_bound_on_the_step_equal_values_at_the_cut_are_spoilt(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    W = torch.tensor(matrix_of("25 within 1e-7 across the cut")).float()
    assert DenseMatrix("W", W, FAST).top(K).method == "tridiagonal"
    monkeypatch.setattr(reduced, "LARGEST_STEP", 1e9)
    monkeypatch.setattr(Side, "holds", lambda *_: True)
    corrected = reduced.CorrectedRung(DenseMatrix("W", W, FAST)._ladder.source)
    corrected.reduced.bound = 1e9
    side = corrected.side(K, True)
    assert side is not None
    V = side.short.double()
    assert float((V.mT @ V - torch.eye(K, dtype=V.dtype)).abs().max()) > 1e-4


def test_without_the_look_at_the_other_side_small_values_are_wrong(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    W = torch.tensor(matrix_of("graded over eight decades"))
    k = R - 20
    assert DenseMatrix("W", W, EXACT).top(k).method == "svd"
    monkeypatch.setattr(Side, "holds", lambda *_: True)
    U = DenseMatrix("W", W, EXACT).top(k).U
    assert float((U.mT @ U - torch.eye(k, dtype=U.dtype)).abs().max()) > 1e-6


# --- how much is corrected ---------------------------------------------------------------------


def test_correcting_some_columns_leaves_what_was_estimated() -> None:
    W = torch.tensor(matrix_of("power law")).float()
    log = Log(wholly=False)
    some = DenseMatrix("W", W, FAST, log=log, operand="base").top(200)
    log.wholly = True
    whole = DenseMatrix("W", W, FAST, log=log, operand="base").top(200)
    best = DenseMatrix("W", W, EXACT).top(200)
    errors = [
        float(torch.linalg.norm((f.U * f.S) @ f.Vh - (best.U * best.S) @ best.Vh))
        for f in (some, whole)
    ]
    assert [d.method for d in log.decompositions] == ["corrected", "corrected"]
    assert log.decompositions[0].missed > 0 == log.decompositions[1].missed
    assert errors[1] <= errors[0] <= 4 * log.decompositions[0].missed + 2e-6 * float(W.norm())


def test_without_scipy_the_ladder_is_the_one_before() -> None:
    program = """
import sys
sys.modules["scipy"] = None
import torch
from uvmerge.spectral.matrix import DenseMatrix
from uvmerge.spectral.precision import EXACT, FAST
W = torch.randn(320, 300, generator=torch.Generator().manual_seed(0))
print(*(DenseMatrix("W", W, policy).top(60).method for policy in (EXACT, FAST)))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.split() == ["gram", "refined"], done.stderr


def test_a_device_that_is_fast_in_float64_refines_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    W = torch.randn(320, 300, generator=torch.Generator().manual_seed(0))
    best = DenseMatrix("W", W, EXACT).top(60)
    monkeypatch.setattr(reduced.Reduced, "is_offered", False)  # as on a GPU
    slow = DenseMatrix("W", W, FAST).top(60)
    for module in (refined, ladder):
        monkeypatch.setattr(module, "is_fast_in_float64", lambda device: True)
    whole = DenseMatrix("W", W, FAST)
    assert (slow.method, whole.top(60).method) == ("refined", "gram")
    for found in (slow, whole.top(60)):
        close = torch.linalg.norm((found.U * found.S) @ found.Vh - (best.U * best.S) @ best.Vh)
        assert close <= 1e-5 * torch.linalg.norm(best.S)
    assert whole._ladder.basis().vectors.dtype == torch.float64


NAME = "model.layers.0.self_attn.q_proj.weight"
CARE = {"enough": 0.05, "wholly": 1e-3, "exactly": 2e-4}  # ‖W_f − W_b‖ / ‖W_b‖ that asks for it


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> dict[str, faults.Pair]:
    """Pairs of one matrix, large enough to be reduced under `fast`."""
    make = torch.Generator().manual_seed(11)
    base = torch.randn(560, 520, generator=make) / 520**0.5
    base += reference_head(make)
    made = {}
    for care, delta in CARE.items():
        moved = torch.randn(base.shape, generator=make)
        finetuned = base + moved * (delta * float(base.norm()) / float(moved.norm()))
        folder = tmp_path_factory.mktemp(care)
        made[care] = faults.pair_of(folder, {NAME: base}, {NAME: finetuned})
    return made


def reference_head(make: torch.Generator) -> Tensor:
    left, right = torch.randn(560, 60, generator=make), torch.randn(60, 520, generator=make)
    return left * torch.linspace(12, 1, 60) @ right / 520


@pytest.mark.parametrize("care", CARE)
def test_a_small_edit_gets_the_care_that_it_needs(
    care: str, large: dict[str, faults.Pair], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []

    def noted(*given: Any) -> str:
        seen.append(care_needed(*given))
        return seen[-1]

    monkeypatch.setattr(decomposed, "care_needed", noted)
    base, finetuned, out = large[care]
    result = uvmerge.restore(base, finetuned, out / "one", top=0.2, precision="fast")
    assert seen == [care]
    (entry,) = result.edits.values()
    uvmerge.check(out / "one")
    assert entry["method"] == (["tridiagonal"] if care == "exactly" else ["corrected"])
    assert entry.get("precision") == ("exact" if care == "exactly" else None)


@pytest.mark.parametrize("care", CARE)
def test_a_sweep_gives_the_bytes_of_single_runs_whatever_care_they_need(
    care: str, large: dict[str, faults.Pair]
) -> None:
    base, finetuned, out = large[care]
    tops = [0.1, 0.2, 0.35]
    uvmerge.sweep("restore", base, finetuned, out / "sweep", top=tops, precision="fast")
    for top in tops:
        uvmerge.restore(base, finetuned, out / f"{top}", top=top, precision="fast")
        (swept,) = (out / "sweep" / f"top-{top}").glob("*.safetensors")
        assert swept.read_bytes() == (out / f"{top}" / swept.name).read_bytes()
