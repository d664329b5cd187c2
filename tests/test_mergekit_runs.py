"""Runs of mergekit's YAML: layers in other places, references, side files, manifests, resumes."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import adapters
import faults
import merging
import pytest
import torch
import yaml
import zoo
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import PreTrainedTokenizerFast

import uvmerge
from uvmerge.checkpoint.folder import Checkpoint
from uvmerge.checkpoint.restacked_config import restacked_config
from uvmerge.checkpoint.stacks import Stack
from uvmerge.engine.settings import Control
from uvmerge.errors import InputRefused, Interrupted, RecipeError, UsageError
from uvmerge.output.templates import CHATML

Q = "model.layers.{}.self_attn.q_proj.weight"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return merging.make(tmp_path_factory.mktemp("runs"))


@pytest.fixture(autouse=True)
def here(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)


def run(content: dict[str, Any], out: Path, **settings: Any) -> Any:
    file = out.with_name(f"{out.name}.yml")
    file.write_text(yaml.safe_dump(content))
    return uvmerge.run(file, out, quiet=True, **settings)


def source(model: str, first: int, stop: int, **parameters: Any) -> dict[str, Any]:
    found: dict[str, Any] = {"model": f"models/{model}", "layer_range": [first, stop]}
    return found | ({"parameters": parameters} if parameters else {})


def test_slices_may_have_different_numbers_of_models(tmp_path: Path) -> None:
    slices = [
        {"sources": [source("chat", 0, 1)]},
        {"sources": [source("chat", 1, 3), source("code", 1, 3, weight=3)]},
        {"sources": [source("math", 3, 4)]},
    ]
    content = {"merge_method": "linear", "slices": slices, "parameters": {"weight": 1}}
    result = run(content, tmp_path / "out")
    found = zoo.tensors(tmp_path / "out")
    chat, code, math = (merging.tensors(Path("models") / n) for n in ("chat", "code", "math"))
    assert torch.equal(found[Q.format(0)], chat[Q.format(0)].float())
    mean = (chat[Q.format(2)] + 3 * code[Q.format(2)]) / 4
    assert torch.equal(found[Q.format(2)], mean.float())
    assert torch.equal(found[Q.format(3)], math[Q.format(3)].float())
    assert torch.equal(found["model.norm.weight"], math["model.norm.weight"].float())
    assert torch.equal(
        found["model.embed_tokens.weight"], chat["model.embed_tokens.weight"].float()
    )
    assert set(result.plan.inputs) == {"models[0]", "models[1]", "models[2]"}


def test_the_manifest_makes_it_again_and_names_no_folder(tmp_path: Path) -> None:
    content = yaml.safe_load((merging.EXAMPLES / "per-slice-base.yml").read_text())
    run(content, tmp_path / "out")
    manifest = (tmp_path / "out" / "uvmerge.json").read_text()
    assert str(Path.cwd()) not in manifest and "models/chat" not in manifest
    card = (tmp_path / "out" / "README.md").read_text()
    assert "merge_method: slerp" in card and "`chat` and `code` merged" in card
    with pytest.raises(InputRefused, match="models was the folder 'chat'"):
        uvmerge.run(tmp_path / "out" / "uvmerge.json", tmp_path / "again", quiet=True)
    models = ["models/chat", "models/code"]
    uvmerge.run(tmp_path / "out" / "uvmerge.json", tmp_path / "again", models=models, quiet=True)
    assert zoo.raw(tmp_path / "again") == zoo.raw(tmp_path / "out")
    assert run(content, tmp_path / "out").was_there


@pytest.mark.parametrize("models", [["models/chat"], ["models/chat", "models/code", "models/math"]])
def test_other_models_are_as_many_as_the_file_has(models: list[str], tmp_path: Path) -> None:
    file = merging.EXAMPLES / "breadcrumbs.yml"
    with pytest.raises(UsageError) as refused:
        uvmerge.run(file, tmp_path / "out", models=models, quiet=True)
    assert f"takes a base and 2 models, and gets a base and {len(models)} model" in str(
        refused.value
    )
    assert "Name them in this order: models/base, models/chat, models/code." in str(refused.value)
    linear = merging.EXAMPLES / "linear.yml"
    with pytest.raises(
        UsageError, match="takes no base and 3 models, and gets a base and 3 models"
    ):
        uvmerge.run(linear, tmp_path / "out", base="models/base", quiet=True)


def test_a_dry_run_shows_every_resolved_parameter(tmp_path: Path) -> None:
    content = yaml.safe_load((merging.EXAMPLES / "slerp.yml").read_text())
    plan = run(content, tmp_path / "out", dry_run=True).plan
    assert not (tmp_path / "out").exists()
    rows = {row[0]: row for row in plan.change_rows()[1] if row[1] == "edit"}
    assert "t 0.433333 0.566667" in str(rows["model.layers.*.self_attn.q_proj.weight"])
    assert plan.as_data()["edits"][Q.format(1)]["options"] == [{"t": pytest.approx(0.4333333)}]


@pytest.mark.parametrize(("dtype", "stored"), [(None, "F32"), ("float16", "F16")])
def test_models_of_two_dtypes_are_stored_in_the_wider_one(
    dtype: str | None, stored: str, tmp_path: Path
) -> None:
    narrow = zoo.finetune("models/base", tmp_path / "narrow", seed=9, dtype="bfloat16")
    models = [{"model": "models/chat"}, {"model": str(narrow)}]
    content: dict[str, Any] = {
        "merge_method": "linear",
        "models": models,
        "parameters": {"weight": 1},
    }
    run(content | ({"dtype": "float32", "out_dtype": dtype} if dtype else {}), tmp_path / "out")
    with Checkpoint.open(tmp_path / "out") as out:
        assert {tensor.dtype for tensor in out.tensors.values()} == {stored}


def test_a_model_may_have_an_adapter_behind_a_plus(tmp_path: Path) -> None:
    base, lora = Path("models/base"), adapters.make(Path("models/base"), tmp_path / "lora")
    content = {
        "merge_method": "linear", "parameters": {"weight": 1}, "dtype": "float32",
        "models": [{"model": f"models/base+{lora}"}, {"model": "models/chat"}],
    }  # fmt: skip
    run(content, tmp_path / "out")
    merged = merging.tensors(adapters.merged(base, lora, tmp_path / "merged"))
    expected = (merged[Q.format(1)] + merging.tensors(Path("models/chat"))[Q.format(1)]) / 2
    assert torch.allclose(zoo.tensors(tmp_path / "out")[Q.format(1)].double(), expected, atol=1e-7)


def test_one_adapter_may_be_merged_into_two_models(tmp_path: Path) -> None:
    lora = adapters.make(Path("models/base"), tmp_path / "lora", target_modules=["q_proj"])

    def mean(*models: str) -> dict[str, Any]:
        each = [{"model": model} for model in models]
        return {"merge_method": "linear", "parameters": {"weight": 1}, "models": each}

    run(mean(f"models/base+{lora}", f"models/chat+{lora}"), tmp_path / "out")
    one, other = (
        merging.tensors(adapters.merged(Path("models") / name, lora, tmp_path / name))
        for name in ("base", "chat")
    )
    found = zoo.tensors(tmp_path / "out")[Q.format(1)].double()
    assert torch.allclose(found, (one[Q.format(1)] + other[Q.format(1)]) / 2, atol=1e-7)
    run(mean(f"1*{lora}", f"2*{lora}"), tmp_path / "scaled")
    for twice in ("./models/base", "models/../models/base"):
        with pytest.raises(InputRefused, match="are one model, named twice"):
            run(mean(f"models/base+{lora}", f"{twice}+{lora}"), tmp_path / "twice")


@pytest.mark.parametrize("changed", ["lora/adapter_model.safetensors", f"base/{zoo.SINGLE}"])
def test_an_output_is_not_that_of_files_written_since(changed: str, tmp_path: Path) -> None:
    base = shutil.copytree("models/base", tmp_path / "base")
    adapters.make(base, tmp_path / "lora", target_modules=["q_proj"])
    models = [{"model": f"{base}+{tmp_path}/lora"}, {"model": "models/chat"}]
    slices = [{"sources": [{**each, "layer_range": [0, 2]} for each in models]}]
    content = {"merge_method": "linear", "parameters": {"weight": 1}, "slices": slices}
    run(content, tmp_path / "out")
    assert run(content, tmp_path / "out").was_there
    os.utime(tmp_path / changed, ns=(2**62, 2**62))
    with pytest.raises(InputRefused, match="is not empty"):
        run(content, tmp_path / "out")


def test_a_folder_whose_name_has_a_plus_is_one_model(tmp_path: Path) -> None:
    odd = zoo.finetune("models/base", tmp_path / "a+b@c", seed=9)
    content = {"merge_method": "passthrough", "models": [{"model": str(odd)}]}
    run(content, tmp_path / "out")
    assert zoo.raw(tmp_path / "out") == zoo.raw(odd)


def test_what_stands_behind_a_plus_must_be_an_adapter(tmp_path: Path) -> None:
    content = {"merge_method": "passthrough", "models": [{"model": "models/base+models/chat"}]}
    with pytest.raises(InputRefused, match="is no adapter"):
        run(content, tmp_path / "out")


@pytest.mark.parametrize(
    ("name", "text", "opened"),
    [
        (
            "llama3",
            "<s><|start_header_id|>system<|end_header_id|>\n\nS<|eot_id|>"
            "<|start_header_id|>user<|end_header_id|>\n\nA<|eot_id|>",
            "<|start_header_id|>assistant<|end_header_id|>\n\n",
        ),
        ("alpaca", "S\n\n### Instruction:\nA\n\n", "### Response:\n"),
        (
            "chatml",
            "<|im_start|>system\nS<|im_end|>\n<|im_start|>user\nA <|im_end|>\n",
            "<|im_start|>assistant\n",
        ),
    ],
)
def test_known_chat_templates_have_their_published_formats(
    name: str, text: str, opened: str, tmp_path: Path
) -> None:
    content = {"merge_method": "passthrough", "models": [{"model": "models/base"}]}
    run(content | {"chat_template": name}, tmp_path / "out")
    template = (tmp_path / "out" / "chat_template.jinja").read_text()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(WordLevel({"<s>": 0})), bos_token="<s>", chat_template=template
    )
    chat = [{"role": "system", "content": "S"}, {"role": "user", "content": "A "}]
    assert tokenizer.apply_chat_template(chat, tokenize=False) == text
    rendered = tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
    assert rendered == text + opened


@pytest.mark.parametrize(
    ("wanted", "text"), [("chatml", CHATML), ("auto", "two"), ("{{ x }}", "{{ x }}")]
)
def test_a_chat_template_is_a_side_file(wanted: str, text: str, tmp_path: Path) -> None:
    models = []
    for number, template in enumerate(("one", "two", "two")):
        own = zoo.finetune("models/base", tmp_path / f"m{number}", seed=number)
        about = {"chat_template": template, "unk_token": "x"}
        (own / "tokenizer_config.json").write_text(json.dumps(about))
        models.append({"model": str(own)})
    content = {"merge_method": "karcher", "models": models, "chat_template": wanted}
    run(content, tmp_path / "out")
    assert (tmp_path / "out" / "chat_template.jinja").read_text() == text
    config = json.loads((tmp_path / "out" / "tokenizer_config.json").read_text())
    assert config == {"unk_token": "x"}


def test_a_template_that_no_model_has_is_refused(tmp_path: Path) -> None:
    models = [{"model": "models/chat"}, {"model": "models/code"}]
    with pytest.raises(InputRefused, match="no model has a template"):
        run(
            {"merge_method": "karcher", "models": models, "chat_template": "auto"}, tmp_path / "out"
        )


def test_layers_of_another_kind_of_model_are_refused(tmp_path: Path) -> None:
    other = zoo.make("qwen2", tmp_path / "qwen", dtype="float32")
    slices = [
        {"sources": [source("chat", 0, 2)]},
        {"sources": [{"model": str(other), "layer_range": [2, 4]}]},
    ]
    with pytest.raises(InputRefused, match="two kinds"):
        run({"merge_method": "passthrough", "slices": slices}, tmp_path / "out")


@pytest.mark.parametrize("family", ["qwen2", "gemma3", "gpt2"])
def test_a_config_with_lists_of_layers_fits_the_new_ones(family: str, tmp_path: Path) -> None:
    model = zoo.make(family, tmp_path / "model", dtype="float32")
    ranges = [[0, 3], [1, 4]]
    slices = [{"sources": [{"model": str(model), "layer_range": each}]} for each in ranges]
    run({"merge_method": "passthrough", "slices": slices}, tmp_path / "out")
    loaded, report = zoo.load(tmp_path / "out")
    assert not report["missing_keys"] and not report["unexpected_keys"]
    assert loaded.generate(torch.tensor([[1, 5]]), max_new_tokens=2, do_sample=False).shape == (
        1,
        4,
    )
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config.get("num_hidden_layers", config.get("n_layer")) == 6
    before = json.loads((model / "config.json").read_text()).get("layer_types")
    if before:
        assert config["layer_types"] == [before[i] for i in (0, 1, 2, 1, 2, 3)]


def test_lists_by_layer_numbers_and_patterns_follow() -> None:
    config = {
        "num_hidden_layers": 4, "mlp_only_layers": [0, 3], "hybrid_override_pattern": "M-*M",
        "no_rope_layers": [1, 1, 1, 0], "architectures": ["A", "B", "C", "D"], "max_window_layers": 4,
        "eos_token_id": [1, 2, 3, 4], "text_config": {"num_hidden_layers": 4, "layer_types": list("abcd")},
    }  # fmt: skip
    notes: list[str] = []
    layers = [(config, number) for number in (0, 3, 3)]
    found = restacked_config(config, Stack("model.layers", 4, "text", 1), layers, notes)
    assert found == config | {
        "num_hidden_layers": 3, "mlp_only_layers": [0, 1, 2], "hybrid_override_pattern": "MMM",
        "no_rope_layers": [1, 0, 0], "text_config": {"num_hidden_layers": 3, "layer_types": list("add")},
    }  # fmt: skip
    assert notes == ["config.json: max_window_layers 4 is kept, and counts layers of the output"]


def test_encoder_and_decoder_are_modules_of_their_own(tmp_path: Path) -> None:
    import transformers

    config = transformers.T5Config(
        vocab_size=64, d_model=16, d_kv=8, d_ff=24, num_layers=2, num_decoder_layers=2, num_heads=2,
        decoder_start_token_id=0,
    )  # fmt: skip
    torch.manual_seed(0)
    transformers.T5ForConditionalGeneration(config).save_pretrained(tmp_path / "t5")
    model = str(tmp_path / "t5")
    deeper = [{"sources": [{"model": model, "layer_range": each}]} for each in ([0, 2], [1, 2])]
    modules = {"encoder": {"slices": deeper}, "decoder": {"models": [{"model": model}]}}
    run({"merge_method": "passthrough", "modules": modules}, tmp_path / "out")
    content = json.loads((tmp_path / "out" / "config.json").read_text())
    assert (content["num_layers"], content["num_decoder_layers"]) == (3, 2)
    before, after = zoo.tensors(tmp_path / "t5"), zoo.tensors(tmp_path / "out")
    name = "encoder.block.{}.layer.1.DenseReluDense.wi.weight"
    assert torch.equal(after[name.format(2)], before[name.format(1)])
    assert torch.equal(after["shared.weight"], before["shared.weight"])
    assert not zoo.load(tmp_path / "out")[1]["missing_keys"]


def test_a_tensor_that_no_module_has_is_refused(tmp_path: Path) -> None:
    models = [{"model": "models/chat"}]
    content = {"merge_method": "passthrough", "modules": {"vision_tower": {"models": models}}}
    with pytest.raises(RecipeError, match="no module 'vision_tower'"):
        run(content, tmp_path / "out")


def test_a_stopped_run_resumes_with_the_same_bytes(tmp_path: Path) -> None:
    content = yaml.safe_load((merging.EXAMPLES / "per-slice-base.yml").read_text())
    run(content, tmp_path / "whole")
    control, done = Control(), []

    def advance(name: str, work: float) -> None:
        done.append(name)
        if len(done) == 9:
            control.stop.set()

    control.advance = advance
    with pytest.raises(Interrupted):
        run(content, tmp_path / "out", control=control, workers=1)
    assert not (tmp_path / "out").exists() and faults.pieces(tmp_path / "out")
    run(content, tmp_path / "out")
    assert faults.contents(tmp_path / "out") == faults.contents(tmp_path / "whole")


def test_shards_of_a_frankenmerge_are_no_larger_than_its_models(tmp_path: Path) -> None:
    cut = zoo.rewrite("models/chat", tmp_path / "cut", shard_bytes=150_000)
    slices = [{"sources": [{"model": str(cut), "layer_range": each}]} for each in ([0, 3], [1, 4])]
    run({"merge_method": "passthrough", "slices": slices}, tmp_path / "out")
    files = sorted(path.name for path in (tmp_path / "out").glob("*.safetensors"))
    assert len(files) > 3 and files[0] == f"model-00001-of-{len(files):05d}.safetensors"
    assert (
        not uvmerge.check(tmp_path / "out").problems if hasattr(uvmerge.check, "problems") else True
    )
    assert zoo.load(tmp_path / "out")[0].config.num_hidden_layers == 6


def test_notes_tell_what_does_not_fit_where_layers_move(tmp_path: Path) -> None:
    bias = "model.layers.0.self_attn.q_proj.bias"
    more = zoo.rewrite(
        "models/chat", tmp_path / "more", lambda tensors: tensors | {bias: torch.zeros(64)}
    )
    ranges = [(str(more), [0, 2]), ("models/code", [1, 4])]
    slices = [{"sources": [{"model": model, "layer_range": each}]} for model, each in ranges]
    content = {"merge_method": "passthrough", "slices": slices}
    told = "layers of code lack what those of more have: 1 tensor: self_attn.q_proj.bias"
    assert told in run(content, tmp_path / "out").plan.notes
    config = json.loads((more / "config.json").read_text()) | {"num_hidden_layers": 99}
    (more / "config.json").write_text(json.dumps(config))
    notes = run(content, tmp_path / "other", dry_run=True).plan.notes
    told = "nothing in it states the 4 layers of model.layers; the output has 5"
    assert f"config.json: {told}" in notes


def test_layers_put_together_anew_are_not_called_the_first_model(tmp_path: Path) -> None:
    slices = [{"sources": [source("chat", i, i + 1)]} for i in (3, 1)]
    result = run({"merge_method": "passthrough", "slices": slices}, tmp_path / "out")
    assert result.summary.endswith("0 changed, every tensor is one of the models', byte for byte")
    one = {"merge_method": "passthrough", "models": [{"model": "models/chat"}]}
    assert "equals the models[0]" in run(one, tmp_path / "one").summary


def test_a_report_of_layers_with_other_numbers_is_refused(tmp_path: Path) -> None:
    content = yaml.safe_load((merging.EXAMPLES / "passthrough.yml").read_text())
    with pytest.raises(UsageError, match="here layers get other numbers"):
        run(content, tmp_path / "out", report=tmp_path / "report")
    assert not (tmp_path / "out").exists()
