"""Merges of mergekit's YAML and mixtures of experts on the Hub: the card names every parent, and someone
else makes the same bytes again."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import adapters
import hub_server
import hub_uploads
import merging
import pytest
import test_moe
import yaml
import zoo
from hub_server import Content, Hub

import uvmerge
from uvmerge.hub import session

UPLOAD = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")
pytestmark = [pytest.mark.hub, UPLOAD]
MODELS = ("base", "chat", "code", "math", "words", "names")
PARENTS = {
    "ties": ["org/base", "org/chat", "org/code", "org/math"],
    "passthrough": ["org/chat", "org/code"],
    "repeated-layers": ["org/chat"],
    "per-slice-base": ["org/chat", "org/code"],
    "tokenizer-union": ["org/words", "org/names"],
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The models of the examples, an adapter, and models for a mixture."""
    folder = merging.make(tmp_path_factory.mktemp("hub"), others=True)
    base = folder / "models" / "base"
    lora = adapters.make(base, folder / "models" / "lora", target_modules=["q_proj"])
    config = json.loads((lora / "adapter_config.json").read_text())
    (lora / "adapter_config.json").write_text(
        json.dumps(config | {"base_model_name_or_path": "org/chat"})
    )
    test_moe.family("llama", folder / "experts")
    return folder


