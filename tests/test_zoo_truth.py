"""Forty families of transformers are read and edited as their module trees say."""

from __future__ import annotations

import json
import shutil
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

sys.path.append(str(Path(__file__).parent.parent / "benchmarks"))

from families.building import save
from families.configs import Family, families
from families.edits import CHECKED, edits
from families.reading import compare

transformers = pytest.importorskip("transformers")

FORTY = (
    "albert", "bamba", "bart", "bart@causal", "bert", "bloom", "clip", "ctrl", "deepseek_v3",
    "falcon_mamba", "flaubert", "florence2", "funnel", "gemma3", "gpt2", "gpt_neox", "gpt_oss",
    "granitemoe", "hrm_text", "idefics3", "jamba", "llama", "llama4", "mbart", "mixtral", "mt5",
    "nemotron_h", "olmoe", "opt", "phi3", "qwen2_vl", "qwen3_5", "qwen3_moe",
    "qwen3_omni_moe_thinker", "recurrent_gemma", "switch_transformers", "t5@even", "vit",
    "wav2vec2", "whisper",
)  # fmt: skip


@pytest.fixture(autouse=True)
def _quiet(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Defaults of small configs contradict each other here and there: transformers says so."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _family(name: str) -> Family:
    found = [family for family in families() if family.name == name]
    if not found:
        pytest.skip(f"transformers {transformers.__version__} has no {name}")
    return found[0]


def _saved(name: str, folder: Path) -> Path:
    save(_family(name), folder)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("name", FORTY)
def test_reading_and_edits_are_what_the_module_tree_says(name: str, tmp_path: Path) -> None:
    folder = _saved(name, tmp_path / name)
    read = compare(folder)
    assert read["status"] == "right", read.get("reason") or read["disagreements"]
    assert edits(folder) == dict.fromkeys(("loads", *CHECKED), "right")


def test_the_truth_of_a_mixture_is_traced_through_what_saving_splits(tmp_path: Path) -> None:
    truth = json.loads((_saved("mixtral", tmp_path / "mixtral") / "truth.json").read_text())
    tensor = truth["tensors"]["model.layers.2.block_sparse_moe.experts.3.w2.weight"]
    assert (tensor["kind"], tensor["layer"], tensor["expert"]) == ("expert", 2, 3)
    assert tensor["module"] == "experts" and tensor["in_out"] is False
    gate = truth["tensors"]["model.layers.2.block_sparse_moe.gate.weight"]
    assert (gate["kind"], gate["module"]) == ("linear", "router")
    assert truth["main"] == ["model.layers"] and truth["untraced"] == []


def test_the_truth_of_gpt2_has_transposed_maps_and_a_tied_head(tmp_path: Path) -> None:
    truth = json.loads((_saved("gpt2", tmp_path / "gpt2") / "truth.json").read_text())
    assert truth["tensors"]["transformer.h.1.mlp.c_fc.weight"]["in_out"] is True
    assert truth["tensors"]["transformer.wte.weight"]["ends"] == ["embeddings", "head"]
    assert [tied["saved"] for tied in truth["tied"]] == [
        ["lm_head.weight", "transformer.wte.weight"]
    ]


def _altered(folder: Path, name: str, **changes: Any) -> None:
    path = folder / "truth.json"
    truth = json.loads(path.read_text())
    truth["tensors"][name] |= changes
    path.write_text(json.dumps(truth))


@pytest.mark.parametrize(
    ("changes", "category"),
    [
        ({"kind": "table"}, "matrix"),
        ({"layer": 3}, "stack"),
        ({"in_out": True}, "orientation"),
        ({"module": "attention"}, "module"),
        ({"stack": None, "layer": None}, "stack"),
    ],
)
def test_a_reading_that_differs_from_the_truth_is_found(
    changes: dict[str, Any], category: str, tmp_path: Path
) -> None:
    folder = _saved("llama", tmp_path / "llama")
    assert compare(folder)["status"] == "right"
    _altered(folder, "model.layers.1.mlp.up_proj.weight", **changes)
    found = compare(folder)
    assert found["status"] == ("labels" if category == "module" else "wrong")
    assert [d["category"] for d in found["disagreements"]] == [category]


def test_an_edit_that_resets_what_is_in_no_layer_is_found(tmp_path: Path) -> None:
    name = "model.layers.1.input_layernorm.weight"
    folder = _saved("llama", tmp_path / "llama")
    _altered(folder, name, stack=None, layer=None)
    assert edits(folder)["reset all"] == (
        f"1 tensors not reset as the module tree says, like {name}"
    )


def test_a_checkpoint_that_does_not_load_is_found(tmp_path: Path) -> None:
    folder = _saved("llama", tmp_path / "llama")
    path = folder / "model.safetensors"
    tensors = load_file(path)
    del tensors["model.layers.0.self_attn.q_proj.weight"]
    save_file(tensors, path, metadata={"format": "pt"})
    shutil.copy(path, tmp_path / "kept")
    assert edits(folder)["loads"] == "1 missing_keys"
    assert torch.equal(load_file(path)["model.norm.weight"], tensors["model.norm.weight"])
