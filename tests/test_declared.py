"""What an operation declares is all that is assumed of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import dropped
import faults
import pytest
import torch
import zoo

import uvmerge

FADE = """
def fade(base: {kind}, finetuned: {kind}, *, scale: Scale = 0.5) -> Edited:
    '''Scale the fine-tuned tensor.'''
    return scale * finetuned.tensor
"""
LAZY = FADE.replace("\ndef fade", "\n@leaves_equal_inputs_alone\ndef lazy")


@pytest.fixture(params=["Operand", "Matrix"])
def fade(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """`fade`, which scales, and `lazy`, which scales too and declares that it does not."""
    folder = tmp_path / "operations"
    for name, code in (("fade", FADE), ("lazy", LAZY)):
        dropped.write(folder, name, code.format(kind=request.param))
    with dropped.dropped(folder):
        yield folder


@pytest.fixture
def pair(tmp_path: Path) -> faults.Pair:
    return faults.pair(tmp_path)


def steps(*steps: object) -> dict[str, object]:
    return {"uvmerge": 1, "steps": list(steps)}


def factor(out: Path, source: Path, name: str = faults.Q.format(1)) -> float:
    """By what a matrix of `out` is larger than the one of `source`."""
    ours, theirs = (zoo.tensors(folder)[name] for folder in (out, source))
    ratio = ours / theirs
    assert torch.allclose(ratio, ratio.mean(), rtol=1e-5)
    return round(float(ratio.mean()), 4)


def test_a_step_after_a_reset_is_done(fade: Path, pair: faults.Pair) -> None:
    base, finetuned, out = pair
    recipe = steps({"reset-layers": {"frac": 1.0}}, {"fade": {"scale": 0.5}})
    uvmerge.run(recipe, out, base=base, finetuned=finetuned)
    assert factor(out, base) == 0.5
    assert uvmerge.check(out, against=finetuned)["changed"] > 0


def test_two_steps_after_a_reset_are_done(fade: Path, pair: faults.Pair) -> None:
    base, finetuned, out = pair
    recipe = steps(
        {"reset-layers": {"frac": 1.0}}, {"fade": {"scale": 0.5}}, {"fade": {"scale": 3}}
    )
    uvmerge.run(recipe, out, base=base, finetuned=finetuned)
    assert factor(out, base) == 1.5


def test_a_step_that_declares_it_is_left_out_after_a_reset(fade: Path, pair: faults.Pair) -> None:
    base, finetuned, out = pair
    recipe = steps({"reset-layers": {"frac": 1.0}}, "lazy", {"fade": {"scale": 0.25}}, "restore")
    done = uvmerge.run(recipe, out, base=base, finetuned=finetuned)
    name = faults.Q.format(1)
    (chain,) = {b.chain for step in done.plan.edits if step.tensor == name for b in step.blocks}
    assert chain == (2, 3)


def test_equal_inputs_are_computed_with_unless_it_is_declared(
    fade: Path, pair: faults.Pair, tmp_path: Path
) -> None:
    base = pair[0]
    assert factor(uvmerge.fade(base, base, tmp_path / "a", scale=0.5).out, base) == 0.5
    out = uvmerge.lazy(base, base, tmp_path / "b", scale=0.5).out
    assert zoo.raw(out) == zoo.raw(base)


def test_of_a_chain_on_equal_inputs_only_what_declares_it_is_skipped(
    fade: Path, pair: faults.Pair, tmp_path: Path
) -> None:
    base = pair[0]
    for name, recipe, expected in (
        ("a", steps("lazy", {"fade": {"scale": 0.25}}), 0.25),
        ("b", steps("restore", {"fade": {"scale": 0.25}}, {"lazy": {"scale": 0.5}}), 0.125),
        ("c", steps("lazy", "lazy"), 1.0),
    ):
        uvmerge.run(recipe, tmp_path / name, base=base, finetuned=base)
        assert factor(tmp_path / name, base) == expected


def test_a_sweep_over_equal_inputs_computes_each_setting(fade: Path, pair: faults.Pair) -> None:
    base, _, out = pair
    uvmerge.sweep("fade", base, base, out, scale=[0.5, 0.25])
    for scale in (0.5, 0.25):
        assert factor(out / f"scale-{scale}", base) == scale


def test_a_reset_of_half_the_layers_fades_both_halves(fade: Path, pair: faults.Pair) -> None:
    base, finetuned, out = pair
    recipe = steps({"reset-layers": {"layers": [1]}}, {"fade": {"scale": 0.5}})
    uvmerge.run(recipe, out, base=base, finetuned=finetuned)
    assert factor(out, base) == 0.5
    assert factor(out, finetuned, faults.Q.format(0)) == 0.5
