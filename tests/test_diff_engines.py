"""`diff` on a cluster, with a stand-in for Ray in this process; tests/test_ray.py has real nodes."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import raystand
import torch
import zoo
from command import uv

import uvmerge
from uvmerge import InputRefused, Interrupted, RunFailed, UsageError
from uvmerge.api.measuring_handout import Inputs
from uvmerge.api.settings import OpenSettings
from uvmerge.engine import measuring, node, ray as engine
from uvmerge.engine.batches import batches
from uvmerge.engine.measurements import Rank, tasks
from uvmerge.engine.settings import Control

Capsys = pytest.CaptureFixture[str]


@pytest.fixture
def ray(monkeypatch: pytest.MonkeyPatch) -> Iterator[raystand.Stand]:
    yield from raystand.standing(monkeypatch)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """A base and two checkpoints of it, in shards."""
    folder = tmp_path_factory.mktemp("models")
    base, first = zoo.pair("mixtral", folder, shard_bytes=zoo.SHARD_BYTES)
    return [base, first, zoo.finetune(base, folder / "second", seed=7)]


def figures(found: uvmerge.Diff) -> str:
    """All that `--json` prints, without the seconds."""
    data = found.as_data()
    del data["seconds"]
    return json.dumps(data)


# --- without Ray --------------------------------------------------------------------------------


def test_without_ray_one_line_says_what_to_install(
    models: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capsys
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    done = uv(capsys, "diff", *models, "--engine", "ray", "--out", tmp_path / "report")
    assert (done.code, done.out) == (2, "")
    assert done.err == "error: --engine ray: needs Ray\n  pip install 'uvmerge[ray]'\n"
    assert not list(tmp_path.iterdir())
    assert uv(capsys, "diff", *models, "--engine", "local", "-q").code == 0


@pytest.mark.parametrize("option", ["--kl", "--hidden"])
def test_what_runs_models_is_refused_by_name(
    option: str, ray: raystand.Stand, models: list[Path], tmp_path: Path, capsys: Capsys
) -> None:
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text('{"prompt": "1 + 1 ="}\n')
    done = uv(capsys, "diff", *models[:2], option, prompts, "--engine", "ray")
    assert done.code == 2 and done.err.startswith(f"error: {option}: runs whole models")
    assert f"Leave {option} out, and run diff again with it and --engine local." in done.err
    assert not ray.given


def test_an_address_is_for_ray_alone(models: list[Path]) -> None:
    with pytest.raises(UsageError, match="is for another engine"):
        uvmerge.diff(*models, address="auto")


# --- what is measured ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [{}, {"layers": "1", "energy": 0.9}, {"rank": 3, "precision": "fast", "workers": 2}],
)
def test_the_report_is_that_of_one_machine(
    options: dict[str, Any], ray: raystand.Stand, models: list[Path]
) -> None:
    alone = uvmerge.diff(*models, **options)
    spread = uvmerge.diff(*models, engine="ray", **options)
    assert len(alone.pairs) == 3 and figures(spread) == figures(alone)
    assert {"connect", "compare", "read", "measure"} <= spread.seconds.keys()
    assert len([given for given in ray.given if given.get("num_cpus") == 1]) > 1


def test_a_worker_opens_the_inputs_once_and_each_node_looks_at_them(
    ray: raystand.Stand, models: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    real, opened = Inputs.opened, []
    monkeypatch.setattr(Inputs, "opened", lambda self: (opened.append(ray.node), real(self))[1])
    uvmerge.diff(*models, engine="ray")
    assert opened == ["a" * 8, "b" * 8, "c" * 8, ""]


def test_kept_factors_and_filters_serve_both_engines(
    ray: raystand.Stand, models: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    options: dict[str, Any] = {"layers": "0", "modules": "attention", "factors": "factors"}
    spread = uvmerge.diff(*models, engine="ray", **options)
    kept = len(list((tmp_path / "factors").iterdir()))
    alone = uvmerge.diff(*models, **options)
    assert figures(spread) == figures(alone)
    assert kept == len(list((tmp_path / "factors").iterdir())) > 0


def test_a_report_of_an_output_is_measured_by_the_same_engine(
    ray: raystand.Stand, models: list[Path], tmp_path: Path
) -> None:
    found = {}
    for name in ("local", "ray"):
        folder = tmp_path / name
        options: dict[str, Any] = {"layers": "1", "report": folder / "report", "engine": name}
        uvmerge.interpolate(*models[:2], folder / "out", scale=0.5, **options)
        found[name] = json.loads((folder / "report" / "report.json").read_text())
        del found[name]["seconds"]
    assert found["ray"] == found["local"]
    assert engine.do in ray.asked and engine.look_at_inputs in ray.asked


def test_relative_names_and_an_adapter_are_found_by_workers(
    ray: raystand.Stand, models: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker has another working directory."""
    pytest.importorskip("peft")
    base, tuned = zoo.pair("llama", tmp_path / "llama", rank=2)
    uvmerge.extract_lora(base, tuned, tmp_path / "llama" / "adapter", rank=2)
    monkeypatch.chdir(base.parent)
    names = ["base", "finetuned", "base+adapter"]
    alone, real = uvmerge.diff(*names), engine.do

    def elsewhere(*words: Any) -> Any:
        with monkeypatch.context() as patch:
            patch.chdir(tmp_path)
            return real(*words)

    monkeypatch.setattr(engine, "do", elsewhere)
    assert figures(uvmerge.diff(*names, engine="ray")) == figures(alone)


