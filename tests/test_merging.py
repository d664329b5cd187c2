"""Merges of several models: numbers of each model, values that differ between tensors, whole tensors,
and what becomes of a merge afterwards."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import adapters
import dropped
import faults
import hub_server
import hub_uploads
import pytest
import torch
import zoo
from faults import DOWN, EMBED, HEAD, Q

import uvmerge
from uvmerge.checkpoint.anatomy import Place
from uvmerge.engine.local import jobs
from uvmerge.hub import session
from uvmerge.operations import operations
from uvmerge.operations.varying import Rule, Varying
from uvmerge.recipe.space import Space
from uvmerge.recipe.step import RecipeStep

# huggingface_hub hands an upload to its HTTP client in a way that this warns of.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")
Models = list[Path]
NORM = "model.layers.{}.input_layernorm.weight"


@pytest.fixture
def models(tmp_path: Path) -> Models:
    """Three models that were fine-tuned apart."""
    make = torch.Generator().manual_seed(3)
    plain = faults.tensors()
    return [
        faults.write(
            tmp_path / name,
            {n: t + 0.05 * torch.randn(t.shape, generator=make) for n, t in plain.items()},
        )
        for name in ("a", "b", "c")
    ]


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return faults.write(tmp_path / "base", faults.tensors(), shards=3)


def weighted(name: str, folders: Models, weights: list[float]) -> torch.Tensor:
    """Σ w W / Σ w of a tensor, in float64, rounded once."""
    parts = [w * zoo.tensors(folder)[name].double() for w, folder in zip(weights, folders)]
    return (sum(parts[1:], parts[0]) / sum(weights)).float()


def near(found: torch.Tensor, expected: torch.Tensor) -> bool:
    return bool((found.double() - expected.double()).abs().max() <= 2e-7)


# --- numbers of each model ---------------------------------------------------------------------


def test_a_number_for_each_model_means_the_same_in_all_three_ways(
    models: Models, tmp_path: Path
) -> None:
    shown = faults.uvmerge("merge", "linear", *models, tmp_path / "one", "--weight", "0.5/0.3/0.7")
    assert shown.code == 0, shown.err
    uvmerge.linear(*models, tmp_path / "two", weight=[0.5, 0.3, 0.7])
    recipe = {"uvmerge": 1, "steps": [{"linear": {"weight": [0.5, 0.3, 0.7]}}]}
    uvmerge.run(recipe, tmp_path / "three", models=models)
    assert faults.contents(tmp_path / "one") == faults.contents(tmp_path / "two")
    assert zoo.raw(tmp_path / "one") == zoo.raw(tmp_path / "three")
    for name, found in zoo.tensors(tmp_path / "one").items():
        assert near(found, weighted(name, models, [0.5, 0.3, 0.7])), name


def test_one_number_is_for_all_models(models: Models, tmp_path: Path) -> None:
    uvmerge.linear(*models, tmp_path / "one", weight=2)
    uvmerge.linear(*models, tmp_path / "two", weight=(2, 2.0, 2))
    assert zoo.raw(tmp_path / "one") == zoo.raw(tmp_path / "two")


def test_task_arithmetic_and_passthrough_are_their_formulas(
    base: Path, models: Models, tmp_path: Path
) -> None:
    uvmerge.task_arithmetic(base, *models, tmp_path / "sum", weight=[1, 0.5, -0.25], scale=0.5)
    uvmerge.passthrough(models[0], tmp_path / "scaled", scale=1.5)
    start, first = zoo.tensors(base), zoo.tensors(models[0])
    several = [zoo.tensors(model) for model in models]
    for name, found in zoo.tensors(tmp_path / "sum").items():
        W = start[name].double()
        delta = sum(w * (t[name].double() - W) for w, t in zip((1, 0.5, -0.25), several))
        assert near(found, W + 0.5 * delta), name
    for name, found in zoo.tensors(tmp_path / "scaled").items():
        assert torch.equal(found, (1.5 * first[name].double()).float()), name
    done = uvmerge.passthrough(models[0], tmp_path / "same")
    assert zoo.raw(tmp_path / "same") == zoo.raw(models[0]) and not done.plan.needs_torch


def test_weights_that_choose_one_model_copy_it(models: Models, tmp_path: Path) -> None:
    done = uvmerge.linear(*models, tmp_path / "out", weight="0/1/0")
    assert zoo.raw(tmp_path / "out") == zoo.raw(models[1]) and not done.plan.needs_torch


# --- values that differ between tensors --------------------------------------------------------


def place(layer: int | None, depth: int = 5) -> Place:
    return Place(layer=layer, depth=depth, module="mlp", is_matrix=True)


def test_a_gradient_is_piecewise_linear_over_the_layers() -> None:
    rule = Rule((0.0, 1.0, 0.0))
    assert [rule.at(place(layer)) for layer in range(5)] == [0.0, 0.5, 1.0, 0.5, 0.0]
    assert Rule((0.2, 0.8)).at(place(None)) == 0.2  # outside of the layers: the first
    assert Rule((0.2, 0.8)).at(place(0, depth=1)) == 0.8  # a single layer: the last
    assert Rule((0.7,)).at(place(3)) == 0.7
    assert Rule((4, 7)).at(place(1, depth=3)) == 6  # whole numbers stay whole
    assert [Rule((True, False)).at(place(layer)) for layer in (0, 3, 4)] == [True, True, False]


def test_the_first_filter_that_fits_decides() -> None:
    value = Varying((Rule((0.3,), "self_attn"), Rule((0.1, 0.5), "layers.1."), Rule((0.9,))))
    assert value.at("model.layers.1.self_attn.q_proj.weight", place(1)) == 0.3
    assert value.at("model.layers.1.mlp.up_proj.weight", place(4)) == 0.5
    assert value.at("model.layers.10.mlp.up_proj.weight", place(4)) == 0.9
    assert Varying((Rule((0.3,), "norm"),)).at("lm_head.weight", place(None)) is None


def test_a_gradient_reaches_every_operation(base: Path, models: Models, tmp_path: Path) -> None:
    words = ("interpolate", base, models[0], tmp_path / "one", "--scale", "0.2..0.8")
    shown = faults.uvmerge(*words)
    assert shown.code == 0, shown.err
    uvmerge.interpolate(base, models[0], tmp_path / "two", scale={"gradient": [0.2, 0.8]})
    assert faults.contents(tmp_path / "one") == faults.contents(tmp_path / "two")
    found, start, end = (zoo.tensors(f) for f in (tmp_path / "one", base, models[0]))
    shares = {Q.format(i): s for i, s in enumerate((0.2, 0.5, 0.8))} | {EMBED: 0.2, HEAD: 0.2}
    for name, share in shares.items():
        expected = start[name].double() + share * (end[name].double() - start[name].double())
        assert near(found[name], expected), name


def test_a_gradient_of_ranks_is_resolved_before_anything_is_decomposed(
    base: Path, models: Models, tmp_path: Path
) -> None:
    plan = uvmerge.restore(base, models[0], tmp_path / "out", rank="2..6", dry_run=True).plan
    ranks = {block.view.tensor: block.ranks for step in plan.edits for block in step.blocks}
    assert [ranks[DOWN.format(i)] for i in range(3)] == [(2,), (4,), (6,)]
    assert "rank 4" in plan.as_table()
    edits = plan.as_data()["edits"]
    assert edits[Q.format(1)]["options"] == [{"rank": 4}]
    json.dumps(plan.as_data())


def test_a_recipe_has_values_by_module_and_by_model(
    base: Path, models: Models, tmp_path: Path
) -> None:
    text = """
