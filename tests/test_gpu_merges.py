"""On a CUDA device: merges of whole tensors give the bytes that they give on the CPU."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import faults
import pytest
import torch
import zoo

import uvmerge
from uvmerge.spectral import pieces, vectors
from uvmerge.spectral.draw import Draw

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]

ROWS, COLUMNS = 360, 300  # more values than are compared without being counted
WITH_BASE: list[tuple[str, dict[str, Any]]] = [
    ("ties", {"density": [0.3, 0.6, 1.0], "weight": [0.7, 0.3, 0.5], "scale": 0.9}),
    ("ties", {"density": 0.5, "rescale": True}),
    ("della", {"density": 0.6, "epsilon": 0.1, "weight": [0.7, 0.3, 0.5]}),
    ("della", {"density": 0.6, "rescale_by": "norm"}),
    ("della_linear", {"density": 0.5, "normalize": True}),
    ("dare_linear", {"density": 0.375, "normalize": True}),
    ("dare_linear", {"density": 0.5, "rescale_by": "norm"}),
    ("dare_ties", {"density": [0.5, 0.6, 0.7], "weight": [0.7, 0.3, 0.5]}),
    ("breadcrumbs", {"density": 0.7, "gamma": 0.02, "normalize": True}),
    ("breadcrumbs_ties", {"density": 0.7, "gamma": 0.02, "normalize": True}),
    ("model_stock", {}),
    ("model_stock", {"filter_wise": True}),
    ("sce", {"select_topk": 0.3}),
]
MEANS: list[tuple[str, int, dict[str, Any]]] = [
    ("karcher", 3, {}),
    ("multislerp", 3, {"weight": [0.5, 0.2, 0.3]}),
    ("slerp", 2, {"t": 0.3}),
    ("nuslerp", 2, {"weight": [0.7, 0.3], "vectors": "rows"}),
]
IN_SUBSPACES = ["tsv", "iso_c", "knots", "svc", "subspace_boosting"]
DTYPES = [torch.float32, torch.bfloat16]


@pytest.fixture(scope="module", params=DTYPES, ids=str)
def checkpoints(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> list[Path]:
    """A base and three fine-tunes; in bfloat16 many of their differences are equal."""
    folder, make = tmp_path_factory.mktemp("merges"), torch.Generator().manual_seed(5)
    base = {
        "model.layers.0.self_attn.q_proj.weight": torch.randn(ROWS, COLUMNS, generator=make) / 20,
        "model.layers.0.mlp.down_proj.weight": torch.randn(COLUMNS, 40, generator=make) / 20,
        "model.layers.0.input_layernorm.weight": torch.ones(COLUMNS),
    }
    found = [folder / "base", *(folder / name for name in "abc")]
    for number, path in enumerate(found):
        change = 2e-3 * bool(number)
        tensors = {n: t + change * torch.randn(t.shape, generator=make) for n, t in base.items()}
        config = faults.CONFIG | {"num_hidden_layers": 1, "hidden_size": COLUMNS}
        stored = {n: t.to(request.param) for n, t in tensors.items()}
        faults.write(path, stored, config=config)
    return found


def on_both(name: str, inputs: list[Path], out: Path, **options: Any) -> list[Path]:
    """What a merge writes on the CPU and on the device, which must have been used."""
    merge = getattr(uvmerge, name)
    merge(*inputs, out / "cpu", device="cpu", **options)
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    merge(*inputs, out / "cuda", device="cuda", **options)
    assert torch.cuda.max_memory_allocated() - before >= 8 * ROWS * COLUMNS
    content = json.loads((out / "cuda" / "uvmerge.json").read_text())
    assert content["settings"]["device"] == "cuda"
    return [out / "cpu", out / "cuda"]


@pytest.mark.parametrize(("name", "options"), WITH_BASE)
def test_merges_of_differences_have_the_same_bytes(
    name: str, options: dict[str, Any], checkpoints: list[Path], tmp_path: Path
) -> None:
    cpu, cuda = on_both(name, checkpoints, tmp_path, **options)
    assert zoo.raw(cuda) == zoo.raw(cpu)


@pytest.mark.parametrize(("name", "count", "options"), MEANS)
def test_means_have_the_same_bytes(
    name: str, count: int, options: dict[str, Any], checkpoints: list[Path], tmp_path: Path
) -> None:
    cpu, cuda = on_both(name, checkpoints[1 : 1 + count], tmp_path, **options)
    assert zoo.raw(cuda) == zoo.raw(cpu)


@pytest.mark.parametrize("name", ["ties", "breadcrumbs", "breadcrumbs_ties"])
def test_pieces_of_any_size_have_the_same_bytes(
    name: str, checkpoints: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pieces, "DEVICE_PIECE", 10_007)
    monkeypatch.setattr(pieces, "FEW", 300)  # the bits are counted to the last one
    cpu, cuda = on_both(name, checkpoints, tmp_path, density=0.4)
    assert zoo.raw(cuda) == zoo.raw(cpu)


@pytest.mark.parametrize("name", IN_SUBSPACES)
def test_merges_in_subspaces_agree_to_the_last_bits(
    name: str, checkpoints: list[Path], tmp_path: Path
) -> None:
    cpu, cuda = map(zoo.tensors, on_both(name, checkpoints, tmp_path))
    for tensor, expected in cpu.items():
        bits = 2**-22 if expected.dtype == torch.float32 else 2**-7
        torch.testing.assert_close(cuda[tensor], expected, rtol=bits, atol=1e-7, msg=tensor)


def test_a_device_divides_as_the_cpu_does() -> None:
    """By a plain number it multiplies with the reciprocal: 49 / 49 is then less than 1."""
    for divisor in (3.0, 49.0, 0.375, 0.3):
        values = torch.arange(1, 5000, dtype=torch.float64) * divisor
        there = values.cuda()
        found = there / vectors.number_beside(there, divisor)
        assert torch.equal(found.cpu(), values / divisor)


def test_selected_places_are_those_of_the_cpu() -> None:
    make = torch.Generator().manual_seed(2)
    values = torch.randint(0, 50, (200_000,), generator=make).double() / 16
    for start, stop in ((0, 1), (99_999, 150_000), (199_999, 200_000)):
        expected = vectors.ranked(values, start, stop)
        assert torch.equal(vectors.ranked(values.cuda(), start, stop).cpu(), expected)


def test_random_numbers_are_the_same_on_every_device() -> None:
    here, there = (Draw(3, "x", device)(1, (1000, 7)) for device in ("cpu", "cuda"))
    assert there.is_cuda and torch.equal(there.cpu(), here)
