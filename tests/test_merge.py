"""Any number of checkpoints: an operation on `*models` is one file, on the command line, in recipes and
in Python; what it does not declare, nobody assumes."""

from __future__ import annotations

import ast
import inspect
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dropped
import faults
import pytest
import torch
import zoo
from faults import DOWN, EMBED, HEAD, Q

import uvmerge
from uvmerge.api import stub
from uvmerge.checkpoint.roles import by_name, by_role, mirrored
from uvmerge.engine.settings import Control
from uvmerge.operations import operations
from uvmerge.plan import planner

MEAN = """
def mean(*models: {kind}, scale: Scale = 1.0) -> Edited:
    '''Average several models.

    Formula: c Σ W_i / N.
    Exact: one model at c = 1 is copied.
    Cost: reading and writing.
    Source: model soups.
    '''
    if len(models) == 1 and scale == 1:
        return models[0]
    total = models[0].tensor
    for model in models[1:]:
        total = total + model.tensor
    return scale * total / len(models)
"""
ARITHMETIC = """
def arithmetic(base: {kind}, *models: {kind}, scale: Scale = 1.0) -> Edited:
    '''Add the sum of several models' differences from the base.'''
    start = base.tensor
    return start + scale * sum(model.tensor - start for model in models)
"""
BLEND = """
@leaves_equal_inputs_alone
def blend(base: {kind}, finetuned: {kind}, reference: {kind}, *, scale: Scale = 0.5) -> Edited:
    '''Move the fine-tuned tensor towards a third one.'''
    return finetuned.tensor + scale * (reference.tensor - finetuned.tensor)
"""
LAST = """
def last(*models: {kind}) -> Edited:
    '''Take the last model.'''
    return models[-1]
"""
OPERATIONS = {"mean": MEAN, "arithmetic": ARITHMETIC, "blend": BLEND, "last": LAST}
SHIPPED = [each.name for each in operations().values() if each.takes_several]
Models = list[Path]


both_kinds = pytest.mark.parametrize("kind", ["Operand", "Matrix"])


@pytest.fixture
def kind() -> str:
    """What the operations receive: every tensor in pieces; `Matrix`: one matrix at a time."""
    return "Operand"


@pytest.fixture
def folder(kind: str, tmp_path: Path) -> Iterator[Path]:
    """A folder of operations, which are there while the test runs."""
    folder = tmp_path / "operations"
    for name, code in OPERATIONS.items():
        dropped.write(folder, name, code.format(kind=kind))
    with dropped.dropped(folder):
        yield folder


@pytest.fixture
def models(tmp_path: Path) -> Models:
    """Three models that were fine-tuned apart, with side files that tell them apart."""
    plain = faults.tensors()
    make = torch.Generator().manual_seed(3)
    found = []
    for name in ("a", "b", "c"):
        tensors = {n: t + 0.05 * torch.randn(t.shape, generator=make) for n, t in plain.items()}
        found.append(faults.write(tmp_path / name, tensors))
        (tmp_path / name / "tokenizer.json").write_text(json.dumps(name))
    return found


@pytest.fixture
def base(tmp_path: Path) -> Path:
    folder = faults.write(tmp_path / "base", faults.tensors(), shards=3)
    (folder / "tokenizer.json").write_text(json.dumps("base"))
    return folder


def averages(*folders: Path) -> dict[str, torch.Tensor]:
    """The mean of every tensor of some checkpoints, in float64."""
    several = [zoo.tensors(folder) for folder in folders]
    return {name: sum(t[name].double() for t in several) / len(several) for name in several[0]}


def assert_mean(out: Path, *folders: Path, kind: str = "Operand") -> None:
    """Every tensor that the operation looks at is the mean; the rest is that of the first."""
    found, first = zoo.tensors(out), zoo.tensors(folders[0])
    for name, expected in averages(*folders).items():
        edited = kind == "Operand" or "_proj" in name
        assert torch.equal(found[name], expected.float() if edited else first[name]), name


def refused(call: Any, *sentences: str) -> None:
    with pytest.raises(uvmerge.UsageError) as caught:
        call()
    for sentence in sentences:
        assert sentence in str(caught.value), str(caught.value)


