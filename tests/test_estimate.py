"""What a plan will take: multiply-adds, the calibration of this machine, and how shares use it."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import dropped
import faults
import pytest
import zoo
from command import uv
from test_faults_checkpoints import sparse_pair

import uvmerge
from uvmerge.api import plan_file
from uvmerge.api.estimate import disk_rates, estimate, input_rate
from uvmerge.checkpoint.anatomy import Place, View
from uvmerge.checkpoint.folder import Checkpoint
from uvmerge.engine import calibration
from uvmerge.engine.local import Job, jobs
from uvmerge.engine.settings import Settings
from uvmerge.engine.shares import shares
from uvmerge.plan.steps import Block, Plan, Step
from uvmerge.recipe.recipe import Recipe

PLACE = Place(0, 1, "mlp", True)
LARGE = {faults.Q.format(i): [512, 512] for i in (0, 1)}


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Calibrations of matrices of 32 rows, of products of 64, and of a disk with 1 MB."""
    monkeypatch.setattr(calibration, "SIDE", 32)
    monkeypatch.setattr(calibration, "ELEMENTS", 1 << 12)
    monkeypatch.setattr(calibration, "PRODUCT_SIDE", 64)
    monkeypatch.setattr(calibration, "VECTOR_SIDES", (32, 64))
    monkeypatch.setattr(calibration, "LONGEST_S", 0.0)
    monkeypatch.setattr("uvmerge.api.estimate.PROBE_BYTES", 1 << 20)


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return zoo.pair("mixtral", tmp_path_factory.mktemp("pair"), shard_bytes=zoo.SHARD_BYTES)


def edit(*views: View, ranks: tuple[int | None, ...] = (10,), elements: Any = None) -> Step:
    blocks = tuple(Block((("finetuned", v), ("base", v)), 0, (0,), ranks, ({},)) for v in views)
    shape = views[0].stored if elements is None else elements
    return Step("t", "f", 0, 2 * shape[0], "BF16", shape, PLACE, None, blocks)


# --- multiply-adds -------------------------------------------------------------------------------


def test_multiply_adds_are_those_counted_by_hand() -> None:
    """(40, 60), k = 10: for each of two operands half a Gram matrix, a reduction, vectors of both sides."""
    gram, reduction = 60 * 40 * 40 / 2, 2 * 40**3 / 3
    left, right = 2 * 40 * 40 * 10, 60 * 40 * 10
    result = 2 * 60 * 40 * 10
    step = edit(View("t", None, None, False, (40, 60)))
    expected = 2 * (gram + reduction + left + right) + result
    assert calibration.multiply_adds(step) == pytest.approx(expected)
    work = calibration.work_of(step.blocks[0])
    assert (work.vectors, work.side) == (pytest.approx(2 * reduction / 2), 20)
    turned = edit(View("t", None, None, True, (60, 40)))
    assert calibration.multiply_adds(turned) == pytest.approx(expected)


def test_values_that_are_not_decomposed_are_one_multiply_add_an_operand() -> None:
    vector = edit(View("t", None, None, False, (7,)), ranks=(None,), elements=(7,))
    assert calibration.multiply_adds(vector) == 14
    untouched = edit(View("t", None, None, False, (4, 5)), ranks=(0,))
    assert calibration.multiply_adds(untouched) == 40


def test_an_energy_counts_as_a_fifth_of_the_triplets() -> None:
    view = View("t", None, None, False, (40, 60))
    assert calibration.work_of(edit(view, ranks=(None,)).blocks[0]) == calibration.work_of(
        edit(view, ranks=(8,)).blocks[0]
    )


