"""Recipes: the shipped ones run, and a recipe is the same calls chained."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
import zoo
from command import uv

import uvmerge
from uvmerge.errors import RecipeError
from uvmerge.recipe.bundled import bundled
from uvmerge.recipe.recipe import Recipe

RECIPES = list(bundled().values())


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return zoo.pair("llama", tmp_path_factory.mktemp("pair"))


def test_at_least_six_recipes_are_shipped() -> None:
    assert len(RECIPES) >= 6


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_a_shipped_recipe_runs_and_checks(
    recipe: Path, pair: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert Recipe.load(recipe).name and Recipe.load(recipe).description
    words = ["--base", pair[0], "--finetuned", pair[1]]
    assert uv(capsys, "run", recipe, tmp_path / "out", *words).code == 0
    assert zoo.raw(tmp_path / "out") != zoo.raw(pair[1])
    assert uv(capsys, "check", tmp_path / "out", "--against", pair[1]).code == 0


def test_a_bundled_recipe_has_a_name_to_type_unless_a_file_has_it(
    pair: tuple[Path, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    shown = uv(capsys, "run", "restore-top20", *pair, "a")
    assert shown.code == 0, shown.err
    uvmerge.restore(*pair, "b", top=0.2)
    assert zoo.raw(tmp_path / "a") == zoo.raw(tmp_path / "b")
    uvmerge.run("restore-top20.yaml", "c", base=pair[0], finetuned=pair[1])
    assert zoo.raw(tmp_path / "c") == zoo.raw(tmp_path / "b")
    (tmp_path / "restore-top20").write_text("uvmerge: 1\nsteps: [reset-layers: {frac: 1}]\n")
    uvmerge.run("restore-top20", "d", base=pair[0], finetuned=pair[1])
    assert zoo.raw(tmp_path / "d") != zoo.raw(tmp_path / "b")


def test_the_list_shows_every_bundled_recipe(capsys: pytest.CaptureFixture[str]) -> None:
    shown = uv(capsys, "run", "--list")
    assert shown.code == 0 and shown.err == ""
    lines = shown.out.splitlines()[1:]
    assert [line.split()[0] for line in lines] == [path.stem for path in RECIPES]
    assert all(len(line.split()) > 3 for line in lines)


def test_a_recipe_that_is_nowhere_is_said_with_the_nearest_bundled_one(
    pair: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shown = uv(capsys, "run", "restore-top2", *pair, tmp_path / "out")
    assert shown.code == 2 and "restore-top2: there is no such recipe file" in shown.err
    assert "Did you mean 'restore-top20'?" in shown.err and "uvmerge run --list" in shown.err
    with pytest.raises(RecipeError, match="there is no such recipe file"):
        uvmerge.run("folder/mine.yaml", tmp_path / "out")  # no Hub id: nobody is asked


def test_two_checkpoints_stand_before_the_output_or_none(
    pair: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shown = uv(capsys, "run", "restore-top20", pair[0], tmp_path / "out")
    assert shown.code == 2 and "cannot work on 1 checkpoint before OUT" in shown.err
    assert "uvmerge run RECIPE [BASE FINETUNED] OUT" in shown.err
    shown = uv(capsys, "run", "restore-top20", *pair, tmp_path / "out", "--base", pair[0])
    assert shown.code == 2 and "--base: is given twice" in shown.err
    assert not (tmp_path / "out").exists()


def test_a_recipe_survives_a_round_trip() -> None:
    text = """
uvmerge: 1
name: mix
base: org/base@main
finetuned: sft
dtype: bfloat16
steps:
  - reset-layers: {from: last, frac: 10%, also: "head,embeddings"}
  - restore: {top: 20%, tail: 0.1, layers: "0-2,5", modules: attention, include: ["*q_proj*"]}
  - interpolate
"""
    recipe = Recipe.parse(text)
    again = Recipe.parse(yaml.safe_dump(recipe.as_data(), sort_keys=False))
    assert again == recipe
    assert recipe.as_data()["steps"][1]["restore"]["layers"] == [0, 1, 2, 5]


def test_the_recipe_in_the_manifest_repeats_the_run(
    pair: tuple[Path, Path], tmp_path: Path
) -> None:
    uvmerge.restore(*pair, tmp_path / "a", top=0.4, modules="mlp")
    content = yaml.safe_load((tmp_path / "a" / "uvmerge.json").read_text())
    (tmp_path / "again.yaml").write_text(yaml.safe_dump(content["recipe"]))
    uvmerge.run(tmp_path / "again.yaml", tmp_path / "b", base=pair[0], finetuned=pair[1])
    assert zoo.raw(tmp_path / "a") == zoo.raw(tmp_path / "b")


def test_one_step_is_the_command_of_its_name(pair: tuple[Path, Path], tmp_path: Path) -> None:
    recipe = tmp_path / "r.yaml"
    recipe.write_text("uvmerge: 1\nsteps:\n  - project: {top: 0.3, side: right}\n")
    uvmerge.run(recipe, tmp_path / "a", base=pair[0], finetuned=pair[1])
    uvmerge.project(*pair, tmp_path / "b", top=0.3, side="right")
    assert zoo.raw(tmp_path / "a") == zoo.raw(tmp_path / "b")


def test_later_steps_see_what_earlier_ones_did(pair: tuple[Path, Path], tmp_path: Path) -> None:
    recipe = tmp_path / "r.yaml"
    recipe.write_text(
        "uvmerge: 1\nsteps:\n  - restore: {layers: 1}\n  - reset-layers: {layers: 0-1}\n"
    )
    uvmerge.run(recipe, tmp_path / "a", base=pair[0], finetuned=pair[1])
    uvmerge.reset_layers(*pair, tmp_path / "b", layers="0-1")
    assert zoo.raw(tmp_path / "a") == zoo.raw(tmp_path / "b")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b", "r.yaml"]


def test_references_come_from_the_recipe_unless_given(
    pair: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = tmp_path / "r.yaml"
    recipe.write_text(f"uvmerge: 1\nbase: {pair[0]}\nsteps: [restore]\n")
    shown = uv(capsys, "run", recipe, tmp_path / "out")
    assert shown.code == 2 and "recipe: names no finetuned" in shown.err
    assert uv(capsys, "run", recipe, tmp_path / "out", "--finetuned", pair[1]).code == 0


def test_a_recipe_may_be_a_dict(pair: tuple[Path, Path], tmp_path: Path) -> None:
    recipe = {"uvmerge": 1, "steps": [{"restore": {"top": 0.3}}]}
    uvmerge.run(recipe, tmp_path / "a", base=pair[0], finetuned=pair[1])
    uvmerge.restore(*pair, tmp_path / "b", top=0.3)
    assert zoo.raw(tmp_path / "a") == zoo.raw(tmp_path / "b")


def test_a_folder_in_place_of_a_recipe_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shown = uv(capsys, "run", tmp_path, tmp_path / "out")
    assert shown.code == 2 and "is a folder" in shown.err and "uvmerge run RECIPE OUT" in shown.err
