"""What holds for every operation; one that is dropped into `operations/` is tested by itself."""

from __future__ import annotations

import ast
import inspect
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import dropped
import numpy as np
import pytest
import reference
import torch

from uvmerge import errors
from uvmerge.checkpoint.anatomy import Place
from uvmerge.checkpoint.roles import by_role, mirrored
from uvmerge.checkpoint.selection import Selection
from uvmerge.operations import DOCSTRING_PARTS, HELPERS, Operation, operations
from uvmerge.operations.options import Parameter
from uvmerge.plan.outline import NeedsValues, Outline
from uvmerge.recipe.step import RecipeStep
from uvmerge.spectral import Draw, Log
from uvmerge.spectral.matrix import DenseMatrix
from uvmerge.spectral.precision import EXACT, FAST, Precision

FOLDER = Path(inspect.getfile(Operation)).parent
FILES = sorted(p.stem for p in FOLDER.glob("*.py") if p.stem not in ("__init__", *HELPERS))
MODULES = {"torch", "click", "pathlib", "io", "os"}
ATTRIBUTES = {
    ".to", ".double", ".float32", ".half", ".bfloat16", ".cuda", ".cpu", ".device", ".dtype", ".open"
}  # fmt: skip
PLACE = Place(layer=1, depth=4, module="mlp", is_matrix=True)
Options = dict[str, Any]

every_operation = pytest.mark.parametrize(
    "operation", operations().values(), ids=lambda op: op.name
)
every_shape = pytest.mark.parametrize("kind", reference.SHAPES)


# --- calling an operation that nobody has told us about ----------------------------------------


def example_options(operation: Operation) -> Options:
    """The options in the example of the operation's help: `--left`, `--top 0.2`."""
    given: Options = {}
    for parameter in operation.parameters:
        words = parameter.option.example.split()
        if words:
            assert words[0] == f"--{parameter.key}"
            given[parameter.name] = parameter.parse_text(words[1]) if words[1:] else True
    return given


def settings(parameter: Parameter) -> list[Any]:
    """Values of one option: every choice, and both ends and some inside of a range."""
    low, high = parameter.option.low, parameter.option.high
    if parameter.choices:
        return list(parameter.choices)
    if parameter.type is bool:
        return [False, True]
    if parameter.type is int:
        return [0, 1, 7, 10**6]
    if parameter.type is float:
        return [0.0 if low is None else low, 0.001, 0.3, 0.999, 1.0 if high is None else high]
    return []


def all_options(operation: Operation) -> Iterator[Options]:
    """The example's options, and these with each option in turn set to something else."""
    example = example_options(operation)
    yield example
    for parameter in operation.parameters:
        for value in settings(parameter):
            for given in (example | {parameter.name: value}, {parameter.name: value}):
                try:
                    call(operation, outlines(operation, "square"), given)
                except errors.UsageError as error:  # excludes another one, or needs one
                    assert "--" in str(error)
                    continue
                yield given


def call(operation: Operation, inputs: Sequence[Any], options: Options) -> Any:
    """The result, or None where outlines do not suffice."""
    step = RecipeStep(operation, options, Selection())
    given = step.arguments("name", PLACE, len(inputs))
    more = step.given(PLACE, Draw(given.get("seed", 0), "name"))
    try:
        return operation.function(*inputs, **given, **more)
    except NeedsValues:
        return None


def roles(operation: Operation) -> list[str]:
    """What the operation takes, up to three of a parameter that takes several."""
    several = {
        each.name: [None] * (each.fewest if each.most else 3) if each.several else None
        for each in operation.operands
    }
    return list(by_role(several))


def outlines(operation: Operation, kind: str) -> list[Outline]:
    log = Log()
    return [Outline(role, reference.SHAPES[kind], log) for role in roles(operation)]


def inputs(operation: Operation, kind: str) -> list[torch.Tensor]:
    """Matrices that every operation finds something in: noise, and a strong new direction."""
    W_b, W_f = reference.pair(kind, 0.2)
    dice = np.random.default_rng(7)
    spike = reference.with_values([3.0], *W_b.shape, dice)
    known = {"base": W_b, "finetuned": W_f + spike}
    return [
        torch.tensor(known[role] if role in known else W_f + 0.1 * dice.normal(size=W_b.shape))
        for role in roles(operation)
    ]


def operands(
    operation: Operation, stored: Sequence[torch.Tensor], precision: Precision = EXACT
) -> list[DenseMatrix]:
    return [DenseMatrix(role, W, precision) for role, W in zip(roles(operation), stored)]


def values(result: Any) -> torch.Tensor:
    tensor: torch.Tensor = result if isinstance(result, torch.Tensor) else result.tensor
    return tensor


# --- numbers -----------------------------------------------------------------------------------