# --- roles -------------------------------------------------------------------------------------


def test_roles_are_the_names_of_parameters_with_numbers_where_there_are_several() -> None:
    named = {"base": "x", "models": ["a", "b"]}
    assert by_role(named) == {"base": "x", "models[0]": "a", "models[1]": "b"}
    assert by_name(by_role(named)) == named


@pytest.mark.parametrize(
    ("roles", "expected"),
    [
        (["base", "finetuned"], "finetuned"),
        (["models[0]", "base", "models[1]"], "base"),
        (["models[0]", "models[1]"], "models[0]"),
        (["base", "finetuned", "reference"], "finetuned"),
    ],
)
def test_the_output_mirrors_the_fine_tuned_else_the_base_else_the_first_model(
    roles: list[str], expected: str
) -> None:
    assert mirrored(roles) == expected


# --- one file, three ways ----------------------------------------------------------------------


@both_kinds
def test_a_merge_is_a_command_a_recipe_key_and_a_python_call(
    folder: Path, kind: str, models: Models, tmp_path: Path
) -> None:
    shown = dropped.command(folder, "merge", "mean", *models, tmp_path / "one", "--workers", "1")
    assert shown.code == 0, shown.err
    assert shown.out.strip() == str(tmp_path / "one")
    (tmp_path / "r.yaml").write_text(
        "uvmerge: 1\nmodels:\n" + "".join(f"  - {m}\n" for m in models) + "steps: [mean]\n"
    )
    uvmerge.run(tmp_path / "r.yaml", tmp_path / "two")
    uvmerge.mean(*models, tmp_path / "three")
    for out in ("one", "two", "three"):
        assert_mean(tmp_path / out, *models, kind=kind)
        assert uvmerge.check(tmp_path / out, against=models[0])["changed"] > 0
    assert faults.contents(tmp_path / "one") == faults.contents(tmp_path / "three")


def test_models_on_the_command_line_replace_those_of_a_recipe(
    folder: Path, kind: str, models: Models, tmp_path: Path
) -> None:
    (tmp_path / "r.yaml").write_text(f"uvmerge: 1\nmodels: [{models[0]}]\nsteps: [mean]\n")
    words = [word for model in models[1:] for word in ("--models", model)]
    shown = dropped.command(folder, "run", tmp_path / "r.yaml", tmp_path / "out", *words)
    assert shown.code == 0, shown.err
    assert_mean(tmp_path / "out", *models[1:], kind=kind)
    uvmerge.run(tmp_path / "r.yaml", tmp_path / "py", models=models[1:])
    assert faults.contents(tmp_path / "py") == faults.contents(tmp_path / "out")


def test_merge_is_a_group_only_while_there_is_a_merge(folder: Path, tmp_path: Path) -> None:
    shown = dropped.command(folder, "merge", "--help")
    assert shown.code == 0 and {"mean", "arithmetic", "last"} <= set(shown.out.split())
    assert "blend" not in shown.out
    used = dropped.command(folder, "merge", "arithmetic", "--help")
    assert "BASE MODEL... OUT" in used.out
    assert "uvmerge merge arithmetic base a b c out" in " ".join(used.out.split())
    without = dropped.command(tmp_path / "nothing", "merge", "--help")
    assert without.code == (0 if SHIPPED else 2)


def test_a_merge_shows_its_signature(folder: Path) -> None:
    parameters = inspect.signature(uvmerge.arithmetic).parameters
    names = ["places", "base", "models", "out", "scale"]
    assert list(parameters)[:5] == names
    assert [parameters[name].kind.name for name in names] == [
        "VAR_POSITIONAL",
        *4 * ["KEYWORD_ONLY"],
    ]
    assert all(parameters[name].default is not inspect.Parameter.empty for name in names[1:])
    assert list(inspect.signature(uvmerge.blend).parameters)[:4] == [
        "base", "finetuned", "reference", "out"
    ]  # fmt: skip