def test_every_task_is_in_one_batch(models: list[Path]) -> None:
    from uvmerge.checkpoint.folder import Checkpoint
    from uvmerge.checkpoint.selection import Selection
    from uvmerge.plan.pairing import pair

    base, *others = map(Checkpoint.open, models)
    moving, computing = tasks(pair(base, others, Selection()), Rank(top=0.2))
    pending = [*moving, *computing]
    assert moving and len({task.key for task in pending}) == len(pending)
    found = batches(pending, 4)
    assert sorted(n for batch in found for n in batch.numbers) == list(range(len(pending)))
    for batch in found:
        kinds = {pending[n] in computing for n in batch.numbers}
        assert kinds == {batch.computes}
    for each in (base, *others):
        each.close()


# --- nodes that see something else --------------------------------------------------------------


@pytest.mark.parametrize(
    ("other", "said"),
    [("values", r"checkpoint 2 \(second\): is not the checkpoint that the driver sees"),
     ("names", r"checkpoint 2 \(second\): is not the checkpoint that the driver sees"),
     ("nothing", r"second: is not a folder|is neither a folder")],
)  # fmt: skip
def test_a_node_that_sees_another_input_is_named(
    other: str, said: str, ray: raystand.Stand, models: list[Path], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, capsys: Capsys,
) -> None:  # fmt: skip
    """Only node b has another checkpoint in its place, or none."""
    there = {"values": zoo.finetune(models[0], tmp_path / "v" / "second", seed=8),
             "names": zoo.pair("llama", tmp_path / "n")[1].rename(tmp_path / "n" / "second"),
             "nothing": tmp_path / "nothing" / "second"}[other]  # fmt: skip
    shown, real = tmp_path / "second", engine.look_at_inputs
    shown.symlink_to(models[2])

    def look(*words: Any) -> list[str]:
        if ray.node == "b" * 8:
            shown.unlink()
            shown.symlink_to(there)
        try:
            return real(*words)
        finally:
            shown.unlink()
            shown.symlink_to(models[2])

    monkeypatch.setattr(engine, "look_at_inputs", look)
    words = (*models[:2], shown)
    done = uv(capsys, "diff", *words, "--engine", "ray", "--out", tmp_path / "report", "-q")
    assert (done.code, done.out) == (3, "")
    assert done.err.startswith("error: Ray: node host-b (bbbbbbbb) does not see the same inputs")
    assert re.search(said, done.err) and "host-a" not in done.err and "host-c" not in done.err
    assert "same paths" in done.err and not (tmp_path / "report").exists()
    assert not [given for given in ray.given if given.get("num_cpus") == 1]