@every_shape
@every_operation
def test_result_has_the_shape_is_finite_and_repeatable(operation: Operation, kind: str) -> None:
    stored = inputs(operation, kind)
    before = [W.clone() for W in stored]
    for options in all_options(operation):
        once = values(call(operation, operands(operation, stored), options))
        assert once.shape == stored[0].shape, options
        assert once.isfinite().all(), options
        same = operands(operation, stored)
        for _ in range(2):  # the second time with what the matrices remember
            again = values(call(operation, same, options))
            assert torch.equal(again, once), options
        assert all(map(torch.equal, stored, before)), options


@every_operation
def test_the_example_of_the_help_edits_something(operation: Operation) -> None:
    stored = inputs(operation, "square")
    result = values(call(operation, operands(operation, stored), example_options(operation)))
    if operation.name == "reset_layers":  # the second of four layers
        assert torch.equal(result, stored[1])
        result = values(call(operation, operands(operation, stored), {"frac": 0.5}))
    before = dict(zip(roles(operation), stored))[mirrored(roles(operation))]
    assert (result - before).norm() > 1e-3


def changed_by(operation: Operation, kind: str) -> list[Options]:
    """Options with which equal inputs do not come back: as they are, but for float64 rounding."""
    W = inputs(operation, kind)[-1]
    found = []
    for options in all_options(operation):
        equal = operands(operation, [W.clone() for _ in roles(operation)])
        result = values(call(operation, equal, options))
        if not (result - W).norm() <= 1e-13 * W.norm():
            found.append(options)
    return found


@every_shape
@every_operation
def test_what_is_declared_of_equal_inputs_is_true(operation: Operation, kind: str) -> None:
    if operation.leaves_equal_inputs_alone:
        assert changed_by(operation, kind) == []


def test_a_declaration_that_is_not_true_is_seen(tmp_path: Path) -> None:
    code = """
    @leaves_equal_inputs_alone
    def lazy(base: Matrix, finetuned: Matrix, *, scale: Scale = 0.5) -> Edited:
        return scale * finetuned.tensor
    """
    dropped.write(tmp_path / "operations", "lazy", code)
    with dropped.dropped(tmp_path / "operations"):
        lazy = operations()["lazy"]
    assert lazy.leaves_equal_inputs_alone
    assert {"scale": 0.3} in changed_by(lazy, "square")
    assert {"scale": 1.0} not in changed_by(lazy, "square")


@every_operation
def test_fast_gives_nearly_the_same(operation: Operation) -> None:
    stored = [W.float() for W in inputs(operation, "tall")]
    options = example_options(operation)
    exact = values(call(operation, operands(operation, stored), options))
    fast = values(call(operation, operands(operation, stored, FAST), options))
    assert fast.dtype == (torch.float64 if operation.wants_whole else torch.float32)
    assert (fast - exact).norm() <= 1e-6 * exact.norm()


@every_operation
def test_matrices_of_zeros_do_no_harm(operation: Operation) -> None:
    zero = torch.zeros(12, 8, dtype=torch.float64)
    others = [W[:12, :8] for W in inputs(operation, "square")]
    some = [[zero if i == j else W for j, W in enumerate(others)] for i in range(len(others))]
    for stored in ([zero for _ in others], *some):
        for options in all_options(operation):
            result = values(call(operation, operands(operation, stored), options))
            assert result.isfinite().all(), options


# --- the plan's outlines -----------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["tall", "row"])
@every_operation
def test_an_outline_foretells_what_happens(operation: Operation, kind: str) -> None:
    """Where an outline comes back untouched, the same operand comes back from numbers."""
    for options in all_options(operation):
        several = outlines(operation, kind)
        foretold = call(operation, several, options)
        if foretold is not None:
            matrices = operands(operation, inputs(operation, kind))
            expected = matrices[several.index(foretold)]
            assert call(operation, matrices, options) is expected, options


@pytest.mark.parametrize(
    ("operation", "option"),
    [
        pytest.param(operation, parameter.name, id=f"{operation.name}-{parameter.name}")
        for operation in operations().values()
        for parameter in operation.parameters
        if parameter.name in ("top", "rank", "alpha") and parameter.option.low == 0
        if operation.edits
    ],
)
def test_the_plan_knows_that_zero_changes_nothing(operation: Operation, option: str) -> None:
    options = {k: v for k, v in example_options(operation).items() if k != "top"}
    base, finetuned = several = outlines(operation, "tall")
    result = call(operation, several, options | {option: 0})
    assert result is (base if operation.name == "truncate" else finetuned)


# --- one file per operation --------------------------------------------------------------------


def test_every_file_is_an_operation_of_its_name() -> None:
    assert sorted(operation.name for operation in operations().values()) == FILES
    assert list(operations()) == sorted(name.replace("_", "-") for name in FILES)