def test_checkpoints_may_be_named(folder: Path, models: Models, tmp_path: Path) -> None:
    a, b, c = models
    uvmerge.blend(a, b, c, tmp_path / "one")
    uvmerge.blend(a, b, out=tmp_path / "two", reference=c)
    uvmerge.mean(*models, out=tmp_path / "three")
    uvmerge.mean(tmp_path / "four", models=models)
    assert zoo.raw(tmp_path / "one") == zoo.raw(tmp_path / "two")
    assert zoo.raw(tmp_path / "three") == zoo.raw(tmp_path / "four")
    uvmerge.arithmetic(a, b, c, tmp_path / "five")
    uvmerge.arithmetic(base=a, models=[b, c], out=tmp_path / "six")
    uvmerge.arithmetic(b, c, tmp_path / "seven", base=a)
    assert zoo.raw(tmp_path / "five") == zoo.raw(tmp_path / "six") == zoo.raw(tmp_path / "seven")


CALLS = {
    "mean": [
        "(a, b, c, out)",
        "(a, b, c, out=out)",
        "(a, b, c, out, scale=0.5, layers='0-1')",
        "(out, models=[a, b])",
        "(models=[a, b], out=out)",
    ],
    "arithmetic": ["(a, b, c, out)", "(base=a, models=[b], out=out)", "(b, out, base=a)"],
    "blend": ["(a, b, c, out)", "(a, b, out=out, reference=c)"],
}


def test_the_stub_and_the_signature_of_a_merge_take_every_call_that_works(folder: Path) -> None:
    tree = ast.parse(stub.stub())
    functions = {each.name: each for each in tree.body if isinstance(each, ast.FunctionDef)}
    for name, calls in CALLS.items():
        text = f"from __future__ import annotations\n{ast.unparse(functions[name])}"
        namespace: dict[str, Any] = {}
        exec(text, namespace)
        for signature in map(inspect.signature, (namespace[name], getattr(uvmerge, name))):
            words = {"bind": signature.bind} | {word: word for word in ("a", "b", "c", "out")}
            for call in calls:
                eval(f"bind{call}", words)


def test_type_checkers_take_every_call_of_a_merge_that_works(folder: Path, tmp_path: Path) -> None:
    package = tmp_path / "typed" / "uvmerge"
    shutil.copytree(
        Path(uvmerge.__file__).parent, package, ignore=shutil.ignore_patterns("__pycache__")
    )
    (package / "__init__.pyi").write_text(stub.stub())
    lines = [f"uvmerge.{name}{call}" for name, calls in CALLS.items() for call in calls]
    program = "import uvmerge\na, b, c, out = 'abco'\n" + "\n".join(lines)
    wrong = "\nuvmerge.mean(a, out, models=1)\nuvmerge.mean(a, out, scale='much')\n"
    (tmp_path / "typed" / "calls.py").write_text(program + wrong)
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--follow-imports=silent", "--cache-dir", tmp_path / "cache", "calls.py"],
        cwd=tmp_path / "typed", capture_output=True, text=True,
    )  # fmt: skip
    found = [line.split(":")[1] for line in done.stdout.splitlines() if ": error:" in line]
    last = len((program + wrong).splitlines())
    assert found == [str(last - 1), str(last)], done.stdout


# --- what is written ---------------------------------------------------------------------------


def test_without_a_base_the_output_mirrors_the_first_model(
    folder: Path, models: Models, tmp_path: Path
) -> None:
    plan = uvmerge.mean(*models, tmp_path / "out").plan
    assert plan.own == "models[0]"
    assert json.loads((tmp_path / "out" / "tokenizer.json").read_text()) == "a"
    uvmerge.mean(*models[::-1], tmp_path / "other")
    assert json.loads((tmp_path / "other" / "tokenizer.json").read_text()) == "c"


