"""Plan files of what is put together before it is read: layers of several models, vocabularies, adapters."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import adapters
import command
import merging
import pytest
import yaml
import zoo
from planning import assert_same, files, worked
from safetensors.torch import save_file

import uvmerge
from uvmerge import InputRefused, RunFailed
from uvmerge.api.pinning import pinned
from uvmerge.checkpoint.adapter import WEIGHTS


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return merging.make(tmp_path_factory.mktemp("plans"), others=True)


@pytest.fixture(autouse=True)
def here(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)


def run(recipe: Any) -> Any:
    """A call that runs a recipe: a file, or its content."""
    return lambda out, **settings: uvmerge.run(recipe, out, **settings)


def linear(*models: str, **more: Any) -> dict[str, Any]:
    """The mean of models, in mergekit's language."""
    listed = [{"model": f"models/{name}", "parameters": {"weight": 1}} for name in models]
    return {"merge_method": "linear", "models": listed, **more}


# --- merges in mergekit's language --------------------------------------------------------------

# One of each kind: gradients, a base with one more option for each model, layers put together of several
# models, repeated layers, a base for each slice, masks that are drawn, a vocabulary, modules.
USUAL = (
    "slerp", "ties", "passthrough", "repeated-layers", "per-slice-base", "dare-ties",
    "tokenizer-union", "vlm-modules",
)  # fmt: skip


@pytest.mark.parametrize("name", USUAL)
def test_ranks_write_the_bytes_of_a_merge_in_mergekits_language(name: str, tmp_path: Path) -> None:
    assert_same(run(merging.EXAMPLES / f"{name}.yml"), tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted({*merging.names()} - {*USUAL}))
def test_ranks_write_the_bytes_of_every_other_example(name: str, tmp_path: Path) -> None:
    assert_same(run(merging.EXAMPLES / f"{name}.yml"), tmp_path)


@pytest.mark.parametrize(
    "settings",
    [
        {"dtype": "bfloat16", "max_shard_size": "40KB"},
        {"layer_map": "0-3:0-3"},
        {"models": ["models/math", "models/code"], "force": True},
    ],
)
def test_settings_of_the_command_count_for_workers(
    settings: dict[str, Any], tmp_path: Path
) -> None:
    recipe = linear("chat", "code", name="a mean")
    assert_same(lambda out, **more: uvmerge.run(recipe, out, **settings, **more), tmp_path)


def test_a_rule_of_the_command_replaces_that_of_the_file(tmp_path: Path) -> None:
    recipe = linear("words", "names", tokenizer_source="union")
    settings = {"tokenizer": "models/names", "pad_to_multiple_of": 4}
    assert_same(lambda out, **more: uvmerge.run(recipe, out, **settings, **more), tmp_path)


def test_models_of_two_dtypes_and_a_chat_template(tmp_path: Path) -> None:
    narrow = zoo.finetune("models/base", tmp_path / "narrow", seed=9, dtype="bfloat16")
    recipe = linear("chat", chat_template="chatml")
    recipe["models"] += [{"model": str(narrow), "parameters": {"weight": 2}}]
    assert_same(run(recipe), tmp_path)
    assert (tmp_path / "many" / "out" / "chat_template.jinja").is_file()


def test_layers_of_several_models_keep_what_their_plan_knows_of_them(tmp_path: Path) -> None:
    """The inputs are looked at, although the plan reads none of them as it is."""
    code = zoo.finetune("models/base", tmp_path / "code", seed=2)
    pieces = [("models/chat", 0, 2), (str(code), 1, 4)]
    slices = [{"sources": [{"model": m, "layer_range": [a, b]}]} for m, a, b in pieces]
    file = tmp_path / "plan.json"
    uvmerge.run({"merge_method": "passthrough", "slices": slices}, tmp_path / "out", plan=file)
    changed = bytearray((code / "model.safetensors").read_bytes())
    changed[-1000:] = bytes(1000)
    (code / "model.safetensors").write_bytes(changed)
    with pytest.raises(InputRefused, match=r"models\[1\] \(code\): is not the checkpoint that"):
        uvmerge.work(file, rank=0, world_size=1)