@every_operation
def test_signature_is_checkpoints_then_options(operation: Operation) -> None:
    kinds = inspect.Parameter
    parameters = list(inspect.signature(operation.function).parameters.values())
    count = len(operation.operands)
    assert [p.name for p in parameters[:count]] == [each.name for each in operation.operands]
    for parameter, operand in zip(parameters, operation.operands):
        expected = kinds.VAR_POSITIONAL if operand.several else kinds.POSITIONAL_OR_KEYWORD
        assert parameter.kind is expected
    assert all(p.kind is kinds.KEYWORD_ONLY for p in parameters[count:])
    assert operation.function.__module__ == f"uvmerge.operations.{operation.name}"


@every_operation
def test_docstring_has_its_five_parts_in_order(operation: Operation) -> None:
    sentence, _, rest = (inspect.getdoc(operation.function) or "").partition("\n\n")
    assert sentence[0].isupper()
    assert sentence.endswith(".")
    assert "\n" not in sentence
    heads = [line.split()[0] for line in rest.splitlines() if line and line[0] != " "]
    assert tuple(heads) == DOCSTRING_PARTS == ("Formula:", "Exact:", "Cost:", "Source:")
    for part in heads:
        assert len(rest.partition(part)[2].split()[0]) > 1 or rest.partition(part)[2].strip()


@every_operation
def test_every_option_says_what_it_does(operation: Operation) -> None:
    for parameter in operation.parameters:
        assert len(parameter.option.help.split()) >= 3, parameter.key
        assert not parameter.option.help.endswith("."), parameter.key
        for value in settings(parameter):  # and takes what it says it takes
            assert parameter.parse(value) == value
        low, high = parameter.option.low, parameter.option.high
        for outside in (low is not None and low - 1, high is not None and high + 1):
            if outside is not False:
                with pytest.raises(errors.UsageError, match=f"--{parameter.key}.*outside"):
                    parameter.parse(parameter.type(outside))


@pytest.mark.parametrize("name", FILES)
def test_no_files_casts_devices_or_torch_in_an_operation(name: str) -> None:
    found = out_of_bounds((FOLDER / f"{name}.py").read_text())
    assert not found, f"{name}.py uses {', '.join(sorted(found))}: that is for the engine to do"


def out_of_bounds(code: str) -> set[str]:
    """What an operation must leave to others: modules that it imports, names that it calls, attributes."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Import):
            found |= {each.name.split(".")[0] for each in node.names} & MODULES
        elif isinstance(node, ast.ImportFrom) and not node.level:
            found |= {(node.module or "").split(".")[0]} & MODULES
        elif isinstance(node, ast.Attribute):
            found |= {f".{node.attr}"} & ATTRIBUTES
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            found |= {f"{node.func.id}()"} & {"open()", "print()"}
    return found


def test_a_variable_of_an_operation_may_have_any_name() -> None:
    assert out_of_bounds("half = len(models) // 2\ndevice = half + 1") == set()
    assert out_of_bounds("import torch.linalg") == {"torch"}
    assert out_of_bounds("from torch import linalg") == {"torch"}
    assert out_of_bounds("x = W.tensor.half()") == {".half"}
    assert out_of_bounds("print(W.dtype)") == {"print()", ".dtype"}


def test_a_merge_that_is_dropped_in_passes_what_every_operation_passes(tmp_path: Path) -> None:
    code = """
    def mean(base: Matrix, *models: Matrix, scale: Scale = 0.5) -> Edited:
        '''Add the mean difference of several models.

        Formula: W_b + c Σ (W_i - W_b) / N.
        Exact: c = 0 copies the base.
        Cost: reading and writing.
        Source: task arithmetic.
        '''
        if scale == 0:
            return base
        deltas = [(model - base).tensor for model in models]
        return base.tensor + scale * sum(deltas[1:], deltas[0]) / len(deltas)
    """
    dropped.write(tmp_path / "operations", "mean", code)
    with dropped.dropped(tmp_path / "operations"):
        mean = operations()["mean"]
    for kind in reference.SHAPES:
        test_result_has_the_shape_is_finite_and_repeatable(mean, kind)
        test_what_is_declared_of_equal_inputs_is_true(mean, kind)
        test_an_outline_foretells_what_happens(mean, kind)
    for test in (
        test_the_example_of_the_help_edits_something, test_fast_gives_nearly_the_same,
        test_matrices_of_zeros_do_no_harm, test_signature_is_checkpoints_then_options,
        test_docstring_has_its_five_parts_in_order, test_every_option_says_what_it_does,
    ):  # fmt: skip
        test(mean)
    assert changed_by(mean, "square") == []  # it might declare it


def test_importing_operations_does_not_import_torch() -> None:
    code = (
        "import sys, uvmerge.operations as o; assert len(o.operations()) > 1;"
        "print(sorted({'torch', 'numpy', 'transformers'} & set(sys.modules)))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