@both_kinds
def test_with_a_base_the_output_mirrors_the_base(
    folder: Path, kind: str, base: Path, models: Models, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    uvmerge.arithmetic(base, *models, out, scale=1 / 3)
    assert json.loads((out / "tokenizer.json").read_text()) == "base"
    assert sorted(p.name for p in out.glob("*.safetensors*")) == sorted(
        p.name for p in base.glob("*.safetensors*")
    )
    start, expected = zoo.tensors(base), averages(*models)
    for name, found in zoo.tensors(out).items():
        edited = kind == "Operand" or "_proj" in name
        want = expected[name] if edited else start[name].double()
        assert (found.double() - want).abs().max() <= 1e-6 * want.abs().max(), name


def test_the_manifest_names_its_inputs_by_role_and_repeats_the_run(
    folder: Path, base: Path, models: Models, tmp_path: Path
) -> None:
    uvmerge.arithmetic(base, *models, tmp_path / "out", scale=0.25)
    content = json.loads((tmp_path / "out" / "uvmerge.json").read_text())
    assert list(content["inputs"]) == ["base", "models[0]", "models[1]", "models[2]"]
    assert content["recipe"]["base"] == "base"
    assert content["recipe"]["models"] == ["a", "b", "c"]
    uvmerge.run(content["recipe"], tmp_path / "again", base=base, models=models)
    assert zoo.raw(tmp_path / "again") == zoo.raw(tmp_path / "out")


def test_the_card_lists_every_model_that_has_an_id(
    folder: Path, base: Path, models: Models, tmp_path: Path
) -> None:
    done = uvmerge.arithmetic(base, *models, tmp_path / "out", base_id="org/base")
    assert [command.words[1] for command in done.next] == ["check", "run"]
    card = (tmp_path / "out" / "README.md").read_text()
    assert "base_model:\n- org/base\nbase_model_relation: merge\n" in card
    assert "`org/base` and `a` and `b` and `c` merged with uvmerge" in card
    assert "\n# out\n" in card and "`a` and `b` and `c` came from local folders" in card
    assert f"{len(zoo.tensors(base))} tensors edited" in card
    with pytest.raises(uvmerge.UsageError, match="there is no finetuned here"):
        uvmerge.mean(*models, tmp_path / "mean", finetuned_id="org/x")


def test_the_manifest_of_a_merge_is_a_recipe_for_the_same_models(
    folder: Path, base: Path, models: Models, tmp_path: Path
) -> None:
    uvmerge.mean(*models, tmp_path / "out")
    path = tmp_path / "out" / "uvmerge.json"
    with pytest.raises(uvmerge.InputRefused, match="models was the folder 'a'"):
        uvmerge.run(path, tmp_path / "again")
    uvmerge.run(path, tmp_path / "again", models=models)
    assert zoo.raw(tmp_path / "again") == zoo.raw(tmp_path / "out")


@both_kinds
def test_a_model_that_is_taken_as_it_is_is_copied_not_computed(
    folder: Path, kind: str, models: Models, tmp_path: Path
) -> None:
    done = uvmerge.last(*models, tmp_path / "out")
    assert not done.plan.needs_torch
    found, first, last = (zoo.raw(path) for path in (tmp_path / "out", models[0], models[-1]))
    edited = {name for name in found if kind == "Operand" or "_proj" in name}
    assert found == {name: (last if name in edited else first)[name] for name in found}
    assert done.plan.counts()["reset"] == len(edited)
    content = json.loads((tmp_path / "out" / "uvmerge.json").read_text())
    assert set(content["reset"]) == edited


def test_one_model_is_as_many_as_are_named(folder: Path, models: Models, tmp_path: Path) -> None:
    done = uvmerge.mean(models[0], tmp_path / "out")
    assert zoo.raw(tmp_path / "out") == zoo.raw(models[0])
    assert not done.plan.needs_torch


@both_kinds
def test_models_of_other_dtypes_are_stored_as_the_first(
    folder: Path, kind: str, models: Models, tmp_path: Path
) -> None:
    half = zoo.rewrite(
        models[0], tmp_path / "h", lambda ts: {n: t.bfloat16() for n, t in ts.items()}
    )
    uvmerge.mean(half, *models[1:], tmp_path / "out")
    expected = averages(half, *models[1:])
    for name, found in zoo.tensors(tmp_path / "out").items():
        assert found.dtype == torch.bfloat16
        if kind == "Operand" or "_proj" in name:
            assert (found.double() - expected[name]).abs().max() <= 2.0**-8 * expected[
                name
            ].abs().max()


@both_kinds
@pytest.mark.parametrize("fused", [0, 1])
def test_experts_are_merged_however_each_model_stores_them(
    folder: Path, fused: int, tmp_path: Path
) -> None:
    pair = list(zoo.pair("mixtral", tmp_path / "pair"))
    uvmerge.mean(*pair, tmp_path / "apart")
    pair[fused] = zoo.fuse_experts(pair[fused], tmp_path / "fused")
    uvmerge.mean(*pair, tmp_path / "mixed")
    expected = tmp_path / "apart"
    if fused == 0:
        expected = zoo.fuse_experts(expected, tmp_path / "expected")
    assert zoo.raw(tmp_path / "mixed") == zoo.raw(expected)


# --- chains ------------------------------------------------------------------------------------


@both_kinds
def test_a_step_after_a_merge_edits_what_it_made(
    folder: Path, base: Path, models: Models, tmp_path: Path
) -> None:
    recipe = {
        "uvmerge": 1,
        "steps": ["mean", {"restore": {"top": 0.25, "modules": "attention,mlp"}}],
    }
    done = uvmerge.run(recipe, tmp_path / "out", base=base, models=models)
    merged = uvmerge.mean(*models, tmp_path / "merged", dtype="float32").out
    uvmerge.restore(base, merged, tmp_path / "two", top=0.25)
    one, two = zoo.tensors(tmp_path / "out"), zoo.tensors(tmp_path / "two")
    for name in (Q.format(1), DOWN.format(2)):
        assert (one[name] - two[name]).abs().max() <= 1e-5 * two[name].abs().max()
    entry = done.edits[Q.format(1)]
    assert entry["steps"] == [0, 1] and entry["k"] == [None, 4]
    assert "result of step 0" in entry["gap"]


def test_a_merge_that_would_drop_what_was_made_is_refused(
    folder: Path, base: Path, models: Models, tmp_path: Path
) -> None:
    steps = [{"restore": {"top": 0.25}}, "mean"]
    recipe = {"uvmerge": 1, "steps": steps}
    refused(
        lambda: uvmerge.run(
            recipe, tmp_path / "out", base=base, finetuned=models[0], models=models[1:]
        ),
        f"mean: would drop what restore makes of {Q.format(0)}",
    )
    steps[1] = {"mean": {"layers": [0]}}
    steps[0] = {"restore": {"top": 0.25, "layers": [1]}}
    recipe = {"uvmerge": 1, "steps": steps}
    uvmerge.run(recipe, tmp_path / "out", base=base, finetuned=models[0], models=models[1:])
    found, expected = zoo.tensors(tmp_path / "out"), averages(*models[1:])
    assert torch.equal(found[Q.format(0)], expected[Q.format(0)].float())


def test_a_step_that_has_nothing_to_edit_is_refused(
    folder: Path, base: Path, models: Models, tmp_path: Path
) -> None:
    recipe = {"uvmerge": 1, "steps": [{"mean": {"layers": [0]}}, {"restore": {"top": 0.25}}]}
    refused(
        lambda: uvmerge.run(recipe, tmp_path / "out", base=base, models=models),
        f"restore: has nothing to edit in {Q.format(1)}",
    )


# --- counts ------------------------------------------------------------------------------------


@both_kinds
def test_a_third_operand_is_a_checkpoint(
    folder: Path, kind: str, models: Models, tmp_path: Path
) -> None:
    a, b, c = models
    shown = dropped.command(folder, "blend", a, b, c, tmp_path / "one", "--scale", "0.5")
    assert shown.code == 0, shown.err
    recipe = {"uvmerge": 1, "base": str(a), "finetuned": str(b), "reference": str(c)}
    uvmerge.run(recipe | {"steps": ["blend"]}, tmp_path / "two")
    for out in ("one", "two"):
        assert_mean(tmp_path / out, b, c, kind=kind)
    content = json.loads((tmp_path / "one" / "uvmerge.json").read_text())
    assert list(content["inputs"]) == ["base", "finetuned", "reference"]


def test_a_wrong_count_is_refused_with_the_usage_of_the_operation(
    folder: Path, models: Models, tmp_path: Path
) -> None:
    a, b, c = models
    out = tmp_path / "out"
    usage = "Usage: uvmerge blend BASE FINETUNED REFERENCE OUT"
    refused(lambda: uvmerge.blend(a, b, out), "blend: cannot work on 2 checkpoints", usage)
    refused(lambda: uvmerge.blend(a, b, c, a, out), "blend: cannot work on 4 checkpoints", usage)
    refused(lambda: uvmerge.blend(), "blend: cannot work on 0 checkpoints", usage)
    refused(lambda: uvmerge.mean(out), "0 checkpoints", "Usage: uvmerge merge mean MODEL... OUT")
    refused(
        lambda: uvmerge.restore(a, b, c, out), "3 checkpoints", "uvmerge restore BASE FINETUNED OUT"
    )
    refused(lambda: uvmerge.sweep("blend", a, b, out, scale=[0.1, 0.2]), usage)
    assert not out.exists()


@pytest.mark.parametrize("words", [["merge", "mean"], ["merge", "arithmetic"], ["blend"]])
def test_a_wrong_count_is_a_usage_error_of_the_command_line(
    words: list[str], folder: Path, models: Models, tmp_path: Path
) -> None:
    shown = dropped.command(folder, *words, models[0])
    assert shown.code == 2 and "Usage: uvmerge " in shown.err and words[-1] in shown.err
    assert "Traceback" not in shown.err


def test_a_recipe_that_lacks_a_checkpoint_or_has_one_too_many_is_refused(
    folder: Path, base: Path, models: Models, tmp_path: Path
) -> None:
    def run(*steps: str, **references: Any) -> None:
        uvmerge.run({"uvmerge": 1, "steps": list(steps)}, tmp_path / "out", **references)

    a, b, _ = models
    refused(lambda: run("mean"), "recipe: names no models, which mean takes", "`models: […, …]`")
    refused(lambda: run("arithmetic", models=models), "names no base, which arithmetic takes")
    refused(lambda: run("blend", base=a, finetuned=b), "names no reference, which blend takes",
            "Usage: uvmerge blend BASE FINETUNED REFERENCE OUT")  # fmt: skip
    refused(lambda: run("mean", models=models, base=base), "names base, which no step takes",
            "Usage: uvmerge merge mean MODEL... OUT")  # fmt: skip
    refused(lambda: run("restore", base=a, finetuned=b, models=models), "which no step takes")
    assert not (tmp_path / "out").exists()


def test_the_plan_itself_refuses_a_wrong_count(folder: Path, models: Models) -> None:
    with uvmerge.Checkpoint.open(models[0]) as one, uvmerge.Checkpoint.open(models[1]) as two:
        recipe = uvmerge.Recipe.from_data({"uvmerge": 1, "steps": ["blend"]})
        pair = {"base": one, "finetuned": two}
        refused(lambda: planner.build(recipe, pair), "names no reference", "Usage: uvmerge blend")


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("models: []", "r.yaml:2: models must be a list of texts"),
        ("models: [1, 2]", "r.yaml:2: models must be a list of texts"),
        ("models: {a: b}", "r.yaml:2: keys and values are not expected here"),
        ("models: 7", "r.yaml:2: models must be text"),
        ("model: [a]", "r.yaml:2: unknown key 'model'"),
    ],
)
def test_strange_models_in_a_recipe_are_refused_with_their_line(
    text: str, sentence: str, folder: Path
) -> None:
    refused(
        lambda: uvmerge.Recipe.parse(f"uvmerge: 1\n{text}\nsteps: [mean]\n", "r.yaml"), sentence
    )


