"""On a CUDA device: the same edits as on the CPU, to the policy's accuracy."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import zoo

import uvmerge

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
