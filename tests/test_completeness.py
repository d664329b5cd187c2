"""What was planned is what was done, byte by byte: by the crew, the journal, the records and the plan."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any

import faults
import pytest
import torch
from safetensors.torch import load_file, save_file

import uvmerge
from uvmerge.engine import crew, local
from uvmerge.engine.crew import SMALL_BYTES, Crew, large_and_small
from uvmerge.engine.settings import Control, Settings
from uvmerge.output import writer
from uvmerge.plan import planner as planning


@dataclass(frozen=True)
class Task:
    """A task of made-up sizes."""

    name: str
    work: float
    memory_bytes: int
    size_bytes: int


def random_tasks(seed: int) -> list[Task]:
    """Up to forty tasks whose order by work is not their order by size."""
    dice = random.Random(seed)
    sizes = (1, SMALL_BYTES - 1, SMALL_BYTES, SMALL_BYTES + 1, 10 * SMALL_BYTES)
    return [
        Task(
            f"t{i}", dice.choice((0.0, 1.0, dice.random())), dice.choice((0, 5)), dice.choice(sizes)
        )
        for i in range(dice.randrange(40))
    ]


@pytest.fixture
def pair(tmp_path: Path) -> faults.Pair:
    """Two matrices, a larger one, and a vector that costs more than a matrix of more bytes."""
    base = {f"model.layers.0.t{i}.weight": torch.randn(shape).bfloat16()
            for i, shape in enumerate([(128, 64), (128, 64), (256, 64), (9000,)])}  # fmt: skip
    for name, factor in (("base", 1.0), ("sft", 1.02)):
        folder = tmp_path / name
        folder.mkdir()
        tensors = {key: (value.float() * factor).bfloat16() for key, value in base.items()}
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
        config = {"architectures": ["LlamaForCausalLM"], "num_hidden_layers": 1}
        (folder / "config.json").write_text(json.dumps(config))
    return tmp_path / "base", tmp_path / "sft", tmp_path / "out"


def test_the_queues_of_the_crew_hold_every_task_once() -> None:
    for seed in range(500):
        tasks = random_tasks(seed)
        large, small = large_and_small(tasks)
        assert sorted(t.name for t in chain(large, small)) == sorted(t.name for t in tasks)
        assert all(t.size_bytes <= SMALL_BYTES for t in small)


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_the_crew_does_every_task_once(workers: int) -> None:
    for seed in range(30):
        moving, computing, done = random_tasks(seed + 1000)[:5], random_tasks(seed), []
        control = Control()
        Crew(lambda t: done.append(t.name), None, Settings(workers=workers), control).work_off(  # noqa: B023
            moving, computing
        )
        assert sorted(done) == sorted(t.name for t in [*moving, *computing])


def test_mixed_sizes_are_all_written(pair: faults.Pair) -> None:
    uvmerge.interpolate(*pair, scale=0.5)
    base, sft, out = (load_file(folder / "model.safetensors") for folder in pair)
    for name, values in out.items():
        middle = (base[name].float() + sft[name].float()) / 2
        assert (values.float() - middle).abs().max() <= 2.0**-7 * middle.abs().max()


@pytest.mark.parametrize(
    "wrong",
    [
        lambda tasks: (tasks[1:], []),
        lambda tasks: (tasks, tasks[:1]),
        lambda tasks: (tasks[1:] + tasks[1:2], []),
    ],
    ids=["one left out", "one done twice", "one left out and another done twice"],
)
def test_a_crew_that_drops_or_repeats_tasks_publishes_nothing(
    wrong: Any, pair: faults.Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(crew, "large_and_small", wrong)
    with pytest.raises(uvmerge.RunFailed, match="did not do every task once"):
        uvmerge.interpolate(*pair, scale=0.5)
    assert not pair[2].exists()


@pytest.mark.parametrize("number", range(4))
def test_a_piece_that_was_never_written_is_seen_wherever_it_lies(
    number: int, pair: faults.Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The crew's own count, and the records, are made blind: the coverage alone has to see it."""
    seen: list[str] = []
    real = local._Worker.do

    def forgetful(self: Any, job: local.Job) -> None:
        seen.append(job.name)
        if job.name != f"model.layers.0.t{number}.weight":
            real(self, job)

    monkeypatch.setattr(local._Worker, "do", forgetful)
    monkeypatch.setattr(local, "refuse_other_edits", lambda plan, record: None)
    with pytest.raises(uvmerge.RunFailed, match="were never written"):
        uvmerge.interpolate(*pair, scale=0.5)
    assert not pair[2].exists() and len(seen) == 4