def test_a_recipe_of_models_survives_a_round_trip(folder: Path) -> None:
    text = "uvmerge: 1\nbase: x\nmodels: [a, org/b@main]\nsteps: [arithmetic]\n"
    recipe = uvmerge.Recipe.parse(text)
    assert uvmerge.Recipe.from_data(recipe.as_data()) == recipe
    assert recipe.as_data()["models"] == ["a", "org/b@main"]


@pytest.mark.parametrize(
    ("code", "sentence"),
    [
        (
            "def odd(base, finetuned: Matrix):\n    return finetuned\n",
            "operand base lacks its kind",
        ),
        ("def odd(*, scale: Scale = 1.0):\n    return None\n", "takes no checkpoint"),
        ("def odd(base: Matrix, scale: Scale = 1.0):\n    return base\n", "neither an operand"),
        ("def odd(base: Matrix, **rest: Matrix):\n    return base\n", "neither an operand"),
    ],
)
def test_a_signature_that_makes_no_sense_is_one_error(
    code: str, sentence: str, tmp_path: Path
) -> None:
    dropped.write(tmp_path / "operations", "odd", code)
    shown = dropped.command(tmp_path / "operations", "show", "x")
    assert shown.code == 2 and "operations/odd.py" in shown.err and sentence in shown.err