def test_a_node_with_other_versions_is_named(
    ray: raystand.Stand, models: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    found = node.look_at_inputs([None], {"torch": "0.1"})
    assert len(found) == 1 and found[0].startswith("has torch") and found[0].endswith("not 0.1")


# --- what may fail ------------------------------------------------------------------------------


def test_a_stop_cancels_what_is_in_hand(ray: raystand.Stand, models: list[Path]) -> None:
    control = Control()
    control.advance = lambda name, work: control.stop.set()
    with pytest.raises(Interrupted, match="Nothing was written") as stopped:
        uvmerge.diff(*models, engine="ray", control=control)
    assert stopped.value.exit_code == 130 and ray.cancelled


def test_a_stop_ends_a_connection_of_its_own_and_cancels_nothing(
    ray: raystand.Stand, models: list[Path]
) -> None:
    """Ray may end a process that cancels a task at the moment when it is done."""
    control, calls = Control(), list[str]()
    control.advance = lambda name, work: control.stop.set()
    ray.is_initialized = lambda: False
    ray.init = lambda **_: calls.append("init")
    ray.shutdown = lambda: calls.append("shutdown")
    with pytest.raises(Interrupted):
        uvmerge.diff(*models, engine="ray", control=control)
    assert calls == ["init", "shutdown", "shutdown"] and not ray.cancelled
    uvmerge.diff(*models, engine="ray", layers="0")
    assert calls[3:] == ["init", "shutdown"]


def test_a_file_that_changes_on_a_node_ends_the_run(
    ray: raystand.Stand, models: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    twin = zoo.finetune(models[0], tmp_path / "twin", seed=9)
    real = measuring.Measurer.do

    def do(self: Any, task: Any) -> Any:
        os.utime(zoo.files(twin)[0])
        return real(self, task)

    monkeypatch.setattr(measuring.Measurer, "do", do)
    with pytest.raises(RunFailed, match=r"fine-tuned \(twin\): changed while running.*\(on node"):
        uvmerge.diff(models[0], twin, engine="ray")


def test_a_failure_on_a_node_is_told_as_here(
    ray: raystand.Stand, models: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: Any) -> Any:
        raise torch.linalg.LinAlgError("it did not converge")  # type: ignore[attr-defined]

    monkeypatch.setattr(measuring.Measurer, "_measure", fails)
    with pytest.raises(RunFailed, match=r"cannot be measured: it did not converge \(on node"):
        uvmerge.diff(*models, engine="ray")


def test_a_matrix_that_no_node_has_memory_for_is_refused(
    ray: raystand.Stand, models: list[Path]
) -> None:
    for each in ray.found:
        each["Resources"]["memory"] = float(1 << 20)
    with pytest.raises(InputRefused, match=r"needs about .* and no node of 3 nodes offers more"):
        uvmerge.diff(*models, engine="ray")
    uvmerge.diff(*models, engine="ray", memory=1 << 20)


def test_a_device_that_only_nodes_have_is_not_looked_for_here(
    ray: raystand.Stand, models: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def told(self: measuring.Measurer) -> None:
        raise InputRefused(self.devices[0], "is what a worker computes on")

    monkeypatch.setattr(measuring.Measurer, "prepare_thread", told)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    with pytest.raises(InputRefused, match="cuda:0: is what a worker computes on"):
        uvmerge.diff(*models, engine="ray", device="cuda", workers=1000)
    with pytest.raises(UsageError, match="is not there"):
        uvmerge.diff(*models, device="cuda")
    asked = [given["num_gpus"] for given in ray.given if given.get("num_cpus") == 1]
    assert set(asked) == {0, 1}  # to subtract, none is needed


def test_settings_that_open_inputs_reach_the_workers(models: list[Path]) -> None:
    from uvmerge.checkpoint.folder import Checkpoint

    with Checkpoint.open(models[0]) as base:
        told = Inputs.of({"base": models[0]}, {"base": base}, OpenSettings(True, True))
    assert told.settings == OpenSettings(True, True)
    assert told.references == {"base": str(models[0])}