def test_the_command_line_plans_a_file_of_mergekit(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "merge.yml").write_text(yaml.safe_dump(linear("chat", "code")))
    file = tmp_path / "plan.json"
    done = command.uv(capsys, "plan", "run", tmp_path / "merge.yml", tmp_path / "out", "-o", file)
    assert (done.code, done.out) == (0, f"{file}\n"), done.err
    references = json.loads(file.read_text())["references"]
    assert references == {
        "models[0]": f"{Path.cwd()}/models/chat",
        "models[1]": f"{Path.cwd()}/models/code",
    }
    worked(file)
    uvmerge.run(tmp_path / "merge.yml", tmp_path / "one", quiet=True)
    assert zoo.raw(tmp_path / "out") == zoo.raw(tmp_path / "one")


# --- vocabularies -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "settings",
    [
        {"tokenizer": "union", "pad_to_multiple_of": 8},
        {"tokenizer": "models/names"},
        {"force": True, "tokenizer": "base"},
    ],
)
def test_ranks_write_rows_and_side_files_of_another_vocabulary(
    settings: dict[str, Any], tmp_path: Path
) -> None:
    def call(out: Path, **more: Any) -> Any:
        models = ["models/words", "models/names"]
        return uvmerge.linear(*models, out, weight=(0.6, 0.4), **settings, **more)

    assert_same(call, tmp_path)


def test_rows_of_other_tokens_are_mixed_where_the_command_was_forced(tmp_path: Path) -> None:
    other = Path(shutil.copytree("models/words", tmp_path / "other"))
    text = (other / "tokenizer.json").read_text()
    text = text.replace('"cat"', '"x"').replace('"sat"', '"cat"').replace('"x"', '"sat"')
    (other / "tokenizer.json").write_text(text)
    models = ("models/words", other)
    assert_same(lambda out, **more: uvmerge.linear(*models, out, force=True, **more), tmp_path)


def test_a_rule_of_a_recipe_is_in_the_plan(tmp_path: Path) -> None:
    tokens = {"cat": {"model": "models/words", "force": True}, "<|new|>": {"model": None}}
    recipe = {
        "uvmerge": 1, "models": ["models/names", "models/words"], "steps": ["linear"],
        "tokenizer": {"source": "union", "tokens": tokens},
    }  # fmt: skip
    assert_same(run(recipe), tmp_path)


def test_another_tokenizer_than_was_planned_is_refused(tmp_path: Path) -> None:
    names = Path(shutil.copytree("models/names", tmp_path / "names"))
    file = tmp_path / "plan.json"
    uvmerge.linear("models/words", names, tmp_path / "out", tokenizer="union", plan=file)
    text = (names / "tokenizer.json").read_text()
    (names / "tokenizer.json").write_text(text.replace('"Ada"', '"Eve"'))
    with pytest.raises(InputRefused, match=r"is not the checkpoint that plan\.json was made for"):
        uvmerge.work(file, rank=0, world_size=1)


@pytest.fixture
def heads(tmp_path: Path) -> tuple[Path, Path]:
    """A model whose embeddings are its head, and one with a head of its own."""
    tied = zoo.make("llama_tied", tmp_path / "tied", dtype="float32")
    config = json.loads((tied / "config.json").read_text())
    other = zoo.finetune(tied, tmp_path / "other", seed=4, strength=0.1)
    tensors = zoo.tensors(other)
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].clone()
    save_file(tensors, other / "model.safetensors", metadata={"format": "pt"})
    (other / "config.json").write_text(json.dumps(config | {"tie_word_embeddings": False}))
    for each in (tied, other):
        shutil.copy("models/words/tokenizer.json", each)
    return tied, other