# --- inputs that do not fit --------------------------------------------------------------------


def test_a_model_of_another_shape_is_named(folder: Path, models: Models, tmp_path: Path) -> None:
    odd = zoo.rewrite(
        models[2], tmp_path / "odd", lambda ts: ts | {Q.format(1): torch.ones(15, 16)}
    )
    with pytest.raises(uvmerge.InputRefused, match=r"against \[15, 16\] in models\[2\]"):
        uvmerge.mean(*models[:2], odd, tmp_path / "out")


@both_kinds
def test_a_merge_does_not_leave_out_a_tensor_in_silence(
    folder: Path, models: Models, tmp_path: Path
) -> None:
    name = DOWN.format(1)
    less = zoo.rewrite(
        models[1], tmp_path / "less", lambda ts: {n: t for n, t in ts.items() if n != name}
    )
    merged = [models[0], less, models[2]]
    with pytest.raises(uvmerge.InputRefused, match=rf"no counterpart in models\[1\] of .*{name}"):
        uvmerge.mean(*merged, tmp_path / "out")
    done = uvmerge.mean(*merged, tmp_path / "out", force=True)
    assert f"not in models[1], copied: 1 tensor: {name}" in done.plan.notes
    assert zoo.raw(tmp_path / "out")[name] == zoo.raw(models[0])[name]


