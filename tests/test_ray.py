"""The Ray engine on a cluster of four nodes of one CPU on this machine; run by `make test-scale`."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dropped
import merging
import pytest
import zoo

import uvmerge
from uvmerge import InputRefused
from uvmerge.engine.settings import Control

ray = pytest.importorskip("ray", reason="needs Ray: make test-scale")
pytestmark = [
    pytest.mark.scale,
    pytest.mark.filterwarnings("default"),  # Ray's own, which differ between its versions
]
MEAN = """
def mean(*models: Operand, scale: Scale = 1.0) -> Edited:
    '''Average several models.'''
    total = models[0].tensor
    for model in models[1:]:
        total = total + model.tensor
    return scale * total / len(models)
"""


@pytest.fixture(scope="module")
def operations(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("operations")
    dropped.write(folder, "mean", MEAN)
    return folder


@pytest.fixture(scope="module")
def cluster(operations: Path) -> Iterator[Any]:
    """Four nodes of one CPU, and this process as the driver; workers have the dropped operations."""
    from ray.cluster_utils import Cluster

    there = str(operations)

    def add_operations() -> None:
        from uvmerge import operations

        operations.__path__.insert(0, there)

    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    try:
        for _ in range(4):
            made.add_node(num_cpus=1)
        ray.init(
            address=made.address, log_to_driver=False, logging_level="ERROR",
            runtime_env={"worker_process_setup_hook": add_operations},
        )  # fmt: skip
        yield made
    finally:
        ray.shutdown()
        made.shutdown()


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return zoo.pair("mixtral", tmp_path_factory.mktemp("pair"), shard_bytes=zoo.SHARD_BYTES)


@pytest.fixture(scope="module")
def one(pair: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the local engine makes of the pair."""
    out = tmp_path_factory.mktemp("one") / "out"
    uvmerge.restore(*pair, out, top=0.2)
    return out


def assert_same(folder: Path, other: Path) -> None:
    """The same bytes in every file of two outputs of one name, and nothing left beside the first."""
    ours, theirs = ({p.name: p.read_bytes() for p in each.iterdir()} for each in (folder, other))
    assert ours.keys() == theirs.keys()
    assert not [name for name in ours if ours[name] != theirs[name]]
    assert not list(folder.parent.glob("*.uvmerge-*"))


def test_the_bytes_are_those_of_the_local_engine(
    cluster: Any, operations: Path, pair: tuple[Path, Path], tmp_path: Path
) -> None:
    with dropped.dropped(operations):
        for engine in ("local", "ray"):
            out = tmp_path / engine
            out.mkdir()
            done = uvmerge.restore(*pair, out / "restore", top=0.2, engine=engine)
            uvmerge.interpolate(*pair, out / "interpolate", scale=0.5, engine=engine)
            uvmerge.sweep("restore", *pair, out / "sweep", top=[0.1, 0.3], engine=engine)
            uvmerge.mean(*pair, out / "mean", engine=engine)
            if engine == "ray":
                assert {"connect", "edit", "decompose", "write"} <= done.phases.keys()
    for name in ("restore", "interpolate", "mean", "sweep/top-0.1", "sweep/top-0.3"):
        assert_same(tmp_path / "ray" / name, tmp_path / "local" / name)


def test_what_is_put_together_of_several_models_is_put_together_by_every_worker(
    cluster: Any, tmp_path: Path
) -> None:
    models = merging.make(tmp_path / "all", tuned=("chat", "code"), others=True) / "models"
    slices = [
        {"sources": [{"model": str(models / "chat"), "layer_range": [0, 3]}]},
        {"sources": [{"model": str(models / n), "layer_range": [1, 3]} for n in ("code", "chat")]},
    ]
    stack = {"merge_method": "linear", "slices": slices, "parameters": {"weight": [1, 3]}}
    words = [models / name for name in ("words", "names")]
    experts = [{"source_model": str(models / name)} for name in ("chat", "code")]
    mixed = {"base_model": str(models / "base"), "gate_mode": "random", "experts": experts}
    for engine in ("local", "ray"):
        out = tmp_path / engine
        uvmerge.run(stack, out / "stack", engine=engine)
        uvmerge.linear(*words, out / "words", tokenizer="union", engine=engine)
        uvmerge.extract_lora(models / "base", models / "chat", out / "lora", rank=4, engine=engine)
        uvmerge.moe(mixed, out / "moe", engine=engine)
    for name in ("stack", "words", "lora", "moe"):
        assert_same(tmp_path / "ray" / name, tmp_path / "local" / name)


