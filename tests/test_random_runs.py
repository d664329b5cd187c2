"""Random merges, run on checkpoints: the same bytes on any number of workers and of shards."""

from __future__ import annotations

from pathlib import Path

import faults
import pytest
import torch
import zoo

import uvmerge


@pytest.fixture
def checkpoints(tmp_path: Path) -> list[Path]:
    """A base and two models that were fine-tuned apart."""
    plain = faults.tensors()
    make = torch.Generator().manual_seed(3)
    found = [faults.write(tmp_path / "base", plain)]
    for name in ("a", "b"):
        tensors = {n: t + 0.05 * torch.randn(t.shape, generator=make) for n, t in plain.items()}
        found.append(faults.write(tmp_path / name, tensors))
    return found


@pytest.mark.parametrize(
    "name", ["dare_linear", "dare_ties", "della", "della_linear", "svc", "tsv"]
)
def test_workers_and_shards_change_no_byte(
    name: str, checkpoints: list[Path], tmp_path: Path
) -> None:
    merge = getattr(uvmerge, name)
    density = {"density": [0.5, 0.4]} if name[:2] in ("da", "de") else {}
    merge(*checkpoints, tmp_path / "one", workers=1, **density)
    merge(*checkpoints, tmp_path / "two", workers=2, max_shard_size="10KB", **density)
    assert len(list((tmp_path / "two").glob("*.safetensors"))) > 1
    one, two = (zoo.tensors(tmp_path / each) for each in ("one", "two"))
    assert one.keys() == two.keys()
    assert all(torch.equal(one[tensor], two[tensor]) for tensor in one)


def test_a_seed_gives_another_model_and_the_same_one_again(
    checkpoints: list[Path], tmp_path: Path
) -> None:
    for name, seed in (("x", 0), ("y", 1), ("z", 0)):
        uvmerge.dare_linear(*checkpoints, tmp_path / name, density=0.5, seed=seed)
    assert zoo.raw(tmp_path / "x") == zoo.raw(tmp_path / "z") != zoo.raw(tmp_path / "y")


def test_an_impossible_probability_is_refused_before_anything_is_written(
    checkpoints: list[Path], tmp_path: Path
) -> None:
    with pytest.raises(
        uvmerge.UsageError, match=r"--epsilon: 0.3 is too much for a density of 0.8"
    ):
        uvmerge.della(*checkpoints, tmp_path / "out", density=0.8, epsilon=0.3)
    assert not list(tmp_path.glob("out*"))


def test_a_merge_writes_what_its_formula_says(checkpoints: list[Path], tmp_path: Path) -> None:
    """`tsv`: matrices of layers in singular subspaces, everything else as the mean of the differences."""
    from uvmerge.spectral.singular import tsv

    uvmerge.tsv(*checkpoints, tmp_path / "out")
    base, *models = (zoo.tensors(folder) for folder in checkpoints)
    for name, found in zoo.tensors(tmp_path / "out").items():
        deltas = [model[name].double() - base[name].double() for model in models]
        merged = tsv(deltas) if "_proj" in name else sum(deltas) / 2
        torch.testing.assert_close(found, (base[name].double() + merged).to(found.dtype), msg=name)
