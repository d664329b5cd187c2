"""The deterministic merges against the formulas of their papers, computed apart in numpy."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import merge_reference as formulas
import numpy as np
import pytest
import torch

from uvmerge import errors
from uvmerge.operations import get, operations
from uvmerge.plan.outline import NeedsValues, Outline
from uvmerge.recipe.recipe import Recipe
from uvmerge.spectral import Log
from uvmerge.spectral.matrix import DenseOperand
from uvmerge.spectral.precision import EXACT, FAST, Precision

Array = formulas.Array
SHAPES = {"vector": (60,), "matrix": (12, 10), "stack": (3, 4, 5)}
every_shape = pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)


def tensors(shape: tuple[int, ...], count: int, moved: float = 0.3, seed: int = 0) -> list[Array]:
    """A base and fine-tunes of it whose values are bfloat16, so that many changes are of one size."""
    dice = np.random.default_rng(seed)
    base = dice.normal(size=shape)
    found = [base, *(base + moved * dice.normal(size=shape) for _ in range(count))]
    return [torch.tensor(each).bfloat16().double().numpy() for each in found]


def call(
    name: str, several: Sequence[Array], precision: Precision = EXACT, **options: Any
) -> torch.Tensor:
    """The result of an operation, with a number for each model where it takes such numbers."""
    operation = get(name)
    count = len(several) - (operation.operands[0].name == "base")
    given = operation.effective(operation.parse(options))
    for parameter in operation.parameters:
        if parameter.per_model and not isinstance(given[parameter.name], tuple):
            given[parameter.name] = (given[parameter.name],) * count
    operands = [DenseOperand(str(i), torch.tensor(x), precision) for i, x in enumerate(several)]
    before = [operand.stored.clone() for operand in operands]
    result = operation.function(*operands, **given)
    assert all(torch.equal(o.stored, b) for o, b in zip(operands, before))
    return result if isinstance(result, torch.Tensor) else result.tensor


def assert_close(found: torch.Tensor, expected: Array) -> None:
    assert found.dtype == torch.float64 and found.shape == expected.shape
    assert float((found - torch.tensor(expected)).abs().max()) <= 1e-13 * np.abs(expected).max()


W3, D3, G3 = (0.7, 0.3, -0.2), (0.5, 0.29, 1.0), (0.01, 0.1, 0.9)
Formula = Callable[[list[Array]], Array]
WITH_BASE: list[tuple[str, dict[str, Any], Formula]] = [
    ("ties", {"weight": W3, "density": D3}, lambda x: formulas.ties(x[0], x[1:], W3, D3)),
    (
        "ties",
        {"density": 0.2, "scale": -0.5, "normalize": False},
        lambda x: formulas.ties(x[0], x[1:], (1,) * 3, (0.2,) * 3, -0.5, False),
    ),
    ("ties", {"density": 0}, lambda x: x[0]),
    ("ties", {"density": 0.001}, lambda x: formulas.ties(x[0], x[1:], (1,) * 3, (0.001,) * 3)),
    ("ties", {"weight": (1, -1, 0)}, lambda x: formulas.ties(x[0], x[1:], (1, -1, 0), (1,) * 3)),
    (
        "breadcrumbs",
        {"weight": W3, "density": D3, "gamma": G3},
        lambda x: formulas.breadcrumbs(x[0], x[1:], W3, D3, G3),
    ),
    (
        "breadcrumbs",
        {"density": 0.7, "gamma": 0.5},
        lambda x: formulas.breadcrumbs(x[0], x[1:], (1,) * 3, (0.7,) * 3, (0.5,) * 3),
    ),
    (
        "breadcrumbs-ties",
        {"weight": W3, "density": D3, "gamma": G3},
        lambda x: formulas.breadcrumbs_ties(x[0], x[1:], W3, D3, G3),
    ),
    ("model-stock", {}, lambda x: formulas.model_stock(x[0], x[1:])),
    ("model-stock", {"filter_wise": True}, lambda x: formulas.model_stock(x[0], x[1:], True)),
    ("sce", {}, lambda x: formulas.sce(x[0], x[1:])),
    ("sce", {"select_topk": 0.3}, lambda x: formulas.sce(x[0], x[1:], 0.3)),
    ("sce", {"select_topk": 0.001}, lambda x: x[0]),
]
MODELS_ALONE: list[tuple[str, dict[str, Any], Formula]] = [
    ("multislerp", {"weight": (0.7, 0.3, 0.4, 1)}, lambda x: formulas.multislerp(x, W4)),
    (
        "multislerp",
        {"weight": (9, 0.7, 0.3, 0.5), "deltas": True},
        lambda x: formulas.multislerp(x[1:], (0.7, 0.3, 0.5), x[0]),
    ),
    ("karcher", {}, lambda x: formulas.karcher(x)),
    ("karcher", {"max_iter": 1}, lambda x: formulas.karcher(x, 1)),
    ("karcher", {"max_iter": 0}, lambda x: formulas.multislerp(x, (1,) * 4)),
]
W4 = (0.7, 0.3, 0.4, 1)


def names(cases: Sequence[tuple[str, dict[str, Any], Formula]]) -> list[str]:
    return [f"{name} {options}" for name, options, _ in cases]


ALL = [*WITH_BASE, *MODELS_ALONE]


@every_shape
@pytest.mark.parametrize(("name", "options", "formula"), ALL, ids=names(ALL))
def test_four_checkpoints_are_merged_by_the_formula(
    name: str, options: dict[str, Any], formula: Formula, shape: tuple[int, ...]
) -> None:
    for seed, moved in enumerate((0.3, 0.004, 3.0)):
        several = tensors(shape, 3, moved, seed)
        found = call(name, several, **options)
        assert_close(found, formula(several))


@every_shape
@pytest.mark.parametrize("moved", [0.004, 0.3, 3.0])
@pytest.mark.parametrize("t", [0.0, 0.3, 1.0])
def test_slerp_and_nearswap_follow_the_formula(
    t: float, moved: float, shape: tuple[int, ...]
) -> None:
    x, y = tensors(shape, 1, moved)
    assert_close(call("slerp", [x, y], t=t), formulas.slerp(x, y, t))
    assert_close(call("nearswap", [x, y], t=t), formulas.nearswap(x, y, t))
    assert_close(call("arcee-fusion", [x, y]), formulas.arcee_fusion(x, y))


@every_shape
@pytest.mark.parametrize("vectors", ["whole", "rows", "columns"])
@pytest.mark.parametrize("weight", [(0.7, 0.3), (1, 1), (2, -0.5), (0, 1)])
def test_nuslerp_follows_the_formula(
    weight: tuple[float, float], vectors: str, shape: tuple[int, ...]
) -> None:
    base, x, y = tensors(shape, 2)
    options: dict[str, Any] = {"vectors": vectors}
    expected = formulas.nuslerp(x, y, weight, vectors)
    assert_close(call("nuslerp", [x, y], weight=weight, **options), expected)
    expected = formulas.nuslerp(x, y, weight, vectors, base)
    found = call("nuslerp", [base, x, y], weight=(5, *weight), deltas=True, **options)
    assert_close(found, expected)


def test_parallel_opposite_and_zero_tensors_have_finite_arcs() -> None:
    (x,) = tensors((12,), 0)
    for name in ("slerp", "nuslerp"):
        options = {"t": 0.3} if name == "slerp" else {"weight": (0.7, 0.3)}
        assert_close(call(name, [x, 2 * x], **options), 1.3 * x)
        assert_close(call(name, [x, -x], **options), 0.4 * x)
        assert not call(name, [0 * x, 0 * x], **options).any()
        assert_close(call(name, [0 * x, x], **options), np.sin(0.3 * np.pi / 2) * x)
        huge = call(name, [x * 1e200, x[::-1] * 1e200], **options)
        assert_close(huge * 1e-200, call(name, [x, x[::-1].copy()], **options).numpy())


def test_directions_that_cancel_are_averaged_as_they_are() -> None:
    (x,) = tensors((12,), 0)
    assert_close(call("multislerp", [x, -3 * x]), -x)
    assert float(call("multislerp", [x, -x, 0 * x]).abs().max()) < 1e-15
    assert not call("karcher", [0 * x, 0 * x]).any()
    assert call("karcher", [x, -x]).isfinite().all()
    assert_close(call("karcher", [x, 0 * x]), x / 2)


def test_small_angles_are_seen() -> None:
    base, x, y = tensors((12, 10), 2, 1e-6)
    x, y = base + 1e-9 * x, base + 1e-9 * y[::-1]
    assert_close(call("nuslerp", [x, y]), (x + y) / 2)
    assert_close(call("karcher", [x, y]), (x + y) / 2)


def test_opposite_changes_leave_the_base_of_a_stock() -> None:
    base, x = tensors((12, 10), 1)
    assert_close(call("model-stock", [base, x, 2 * base - x]), base)
    assert_close(call("model-stock", [base, base, x]), base)
    assert_close(call("model-stock", [base, x, x]), x)


def test_what_is_kept_can_be_scaled_to_the_old_sum_of_magnitudes() -> None:
    base, x = tensors((12, 10), 1)
    for name, given in (("ties", {}), ("breadcrumbs", {}), ("breadcrumbs-ties", {"gamma": 0.1})):
        found = call(name, [base, x], density=0.5, rescale=True, **given) - torch.tensor(base)
        assert float(found.abs().sum()) == pytest.approx(np.abs(x - base).sum())
        assert int((found != 0).sum()) == 60


def test_equal_weights_of_sce_are_not_a_matter_of_size() -> None:
    """A fine-tune that moved little is weighed like one that moved much."""
    base, x, y = tensors((12, 10), 2, 0.3)
    small = [base, base + 1e-6 * (x - base), base + 2e-6 * (y - base)]
    large = call("sce", [base, x, base + 2 * (y - base)]) - torch.tensor(base)
    found = call("sce", small) - torch.tensor(base)
    assert float((found * 1e6 - large).abs().max()) < 1e-8


METHODS = sorted({name for name, *_ in ALL} | {"slerp", "nuslerp", "nearswap", "arcee-fusion"})


@pytest.mark.parametrize("name", METHODS)
def test_choices_do_not_hang_on_the_precision(name: str) -> None:
    operation = get(name)
    count = operation.operands[-1].fewest if operation.operands[-1].most else 3
    several = tensors((12, 10), count + len(operation.operands) - 2)
    options = (
        {"density": 0.5} if "density" in inspect.signature(operation.function).parameters else {}
    )
    exact = call(name, several, **options)
    stored = [DenseOperand("", torch.tensor(x).bfloat16(), FAST) for x in several]
    fast = call(name, [each.stored.double().numpy() for each in stored], FAST, **options)
    assert float((exact - fast).abs().max()) <= 1e-6 * float(exact.abs().max())


@pytest.mark.parametrize(
    ("name", "count", "usage"),
    [
        ("slerp", 3, "Usage: uvmerge merge slerp MODEL MODEL OUT"),
        ("slerp", 1, "Usage: uvmerge merge slerp MODEL MODEL OUT"),
        ("nuslerp", 4, "Usage: uvmerge merge nuslerp MODEL MODEL [MODEL] OUT"),
        ("nearswap", 3, "Usage: uvmerge merge nearswap BASE MODEL OUT"),
        ("arcee-fusion", 1, "Usage: uvmerge merge arcee-fusion BASE MODEL OUT"),
        ("model-stock", 2, "Usage: uvmerge merge model-stock BASE MODEL MODEL... OUT"),
        ("ties", 1, "Usage: uvmerge merge ties BASE MODEL... OUT"),
    ],
)
def test_too_many_or_too_few_models_are_refused(name: str, count: int, usage: str) -> None:
    given = [str(i) for i in range(count)]
    has_base = get(name).operands[0].name == "base"
    named = {"base": given[0], "models": given[1:]} if has_base else {"models": given}
    recipe = Recipe.from_data({"uvmerge": 1, "steps": [name]})
    with pytest.raises(errors.UsageError) as one:
        recipe.inputs(named)
    assert usage in str(one.value) and f"{name}" in str(one.value)


@pytest.mark.parametrize(
    "name",
    ["linear", "multislerp", "task-arithmetic", "dare-linear", "della-linear", "breadcrumbs"],
)
def test_weights_that_sum_to_nothing_divide_nothing(name: str) -> None:
    operation = get(name)
    outlines = [
        Outline("", (3,), Log()) for _ in range(4 if operation.operands[0].name == "base" else 3)
    ]
    draw = {"draw": None} if operation.wants_draw else {}
    for weight in ((1.0, 0.5, -1.5), (0.1, 0.2, -0.3), (0.0, 0.0, 0.0)):
        with pytest.raises(errors.UsageError, match=r"(?s)sum to 0.*--no-normalize"):
            operation.function(*outlines, weight=weight, normalize=True, **draw)


@pytest.mark.parametrize(("weight", "deltas"), [((1, -1), False), ((2, 0.3, -0.3), True)])
def test_weights_of_an_arc_must_have_a_sum(weight: tuple[float, ...], deltas: bool) -> None:
    outlines = [Outline("", (3,), Log()) for _ in weight]
    with pytest.raises(errors.UsageError, match=r"sum to 0 .*\n  Give weights with another sum\.$"):
        get("nuslerp").function(*outlines, weight=weight, deltas=deltas)


def test_differences_need_a_base_before_the_models() -> None:
    outlines = [Outline("", (3,), Log()) for _ in range(3)]
    with pytest.raises(errors.UsageError, match=r"(?s)mixes two models, not 3.*--deltas"):
        get("nuslerp").function(*outlines)
    with pytest.raises(errors.UsageError, match="mixes two models, not 1"):
        get("nuslerp").function(*outlines[:2], deltas=True)
    with pytest.raises(errors.UsageError, match="a base and no model"):
        get("multislerp").function(outlines[0], weight=(1.0,), deltas=True)


def test_the_plan_sees_what_need_not_be_computed() -> None:
    first, second = outlines = [Outline(name, (3,), Log()) for name in "xy"]
    assert get("slerp").function(*outlines, t=0.0) is first
    assert get("slerp").function(*outlines, t=1.0) is second
    assert get("nuslerp").function(*outlines, weight=(0.0, 2.0)) is second
    assert get("multislerp").function(first, weight=(0.2,)) is first
    assert get("karcher").function(first) is first
    assert get("nearswap").function(*outlines, t=0) is first
    assert get("sce").function(*outlines, select_topk=0) is first
    for name in ("ties", "breadcrumbs", "breadcrumbs-ties"):
        assert get(name).function(*outlines, scale=0) is first
    with pytest.raises(NeedsValues):
        get("arcee-fusion").function(*outlines)


def test_every_merge_is_declared_to_leave_equal_inputs_alone_but_sums() -> None:
    several = {each.command for each in operations().values() if each.takes_several}
    assert several >= set(METHODS)
    alone = {name for name in METHODS if get(name).leaves_equal_inputs_alone}
    assert alone == set(METHODS) - {"multislerp"}
