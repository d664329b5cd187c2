"""Memory: one matrix and its factors, whatever the depth of the model."""

from __future__ import annotations

import gc
import subprocess
import sys
import weakref
from pathlib import Path

import pytest
import torch

from uvmerge.operations import operations
from uvmerge.spectral.matrix import DenseMatrix
from uvmerge.spectral.precision import EXACT, FAST, Precision

sys.path.append(str(Path(__file__).parent.parent / "benchmarks"))


@pytest.mark.parametrize("precision", [EXACT, FAST], ids=["exact", "fast"])
@pytest.mark.parametrize("name", ["restore", "project", "values", "denoise", "truncate"])
def test_matrices_are_freed_without_the_garbage_collector(name: str, precision: Precision) -> None:
    shape = (30, 20) if precision is EXACT else (300, 260)  # fast refines from 256 on
    W = torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    gc.collect()
    gc.disable()
    try:
        base, finetuned = (
            DenseMatrix(role, V, precision) for role, V in (("b", W), ("f", W + 0.1 * W.cos()))
        )
        result = operations()[name].function(base, finetuned)
        alive = [weakref.ref(matrix) for matrix in (base, finetuned, result)]
        del base, finetuned, result
        assert [ref() for ref in alive] == [None, None, None]
    finally:
        gc.enable()


def test_peak_memory_does_not_grow_with_depth(tmp_path: Path) -> None:
    from synthetic import write_pair

    peaks = []
    for layers in (4, 12):
        base, finetuned = write_pair(tmp_path / str(layers), layers, 512, 1024, vocabulary=1000)
        code = (
            "import resource, uvmerge\n"
            f"uvmerge.restore({str(base)!r}, {str(finetuned)!r}, {str(tmp_path / f'out{layers}')!r})\n"
            "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
        )
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        )
        peaks.append(int(done.stdout))
    assert peaks[1] - peaks[0] < 30_000  # KiB; matrices that are not freed made it 65,000