@pytest.fixture(scope="module")
def three(pair: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """A base and two checkpoints of it."""
    folder = tmp_path_factory.mktemp("three")
    return [*pair, zoo.finetune(pair[0], folder / "second", seed=7)]


@pytest.fixture(scope="module")
def measured(three: list[Path]) -> dict[str, Any]:
    """What the local engine measures of the three."""
    return figures(uvmerge.diff(*three).as_data())


def figures(data: dict[str, Any]) -> dict[str, Any]:
    """A report without its seconds."""
    return {key: value for key, value in data.items() if key != "seconds"}


def test_diff_prints_what_the_local_engine_does_and_the_driver_reads_no_weights(
    cluster: Any, three: list[Path], measured: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    from uvmerge.engine.measuring import Measurer

    def here(*_: Any) -> None:
        raise AssertionError("measured on the driver")

    seen: list[str] = []
    control = Control()
    control.advance = lambda name, work: seen.append(name)
    monkeypatch.setattr(Measurer, "__init__", here)
    found = uvmerge.diff(*three, engine="ray", control=control)
    assert json.dumps(figures(found.as_data())) == json.dumps(measured)
    first, second = found.compared
    assert len(seen) == len(first.entries) + len(first.others) + len(second.others)
    assert {"connect", "read", "measure", "subtract"} <= found.seconds.keys()


def test_ctrl_c_of_a_diff_cancels_it(cluster: Any, three: list[Path]) -> None:
    control = Control()
    control.advance = lambda name, work: control.stop.set()
    with pytest.raises(uvmerge.Interrupted, match="Nothing was written"):
        uvmerge.diff(*three, engine="ray", control=control)


def test_a_diff_with_nodes_that_die_measures_the_same(
    cluster: Any, three: list[Path], measured: dict[str, Any]
) -> None:
    control, lost = Control(), list[Any]()

    def kill(name: str, work: float) -> None:
        if not lost:
            lost.append(sorted(cluster.worker_nodes, key=str)[0])
            cluster.remove_node(lost[0], False)

    control.advance = kill
    found = uvmerge.diff(*three, engine="ray", control=control)
    assert lost and figures(found.as_data()) == measured
    cluster.add_node(num_cpus=1)


def test_a_signal_ends_a_diff_on_the_command_line(
    cluster: Any, three: list[Path], tmp_path: Path, measured: dict[str, Any]
) -> None:
    command = [
        sys.executable, "-m", "uvmerge", "diff", *map(str, three), "--json", "--engine", "ray",
        "--address", cluster.address,
    ]  # fmt: skip
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as run:
        assert run.stderr is not None
        for line in run.stderr:
            if line.startswith("Ray: 4 nodes"):
                break
        time.sleep(0.5)  # it listens at once, and no worker is there before it has torch
        run.send_signal(signal.SIGINT)
        out, err = run.communicate()
    assert run.returncode == 130, err
    assert "Traceback" not in err and "Interrupted" in out, err
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert figures(json.loads(done.stdout)) == json.loads(json.dumps(measured))


def test_a_node_that_sees_another_folder_is_named(
    cluster: Any, pair: tuple[Path, Path], tmp_path: Path
) -> None:
    from uvmerge.engine.ray import Cluster
    from uvmerge.output import lent

    place = tmp_path / "out.uvmerge-partial-01234567"
    place.mkdir()
    shown = lent.Shown([place])
    with shown.shown():
        there = Handed(shown.token, {str(place): lent.hashed("another number")}, [str(pair[0])])
        with pytest.raises(
            InputRefused, match=r"node \S+ \(\w{8}\) does not see .*01234567"
        ) as info:
            Cluster(ray).check(there, shown)
        assert info.value.what.count("does not see") == 4
        there.numbers = {str(place): lent.hashed(shown.numbers[str(place)])}
        Cluster(ray).check(there, shown)


class Handed:
    """What nodes are told before a run."""

    def __init__(self, token: str, numbers: dict[str, str], folders: list[str]) -> None:
        self.token, self.numbers, self.folders = token, numbers, folders


def test_ctrl_c_cancels_and_the_same_command_resumes(
    cluster: Any, pair: tuple[Path, Path], one: Path, tmp_path: Path
) -> None:
    control = Control()
    control.advance = lambda name, work: control.stop.set()
    with pytest.raises(uvmerge.Interrupted):
        uvmerge.restore(*pair, tmp_path / "out", top=0.2, engine="ray", control=control)
    assert not (tmp_path / "out").exists()
    root = next(tmp_path.glob("out.uvmerge-partial-*"))
    assert not list(root.glob("seen-*"))
    assert len((root / "journal.jsonl").read_text().splitlines()) > 1
    uvmerge.restore(*pair, tmp_path / "out", top=0.2, engine="ray")
    assert_same(tmp_path / "out", one)


def test_nodes_that_die_at_random_moments_change_nothing(
    cluster: Any, pair: tuple[Path, Path], one: Path, tmp_path: Path
) -> None:
    seed = int(os.environ.get("UVMERGE_SEED", random.randrange(2**31)))
    print(f"UVMERGE_SEED={seed}")
    draw = random.Random(seed)
    started = time.monotonic()
    uvmerge.restore(*pair, tmp_path / "0" / "out", top=0.2, engine="ray")
    lasted = time.monotonic() - started
    assert_same(tmp_path / "0" / "out", one)
    for number in (1, 2, 3):
        moment = draw.uniform(0, lasted)
        victim = draw.choice(sorted(cluster.worker_nodes, key=str))
        timer = threading.Timer(moment, cluster.remove_node, (victim, False))
        timer.start()
        try:
            uvmerge.restore(*pair, tmp_path / str(number) / "out", top=0.2, engine="ray")
        finally:
            timer.join()
        assert_same(tmp_path / str(number) / "out", one)
        cluster.add_node(num_cpus=1)


def test_a_killed_driver_resumes(
    cluster: Any, pair: tuple[Path, Path], one: Path, tmp_path: Path
) -> None:
    command = [
        sys.executable, "-m", "uvmerge", "restore", *map(str, pair), str(tmp_path / "out"), "--top",
        "0.2", "--engine", "ray", "--address", cluster.address,
    ]  # fmt: skip
    process = subprocess.Popen([*command, "-q"], stdout=subprocess.DEVNULL)
    while process.poll() is None and _lines(tmp_path) < 3:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "out").exists()
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0 and "Ray: 4 nodes with 4 CPUs" in done.stderr, done.stderr
    assert_same(tmp_path / "out", one)


def _lines(folder: Path) -> int:
    found = list(folder.glob("out.uvmerge-partial-*/journal.jsonl"))
    return found[0].read_text().count("\n") if found else 0
