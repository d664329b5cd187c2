"""Examples of mergekit's YAML, run whole: every value is that of the formulas in float64."""

from __future__ import annotations

import json
from pathlib import Path

import mergekit_reference
import merging
import pytest
import torch
import zoo

import uvmerge

LAYER = "model.layers.2.mlp.up_proj.weight"
FAMILY = [name for name in merging.names() if name not in ("tokenizer-union",)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The models of the examples."""
    return merging.make(tmp_path_factory.mktemp("merging"), others=True)


@pytest.fixture(autouse=True)
def here(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)


def run(name: str, out: Path) -> Path:
    uvmerge.run(merging.EXAMPLES / f"{name}.yml", out, quiet=True)
    return out


def assert_close(found: torch.Tensor, expected: torch.Tensor, name: str) -> None:
    """Within a unit in the last place, of the value or of 1/256 of the tensor's rms; bfloat16: exact."""
    if found.dtype == torch.bfloat16:
        assert torch.equal(found, expected.float().to(torch.bfloat16)), name
        return
    rms = expected.square().mean().sqrt()
    scale = torch.maximum(expected.abs(), rms / 256).clamp(min=1e-30)
    worst = float(((found.double() - expected).abs() / scale).max())
    assert worst <= 2**-23, (name, worst)


def test_there_are_at_least_twelve_examples() -> None:
    assert len(merging.names()) >= 12


@pytest.mark.parametrize("name", FAMILY)
def test_an_example_gives_what_the_formulas_say(name: str, tmp_path: Path) -> None:
    out = run(name, tmp_path / "out")
    models = merging.WITH_IMAGES if name == "vlm-modules" else ("base", "chat", "code", "math")
    tensors = {each: merging.tensors(Path("models") / each) for each in models}
    expected = mergekit_reference.merged(merging.EXAMPLES / f"{name}.yml", tensors, merging.DEPTH)
    found = zoo.tensors(out)
    assert found.keys() == expected.keys()
    for each, tensor in found.items():
        assert_close(tensor, expected[each], each)
    depth = 1 + max(int(n.split("layers.")[1].split(".")[0]) for n in found if ".layers." in n)
    config = json.loads((out / "config.json").read_text())
    assert config.get("text_config", config)["num_hidden_layers"] == depth


@pytest.mark.parametrize("name", ["passthrough", "repeated-layers"])
def test_a_frankenmerge_loads_and_generates(name: str, tmp_path: Path) -> None:
    model, report = zoo.load(run(name, tmp_path / "out"))
    assert not report["missing_keys"] and not report["unexpected_keys"]
    made = model.generate(torch.tensor([[1, 5, 17]]), max_new_tokens=4, do_sample=False)
    assert made.shape == (1, 7) and model.config.num_hidden_layers > merging.DEPTH


def test_copies_that_begin_as_no_ops_change_nothing(tmp_path: Path) -> None:
    before, after = (
        zoo.logits(Path("models/chat")),
        zoo.logits(run("repeated-layers", tmp_path / "o")),
    )
    assert torch.allclose(before, after, atol=1e-5)


def test_a_union_of_tokens_has_the_rows_of_both_models(tmp_path: Path) -> None:
    found = zoo.tensors(run("tokenizer-union", tmp_path / "out"))
    vocabulary = json.loads((tmp_path / "out" / "tokenizer.json").read_text())
    ids = vocabulary["model"]["vocab"] | {t["content"]: t["id"] for t in vocabulary["added_tokens"]}
    assert len(ids) == 8 == json.loads((tmp_path / "out" / "config.json").read_text())["vocab_size"]
    models = {each: merging.tensors(Path("models") / each) for each in merging.WITH_WORDS}
    for name in ("model.embed_tokens.weight", "lm_head.weight"):
        for token, at in ids.items():
            like = "<s>" if token == "<|new|>" else token
            rows = {
                each: models[each][name][tokens.index(like)]
                for each, tokens in merging.WITH_WORDS.items() if like in tokens
            }  # fmt: skip
            rows = {"names": rows["names"]} if token == "<|new|>" else rows
            one = next(iter(rows.values()))
            expected = 0.6 * rows.get("words", one) + 0.4 * rows.get("names", one)
            assert_close(found[name][at], expected, f"{name} {token}")
    expected = 0.6 * models["words"][LAYER] + 0.4 * models["names"][LAYER]
    assert_close(found[LAYER], expected, LAYER)