uvmerge: 1
steps:
  - task-arithmetic:
      scale:
        - {filter: self_attn, value: 0.25}
        - {filter: mlp, value: {gradient: [0, 1]}}
      weight: [1, {gradient: [0, 1]}, [{filter: norm, value: 0.5}, {value: 0}]]
"""
    recipe = uvmerge.Recipe.parse(text)
    assert uvmerge.Recipe.from_data(recipe.as_data()) == recipe
    uvmerge.run(recipe, tmp_path / "out", base=base, models=models)
    start, several = zoo.tensors(base), [zoo.tensors(model) for model in models]
    found = zoo.tensors(tmp_path / "out")
    cases = {
        Q.format(2): (0.25, (1, 1, 0)),
        DOWN.format(1): (0.5, (1, 0.5, 0)),
        NORM.format(1): (1.0, (1, 0.5, 0.5)),  # no filter fits: the default of --scale
        HEAD: (1.0, (1, 0, 0)),
    }
    for name, (scale, weights) in cases.items():
        W = start[name].double()
        delta = sum(w * (t[name].double() - W) for w, t in zip(weights, several))
        assert near(found[name], W + scale * delta), name
    assert zoo.raw(tmp_path / "out")[DOWN.format(0)] == zoo.raw(base)[DOWN.format(0)]
    content = json.loads((tmp_path / "out" / "uvmerge.json").read_text())
    assert content["edited"][DOWN.format(1)]["options"] == [
        {"weight": [1.0, 0.5, 0.0], "scale": 0.5}
    ]
    uvmerge.run(content["recipe"], tmp_path / "again", base=base, models=models)
    assert zoo.raw(tmp_path / "again") == zoo.raw(tmp_path / "out")


def test_names_of_one_tied_tensor_get_one_value(base: Path, tmp_path: Path) -> None:
    def tied(folder: Path, by: float) -> Path:
        tensors = {n: t + by for n, t in faults.tensors().items()}
        return faults.write(
            folder,
            tensors | {HEAD: tensors[EMBED].clone()},
            config=faults.CONFIG | {"tie_word_embeddings": True},
        )

    a, b = tied(tmp_path / "x", 0.0), tied(tmp_path / "y", 0.5)
    weight = [{"filter": "embed_tokens", "value": 0.25}, {"value": 0.75}]
    uvmerge.linear(a, b, tmp_path / "out", weight=[1, weight])
    found = zoo.raw(tmp_path / "out")
    assert found[EMBED] == found[HEAD]


def test_a_sweep_takes_gradients_and_numbers_of_each_model(models: Models, tmp_path: Path) -> None:
    out = tmp_path / "sweep"
    words = ("sweep", "linear", *models[:2], out, "--weight", "0.7/0.3,0.2..0.8/1,1")
    shown = faults.uvmerge(*words)
    assert shown.code == 0, shown.err
    record = json.loads((out / "sweep.json").read_text())
    assert list(record["checkpoints"]) == ["weight-0.7,0.3", "weight-0.2..0.8,1", "weight-1"]
    single = uvmerge.linear(*models[:2], tmp_path / "one", weight=[{"gradient": [0.2, 0.8]}, 1]).out
    assert zoo.raw(out / "weight-0.2..0.8,1") == zoo.raw(single)


def test_a_search_space_may_hold_a_gradient() -> None:
    text = "uvmerge: 1\nsteps:\n  - lines: {start: {gradient: [0, 1]}, slope: {from: 0, to: 1}}\n"
    space = Space.parse(text)
    assert [d.name for d in space.dimensions] == ["lines.slope"]
    assert space.recipe({"lines.slope": 0.5}).as_data()["steps"] == [
        {"lines": {"start": {"gradient": [0.0, 1.0]}, "slope": 0.5}}
    ]


# --- what is refused ---------------------------------------------------------------------------

WRONG = [
    (["--weight", "0.5/0.5"], 2, "linear: --weight: has 2 values for 3 models"),
    (["--weight", "1/-2/1"], 2, "the weights sum to 0 (1/-2/1)"),
    (["--weight", "0.1/0.2/-0.3"], 2, "the weights sum to 0 (0.1/0.2/-0.3)"),
    (["--weight", "0.2..x"], 2, "--weight: 'x' is not a number"),
    (["--weight", "0.2.."], 2, "--weight: '' is not a number"),
    (["--weight", "1/"], 2, "--weight: '' is not a number"),
    (["--wieght", "1"], 2, "--weight"),
]


@pytest.mark.parametrize(
    ("step", "line", "sentence"),
    [
        ("linear:\n      weight: [1, 0.2, -1.2]", 5, "linear: --weight: the weights sum to 0"),
        (
            "linear: {weight: [1, {gradient: [1, -1]}, 0]}",
            4,
            "linear: --weight: the weights sum to 0",
        ),
        ("linear: {weight: [1, 2]}", 4, "linear: --weight: has 2 values for 3 models"),
        (
            "nuslerp: {deltas: true, weight: [1, 2, -2]}",
            4,
            "nuslerp: --weight: the weights sum to 0",
        ),
        ("nuslerp: {weight: 1}", 4, "nuslerp: mixes two models, not 3"),
    ],
)
def test_a_recipe_that_an_operation_refuses_is_refused_with_its_line(
    step: str, line: int, sentence: str, models: Models, tmp_path: Path
) -> None:
    named = ", ".join(map(str, models))
    recipe = tmp_path / "r.yaml"
    recipe.write_text(f"uvmerge: 1\nmodels: [{named}]\nsteps:\n  - {step}\n")
    shown = faults.uvmerge("run", recipe, tmp_path / "out")
    assert shown.code == 2 and shown.err.startswith(f"error: r.yaml:{line}: {sentence}"), shown.err
    assert len(shown.err.strip().splitlines()) == 2 and not list(tmp_path.glob("out*"))


@pytest.mark.parametrize(("words", "code", "sentence"), WRONG, ids=lambda each: str(each)[:20])
def test_a_wrong_number_of_the_models_is_refused(
    words: list[str], code: int, sentence: str, models: Models, tmp_path: Path
) -> None:
    shown = faults.uvmerge("merge", "linear", *models, tmp_path / "out", *words)
    assert shown.code == code and sentence in shown.err, shown.err
    assert "Traceback" not in shown.err and not (tmp_path / "out").exists()


RECIPES = [
    ("ties: {density: [0.5, 1.5, 1]}", "r.yaml:3: --density: '1.5' is outside 0 to 1"),
    ("ties: {scale: {gradient: []}}", "r.yaml:3: --scale: has no values"),
    ("ties: {scale: {gradients: [1, 2]}}", "r.yaml:3: --scale: '{'gradients': [1, 2]}' is no gradient"),
    ("ties: {scale: [0.2, 0.8]}", "r.yaml:3: --scale: '[0.2, 0.8]' is not a number"),
    ("ties: {scale: [{filter: mlp, value: x}]}", "r.yaml:3: --scale: 'x' is text, not a number"),
    ("ties: {scale: [{fliter: mlp, value: 1}]}", "'fliter' is no part of a filter"),
    ("ties: {scale: [{filter: 3, value: 1}]}", "'3' is not a part of a name"),
    ("ties: {layers: {gradient: [1, 2]}}", "keys and values are not expected here"),
    ("dare-ties: {seed: {gradient: [1, 2]}}", "keys and values are not expected here"),
    ("ties: {densty: 0.5}", "Did you mean 'density'?"),
    ("tie: {density: 0.5}", "is not an operation"),
    ("ties: {scale: [{filter: mpl, value: 1}]}", "r.yaml:3: ties: --scale: the filter 'mpl' fits no tensor"),
]  # fmt: skip


@pytest.mark.parametrize(("step", "sentence"), RECIPES, ids=[step for step, _ in RECIPES])
def test_a_wrong_value_in_a_recipe_is_refused_with_its_line(
    step: str, sentence: str, base: Path, models: Models, tmp_path: Path
) -> None:
    recipe = tmp_path / "r.yaml"
    recipe.write_text(f"uvmerge: 1\nsteps:\n  - {step}\n")
    with pytest.raises(uvmerge.UsageError) as caught:
        uvmerge.run(recipe, tmp_path / "out", base=base, models=models)
    assert sentence in str(caught.value), str(caught.value)
    assert not (tmp_path / "out").exists()


def test_the_line_of_a_filter_is_that_of_the_filter(
    base: Path, models: Models, tmp_path: Path
) -> None:
    recipe = tmp_path / "r.yaml"
    lines = ("uvmerge: 1", "steps:", "- ties:", "    scale:", "    - {filter: mlp, value: 1}",
             "    - {filter: self_atn, value: 1}", "")  # fmt: skip
    recipe.write_text("\n".join(lines))
    with pytest.raises(
        uvmerge.UsageError, match=r"r.yaml:6: ties: --scale.*fits no tensor"
    ) as caught:
        uvmerge.run(recipe, tmp_path / "out", base=base, models=models)
    assert "Did you mean 'self_attn'?" in str(caught.value)


def test_one_model_twice_and_models_of_two_kinds_are_refused(
    models: Models, tmp_path: Path
) -> None:
    a, b, _ = models
    with pytest.raises(uvmerge.InputRefused, match=r"are one model, named twice \(a\)"):
        uvmerge.linear(a, b, a, tmp_path / "out")
    config = json.loads((b / "config.json").read_text())
    (b / "config.json").write_text(json.dumps(config | {"model_type": "mistral"}))
    (a / "config.json").write_text(json.dumps(config | {"model_type": "llama"}))
    with pytest.raises(uvmerge.InputRefused, match="models of two kinds: mistral and llama"):
        uvmerge.linear(a, b, tmp_path / "out")
    uvmerge.linear(a, b, tmp_path / "out", force=True)


def test_a_method_at_the_top_is_named_with_its_usage() -> None:
    shown = faults.uvmerge("task-arithmetic", "base", "a", "out")
    assert shown.code == 2
    assert "`uvmerge merge task-arithmetic BASE MODEL... OUT`" in shown.err
    assert "Did you mean 'linear'?" in faults.uvmerge("merge", "liner", "a", "b", "out").err


def test_the_help_of_merge_has_every_method_under_a_heading() -> None:
    shown = faults.uvmerge("merge", "--help").out
    at = [shown.index(words) for words in
          ("Between models:", "linear", "Differences from a base:", "ties", "Singular subspaces")]  # fmt: skip
    assert at == sorted(at)
    assert "arXiv 2511.21437" in " ".join(shown.split())
    used = faults.uvmerge("merge", "slerp", "--help").out
    assert "Usage: uvmerge merge slerp [OPTIONS] MODEL MODEL OUT" in used
    assert "--normalize / --no-normalize" in faults.uvmerge("merge", "ties", "--help").out


# --- what is written ---------------------------------------------------------------------------


def test_the_dtype_is_that_of_the_first_model(base: Path, models: Models, tmp_path: Path) -> None:
    half = zoo.rewrite(
        models[0], tmp_path / "half", lambda ts: {n: t.bfloat16() for n, t in ts.items()}
    )
    uvmerge.task_arithmetic(base, half, models[1], tmp_path / "out")
    assert {t.dtype for t in zoo.tensors(tmp_path / "out").values()} == {torch.bfloat16}
    uvmerge.task_arithmetic(base, half, models[1], tmp_path / "wide", dtype="float32")
    assert {t.dtype for t in zoo.tensors(tmp_path / "wide").values()} == {torch.float32}


RANDOM = {
    "dare_ties": {"density": 0.5, "seed": 7},
    "della": {"density": [0.3, 0.5, 0.6], "epsilon": 0.1},
    "ties": {"density": 0.5, "scale": "0.2..0.8"},
}


@pytest.mark.parametrize("name", RANDOM)
def test_workers_and_shards_change_no_byte(
    name: str, base: Path, models: Models, tmp_path: Path
) -> None:
    merge = getattr(uvmerge, name)
    merge(base, *models, tmp_path / "one", workers=1, **RANDOM[name])
    expected = zoo.raw(tmp_path / "one")
    for workers, shard in ((2, "2KB"), (4, "100KB")):
        out = tmp_path / f"{workers}"
        merge(base, *models, out, workers=workers, max_shard_size=shard, **RANDOM[name])
        assert zoo.raw(out) == expected
    if "seed" in RANDOM[name]:
        merge(base, *models, tmp_path / "other", **RANDOM[name] | {"seed": 8})
        assert zoo.raw(tmp_path / "other") != expected


def test_killed_at_ten_moments_a_merge_resumes_with_the_same_bytes(
    base: Path, models: Models, tmp_path: Path
) -> None:
    words = ("merge", "dare-ties", base, *models)
    options = ("--density", "0.5/0.6/0.7", "--workers", "2")
    faults.done(faults.uvmerge(*words, tmp_path / "whole", *options))
    expected = faults.contents(tmp_path / "whole")
    log, calls = tmp_path / "log", tmp_path / "calls"
    process = faults.start(faults.killed_child, log, 10**6, calls, *words, tmp_path / "n", *options)
    process.join()
    total = int(calls.read_text())
    for i in range(10):
        out = tmp_path / f"out-{i}"
        before = total * (2 * i + 1) // 20
        process = faults.start(faults.killed_child, log, before, calls, *words, out, *options)
        process.join()
        assert process.exitcode == -signal.SIGKILL, log.read_text()
        faults.done(faults.uvmerge(*words, out, *options))
        assert faults.contents(out) == expected, before


# --- memory ------------------------------------------------------------------------------------


def test_a_whole_tensor_is_one_task_whose_memory_is_that_of_one_tensor_of_each_model(
    base: Path, models: Models, tmp_path: Path
) -> None:
    streamed = uvmerge.linear(*models, tmp_path / "out", dry_run=True).plan
    assert {job.memory_bytes for job in jobs([streamed])} == {0}
    plan = uvmerge.ties(base, *models, tmp_path / "out", dry_run=True).plan
    found = {job.name: job.memory_bytes for job in jobs([plan])}
    operands = 1 + len(models)
    for name, tensor in zoo.tensors(base).items():
        assert found[name] == 8 * tensor.numel() * (2 * operands + 4), name
    assert plan.working_set_bytes == max(found.values())
    singular = uvmerge.iso_c(base, *models, tmp_path / "out", dry_run=True).plan
    assert singular.working_set_bytes > plan.working_set_bytes


PEAK = """
import resource, sys
import torch, uvmerge
def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10
(torch.randn(64, 64) @ torch.randn(64, 64)).sort()
before = peak()
*inputs, out = sys.argv[1:]
uvmerge.ties(*inputs, out, density=0.5, workers=1, quiet=True, force=True)
print(peak() - before)
"""


def test_ties_of_three_models_holds_one_tensor_of_each(tmp_path: Path) -> None:
    rows, count = 1024, 12
    shapes = {f"model.layers.{i}.mlp.up_proj.weight": (rows, 512) for i in range(count)}
    make = torch.Generator().manual_seed(1)
    folders = [
        faults.write(
            tmp_path / name, {n: torch.randn(s, generator=make) for n, s in shapes.items()}
        )
        for name in ("base", "a", "b", "c")
    ]
    words = [sys.executable, "-c", PEAK, *map(str, folders), str(tmp_path / "out")]
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    of_one = 8 * rows * 512  # bytes of a tensor in float64; a model has 12, stored in half of that
    assert int(done.stdout) < 20 * of_one + (24 << 20), int(done.stdout) / of_one
    # Four whole models alone, as they are stored, would be 24 of these.


# --- afterwards --------------------------------------------------------------------------------


def test_check_diff_and_report_know_a_merge(base: Path, models: Models, tmp_path: Path) -> None:
    out = tmp_path / "out"
    uvmerge.ties(base, *models, out, density="0.2..0.8", report=tmp_path / "report")
    assert uvmerge.check(out, against=base)["changed"] == len(zoo.tensors(base))
    found = json.loads((tmp_path / "report" / "report.json").read_text())
    assert [each["reference"] for each in found["checkpoints"]] == ["a", "b", "c", "out"]
    (moved,) = uvmerge.diff(base, out).as_data()["checkpoints"]
    assert len(moved["matrices"]) == 6


def test_a_merge_of_the_hub_lists_all_parents_and_is_made_again(
    base: Path, models: Models, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub_uploads.install(monkeypatch)
    monkeypatch.setattr(session, "_WAITS_S", (0.01,))
    with hub_server.serving({"org/base": base, "org/a": models[0], "org/b": models[1]}) as served:
        hub_server.use(served, tmp_path / "hf", monkeypatch)
        out = uvmerge.dare_ties(
            "org/base", "org/a", "org/b", tmp_path / "out", density=0.5, weight=[1, "0.5..1"]
        ).out
        card = (tmp_path / "out" / "README.md").read_text()
        assert "base_model:\n- org/base\n- org/a\n- org/b\nbase_model_relation: merge\n" in card
        uvmerge.push(out, "org/new")
        hub_server.use(served, tmp_path / "second", monkeypatch)
        again = uvmerge.reproduce("org/new", tmp_path / "again")
        assert again.verdict == "identical"
    assert zoo.raw(tmp_path / "again") == zoo.raw(tmp_path / "out")


def test_adapters_are_models(tmp_path: Path) -> None:
    base, tuned = zoo.pair("llama", tmp_path / "pair")
    adapter = adapters.make(base, tmp_path / "adapter", target_modules=["q_proj", "down_proj"])
    merged = adapters.merged(base, adapter, tmp_path / "merged")
    uvmerge.ties(base, tuned, adapter, tmp_path / "one", density=0.5)
    uvmerge.ties(base, tuned, merged, tmp_path / "two", density=0.5)
    assert zoo.raw(tmp_path / "one") == zoo.raw(tmp_path / "two")


def test_an_operation_that_draws_needs_a_seed(tmp_path: Path) -> None:
    code = "def odd(*models: Operand, draw: Draw) -> Edited:\n    return models[0]\n"
    dropped.write(tmp_path / "operations", "odd", "from ..spectral import Draw\n" + code)
    shown = dropped.command(tmp_path / "operations", "show", "x")
    assert shown.code == 2 and "draws random numbers without an option seed" in shown.err


def test_every_option_of_a_number_may_differ_between_tensors() -> None:
    for operation in operations().values():
        for parameter in operation.parameters:
            if parameter.type is float:
                step = RecipeStep.parse(operation.command, {parameter.name: "0.25..0.5"})
                (given,) = step.options.values()
                assert isinstance(given, Varying), operation.command