@pytest.fixture
def hub(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    hub_uploads.install(monkeypatch)
    monkeypatch.setattr(session, "_WAITS_S", (0.01,))
    monkeypatch.chdir(tmp_path)
    models = {f"org/{name}": folder / "models" / name for name in (*MODELS, "lora")}
    models |= {f"moe/{name}": folder / "experts" / name for name in ("base", "math", "poet")}
    with hub_server.serving(models) as served:
        hub_server.use(served, tmp_path / "hf", monkeypatch)
        yield served


def run(content: str, **settings: Any) -> None:
    Path("merge.yml").write_text(content)
    uvmerge.run("merge.yml", "out", quiet=True, **settings)


def file(hub: Hub, name: str) -> bytes:
    return b"".join(hub.repositories["org/new"].refs["main"].files[name].pieces())


def front(card: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(card.split("---\n")[1])
    return found


def pushed_and_made_again(hub: Hub, home: Path, monkeypatch: pytest.MonkeyPatch, **ids: Any) -> str:
    """Push the output, make it again with an empty cache, and compare; the card that was pushed."""
    assert uvmerge.push("out", "org/new", **ids).not_reproducible == []
    hub_server.use(hub, home, monkeypatch)
    assert uvmerge.reproduce("org/new", "again", quiet=True).verdict == "identical"
    assert zoo.raw(Path("again")) == zoo.raw(Path("out"))
    return file(hub, "README.md").decode()


@pytest.mark.parametrize("name", PARENTS)
def test_a_file_of_mergekit_is_made_again_with_the_same_bytes(
    name: str, hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run((merging.EXAMPLES / f"{name}.yml").read_text().replace("models/", "org/"))
    own = front(Path("out/README.md").read_text())
    card = pushed_and_made_again(hub, tmp_path / "second", monkeypatch)
    for said in (own, front(card)):
        assert said["base_model"] == PARENTS[name] and said["base_model_relation"] == "merge"
    assert "merge_method: " in card and "uvmerge reproduce org/new" in card
    recipe = yaml.safe_load(file(hub, "uvmerge.yaml"))
    assert f"@{hub_server.COMMIT}" in str(recipe) and "merge_method" in recipe


def test_dtype_and_shards_of_the_command_line_are_kept(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = (
        "merge_method: slerp\nbase_model: org/words\nparameters: {t: 0.3}\nchat_template: chatml\n"
    )
    models = "models: [{model: org/words}, {model: org/names}]\ntokenizer_source: org/names\n"
    run(text + models, dtype="bfloat16", max_shard_size=60_000)
    assert len(list(Path("out").glob("*.safetensors"))) > 1
    pushed_and_made_again(hub, tmp_path / "second", monkeypatch)


def test_a_model_with_an_adapter_is_pinned_as_both(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not the model that the adapter's own config names."""
    models = "models: [{model: org/base+org/lora}, {model: org/code}]\n"
    run(f"merge_method: linear\nparameters: {{weight: 1}}\n{models}")
    said = front(Path("out/README.md").read_text())
    assert said["base_model"] == ["org/base", "org/lora", "org/code"]
    card = pushed_and_made_again(hub, tmp_path / "second", monkeypatch)
    assert front(card)["base_model"] == ["org/base", "org/lora", "org/code"]
    assert f"model: org/base@{hub_server.COMMIT}+org/lora" in card
    inputs = json.loads(file(hub, "uvmerge.json"))["lock"]["inputs"]
    assert {"adapter_model.safetensors", zoo.SINGLE} <= inputs["models[0]"]["files"].keys()
    uvmerge.run("out/uvmerge.json", "once more", quiet=True)
    assert zoo.raw(Path("once more")) == zoo.raw(Path("out"))


def test_an_adapter_alone_is_pinned_with_the_model_that_its_config_names(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uvmerge.linear("org/lora", "org/code", "out", quiet=True)
    card = pushed_and_made_again(hub, tmp_path / "second", monkeypatch)
    assert front(card)["base_model"] == ["org/chat", "org/lora", "org/code"]


def test_a_model_from_a_folder_with_an_adapter_of_the_hub_is_no_model_of_the_hub(
    hub: Hub, folder: Path
) -> None:
    models = f"models: [{{model: {folder}/models/base+org/lora}}, {{model: org/code}}]\n"
    run(f"merge_method: linear\nparameters: {{weight: 1}}\n{models}")
    assert str(folder) not in Path("out/uvmerge.json").read_text()
    done = uvmerge.push("out", "org/new")
    assert done.not_reproducible == ["not reproducible: MODELS[0] has no Hub id"]
    with pytest.raises(uvmerge.InputRefused, match=r"(?s)MODELS\[0\] has no Hub id.*--models-id"):
        uvmerge.reproduce("org/new", "again", quiet=True)


def test_models_from_folders_get_their_ids_when_they_are_pushed(
    hub: Hub, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = (merging.EXAMPLES / "ties.yml").read_text()
    run(text.replace("models/math", "org/math").replace("models/", f"{folder}/models/"))
    assert "--models-id" in Path("out/README.md").read_text()
    for ids, what in (
        ("org/chat", "1 id for 3 models"),
        ("org/chat,org/chat,", "its weights differ"),
    ):
        with pytest.raises(uvmerge.UvmergeError, match=what):
            uvmerge.push("out", "org/new", base_id="org/base", models_id=ids)
    ids = {"base_id": "org/base", "models_id": "org/chat,org/code,"}
    card = pushed_and_made_again(hub, tmp_path / "second", monkeypatch, **ids)
    assert front(card)["base_model"] == PARENTS["ties"] and "before publishing" not in card


@pytest.mark.parametrize("settings", [{}, {"dtype": "float32", "max_shard_size": 60_000}])
def test_a_mixture_of_experts_is_made_again_with_the_same_bytes(
    settings: dict[str, Any], hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = tuple(map(Path, ("moe/base", "moe/math", "moe/poet")))
    uvmerge.moe(test_moe.config(names, "random", seed=5), "out", quiet=True, **settings)
    card = pushed_and_made_again(hub, tmp_path / "second", monkeypatch)
    said = front(card)
    assert said["base_model"] == ["moe/base", "moe/math", "moe/poet"]
    assert said["base_model_relation"] == "merge"
    asked = yaml.safe_load(file(hub, "uvmerge.yaml"))  # a file for `uvmerge moe`
    assert asked["experts"][1]["source_model"] == f"moe/poet@{hub_server.COMMIT}"


def test_a_mixture_whose_file_was_changed_or_names_a_folder_is_refused(
    hub: Hub, folder: Path
) -> None:
    experts = tuple(folder / "experts" / name for name in ("base", "math", "poet"))
    uvmerge.moe(test_moe.config(experts, "random"), "out", quiet=True)
    done = uvmerge.push("out", "org/new", models_id="moe/base,moe/math,")
    assert done.not_reproducible == ["not reproducible: MODELS[2] has no Hub id"]
    uvmerge.push("out", "org/new", models_id=["moe/base", "moe/math", "moe/poet"])
    repository = hub.repositories["org/new"]
    changed = file(hub, "uvmerge.yaml").replace(b"seed: 0", b"seed: 1")
    files = repository.refs["main"].files | {"uvmerge.yaml": Content(changed, False)}
    repository.commit("main", files, "changed")
    with pytest.raises(uvmerge.InputRefused, match="hold different recipes"):
        uvmerge.reproduce("org/new", "again", quiet=True)
    assert not Path("again").exists()