# --- smaller shapes ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("view", "shape", "stored", "part"),
    [
        (View("t", None, None, False, (100, 60)), (50, 30), (50, 30), None),
        (View("t", None, None, True, (100, 60)), (50, 30), (30, 50), None),
        (View("t", 3, None, True, (100, 60)), (50, 30), (30, 50), None),
        (View("t", 3, (0, 100, 1), False, (100, 60)), (50, 30), (100, 30), (0, 50, 1)),
        (View("t", 3, (100, 200, 1), False, (100, 60)), (50, 30), (100, 30), (50, 100, 1)),
        (View("t", 3, (1, 200, 2), True, (100, 60)), (50, 30), (30, 100), (1, 100, 2)),
        (View("t", None, None, False, (9, 1, 4)), (9,), (9,), None),
        (View("t", None, None, False, ()), (1,), (1,), None),
    ],
)
def test_an_edit_is_made_smaller_in_its_layout(
    view: View, shape: tuple[int, ...], stored: tuple[int, ...], part: Any
) -> None:
    step = edit(view, elements=view.stored if len(view.shape) == 2 else (36,))
    small = calibration.shrunk(step, 0.5)
    (block,) = small.blocks
    assert (block.view.shape, block.view.part, block.view.expert) == (shape, part, None)
    assert small.elements == stored and block.ranks == (5,)
    assert small.size_bytes == 2 * math.prod(stored)


def test_ranks_stay_what_they_mean() -> None:
    view = View("t", None, None, False, (100, 60))
    small = calibration.shrunk(edit(view, ranks=(0, None, 3)), 0.1)
    assert small.blocks[0].ranks == (0, None, 1)


# --- seconds -------------------------------------------------------------------------------------


def seconds(plan: Plan, **settings: Any) -> dict[str, float]:
    pending = jobs([plan])
    found = calibration.seconds_of([plan], pending, Settings(**settings))
    return {job.name: spent for job, spent in zip(pending, found, strict=True)}


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("gpt2", {"top": 0.3}),
        ("mixtral", {"rank": 20, "tail_rank": 3}),
        ("qwen3_moe", {"energy": 0.5, "precision": "fast"}),
        ("gpt_oss", {"top": 0.2, "dtype": "float32"}),
    ],
)
def test_every_layout_is_timed(name: str, options: dict[str, Any], tmp_path: Path) -> None:
    plan = uvmerge.restore(
        *zoo.pair(name, tmp_path), tmp_path / "out", dry_run=True, **options
    ).plan
    found = calibration.seconds_of([plan], jobs([plan]), Settings())
    for job, spent in zip(jobs([plan]), found, strict=True):
        assert (spent > 0) == (job.action != "copy"), job.name


def test_edits_of_elements_are_timed(pair: tuple[Path, Path], tmp_path: Path) -> None:
    plan = uvmerge.interpolate(*pair, tmp_path / "out", scale=0.3, dry_run=True).plan
    found = seconds(plan)
    assert all(found.values()) and "model.norm.weight" in found


MEAN = """
def mean(*models: Matrix, scale: Scale = 0.5) -> Edited:
    '''Keep a tenth of the triplets of each model.'''
    U, S, Vh = models[0].top(models[0].rank(top=0.1))
    total = models[0].plus((-scale * S * U, Vh))
    for model in models[1:]:
        U, S, Vh = model.top(model.rank(top=0.1))
        total = total.plus((scale * S * U, Vh))
    return total
"""


def test_an_operation_on_any_number_of_models_is_timed(
    pair: tuple[Path, Path], tmp_path: Path
) -> None:
    folder = tmp_path / "operations"
    dropped.write(folder, "mean", MEAN)
    with dropped.dropped(folder):
        recipe = {"uvmerge": 1, "steps": [{"mean": {}}], "models": [str(pair[0]), *map(str, pair)]}
        plan = uvmerge.run(recipe, tmp_path / "out", dry_run=True, force=True).plan
        assert plan.edits[0].inputs == 3
        assert min(spent for spent in seconds(plan).values() if spent) > 0


def test_what_grows_with_the_multiply_adds_is_scaled_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """An edit that takes 0.5 s and as long again as its multiply-adds at the measured rates."""
    monkeypatch.setattr(calibration, "product_rate", lambda device: 1e6)
    monkeypatch.setattr(calibration, "vector_rate", lambda side, device: 1e5)

    def timed(plans: Any, steps: Any, settings: Any, factor: float) -> tuple[float, float]:
        rated = calibration.at_rates([calibration.shrunk(s, factor) for s in steps], settings)
        return 0.5 + rated, rated

    monkeypatch.setattr(calibration, "shrunk_time", timed)
    step = edit(View("t", None, None, False, (640, 320)), ranks=(80,))
    plan: Any = type("P", (), {"recipe": None})()
    found = calibration._timed([plan], [step], Settings())
    work = calibration.work_of(step.blocks[0])
    assert found == pytest.approx(0.5 + work.products / 1e6 + work.vectors / 1e5)


