"""The tiny models of the tests are what they claim to be."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import zoo


@pytest.mark.parametrize("family", zoo.FAMILIES)
def test_family(family: str, tmp_path: Path) -> None:
    base, finetuned = zoo.pair(family, tmp_path, strength=0.05)
    for folder in (base, finetuned):
        report = zoo.load(folder)[1]
        assert not any(report.values()), report
        assert zoo.logits(folder).isfinite().all()
    assert not torch.equal(zoo.logits(base), zoo.logits(finetuned))
    before, after = zoo.tensors(base), zoo.tensors(finetuned)
    assert list(before) == list(after)
    for name, weight in before.items():
        assert after[name].dtype == weight.dtype == torch.bfloat16
        change = (after[name].float() - weight.float()).norm() / weight.float().norm()
        assert change == pytest.approx(0.05, rel=0.1), name


@pytest.mark.parametrize("family", zoo.FAMILIES)
def test_shards(family: str, tmp_path: Path) -> None:
    single = zoo.make(family, tmp_path / "single")
    sharded = zoo.make(family, tmp_path / "sharded", shard_bytes=zoo.SHARD_BYTES)
    assert len(list(sharded.glob("*.safetensors"))) == len(zoo.files(sharded)) >= 3
    assert zoo.raw(single) == zoo.raw(sharded)


def test_finetune_of_shards(tmp_path: Path) -> None:
    base, finetuned = zoo.pair("llama", tmp_path, shard_bytes=zoo.SHARD_BYTES)
    names = sorted(path.name for path in base.iterdir())
    assert names == sorted(path.name for path in finetuned.iterdir())
    assert all(zoo.header(base / n)[0] == zoo.header(finetuned / n)[0] for n in names if "of" in n)
    assert (base / zoo.INDEX).read_text() == (finetuned / zoo.INDEX).read_text()

    wide = zoo.finetune(base, tmp_path / "wide", dtype="float32")
    assert {tensor.dtype for tensor in zoo.tensors(wide).values()} == {torch.float32}
    size = json.loads((wide / zoo.INDEX).read_text())["metadata"]["total_size"]
    assert size == sum(map(len, zoo.raw(wide).values()))
    assert zoo.load(wide)[0].dtype == torch.float32


def test_spectra(tmp_path: Path) -> None:
    base, finetuned = zoo.pair("llama", tmp_path, rank=2, dtype="float32")
    name = "model.layers.1.mlp.up_proj.weight"
    before, after = zoo.tensors(base)[name], zoo.tensors(finetuned)[name]
    values = torch.linalg.svdvals(before)
    assert values[0] / values[-1] == pytest.approx(len(values) ** zoo.DECAY, rel=1e-3)
    values = torch.linalg.svdvals(after - before)
    assert values[1] > 5 * values[2] > 0


def test_seeds(tmp_path: Path) -> None:
    one, same, other = (zoo.make("llama", tmp_path / str(i), seed=i // 2) for i in range(3))
    assert zoo.raw(one) == zoo.raw(same) != zoo.raw(other)


@pytest.mark.parametrize(
    ("family", "text_family", "head", "renamed"),
    [
        ("llava", "llama", "", "language_model."),
        ("gemma3_vision", "gemma3", "", "language_model."),
        ("qwen2_vl", "qwen2", "", ""),
        ("qwen3_vl", "qwen3", "model.", "model.language_model."),
    ],
)
def test_text_part(family: str, text_family: str, head: str, renamed: str, tmp_path: Path) -> None:
    folders = zoo.pair(family, tmp_path / "whole")
    text_folders = zoo.pair(text_family, tmp_path / "text")
    for folder, text_folder in zip(folders, text_folders, strict=True):
        whole, text = zoo.raw(folder), zoo.raw(text_folder)
        assert len(whole) > len(text)
        for name, content in text.items():
            if name.startswith(head):
                name = renamed + name.removeprefix(head)
            assert whole[name] == content, name


@pytest.mark.parametrize("family", ["mixtral", "qwen2_moe", "qwen3_moe"])
def test_expert_layouts(family: str, tmp_path: Path) -> None:
    split = zoo.make(family, tmp_path / "split")
    fused = zoo.fuse_experts(split, tmp_path / "fused")
    assert not any(zoo.load(fused)[1].values())
    zoo.load(split)[0].save_pretrained(tmp_path / "own", save_original_format=False)
    assert zoo.raw(fused) == zoo.raw(tmp_path / "own") != zoo.raw(split)
    assert zoo.raw(zoo.split_experts(fused, tmp_path / "again")) == zoo.raw(split)
    with pytest.raises(ValueError, match="per-expert"):
        zoo.fuse_experts(fused, tmp_path / "twice")


def test_planting(tmp_path: Path) -> None:
    planted = {"a": ("F8_E4M3", [2, 2], b"1234"), "b": ("I32", [1], b"5678"), "c": ("U8", [0], b"")}
    path = zoo.write_safetensors(tmp_path / zoo.SINGLE, planted, {"format": "pt"})
    assert zoo.raw(tmp_path) == {name: content for name, (_, _, content) in planted.items()}
    assert zoo.tensors(tmp_path)["a"].dtype == torch.float8_e4m3fn
    assert zoo.header(path)[0]["__metadata__"] == {"format": "pt"}
    assert zoo.write_raw(path, b"{}", b"", length=9).read_bytes() == b"\x09" + bytes(7) + b"{}"
