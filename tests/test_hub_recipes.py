"""Recipes by name and from the Hub: what is shown, and what one from a stranger may name."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

import faults
import hub_server
import pytest
import zoo
from command import uv
from hub_server import COMMIT, Content, Hub

import uvmerge

pytestmark = pytest.mark.hub
Capsys = pytest.CaptureFixture[str]
STEPS = "steps:\n- reset-layers: {frac: 0.5}\n"


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    base, finetuned, _ = faults.pair(tmp_path / "pair", layers=2, hidden=16)
    recipes = tmp_path / "recipes"
    recipes.mkdir()
    models = {"org/base": base, "org/sft": finetuned, "org/recipes": recipes}
    with hub_server.serving(models) as served:
        hub_server.use(served, tmp_path / "hf", monkeypatch)
        yield served


def put(hub: Hub, text: str | bytes, name: str = "recipe.yaml") -> None:
    content = text if isinstance(text, bytes) else text.encode()
    hub.repositories["org/recipes"].refs["main"].files[name] = Content(content, False)


def test_recipes_are_listed_and_shown(capsys: Capsys) -> None:
    listed = uv(capsys, "recipe", "list")
    assert "restore-top20" in listed.out and listed.out == uv(capsys, "run", "--list").out
    assert json.loads(uv(capsys, "recipe", "list", "--json").out) == uvmerge.recipe_list()
    shown = uvmerge.recipe_show("restore-top20")
    assert shown["steps"] == [{"restore": {"top": 0.2}}]
    assert (
        uvmerge.Recipe.parse(uv(capsys, "recipe", "show", "restore-top20").out).as_data() == shown
    )
    done = uv(capsys, "recipe", "show", "restore-top2")
    assert done.code == 2 and "Did you mean 'restore-top20'?" in done.err


def test_a_recipe_of_the_hub_runs_on_its_models_of_the_hub_whatever_folders_are_here(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here" / "org" / "base").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "here")
    put(hub, f"uvmerge: 1\nbase: org/base@{COMMIT}\nfinetuned: hf://org/sft\n{STEPS}")
    done = uvmerge.run("org/recipes", tmp_path / "out")
    put(hub, f"uvmerge: 1\n{STEPS}", "papers/one.yaml")
    folder = tmp_path / "pair"
    local = uvmerge.run(
        f"hf://org/recipes/papers/one.yaml@{COMMIT}", tmp_path / "local",
        base=folder / "base", finetuned=folder / "finetuned",
    )  # fmt: skip
    assert zoo.raw(done.out) == zoo.raw(local.out)
    assert [each["commit"] for each in done.plan.inputs.values()] == [COMMIT, COMMIT]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (f"uvmerge: 1\nbase: /etc\nfinetuned: org/sft\n{STEPS}", "names models of the Hub alone"),
        (f"uvmerge: 1\nbase: ../up\nfinetuned: org/sft\n{STEPS}", "names models of the Hub alone"),
        (f"uvmerge: 1\nbase: ./org/base\nfinetuned: org/sft\n{STEPS}", "of the Hub alone"),
        (f"uvmerge: 1\nbase: ~/base\nfinetuned: org/sft\n{STEPS}", "names models of the Hub alone"),
        (f"uvmerge: 1\nbase: https://evil.example/m\nfinetuned: a/b\n{STEPS}", "of the Hub alone"),
        (f"uvmerge: 1\nout: /tmp/x\n{STEPS}", "out"),
        ("uvmerge: 1\nsteps:\n" + "- values\n" * 10_000, "has more than 5,000 items"),
        ("a: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]\n", "line"),
        ("uvmerge: 1\n" + "#" * 300_000, "is larger than a recipe"),
    ],
)
def test_a_recipe_of_a_stranger_that_names_more_is_refused_in_a_second(
    text: str, sentence: str, hub: Hub, tmp_path: Path, capsys: Capsys
) -> None:
    put(hub, text)
    uv(capsys, "recipe", "list")
    started = time.process_time()
    done = uv(capsys, "run", "org/recipes", tmp_path / "out", "-q")
    assert time.process_time() - started < 1
    assert done.code in (2, 3) and (sentence in done.err or ":1" in done.err), done.err
    assert len(done.err.strip().splitlines()) == 2
    assert not any("resolve" in line and "safetensors" in line for line in hub.asked)


def test_what_the_user_names_replaces_a_path_in_a_recipe_of_the_hub(
    hub: Hub, tmp_path: Path
) -> None:
    put(hub, f"uvmerge: 1\nbase: /somewhere\nfinetuned: org/sft\n{STEPS}")
    done = uvmerge.run("org/recipes", tmp_path / "out", base=tmp_path / "pair" / "base")
    assert done.out is not None