def test_a_kind_is_timed_once_and_a_sweep_with_one_decomposition(
    pair: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    timed: list[int] = []
    monkeypatch.setattr(
        calibration, "_timed", lambda plans, steps, settings: float(timed.append(len(steps)) or 1)
    )
    plans = [
        uvmerge.restore(*pair, tmp_path / "o", top=top, dry_run=True).plan for top in (0.1, 0.3)
    ]
    pending = jobs(plans)
    found = calibration.seconds_of(plans, pending, Settings())
    shapes = {s.blocks[0].view.shape for s in plans[0].edits}
    assert timed == [2] * len(shapes) and sum(found) == len(plans[0].edits)


def test_a_large_part_of_the_whole_is_timed_in_its_own_size(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Not what makes a small part, is timed whole already, or takes too long."""
    large, rare, long, small = (64, 40), (64, 48), (640, 320), (32, 32)
    estimated = {large: 1.0, rare: 0.5, long: 9.0, small: 2.0}
    whole: list[Any] = []

    def at_full_size(plans: Any, steps: Any, settings: Any, factor: float, rounds: int) -> Any:
        assert (factor, rounds) == (1.0, 1)
        whole.append(steps[0].blocks[0].view.shape)
        return 0.7, 0.0

    def scaled(plans: Any, steps: Any, settings: Any) -> float:
        return estimated[steps[0].blocks[0].view.shape]

    monkeypatch.setattr(calibration, "LONGEST_S", 8.0)
    monkeypatch.setattr(calibration, "_timed", scaled)
    monkeypatch.setattr(calibration, "shrunk_time", at_full_size)
    recipe = Recipe.from_data({"uvmerge": 1, "steps": [{"restore": {}}]})
    plan = Plan(recipe, {}, (), (), None, ())
    shapes = [rare, *[large] * 10, long, *[small] * 3]
    pending = [Job((edit(View("t", None, None, False, shape)),), (0,)) for shape in shapes]
    found = calibration.seconds_of([plan], pending, Settings())
    assert whole == [large]
    assert found == [0.5, *[0.7] * 10, 9.0, *[2.0] * 3]


def test_kept_factors_are_neither_used_nor_made(pair: tuple[Path, Path], tmp_path: Path) -> None:
    plan = uvmerge.restore(*pair, tmp_path / "out", top=0.2, dry_run=True).plan
    seconds(plan, factors=tmp_path / "factors")
    assert not (tmp_path / "factors").exists()


# --- the estimate --------------------------------------------------------------------------------


def test_an_estimate_adds_up(pair: tuple[Path, Path], tmp_path: Path) -> None:
    taken = uvmerge.restore(*pair, tmp_path / "out", top=0.2, estimate=True).estimate
    plan = uvmerge.restore(*pair, tmp_path / "out", top=0.2, dry_run=True).plan
    assert taken is not None
    assert (taken.bytes_in, taken.bytes_out) == (plan.bytes_in, plan.bytes_out)
    assert taken.memory_bytes == plan.working_set_bytes
    assert taken.seconds.keys() == {"read", "edit", "write", "verify"}
    assert min(taken.seconds.values()) > 0
    assert taken.seconds["edit"] == pytest.approx(sum(taken.job_seconds))
    assert taken.by_workers[1] == pytest.approx(sum(taken.seconds.values()), rel=0.05)
    times = list(taken.by_workers.values())
    assert times == sorted(times, reverse=True) and times[-1] >= taken.seconds["verify"]
    assert list(tmp_path.iterdir()) == []


def test_rates_of_the_disk_and_of_large_inputs(pair: tuple[Path, Path], tmp_path: Path) -> None:
    assert min(disk_rates(tmp_path)) > 0
    with Checkpoint.open(pair[0]) as small:
        assert input_rate({"base": small}) is None
    folder, *_ = sparse_pair(tmp_path, {faults.Q.format(0): [1024, 1024]}, faults.CONFIG)
    with Checkpoint.open(folder) as large:
        assert (input_rate({"base": large}) or 0) > 0


def test_seconds_are_kept_in_the_plan_and_shares_are_balanced_by_them(
    pair: tuple[Path, Path], tmp_path: Path
) -> None:
    file = tmp_path / "plan.json"
    taken = uvmerge.restore(*pair, tmp_path / "out", top=0.2, plan=file, estimate=True).estimate
    assert taken is not None
    read = plan_file.read(file)
    assert read.costs == pytest.approx(list(taken.job_seconds), rel=1e-5)
    data = json.loads(file.read_text())
    pending = jobs(read.plans)
    data["costs"] = [0.0] * (len(pending) - 2) + [1.0, 2.0]
    file.write_text(json.dumps(data))
    done = [uvmerge.work(file, rank=rank, world_size=2).done for rank in (0, 1)]
    found = shares(pending, 2, data["costs"])
    assert done == [len(share) for share in found]
    assert found != shares(pending, 2)
    uvmerge.finish(file)


@pytest.mark.parametrize("costs", [[1.0], [1.0, -1.0], ["x"], [float("nan")]])
def test_seconds_that_do_not_fit_the_plan_are_refused(
    costs: list[Any], pair: tuple[Path, Path], tmp_path: Path
) -> None:
    file = tmp_path / "plan.json"
    plan = uvmerge.restore(*pair, tmp_path / "out", top=0.2, plan=file).plan
    data = json.loads(file.read_text())
    data["costs"] = (costs * len(jobs([plan])))[: None if len(costs) > 1 else 1]
    file.write_text(json.dumps(data))
    with pytest.raises(uvmerge.InputRefused, match="no plan that this uvmerge reads"):
        uvmerge.work(file, rank=0, world_size=1)


def test_a_plan_for_other_machines_asks_for_no_room_here(tmp_path: Path) -> None:
    """Terabytes, and matrices that no memory holds."""
    shapes = {faults.Q.format(i): [1 << 20, 1 << 19] for i in range(8)}
    *pair, out = sparse_pair(tmp_path, shapes, faults.CONFIG | {"num_hidden_layers": 8})
    file = tmp_path / "plan.json"
    uvmerge.restore(*pair, out, top=0.1, plan=file, force=True)
    with pytest.raises(uvmerge.InputRefused, match="of memory"):
        uvmerge.work(file, rank=0, world_size=8)


def test_the_command_line_prints_an_estimate(
    pair: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("plan", "restore", *pair, tmp_path / "out", "--top", "0.2", "--estimate")
    outcome = uv(capsys, *words)
    assert outcome.code == 0 and "one worker of this machine: read" in outcome.out
    assert "multiply-adds" in outcome.out and "memory for each worker" in outcome.out
    file = tmp_path / "plan.json"
    outcome = uv(capsys, *words, "-o", file, "--json")
    found = json.loads(outcome.out)
    assert found["plan_file"] == str(file) and file.exists()
    assert found["estimate"]["seconds_by_workers"]["1"] >= 0
    outcome = uv(capsys, *words[:-1])
    assert outcome.code == 2 and "has no file to write" in outcome.err


def test_a_sweep_has_one_estimate(pair: tuple[Path, Path], tmp_path: Path) -> None:
    found = uvmerge.sweep("restore", *pair, tmp_path / "outs", top=[0.1, 0.3], estimate=True)
    first, second = found.results.values()
    assert list(tmp_path.iterdir()) == []
    assert first.estimate is second.estimate is not None
    assert first.estimate.bytes_out == first.plan.bytes_out + second.plan.bytes_out
    both, copied = (
        first.plan.bytes_in + second.plan.bytes_in,
        sum(step.size_bytes for step in first.plan.steps if step.copy),
    )
    assert first.estimate.bytes_in == both / 2 + copied  # matrices are read once for all settings


def test_an_estimate_of_copies_needs_no_edit(pair: tuple[Path, Path], tmp_path: Path) -> None:
    plan = uvmerge.reset_layers(*pair, tmp_path / "out", frac=0.5, dry_run=True).plan
    with Checkpoint.open(pair[0]) as base, Checkpoint.open(pair[1]) as finetuned:
        inputs = {"base": base, "finetuned": finetuned}
        found = estimate([plan], inputs, Settings(), tmp_path / "out")
    assert found.seconds["edit"] == found.multiply_adds == found.memory_bytes == 0
    nothing = replace(plan, steps=(), files=())
    assert jobs([nothing]) == []