def test_an_unrelated_model_is_named(folder: Path, models: Models, tmp_path: Path) -> None:
    make = torch.Generator().manual_seed(99)
    strange = zoo.rewrite(
        models[1], tmp_path / "strange",
        lambda ts: {n: torch.randn(t.shape, generator=make) for n, t in ts.items()},
    )  # fmt: skip
    with pytest.raises(uvmerge.InputRefused, match=r"models\[2\] and models\[0\]: look unrelated"):
        uvmerge.mean(*models[:2], strange, tmp_path / "out")
    uvmerge.mean(*models[:2], strange, tmp_path / "out", force=True)


def test_a_quantised_or_broken_model_is_named(folder: Path, models: Models, tmp_path: Path) -> None:
    nan = zoo.rewrite(
        models[2], tmp_path / "nan", lambda ts: ts | {Q.format(0): torch.full((16, 16), torch.nan)}
    )
    with pytest.raises(uvmerge.InputRefused, match="NaN or Inf in 1 tensor"):
        uvmerge.mean(*models[:2], nan, tmp_path / "out")
    done = uvmerge.mean(*models[:2], nan, tmp_path / "out", nonfinite="copy")
    assert done.plan.notes[-1] == f"NaN or Inf, left as models[0]: 1 tensor: {Q.format(0)}"
    assert zoo.raw(tmp_path / "out")[Q.format(0)] == zoo.raw(models[0])[Q.format(0)]


def test_out_may_not_lie_in_any_of_the_models(folder: Path, models: Models) -> None:
    for model in models:
        with pytest.raises(uvmerge.UsageError, match="lies inside"):
            uvmerge.mean(*models, model / "out")


# --- everything else works with it -------------------------------------------------------------


@both_kinds
def test_a_sweep_over_models_gives_what_the_single_commands_give(
    folder: Path, models: Models, tmp_path: Path
) -> None:
    out = tmp_path / "sweep"
    shown = dropped.command(folder, "sweep", "mean", *models, out, "--scale", "0.5,1.5")
    assert shown.code == 0, shown.err
    for scale in (0.5, 1.5):
        single = uvmerge.mean(*models, tmp_path / f"single-{scale}", scale=scale).out
        assert faults.contents(out / f"scale-{scale}") == faults.contents(single)
    record = json.loads((out / "sweep.json").read_text())
    assert record["models"] == ["a", "b", "c"] and "base" not in record
    again = uvmerge.sweep("mean", *models, out, scale=[0.5, 1.5])
    assert again.results == {}


