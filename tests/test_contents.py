"""`uvmerge show`: what a checkpoint holds, from headers alone."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import zoo
from command import uv
from safetensors.torch import load_file, save_file


def test_show_lists_tensors_layers_and_modules(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = zoo.make("qwen3_moe", tmp_path / "moe")
    content = json.loads(uv(capsys, "show", folder, "--json").out)
    assert content["layers"] == 4 and content["dtypes"].keys() == {"BF16"}
    modules = {entry["name"]: (entry["module"], entry["layer"]) for entry in content["tensors"]}
    assert modules["model.layers.2.self_attn.q_proj.weight"] == ("attention", 2)
    assert modules["model.layers.2.mlp.gate.weight"] == ("router", 2)
    assert modules["model.layers.2.mlp.experts.1.up_proj.weight"] == ("mlp", 2)
    assert modules["model.layers.2.self_attn.q_norm.weight"] == ("norm", 2)
    assert modules["model.embed_tokens.weight"] == ("embeddings", None)
    assert modules["lm_head.weight"] == ("head", None)
    assert modules["model.norm.weight"] == ("final-norm", None)
    assert content["parameters"] == sum(t.numel() for t in zoo.tensors(folder).values())


def test_the_table_puts_layers_on_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = zoo.make("gpt_oss", tmp_path / "oss")
    rows = uv(capsys, "show", folder).out.splitlines()
    row = next(r for r in rows if "experts.gate_up_proj " in r).split()
    assert row[-3:] == ["mlp", "4", "32"]


def test_tied_and_quantised_are_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = zoo.make("llama_tied", tmp_path / "tied")
    assert "output head tied to the embeddings" in uv(capsys, "show", folder).out
    config = json.loads((folder / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "gptq"}
    (folder / "config.json").write_text(json.dumps(config))
    assert "quantised" not in uv(capsys, "show", folder).out  # the tensors decide, and are plain
    tensors = load_file(folder / "model.safetensors")
    tensors["model.layers.0.mlp.up_proj.qweight"] = torch.ones(4, 4, dtype=torch.int32)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    assert "quantised: gptq" in uv(capsys, "show", folder).out


def test_show_reads_no_weights(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = zoo.make("llama", tmp_path / "llama")
    limit = max(p.stat().st_size for p in folder.glob("*.safetensors"))
    from uvmerge.checkpoint.source import LocalFile

    read, total = LocalFile.read_into, 0

    def counting(self: LocalFile, offset: int, buffer: memoryview) -> None:
        nonlocal total
        total += len(buffer)
        read(self, offset, buffer)

    monkeypatch.setattr(LocalFile, "read_into", counting)
    assert uv(capsys, "show", folder).code == 0
    assert 0 < total < limit / 4
