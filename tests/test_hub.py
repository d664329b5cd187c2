"""Model references on the Hub, against a local server that speaks its protocol."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import zoo
from command import Outcome, process, uv
from hub_server import COMMIT, environment, serving

pytestmark = pytest.mark.hub


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    base, finetuned = zoo.pair("llama", tmp_path_factory.mktemp("pair"))
    (finetuned / "tokenizer.json").write_text("{}")
    (finetuned / "README.md").write_text("---\nlicense: mit\n---\n# sft\n")
    for folder in (base, finetuned):
        (folder / "pytorch_model.bin").write_bytes(b"a second copy")
        (folder / "original").mkdir()
        (folder / "original" / "consolidated.safetensors").write_bytes(b"a third")
    return base, finetuned


@pytest.fixture
def hub(pair: tuple[Path, Path], tmp_path: Path) -> Iterator[tuple[dict[str, str], list[str]]]:
    with serving({"org/base": pair[0], "org/sft": pair[1]}) as hub:
        yield environment(hub, tmp_path / "hf"), hub.asked


def test_a_recipe_is_fetched_by_its_file_or_by_its_repository(
    pair: tuple[Path, Path], tmp_path: Path
) -> None:
    for folder in (tmp_path / "one" / "papers", tmp_path / "none"):
        folder.mkdir(parents=True)
    (tmp_path / "one" / "recipe.yaml").write_text("uvmerge: 1\nsteps: [values]\n")
    (tmp_path / "one" / "papers" / "r.yaml").write_text("uvmerge: 1\nsteps: [reset-layers]\n")
    (tmp_path / "none" / "README.md").write_text("# none\n")
    models = {"org/recipes": tmp_path / "one", "org/none": tmp_path / "none"}
    with serving(models) as hub:
        of_hub = environment(hub, tmp_path / "hf")
        for number, recipe in enumerate(
            ["org/recipes", f"hf://org/recipes/papers/r.yaml@{COMMIT}"]
        ):
            words = [recipe, *pair, tmp_path / str(number), "-q"]
            done = process("run", *words, environment=of_hub)
            assert done.code == 0, done.err
        fetched = [line.rpartition("/")[2] for line in hub.asked if "GET /org/" in line]
        assert fetched == ["recipe.yaml", "r.yaml"]
        for recipe, sentence in (
            ("org/none", "org/none on the Hub has no recipe.yaml or uvmerge.json"),
            ("org/absent/r.yaml", "no file 'org/absent/r.yaml' here, and from the Hub"),
        ):
            done = process("run", recipe, *pair, tmp_path / "out", environment=of_hub)
            assert done.code == 3 and f"error: {recipe}: {sentence}" in done.err
    steps = [json.loads((tmp_path / n / "uvmerge.json").read_text())["recipe"] for n in "01"]
    assert [list(each["steps"][0]) for each in steps] == [["values"], ["reset-layers"]]


def restore(of_hub: dict[str, str], out: Path, *words: str) -> Outcome:
    return process("restore", *words, out, "-q", environment=of_hub)


def test_a_hub_id_is_pinned_to_a_commit_and_only_what_is_needed_is_fetched(
    hub: tuple[dict[str, str], list[str]], pair: tuple[Path, Path], tmp_path: Path
) -> None:
    of_hub, asked = hub
    done = restore(of_hub, tmp_path / "out", "org/base", "hf://org/sft@main")
    assert done.code == 0, done.err
    fetched = {line.rpartition("/")[2] for line in asked if "GET /org/" in line}
    assert fetched >= {"model.safetensors", "config.json", "tokenizer.json"}
    assert not fetched & {"pytorch_model.bin", "consolidated.safetensors"}
    of_base = {line.rpartition("/")[2] for line in asked if "GET /org/base/" in line}
    assert of_base == {"model.safetensors", "config.json"}
    assert all(COMMIT in line for line in asked if "/resolve/" in line)
    content = json.loads((tmp_path / "out" / "uvmerge.json").read_text())
    assert content["inputs"]["finetuned"]["commit"] == COMMIT
    assert content["recipe"]["finetuned"] == f"org/sft@{COMMIT}"
    card = (tmp_path / "out" / "README.md").read_text()
    assert "base_model:\n- org/sft\n- org/base\n" in card and "license: mit" in card
    assert "base_model_relation: merge" in card and "local folders" not in card
    written = b"".join(p.read_bytes() for p in (tmp_path / "out").glob("*.*"))
    assert b"hf_secret" not in written and str(tmp_path).encode() not in written
    assert zoo.raw(tmp_path / "out").keys() == zoo.raw(pair[1]).keys()


def test_a_second_run_offline_uses_the_cache(
    hub: tuple[dict[str, str], list[str]], tmp_path: Path
) -> None:
    of_hub, asked = hub
    assert restore(of_hub, tmp_path / "a", "org/base", "org/sft").code == 0
    before = len(asked)
    offline = {**of_hub, "HF_HUB_OFFLINE": "1"}
    done = restore(offline, tmp_path / "b", "org/base", "org/sft")
    assert done.code == 0, done.err
    assert len(asked) == before
    assert zoo.raw(tmp_path / "a") == zoo.raw(tmp_path / "b")


@pytest.mark.parametrize(
    ("reference", "sentence"),
    [
        ("org/none", "no such model, or it is private"),
        ("gated/model", "access is gated"),
        ("org/base@v9", "no revision 'v9'"),
        ("not a reference", "neither a folder nor a Hub id"),
        ("../up", "neither a folder nor a Hub id"),
    ],
)
def test_what_cannot_be_had_is_one_line_and_a_hint(
    reference: str, sentence: str, hub: tuple[dict[str, str], list[str]], tmp_path: Path
) -> None:
    done = restore(hub[0], tmp_path / "out", reference, "org/sft")
    assert done.code == 3
    assert sentence in done.err and reference in done.err
    assert len(done.err.strip().splitlines()) == 2
    assert not (tmp_path / "out").exists()


def test_a_folder_that_is_misspelt_is_not_only_looked_for_on_the_hub(
    hub: tuple[dict[str, str], list[str]], pair: tuple[Path, Path], tmp_path: Path
) -> None:
    (tmp_path / "models" / "base").mkdir(parents=True)
    (tmp_path / "models" / "org").mkdir()
    done = process("show", "models/bse", environment=hub[0], cwd=tmp_path)
    assert done.code == 3 and done.err.startswith(
        "error: models/bse: there is no such folder, and "
    )
    assert "Did you mean the folder 'models/base'? Check the spelling" in done.err
    done = process("show", "hf://models/bse", environment=hub[0], cwd=tmp_path)
    assert done.code == 3 and "Did you mean" not in done.err
    (tmp_path / "org" / "bases").mkdir(parents=True)  # a model of the Hub is not hidden by a folder
    assert process("show", "org/base", environment=hub[0], cwd=tmp_path).code == 0


def test_a_hub_that_cannot_be_reached_says_what_was_tried(
    hub: tuple[dict[str, str], list[str]], tmp_path: Path
) -> None:
    unreachable = {**hub[0], "HF_ENDPOINT": "http://127.0.0.1:9"}
    done = restore(unreachable, tmp_path / "out", "org/base", "org/sft")
    assert done.code == 3 and "from the Hub (http://127.0.0.1:9)" in done.err


def test_offline_without_a_cache_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    done = process(
        "show", "org/base", environment={"HF_HOME": str(tmp_path / "hf"), "HF_HUB_OFFLINE": "1"}
    )
    assert done.code == 3 and "not in the local cache" in done.err
    assert uv(capsys, "show", tmp_path / "none").code == 3