@both_kinds
def test_a_dry_run_plans_a_merge(folder: Path, kind: str, models: Models, tmp_path: Path) -> None:
    plan = uvmerge.mean(*models, tmp_path / "out", dry_run=True).plan
    count = len(zoo.raw(models[0])) if kind == "Operand" else 6
    assert plan.counts() == {"edited": count, "reset": 0, "copied": len(zoo.raw(models[0])) - count}
    edits = sum(step.size_bytes for step in plan.edits)
    assert plan.bytes_in == plan.bytes_out - len(plan.files[0].header) + 2 * edits
    shown = dropped.command(
        folder, "merge", "mean", *models, tmp_path / "out", "--dry-run", "--json"
    )
    data = json.loads(shown.out)
    assert data["counts"] == plan.counts() and list(data["inputs"])[2] == "models[2]"
    assert not (tmp_path / "out").exists()


@both_kinds
def test_a_merge_that_is_stopped_resumes_with_the_same_bytes(
    folder: Path, models: Models, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    control = Control()
    control.listen = lambda: StopsAfterOne(control)  # type: ignore[method-assign]
    with pytest.raises(uvmerge.Interrupted):
        uvmerge.mean(*models, out, workers=1, control=control, quiet=True)
    assert faults.pieces(out) and not out.exists()
    uvmerge.mean(*models, out, workers=1)
    undisturbed = uvmerge.mean(*models, tmp_path / "undisturbed").out
    assert faults.contents(out) == faults.contents(undisturbed)


class StopsAfterOne:
    """While entered, the run is stopped after its first tensor."""

    def __init__(self, control: Control) -> None:
        self.control = control

    def __enter__(self) -> None:
        def advance(name: str, work: float) -> None:
            self.control.stop.set()

        self.control.advance = advance

    def __exit__(self, *_: object) -> None: ...


def test_a_model_that_changed_is_not_mixed_in(folder: Path, models: Models, tmp_path: Path) -> None:
    out, control = tmp_path / "out", Control()
    control.listen = lambda: StopsAfterOne(control)  # type: ignore[method-assign]
    with pytest.raises(uvmerge.Interrupted):
        uvmerge.mean(*models, out, workers=1, control=control)
    shutil.rmtree(models[2])
    faults.write(models[2], {n: t * 2 for n, t in zoo.tensors(models[1]).items()})
    with pytest.raises(uvmerge.UvmergeError):
        uvmerge.mean(*models, out, workers=1)
    assert not out.exists()


def test_a_report_after_a_merge_measures_every_model_and_the_output(
    folder: Path, base: Path, models: Models, tmp_path: Path
) -> None:
    uvmerge.arithmetic(base, *models, tmp_path / "out", scale=0.3, report=tmp_path / "report")
    found = json.loads((tmp_path / "report" / "report.json").read_text())
    assert found["base"]["reference"] == "base"
    assert [c["reference"] for c in found["checkpoints"]] == ["a", "b", "c", "out"]


def test_a_single_operand_is_an_operation_too(models: Models, tmp_path: Path) -> None:
    code = """
    def fade(finetuned: Operand, *, scale: Scale = 0.5) -> Edited:
        '''Scale a checkpoint.'''
        return scale * finetuned.tensor
    """
    dropped.write(tmp_path / "operations", "fade", code)
    with dropped.dropped(tmp_path / "operations"):
        uvmerge.fade(models[0], tmp_path / "out", scale=0.5)
        shown = dropped.command(tmp_path / "operations", "fade", models[0], tmp_path / "cli")
    assert shown.code == 0, shown.err
    found, before = zoo.tensors(tmp_path / "out"), zoo.tensors(models[0])
    assert all(torch.equal(found[name], 0.5 * before[name]) for name in before)
    assert zoo.raw(tmp_path / "cli") == zoo.raw(tmp_path / "out")
    assert {EMBED, HEAD} <= found.keys()