def test_an_edit_without_its_record_is_seen(
    pair: faults.Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = local.records_of
    monkeypatch.setattr(local, "records_of", lambda staging: dict(list(real(staging).items())[1:]))
    with pytest.raises(uvmerge.RunFailed, match="is not what was planned: 1 matrix"):
        uvmerge.interpolate(*pair, scale=0.5)
    assert not pair[2].exists()


def staged(folder: Path, pieces: list[tuple[int, bytes]], size: int) -> dict[str, Any]:
    """What verifying says of a file of a 4-byte header and these pieces."""
    head: dict[str, Any] = {"plan": "0" * 16}
    with writer.staged(folder / "out", "0" * 16, head, overwrite=False) as staging:
        staging.create_file("w.safetensors", b"HEAD", size)
        for offset, data in pieces:
            staging.write("w.safetensors", offset, memoryview(data))
            staging.finish("w.safetensors", offset, len(data), writer._digest(data))
        return staging.verify()


def test_coverage_accepts_exactly_the_planned_bytes(tmp_path: Path) -> None:
    found = staged(tmp_path, [(4, b"abcd"), (8, b"ef")], 10)
    assert found["w.safetensors"]["bytes"] == 10


@pytest.mark.parametrize(
    ("pieces", "size", "message"),
    [
        ([(6, b"cd"), (8, b"ef")], 10, "bytes 4 to 6 were never written"),
        ([(4, b"ab"), (8, b"ef")], 10, "bytes 6 to 8 were never written"),
        ([(4, b"abcd")], 10, "bytes 8 to 10 were never written"),
        ([], 10, "bytes 4 to 10 were never written"),
        ([(4, b"abcd"), (6, b"cdef")], 10, "bytes 6 to 8 were written twice"),
        ([(2, b"ADab"), (6, b"cdef")], 10, "bytes 2 to 4 were written twice"),
    ],
)
def test_coverage_names_the_bytes_that_are_missing_or_written_twice(
    pieces: list[tuple[int, bytes]], size: int, message: str, tmp_path: Path
) -> None:
    with pytest.raises(uvmerge.RunFailed, match=message):
        staged(tmp_path, pieces, size)


def test_a_header_that_changed_in_staging_is_seen(tmp_path: Path) -> None:
    with writer.staged(tmp_path / "out", "0" * 16, {"plan": "0" * 16}, overwrite=False) as staging:
        staging.create_file("w.safetensors", b"HEAD", 4)
        (staging.folder / "w.safetensors").write_bytes(b"HEAP")
        with pytest.raises(uvmerge.RunFailed, match="other content than was written"):
            staging.verify()


def test_a_file_in_staging_that_nobody_added_is_seen(tmp_path: Path) -> None:
    with writer.staged(tmp_path / "out", "0" * 16, {"plan": "0" * 16}, overwrite=False) as staging:
        staging.create_file("w.safetensors", b"HEAD", 4)
        (staging.folder / "stray.json").write_text("{}")
        with pytest.raises(uvmerge.RunFailed, match=r"stray\.json"):
            staging.verify()


def test_a_plan_with_a_gap_is_no_plan(pair: faults.Pair) -> None:
    plan = uvmerge.interpolate(*pair, scale=0.5, dry_run=True).plan
    planning._refuse_gaps(plan.files, plan.steps)
    with pytest.raises(uvmerge.RunFailed):
        planning._refuse_gaps(plan.files, plan.steps[1:])
    with pytest.raises(uvmerge.RunFailed):
        planning._refuse_gaps(plan.files, plan.steps[:-1])
    moved = replace(plan.steps[0], offset=plan.steps[0].offset + 2)
    with pytest.raises(uvmerge.RunFailed):
        planning._refuse_gaps(plan.files, (moved, *plan.steps[1:]))


def test_check_finds_zeros_that_no_edit_made(pair: faults.Pair) -> None:
    uvmerge.interpolate(*pair, scale=0.5)
    uvmerge.check(pair[2])
    weights = pair[2] / "model.safetensors"
    tensors = load_file(weights)
    tensors["model.layers.0.t0.weight"].zero_()
    save_file(tensors, weights, metadata={"format": "pt"})
    with pytest.raises(uvmerge.ProblemsFound) as caught:
        uvmerge.check(pair[2])
    found = [p for p in caught.value.problems if "zeros" in p]
    assert found == ["nothing but zeros in 1 edited tensor: model.layers.0.t0.weight"]


def test_zeros_that_an_edit_made_are_no_problem(pair: faults.Pair) -> None:
    sft = load_file(pair[1] / "model.safetensors")
    name = "model.layers.0.t1.weight"
    sft[name] = -load_file(pair[0] / "model.safetensors")[name]
    save_file(sft, pair[1] / "model.safetensors", metadata={"format": "pt"})
    uvmerge.interpolate(*pair, scale=0.5, force=True)
    assert not load_file(pair[2] / "model.safetensors")[name].any()
    uvmerge.check(pair[2])
