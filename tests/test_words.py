"""What a plan says before it starts, and what is counted after it is done."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import faults
import pytest
import torch
import zoo
from faults import done

import uvmerge
from uvmerge.checkpoint.folder import Checkpoint
from uvmerge.operations import operations
from uvmerge.plan import planner, words
from uvmerge.recipe.recipe import Recipe
from uvmerge.recipe.step import RecipeStep

STACKS = {"model.encoder.layers": 4, "model.decoder.layers": 2}


def two_stacks(folder: Path) -> faults.Pair:
    """A pair with an encoder of four layers and a decoder of two."""
    tensors = {
        f"{stack}.{i}.{name}": torch.randn(16, 16, generator=torch.Generator().manual_seed(i))
        for stack, depth in STACKS.items()
        for i in range(depth)
        for name in ("self_attn.q_proj.weight", "fc1.weight")
    }
    return faults.pair_of(folder, tensors, config={"model_type": "whisper"})


def test_the_plan_says_setting_way_and_layers(tmp_path: Path) -> None:
    base, finetuned, out = faults.pair(tmp_path)
    lines = done(faults.uvmerge("restore", base, finetuned, out, "--dry-run")).out.splitlines()
    assert lines[1].strip() == "restore top 0.2"
    assert lines[2].strip() == f"base {base} → finetuned {finetuned} → out {out}"
    assert lines[3].strip() == "layers 0-2 of 3 (attention, mlp)"
    shown = done(faults.uvmerge("reset-layers", base, finetuned, out, "--dry-run")).out
    assert "reset-layers frac 0.25\n" in shown and "layer 0 of 3 (attention, mlp, norm)\n" in shown


def test_layers_are_said_by_stack_and_counted_right(tmp_path: Path) -> None:
    pair = two_stacks(tmp_path)
    shown = done(faults.uvmerge("restore", *pair, "--layers", "0,1", "--dry-run"))
    both = "layers 0-1 of 4 in model.encoder.layers, layers 0-1 of 2 in model.decoder.layers"
    assert both in shown.out and "restore top 0.2, layers 0-1\n" in shown.out
    assert ", 4 + 2 layers, tensors:" in done(faults.uvmerge("show", pair[0])).out
    one = faults.pair_of(
        tmp_path / "one", faults.tensors(layers=1), config=faults.CONFIG | {"num_hidden_layers": 1}
    )
    assert "in 1 file, 1 layer, tensors:" in done(faults.uvmerge("show", one[0])).out
    faults.refused(one, "the model has 1 layer, not layer 3", options=("--layers", "3"))


@pytest.mark.parametrize("operation", operations().values(), ids=lambda each: each.command)
def test_every_setting_is_said_also_where_it_is_the_default(operation) -> None:  # type: ignore[no-untyped-def]
    given = {"lines": {"beta": 0.5}, "swap": {"left": True}}.get(operation.name, {})
    said = words.setting(Recipe((RecipeStep.parse(operation.command, given),)))
    assert said.startswith(operation.command)
    if operation.parameters and operation.command not in ("denoise",):
        assert said != operation.command


@pytest.mark.parametrize(
    "operation", [o for o in operations().values() if o.fallback], ids=lambda each: each.command
)
def test_the_default_that_is_said_is_the_one_that_is_used(operation, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    pair = faults.pair(tmp_path)
    chosen = {"left": True} if operation.name == "swap" else {}
    with Checkpoint.open(pair[0]) as base, Checkpoint.open(pair[1]) as finetuned:
        plans = [
            planner.build(
                Recipe((RecipeStep.parse(operation.command, {**chosen, **more}),)),
                {"base": base, "finetuned": finetuned},
            )
            for more in ({}, operation.fallback)
        ]
    assert plans[0].steps == plans[1].steps
    others = [p.name for p in operation.parameters if p.default is None]
    assert set(operation.fallback) < set(others)
    for name in others:
        assert operation.effective({name: 3}).keys() & set(others) == {name}


def test_options_are_spelled_as_they_are_typed() -> None:
    step = RecipeStep.parse(
        "restore", {"rank": 8, "alpha": 0.5, "modules": "attention", "layers": "0-2,5"}
    )
    assert words.setting(Recipe((step,), dtype="bfloat16")) == (
        "restore rank 8, alpha 0.5, layers 0-2,5, modules attention; stored as bfloat16"
    )
    chain = Recipe((RecipeStep.parse("interpolate", {}), RecipeStep.parse("truncate", {})))
    assert words.setting(chain) == "interpolate scale 0.5; then truncate top 0.05"
    assert words.way({"models[0]": "a", "models[1]": "b"}, "o") == "models a, b → out o"


def test_the_same_files_twice_are_noted(tmp_path: Path) -> None:
    base, _, out = faults.pair(tmp_path)
    note = "note: base and fine-tuned are the same files (base)"
    assert note in done(faults.restore(base, base, out))
    (tmp_path / "link").symlink_to(base)
    assert note in done(faults.restore(base, tmp_path / "link", tmp_path / "other"))
    shutil.copytree(base, tmp_path / "copy")
    assert note not in done(faults.restore(base, tmp_path / "copy", tmp_path / "third"))


def test_a_reset_is_counted_as_one_and_experts_are_no_tensors(tmp_path: Path) -> None:
    pair = zoo.pair("mixtral", tmp_path)
    base, finetuned = (zoo.fuse_experts(each, tmp_path / f"fused{each.name}") for each in pair)
    outcome = done(faults.uvmerge("reset-layers", base, finetuned, tmp_path / "out"))
    names = list(zoo.tensors(finetuned))
    reset = [name for name in names if ".layers.0." in name]
    rest = len(names) - len(reset)
    assert f"{len(reset)} tensors reset to base, {rest} tensors copied" in outcome
    assert f" written, {len(reset)} tensors reset to base, everything else" in outcome
    manifest = json.loads((tmp_path / "out" / "uvmerge.json").read_text())
    assert manifest["reset"] == [name for name in manifest["reset"] if name in reset]
    assert len(manifest["reset"]) == len(reset)


def test_fused_and_separate_experts_are_said_to_be_matched(tmp_path: Path) -> None:
    base, finetuned = zoo.pair("mixtral", tmp_path)
    fused = zoo.fuse_experts(finetuned, tmp_path / "fused")
    for pair, told in (
        ((base, fused), "fused in fine-tuned, apart in base"),
        ((fused, base), "fused in base, apart in fine-tuned"),
    ):
        out = uvmerge.restore(*pair, tmp_path / "out", dry_run=True).plan
        assert any(told in note and "expert matrices" in note for note in out.notes), out.notes
