"""The candidates for a GPU, on a CPU and small: each finds the leading directions, the same every time."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

sys.path.append(str(Path(__file__).parent.parent / "benchmarks"))
import eigenspaces
import floor
import gpu
from synthetic import matrix_pair

from uvmerge.spectral.precision import single_threaded

SHAPE = (220, 160)


@pytest.mark.parametrize("k", [1, 16, 32])
@pytest.mark.parametrize("method", eigenspaces.METHODS)
def test_every_method_finds_the_leading_directions(method: str, k: int) -> None:
    W = matrix_pair(SHAPE, 0)[0].double()
    V = eigenspaces.METHODS[method](W.mT @ W, k)
    wanted = torch.linalg.svd(W, full_matrices=False)[2][:k].mT
    eye = torch.eye(k, dtype=V.dtype)
    assert float((V.mT @ V - eye).abs().max()) < 1e-11
    assert float(torch.linalg.norm(V - wanted @ (wanted.mT @ V))) < 1e-7
    assert torch.equal(V, eigenspaces.METHODS[method](W.mT @ W, k))


def test_a_filter_that_does_not_converge_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(eigenspaces, "ROUNDS", 1)
    W = matrix_pair(SHAPE, 0)[0].double()
    with pytest.raises(ArithmeticError, match="of 32 columns"):
        eigenspaces.by_filter(W.mT @ W, 32)


@pytest.mark.parametrize("shape", [SHAPE, SHAPE[::-1]])
@pytest.mark.parametrize("method", eigenspaces.METHODS)
def test_edits_keep_the_promise_of_exact(method: str, shape: tuple[int, int]) -> None:
    base, finetuned = matrix_pair(shape, 0)
    with single_threaded():
        assert floor.error((base, finetuned), gpu.candidate((base, finetuned), method)) < 1e-6
