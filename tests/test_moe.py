"""Mixtures of experts of dense models: what is copied, where routers come from, what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import faults
import pytest
import torch
import yaml
import zoo
from command import uv
from planning import assert_same
from tokenizers import Tokenizer, models as kinds, pre_tokenizers

import uvmerge
from uvmerge.engine.settings import Control
from uvmerge.models import routers
from uvmerge.recipe.mixture import Mixture

PROVE, POEM = "prove that x is two", "write a poem on love"
WORDS = f"<unk> the quick {PROVE} {POEM}".split()
MADE = {
    "llama": "MixtralForCausalLM", "mistral": "MixtralForCausalLM",
    "qwen2": "Qwen2MoeForCausalLM", "qwen3": "Qwen3MoeForCausalLM",
}  # fmt: skip
Models = tuple[Path, Path, Path]


def family(name: str, folder: Path, **options: Any) -> Models:
    """A base with a tokenizer, and two models that were fine-tuned from it."""
    base = zoo.make(name, folder / "base", **options)
    words = Tokenizer(kinds.WordLevel({w: i for i, w in enumerate(WORDS)}, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    words.save(str(base / "tokenizer.json"))
    (base / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "PreTrainedTokenizerFast"})
    )
    return base, *(zoo.finetune(base, folder / n, seed=s) for n, s in (("math", 1), ("poet", 2)))


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Models:
    return family("llama", tmp_path_factory.mktemp("llama"), shard_bytes=zoo.SHARD_BYTES)


def config(models: Models, mode: str = "hidden", **more: Any) -> dict[str, Any]:
    base, math, poet = map(str, models)
    experts = [
        {"source_model": math, "positive_prompts": [PROVE], "negative_prompts": ["the quick"]},
        {"source_model": poet, "positive_prompts": [POEM, "love"]},
    ]
    return {"base_model": base, "gate_mode": mode, "experts": experts} | more


def tensors_of(layout: str, out: Path, models: Models) -> None:
    """Every tensor of the output is that of the model it comes from, and none is left over."""
    found, dense = zoo.raw(out), [zoo.raw(model) for model in models]
    names = {"gate": "w1", "up": "w3", "down": "w2"}
    block = "block_sparse_moe" if layout == "mixtral" else "mlp"
    for layer in range(4):
        start = f"model.layers.{layer}."
        for each, inner in names.items():
            inner = inner if layout == "mixtral" else f"{each}_proj"
            for number in (0, 1):
                name = f"{start}{block}.experts.{number}.{inner}.weight"
                assert found.pop(name) == dense[1 + number][f"{start}mlp.{each}_proj.weight"]
        found.pop(f"{start}{block}.gate.weight")
    assert found == {name: raw for name, raw in dense[0].items() if ".mlp." not in name}


def test_experts_are_copied_and_the_rest_is_the_base_s(llama: Models, tmp_path: Path) -> None:
    out = tmp_path / "out"
    (tmp_path / "c.yml").write_text(yaml.safe_dump(config(llama)))
    done = uvmerge.moe(tmp_path / "c.yml", out)
    tensors_of("mixtral", out, llama)
    assert any("wants training" in note for note in done.plan.notes)
    assert "2 experts put together" in done.summary
    loaded, info = zoo.load(out)
    assert type(loaded).__name__ == "MixtralForCausalLM" and not any(info.values())
    assert loaded.generate(torch.tensor([[3, 4]]), max_new_tokens=2).shape == (1, 4)
    assert uvmerge.check(out, load=True)["loaded"]
    content = json.loads((out / "uvmerge.json").read_text())
    assert [e["source_model"] for e in content["recipe"]["mixture"]["experts"]] == ["math", "poet"]
    assert str(tmp_path.parent) not in json.dumps(content)
    card = (out / "README.md").read_text()
    assert "`base` and `math` and `poet` merged" in card and "uvmerge moe config.yml" in card
    assert uvmerge.moe(tmp_path / "c.yml", out).was_there
    with pytest.raises(uvmerge.RecipeError, match="which `uvmerge moe` makes"):
        uvmerge.run(content["recipe"], tmp_path / "again")


@pytest.mark.parametrize("name", MADE)
def test_experts_equal_to_the_base_give_the_base_s_logits(name: str, tmp_path: Path) -> None:
    base = zoo.make(name, tmp_path / "base", dtype="float32")
    asked = config((base, base, base), "random")
    if name == "qwen2":
        shared = {"source_model": str(base), "residual_scale": 0}
        asked |= {"shared_experts": [shared]}
    uvmerge.moe(asked, tmp_path / "out")
    loaded, info = zoo.load(tmp_path / "out")
    assert type(loaded).__name__ == MADE[name] and not any(info.values())
    before, after = zoo.logits(base), zoo.logits(tmp_path / "out")
    assert (before - after).abs().max() < 2e-6 * before.abs().max()


def test_a_shared_expert_is_scaled_and_other_layouts_have_their_names(tmp_path: Path) -> None:
    models = family("qwen2", tmp_path)
    shared = {"source_model": str(models[0]), "residual_scale": 0.5}
    asked = config(models, "uniform_random", shared_experts=[shared], dtype="float32", seed=3)
    uvmerge.moe(asked, tmp_path / "out", max_shard_size=60_000)
    found, base = zoo.tensors(tmp_path / "out"), zoo.tensors(models[0])
    start = "model.layers.2.mlp."
    expected = base[f"{start}down_proj.weight"] * 0.5
    assert torch.equal(found[f"{start}shared_expert.down_proj.weight"], expected.float())
    assert found[f"{start}shared_expert_gate.weight"].shape == (1, 48)
    router = found[f"{start}gate.weight"]
    assert router.dtype == torch.float32 and router.abs().max() <= 48**-0.5
    made = json.loads((tmp_path / "out" / "config.json").read_text())
    assert (made["num_experts"], made["shared_expert_intermediate_size"]) == (2, 80)
    with pytest.raises(uvmerge.RecipeError, match="a qwen2_moe mixture has a shared expert"):
        uvmerge.moe(config(models, "random"), tmp_path / "o")


def test_rows_come_from_hidden_states_of_the_prompts(llama: Models, tmp_path: Path) -> None:
    model, _ = zoo.load(llama[0])
    model.float()

    def state(prompt: str, average: bool) -> torch.Tensor:
        ids = torch.tensor([[WORDS.index(word) for word in prompt.split()]])
        with torch.no_grad():
            states = model(ids, output_hidden_states=True).hidden_states[2][0]
        return states.mean(0) if average else states[-1]

    for mode, average in (("hidden", False), ("hidden_avg", True)):
        uvmerge.moe(config(llama, mode), tmp_path / mode, dtype="float32")
        math = state(PROVE, average) - state("the quick", average)
        poet = (state(POEM, average) + state("love", average)) / 2
        expected = torch.stack([math / math.norm(), poet / poet.norm()])
        found = zoo.tensors(tmp_path / mode)["model.layers.2.block_sparse_moe.gate.weight"]
        assert torch.allclose(found, expected, atol=1e-5)


def test_rows_come_from_embeddings(llama: Models, tmp_path: Path) -> None:
    uvmerge.moe(config(llama, "cheap_embed"), tmp_path / "out", dtype="float32")
    table = zoo.tensors(llama[0])["model.embed_tokens.weight"].double()

    def row(prompt: str) -> torch.Tensor:
        total = sum(table[WORDS.index(word)] for word in prompt.split())
        return total / total.norm()

    math, poet = row(PROVE) - row("the quick"), row(POEM) + row("love")
    expected = torch.stack([math / math.norm(), poet / poet.norm()]).float()
    for layer in range(4):
        name = f"model.layers.{layer}.block_sparse_moe.gate.weight"
        assert torch.allclose(zoo.tensors(tmp_path / "out")[name], expected, atol=1e-6)


def test_drawn_rows_hang_on_seed_and_name_alone() -> None:
    one = routers.drawn_rows(["a", "b"], 3, 64, "random", 7)
    assert torch.equal(routers.drawn_rows(["b"], 2, 64, "random", 7)[:, 0], one[:2, 1])
    assert not torch.equal(routers.drawn_rows(["a", "b"], 3, 64, "random", 8), one)
    assert torch.allclose(one.norm(dim=-1), torch.ones(3, 2, dtype=torch.float64))
    assert routers.alike_layers(one) == 0
    one[0, 1] = 2 * one[1, 1]
    assert routers.alike_layers(one) == 1


def test_a_stopped_run_goes_on_to_the_same_bytes(llama: Models, tmp_path: Path) -> None:
    asked = config(llama, "random")
    uvmerge.moe(asked, tmp_path / "one")
    control = Control()
    control.stop.set()
    with pytest.raises(uvmerge.Interrupted):
        uvmerge.moe(asked, tmp_path / "two", control=control)
    assert not (tmp_path / "two").exists()
    uvmerge.moe(asked, tmp_path / "two")
    assert zoo.raw(tmp_path / "one") == zoo.raw(tmp_path / "two")
    assert faults.contents(tmp_path / "one").keys() == faults.contents(tmp_path / "two").keys()


def test_the_command_prints_a_plan_without_running_the_base(
    llama: Models, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = config(llama)
    (llama[0] / "tokenizer.json").rename(tmp_path / "kept.json")
    try:
        (tmp_path / "c.yml").write_text(yaml.safe_dump(asked))
        shown = uv(capsys, "moe", tmp_path / "c.yml", tmp_path / "out", "--dry-run")
        assert shown.code == 0 and "2 experts, 2 for each token" in shown.out, shown.err
        refused = uv(capsys, "moe", tmp_path / "c.yml", tmp_path / "out")
        assert refused.code == 3 and "has no tokenizer" in refused.err
    finally:
        (tmp_path / "kept.json").rename(llama[0] / "tokenizer.json")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("name", "mode"), [("llama", "hidden"), ("qwen2", "uniform_random")])
def test_ranks_write_the_bytes_of_one_run(name: str, mode: str, tmp_path: Path) -> None:
    """Also of two folders of one name."""
    base, math, poet = family(name, tmp_path)
    (tmp_path / "of").mkdir()
    poet = poet.rename(tmp_path / "of" / "math")
    shared = {"shared_experts": [{"source_model": str(math), "residual_scale": 0.5}]}
    asked = config((base, math, poet), mode, dtype="float16", **(shared if name == "qwen2" else {}))

    def call(out: Path, **more: Any) -> Any:
        return uvmerge.moe(asked, out, max_shard_size="100KB", **more)

    assert_same(call, tmp_path)


def test_workers_take_the_rows_of_routers_from_the_plan(llama: Models, tmp_path: Path) -> None:
    asked, file = config(llama), tmp_path / "plan.json"
    uvmerge.moe(asked, tmp_path / "one")
    uvmerge.moe(asked, tmp_path / "out", plan=file)
    (llama[0] / "tokenizer.json").rename(tmp_path / "kept.json")
    try:
        for rank in (1, 0):
            uvmerge.work(file, rank=rank, world_size=2)
    finally:
        (tmp_path / "kept.json").rename(llama[0] / "tokenizer.json")
    uvmerge.finish(file)
    assert zoo.raw(tmp_path / "out") == zoo.raw(tmp_path / "one")
    data = json.loads(file.read_text())
    data["mixture"]["shape"][0] += 1
    file.write_text(json.dumps(data))
    with pytest.raises(uvmerge.InputRefused, match="its routers are of another size"):
        uvmerge.finish(file)


def test_plan_stands_before_moe(
    llama: Models, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "c.yml").write_text(yaml.safe_dump(config(llama, "random")))
    words = ("plan", "moe", tmp_path / "c.yml", tmp_path / "out")
    assert uv(capsys, *words).code == 2
    done = uv(capsys, *words, "--estimate")
    assert done.code == 0 and "multiply-adds" in done.out, done.err
    done = uv(capsys, *words, "-o", tmp_path / "plan.json")
    assert (done.code, done.out) == (0, f"{tmp_path / 'plan.json'}\n"), done.err


EXPERT = "{source_model: a, positive_prompts: [x]}"
CANCELLED = "{source_model: b, positive_prompts: [x, y], negative_prompts: [y, x]}"
OTHER = "{source_model: b, positive_prompts: [y]}"


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("experts: []", "'base_model' is missing"),
        ("base_model: a\nexperts: []", "c:2: 0 experts"),
        ("base_model: a\nexpert: []", "Did you mean 'experts'?"),
        (f"base_model: a\nexperts: [{EXPERT}]", "c:2: 1 expert, not 2"),
        (f"base_model: a\nexperts:\n- {EXPERT}\n- {CANCELLED}", "c:4: the expert's positive and"),
        ("base_model: a\nmerge_method: linear\nmodels: []", "c:2: a file with a merge_method"),
        (
            "base_model: a\nexperts: [{source_model: b, positive_prompts: x}]",
            "Mixture of experts, shows one",
        ),
        (f"base_model: a\nexperts: [{EXPERT}, {EXPERT}]", "all experts have the same prompts"),
        (f"base_model: a\nexperts:\n- {EXPERT}\n- {{source_model: b}}", "c:4: the expert has no"),
        (f"base_model: a\nexperts: [{EXPERT}, {OTHER}]\ngate_mode: hiden", "c:3: gate_mode cannot"),
        (f"base_model: a\nexperts: [{EXPERT}, {OTHER}]\nexperts_per_token: 3", "of 2"),
        (f"base_model: a\nexperts: [{EXPERT}, {OTHER}]\narchitecture: deepseek", "Known: mixtral"),
        ("base_model: a\nexperts: [{source_model: b, noise_scale: 1}]", "noise_scale is not"),
        ("base_model: a\nexperts: [{source_model: b, prompts: [x]}]", "unknown key 'prompts'"),
        ("base_model: a\nexperts: [{positive_prompts: [x]}]", "names no source_model"),
    ],
)
def test_a_config_that_cannot_be_is_refused_with_its_line(text: str, sentence: str) -> None:
    with pytest.raises(uvmerge.RecipeError) as caught:
        Mixture.parse(text, "c")
    assert sentence in str(caught.value)


def test_models_that_do_not_fit_are_refused(llama: Models, tmp_path: Path) -> None:
    def refused(sentence: str, **more: Any) -> None:
        with pytest.raises(uvmerge.UvmergeError) as caught:
            uvmerge.moe(config(llama, "random") | more, tmp_path / "out")
        assert sentence in str(caught.value), str(caught.value)

    other = zoo.make("gemma", tmp_path / "gemma")
    refused("a model of the type 'gemma'", base_model=str(other))
    refused("no qwen3_moe mixture is made", architecture="qwen3_moe")
    shallow = faults.write(tmp_path / "shallow", faults.tensors())
    refused("is of another depth than base", experts=[{"source_model": str(shallow)}] * 2)
    wide = zoo.make("llama", tmp_path / "wide", dtype="float32")
    refused("holds F32, base BF16", experts=[{"source_model": str(wide)}] * 2)
    strange = zoo.rewrite(
        llama[0], tmp_path / "strange",
        lambda ts: ts | {"model.layers.0.self_attn.q_proj.bias": torch.zeros(64)},
    )  # fmt: skip
    refused("for which a mixtral mixture has no place", base_model=str(strange))
    refused("has no shared expert", shared_experts=[{"source_model": str(llama[1])}])
