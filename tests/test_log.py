"""What is noted of the ranks and decompositions that operations ask for, and what the manifest says."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import reference
import torch
import zoo
from reference import Array

import uvmerge
from uvmerge.checkpoint.anatomy import Place
from uvmerge.engine.record import decomposition_entry
from uvmerge.operations import Operation, operations
from uvmerge.recipe.recipe import Recipe
from uvmerge.spectral import Log
from uvmerge.spectral.log import Decomposition, difference
from uvmerge.spectral.matrix import DenseMatrix
from uvmerge.spectral.precision import EXACT

Pair = tuple[Path, Path]
Q_PROJ = "model.layers.0.self_attn.q_proj.weight"
PLACE = Place(layer=1, depth=4, module="mlp", is_matrix=True)
OPTIONS: dict[str, dict[str, Any]] = {
    "swap": {"left": True}, "damp-intruders": {"threshold": 0.9}, "restore": {"top": 0.2, "tail": 0.1}
}  # fmt: skip


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    return zoo.pair("llama", tmp_path_factory.mktemp("llama"))


def chain(pair: Pair, out: Path, *steps: str, **options: Any) -> uvmerge.Result:
    recipe = Recipe.parse("\n".join(["uvmerge: 1", "steps:", *(f"- {step}" for step in steps)]))
    return uvmerge.run(recipe, out, base=pair[0], finetuned=pair[1], **options)


def q_proj(pair: Pair) -> list[Array]:
    """W_b and W_f of one matrix."""
    return [np.asarray(zoo.tensors(folder)[Q_PROJ].double()) for folder in pair]


def gap(W: Array, k: int) -> Any:
    """The relative gap after the k-th singular value, as it is recorded."""
    S = reference.svd(W)[1]
    return pytest.approx((S[k - 1] - S[k]) / S[k - 1], rel=6e-3)


def noted(pair_of: list[Array]) -> tuple[Log, list[DenseMatrix]]:
    """Base and fine-tuned matrix, and the log that they share."""
    log, roles = Log(), ("base", "finetuned")
    return log, [
        DenseMatrix(role, torch.tensor(W), EXACT, log=log, operand=role)
        for role, W in zip(roles, pair_of)
    ]


def apply(operation: Operation, base: DenseMatrix, finetuned: DenseMatrix) -> Any:
    place = {"place": PLACE} if operation.wants_place else {}
    return operation.function(base, finetuned, **OPTIONS.get(operation.command, {}), **place)


# --- chains ------------------------------------------------------------------------------------


def test_every_gap_of_every_step_of_a_chain_is_recorded(pair: Pair, tmp_path: Path) -> None:
    steps = ("restore: {rank: 3}", "truncate: {rank: 4}", "swap: {left: true, rank: 5}")
    entry = chain(pair, tmp_path / "out", *steps).edits[Q_PROJ]
    W_b, W_f = q_proj(pair)
    restored = reference.restore(W_b, W_f, 3)
    truncated = reference.truncate(W_b, restored, 4)
    assert entry["steps"] == [0, 1, 2]
    assert entry["k"] == [3, 4, 5]
    assert entry["gap"] == {
        "base": {"3": gap(W_b, 3), "5": gap(W_b, 5)},
        "finetuned": {"3": gap(W_f, 3)},
        "result of step 0 minus base": {"4": gap(restored - W_b, 4)},
        "result of step 1": {"5": gap(truncated, 5)},
    }
    assert entry["method"] == ["gram"]


def test_two_differences_cut_at_one_k_are_told_apart(pair: Pair, tmp_path: Path) -> None:
    steps = ("truncate: {rank: 4, drop: true}", "truncate: {rank: 4, drop: true}")
    entry = chain(pair, tmp_path / "out", *steps).edits[Q_PROJ]
    W_b, W_f = q_proj(pair)
    once = reference.truncate(W_b, W_f, 4, drop=True)
    assert entry["gap"] == {
        "delta": {"4": gap(W_f - W_b, 4)},
        "result of step 0 minus base": {"4": gap(once - W_b, 4)},
    }


def test_a_step_that_returns_values_is_an_operand_of_the_next(pair: Pair, tmp_path: Path) -> None:
    entry = chain(pair, tmp_path / "out", "interpolate: {scale: 0.5}", "restore: {rank: 3}").edits
    W_b, W_f = q_proj(pair)
    assert entry[Q_PROJ]["k"] == [None, 3]
    assert entry[Q_PROJ]["gap"] == {
        "base": {"3": gap(W_b, 3)}, "result of step 0": {"3": gap((W_b + W_f) / 2, 3)}
    }  # fmt: skip


def test_steps_are_those_of_the_recipe_that_edit_the_matrix(pair: Pair, tmp_path: Path) -> None:
    steps = ("restore: {rank: 3, layers: 1}", "restore: {rank: 0}", "project: {energy: 0.5}")
    edits = chain(pair, tmp_path / "out", *steps).edits
    squares = reference.svd(q_proj(pair)[0])[1] ** 2
    k = int((squares.cumsum() >= 0.5 * squares.sum()).argmax()) + 1
    assert (edits[Q_PROJ]["steps"], edits[Q_PROJ]["k"]) == ([2], [k])
    assert edits[Q_PROJ.replace(".0.", ".1.")]["steps"] == [0, 2]


def test_the_record_of_one_step_names_no_steps(pair: Pair, tmp_path: Path) -> None:
    entry = uvmerge.truncate(*pair, tmp_path / "out", rank=4).edits[Q_PROJ]
    W_b, W_f = q_proj(pair)
    assert entry.keys() == {"k", "gap", "method", "relative_change", "changed"}
    assert (entry["k"], entry["gap"]) == ([4], {"delta": {"4": gap(W_f - W_b, 4)}})


def test_the_plan_knows_the_rank_of_every_step(pair: Pair, tmp_path: Path) -> None:
    steps = (
        "restore: {rank: 3, tail: 0.1}", "truncate: {rank: 4}", "interpolate: {scale: 0.5}",
        "project: {energy: 0.5}",
    )  # fmt: skip
    result = chain(pair, tmp_path / "out", *steps)
    assert result.plan.as_data()["edits"][Q_PROJ]["k"] == [3, 4, None, None]
    assert result.edits[Q_PROJ]["k"][:3] == [3, 4, None] and result.edits[Q_PROJ]["k"][3] > 0


# --- the log -----------------------------------------------------------------------------------


def test_each_decomposition_asked_for_is_noted_once_for_its_step() -> None:
    log, (base, finetuned) = noted(list(reference.pair("square", 0.1)))
    log.step = 2
    factors, k = base.top(5), base.rank(energy=0.5)
    result = finetuned.plus((factors.U, factors.Vh))
    log.step = 4
    last, difference_values = result.tail(3), (result - base).values()
    (finetuned - base).top(48)
    assert log.decompositions == [
        Decomposition(2, "base", 5, factors.gap, "gram", 0.0),
        Decomposition(2, "base", None, None, "gram", 0.0),
        Decomposition(4, "result of step 2", 45, last.gap, "svd", 0.0),
        Decomposition(4, "result of step 2 minus base", None, None, "gram", 0.0),
        Decomposition(4, "delta", 48, None, "gram", 0.0),
    ]
    assert log.ranks == {2: k} and len(difference_values) == 48
    log.begin()
    assert log == Log()


def test_the_rank_noted_is_the_first_that_is_not_zero() -> None:
    log, (base, finetuned) = noted(list(reference.pair("square", 0.1)))
    asked: Mapping[int, tuple[int, ...]] = {0: (0,), 1: (7, 3), 2: (0, 3), 3: ()}
    for step, ranks in asked.items():
        log.step = step
        for matrix, k in zip((base, finetuned), ranks):
            matrix.rank(rank=k)
    assert log.ranks == {0: 0, 1: 7, 2: 3}


ON_PAIRS = [
    operation for operation in operations().values()
    if [operand.name for operand in operation.operands] == ["base", "finetuned"]
]  # fmt: skip


@pytest.mark.parametrize("operation", ON_PAIRS, ids=lambda op: op.name)
def test_no_operand_carries_anything_from_one_step_to_the_next(operation: Operation) -> None:
    """What an operation notes is the same on new matrices and after every other operation."""
    W_b, W_f = reference.pair("square", 0.2)
    W_f = W_f + reference.with_values([3.0], 48, 48, np.random.default_rng(7))
    alone, matrices = noted([W_b, W_f])
    apply(operation, *matrices)
    log, (base, finetuned) = noted([W_b, W_f])
    for other in ON_PAIRS:
        apply(other, base, finetuned)
    log.begin()
    apply(operation, base, finetuned)
    assert log == alone


def test_without_a_log_nothing_is_noted_and_the_bits_are_the_same() -> None:
    W_b, W_f = reference.pair("tall", 0.1)
    _, matrices = noted([W_b, W_f])
    silent = [DenseMatrix(role, torch.tensor(W), EXACT) for role, W in (("b", W_b), ("f", W_f))]
    for one, other in zip(matrices, silent):
        assert other.log is None
        assert one.rank(energy=0.5) == other.rank(energy=0.5)
        assert all(map(torch.equal, one.top(9), other.top(9)))
        assert torch.equal((one - matrices[0]).tensor, (other - silent[0]).tensor)


def test_differences_are_named_for_their_sides() -> None:
    assert difference("finetuned", "base") == "delta"
    assert difference("base", "finetuned") == "base minus finetuned"


# --- the record --------------------------------------------------------------------------------


def test_what_was_not_asked_for_is_not_recorded() -> None:
    assert decomposition_entry(Log(), (0,), of_several=False) == {}
    assert decomposition_entry(Log(), (1,), of_several=True) == {"steps": [1]}


def test_a_cut_that_leaves_nothing_is_no_gap() -> None:
    log = Log(ranks={0: 0})

    def note(k: int | None, gap: float | None, method: str) -> None:
        log.decompositions.append(Decomposition(0, "base", k, gap, method, 0.0))

    note(0, None, "gram")
    note(None, None, "svd")
    assert decomposition_entry(log, (0,), False) == {"k": [0], "method": ["gram", "svd"]}
    note(12, None, "gram")
    note(3, 0.123456, "gram")
    assert decomposition_entry(log, (0,), False)["gap"] == {"base": {"3": 0.123, "12": None}}