def test_a_model_that_ties_its_head_gets_one_beside_a_model_that_does_not(
    heads: tuple[Path, Path], tmp_path: Path
) -> None:
    assert_same(lambda out, **more: uvmerge.linear(*heads, out, **more), tmp_path)
    assert "lm_head.weight" in zoo.raw(tmp_path / "many" / "out")


@pytest.mark.parametrize("settings", [{}, {"tokenizer": "union"}])
def test_tensors_that_lie_elsewhere_than_was_planned_are_not_read(
    settings: dict[str, Any], heads: tuple[Path, Path], tmp_path: Path
) -> None:
    """With a config that says something else, the first model would get no head, and files another layout."""
    file, path = tmp_path / "plan.json", heads[0] / "config.json"
    uvmerge.linear(*heads, tmp_path / "out", plan=file, **settings)
    path.write_text(path.read_text().replace("LlamaForCausalLM", "LlamaModel"))
    with pytest.raises(
        InputRefused, match=r"models\[0\] \(tied\): is not the checkpoint that plan"
    ):
        uvmerge.work(file, rank=0, world_size=1)


# --- adapters as outputs ------------------------------------------------------------------------


@pytest.mark.parametrize(
    "settings",
    [
        {"emit": "adapter", "adapter_for": "base", "lossy": True, "base_id": "org/base"},
        {
            "emit": "adapter",
            "adapter_rank": 3,
            "adapter_error": 1,
            "dtype": "bfloat16",
            "lossy": True,
        },
    ],
)
def test_ranks_write_the_factors_of_an_edit(settings: dict[str, Any], tmp_path: Path) -> None:
    def call(out: Path, **more: Any) -> Any:
        return uvmerge.restore("models/base", "models/chat", out, top=0.2, **settings, **more)

    assert_same(call, tmp_path)
    assert "adapter_model.safetensors" in files(tmp_path / "many" / "out")


def test_an_extracted_adapter_and_a_sweep_of_adapters(tmp_path: Path) -> None:
    pair = ("models/base", "models/chat")
    assert_same(lambda out, **more: uvmerge.extract_lora(*pair, out, rank=4, **more), tmp_path)
    settings: dict[str, Any] = {"top": [0.1, 0.2], "emit": "adapter", "lossy": True, "quiet": True}
    uvmerge.sweep("restore", *pair, tmp_path / "one" / "sweep", **settings)
    file = tmp_path / "sweep.json"
    uvmerge.sweep("restore", *pair, tmp_path / "many" / "sweep", plan=file, **settings)
    for rank in (1, 0):
        uvmerge.work(file, rank=rank, world_size=2)
    for result in uvmerge.finish(file):
        assert files(result.out) == files(tmp_path / "one" / "sweep" / result.out.name)


def test_factors_that_were_changed_since_are_made_again(tmp_path: Path) -> None:
    file, pair = tmp_path / "plan.json", ("models/base", "models/chat")
    uvmerge.extract_lora(*pair, tmp_path / "out", rank=4, plan=file)
    uvmerge.work(file, rank=0, world_size=1)
    (root,) = tmp_path.glob("out.uvmerge-partial-*")
    pieces = map(json.loads, next(root.glob("rank-*")).read_text().splitlines()[1:])
    with (root / "factors.bin").open("r+b") as stream:
        stream.seek(next(piece["offset"] for piece in pieces if piece["size"]))
        stream.write(b"\x01\x02")
    with pytest.raises(RunFailed, match=r"factors\.bin: reading back bytes .* gives other content"):
        uvmerge.finish(file)
    uvmerge.work(file, rank=0, world_size=1)
    uvmerge.finish(file)
    uvmerge.extract_lora(*pair, tmp_path / "one", rank=4)
    one, many = files(tmp_path / "one"), files(tmp_path / "out")
    assert one[WEIGHTS] == many[WEIGHTS]


