"""On a CUDA device: the same edits as on the CPU, to the policy's accuracy."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import reference
import torch
import zoo

import uvmerge
from uvmerge.operations.restore import restore
from uvmerge.spectral.matrix import DenseMatrix
from uvmerge.spectral.precision import EXACT, FAST, Precision
from uvmerge.spectral.recombine import rows_of

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


@pytest.mark.parametrize("operation", ["restore", "project", "values", "denoise", "interpolate"])
def test_cuda_and_cpu_agree_to_the_last_bits(operation: str, tmp_path: Path) -> None:
    pair = zoo.pair("llama", tmp_path, dtype="float32")
    call = getattr(uvmerge, operation)
    call(*pair, tmp_path / "cpu", device="cpu")
    call(*pair, tmp_path / "cuda", device="cuda")
    ours, theirs = zoo.tensors(tmp_path / "cuda"), zoo.tensors(tmp_path / "cpu")
    for name, tensor in theirs.items():
        assert torch.allclose(ours[name], tensor, rtol=1e-6, atol=1e-7), name
    content = json.loads((tmp_path / "cuda" / "uvmerge.json").read_text())
    assert content["settings"]["device"] == "cuda"


@pytest.mark.parametrize("shape", [(600, 300), (300, 600), (1100, 1040)])
@pytest.mark.parametrize("precision", [EXACT, FAST], ids=["exact", "fast"])
def test_the_refined_rung_keeps_its_promise_on_the_device(
    precision: Precision, shape: tuple[int, int]
) -> None:
    random = np.random.default_rng(0)
    W_b = reference.with_values(np.arange(1, min(shape) + 1) ** -0.5, *shape, random)
    W_f = reference.perturbed(W_b, 1e-2, random)
    k = min(shape) // 5
    on_device = [
        DenseMatrix(role, torch.tensor(W).float().cuda(), precision)
        for role, W in (("base", W_b), ("finetuned", W_f))
    ]
    result = restore(*on_device, rank=k)
    assert isinstance(result, DenseMatrix)
    found = (
        torch.cat([panel for (panel,) in rows_of([result.sum], precision.combine)]).cpu().double()
    )
    W_b, W_f = (np.asarray(torch.tensor(W).float().double()) for W in (W_b, W_f))
    bound = {"exact": 1e-6, "fast": 1e-3}[precision.name]
    assert reference.error(found, reference.restore(W_b, W_f, k), W_f) < bound


def test_several_threads_may_come_first_to_the_linear_algebra_of_a_fresh_process(
    tmp_path: Path,
) -> None:
    pair = zoo.pair("llama", tmp_path, dtype="float32")
    command = [sys.executable, "-m", "uvmerge", "restore", "--device", "cuda", "--workers", "4"]
    done = subprocess.run([*command, *pair, tmp_path / "out"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_every_gpu_of_the_machine_takes_part(tmp_path: Path) -> None:
    pair = zoo.pair("llama", tmp_path, dtype="float32")
    uvmerge.restore(*pair, tmp_path / "one", device="cuda:0")
    uvmerge.restore(*pair, tmp_path / "all", device="cuda")
    assert zoo.raw(tmp_path / "one") == zoo.raw(tmp_path / "all")