def test_an_adapter_that_holds_too_little_is_refused_when_all_factors_are_there(
    tmp_path: Path,
) -> None:
    settings: dict[str, Any] = {"top": 0.2, "emit": "adapter", "adapter_rank": 1}
    file = tmp_path / "plan.json"
    uvmerge.restore("models/base", "models/chat", tmp_path / "out", plan=file, **settings)
    uvmerge.work(file, rank=0, world_size=1)
    with pytest.raises(InputRefused, match="does not hold the edit of"):
        uvmerge.finish(file)
    assert [path.name for path in tmp_path.iterdir()] == ["plan.json"]


def test_plan_stands_before_the_commands_for_adapters(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    file = tmp_path / "plan.json"
    words = ("models/base", "models/chat", tmp_path / "out", "--rank", 4, "-o", file)
    done = command.uv(capsys, "plan", "extract-lora", *words)
    assert (done.code, done.out) == (0, f"{file}\n"), done.err
    uvmerge.work(file, rank=0, world_size=1)
    done = command.uv(capsys, "finish", file)
    assert (done.code, done.out) == (0, f"{tmp_path / 'out'}\n"), done.err
    assert command.uv(capsys, "plan", "merge-lora", "--help").code == 0


# --- how inputs are named -----------------------------------------------------------------------


def test_workers_find_models_with_adapters_from_any_folder(tmp_path: Path) -> None:
    adapters.make(Path("models/base"), Path("models/lora"), r=2)
    recipe = linear("base+models/lora", "chat")
    assert_same(run(recipe), tmp_path / "plus")
    scales = {"scale": (0.5, -2.0)}

    def added(out: Path, **more: Any) -> Any:
        return uvmerge.merge_lora(
            "models/base", "models/lora", "models/lora", out, **scales, **more
        )

    assert_same(added, tmp_path / "sum")


def test_the_card_names_the_ids_that_the_plan_was_given(tmp_path: Path) -> None:
    ids = {"base_id": "org/base", "finetuned_id": "org/chat"}

    def call(out: Path, **more: Any) -> Any:
        return uvmerge.interpolate("models/base", "models/chat", out, scale=0.5, **ids, **more)

    assert_same(call, tmp_path)
    assert b"- org/chat" in files(tmp_path / "many" / "out")["README.md"]


COMMIT, OTHER = 40 * "a", 40 * "b"


@pytest.mark.parametrize(
    ("reference", "identity", "expected"),
    [
        ("org/m@main", ("org/m", COMMIT), f"hf://org/m@{COMMIT}"),
        ("s3://bucket/m", ("m", None), "s3://bucket/m"),
        ("models/base", ("base", None), "{here}/models/base"),
        ("org/m@v1+org/l", (f"org/m@{OTHER}+org/l", COMMIT, f"org/m@{OTHER}"), f"hf://org/m@{OTHER}+hf://org/l@{COMMIT}"),
        ("org/l", (f"org/m@{OTHER}+org/l", COMMIT, f"org/m@{OTHER}"), f"hf://org/m@{OTHER}+hf://org/l@{COMMIT}"),
        ("models/base+org/l", (f"base+org/l@{COMMIT}", None, "base"), f"{{here}}/models/base+hf://org/l@{COMMIT}"),
        ("0.5*org/l+models/base", (f"0.5*org/l@{COMMIT}+base", None), f"0.5*hf://org/l@{COMMIT}+1.0*{{here}}/models/base"),
        ("100000000000000000*models/base", ("1e+17*base", None), "1e17*{here}/models/base"),
    ],
)  # fmt: skip
def test_a_pinned_reference_names_the_same_from_everywhere(
    reference: str, identity: tuple[Any, ...], expected: str
) -> None:
    known = dict(zip(("reference", "commit", "adapter_of"), identity))
    assert pinned(reference, known) == expected.format(here=Path.cwd())
