"""The engine: threads, devices, the memory budget, the time many tensors take, and what is said of it."""

from __future__ import annotations

import json
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any
from unittest import mock

import faults
import pytest
import torch
from faults import done, failed

import uvmerge
from uvmerge.engine import crew, local, reading
from uvmerge.engine.compute import Editor
from uvmerge.engine.crew import SMALL_BYTES

OUTER = {"open", "plan", "import", "edit", "publish"}
INNER = {"read", "decompose", "recombine", "write", "copy"}  # summed over threads, within edit


@pytest.fixture
def pair(tmp_path: Path) -> faults.Pair:
    """Eight matrices of 36 KB or more, which are shared among threads, and seven copies."""
    return faults.pair(tmp_path, layers=4, hidden=96)


def run(pair: faults.Pair, out: Path, **options: Any) -> uvmerge.Result:
    return uvmerge.restore(*pair[:2], out, **{"top": 0.2} | options)


def spied(
    monkeypatch: pytest.MonkeyPatch, place: Any, name: str, before: Callable[..., None]
) -> None:
    """Call `before` with the arguments of each call of a method, then the method."""
    real = getattr(place, name)

    def call(self: Any, *arguments: Any) -> Any:
        before(self, *arguments)
        return real(self, *arguments)

    monkeypatch.setattr(place, name, call)


# --- many tensors ------------------------------------------------------------------------------


def mixture(folder: Path, experts: int, layers: int = 8) -> faults.Pair:
    """A mixture of experts in seven files: three matrices of 8 x 4 per expert, in bfloat16."""
    make = torch.Generator().manual_seed(0)
    parts = {"gate_proj": (8, 4), "up_proj": (8, 4), "down_proj": (4, 8)}
    shapes = {faults.EMBED: (32, 4), faults.HEAD: (32, 4), "model.norm.weight": (4,)}
    for i in range(layers):
        shapes[f"model.layers.{i}.mlp.gate.weight"] = (experts, 4)
        shapes[f"model.layers.{i}.input_layernorm.weight"] = (4,)
        for e in range(experts):
            for part, shape in parts.items():
                shapes[f"model.layers.{i}.mlp.experts.{e}.{part}.weight"] = shape
    tensors = {n: torch.randn(shape, generator=make).bfloat16() for n, shape in shapes.items()}
    config = {
        "architectures": ["Qwen3MoeForCausalLM"], "model_type": "qwen3_moe", "hidden_size": 4,
        "num_hidden_layers": layers, "num_experts": experts,
    }  # fmt: skip
    return faults.pair_of(folder, tensors, shards=7, config=config)


def calls_of(action: Callable[[], object]) -> int:
    """How many Python functions are called meanwhile, in all threads."""
    counts: Counter[int] = Counter()

    def count(frame: object, event: str, argument: object) -> None:
        if event == "call":
            counts[threading.get_ident()] += 1

    threading.setprofile(count)
    sys.setprofile(count)
    try:
        action()
    finally:
        sys.setprofile(None)
        threading.setprofile(None)  # type: ignore[arg-type]
    return counts.total()


@pytest.mark.parametrize(
    ("name", "options"),
    [("restore", {"top": 0.25, "dry_run": True}), ("restore", {"top": 0.25}),
     ("interpolate", {"scale": 0.5}), ("reset_layers", {"frac": 0.5})],
    ids=["plan", "restore", "interpolate", "reset-layers"],
)  # fmt: skip
def test_the_effort_grows_as_the_number_of_tensors(
    name: str, options: dict[str, Any], tmp_path: Path
) -> None:
    call = getattr(uvmerge, name)
    efforts = []
    for experts in (10, 40, 160):
        pair = mixture(tmp_path / str(experts), experts, layers=2)
        options["workers"] = 1
        efforts.append(calls_of(lambda: call(*pair, **options)))  # noqa: B023
    first, second = (b - a for a, b in pairwise(efforts))
    assert second == pytest.approx(4 * first, rel=0.1)  # 240 tensors more, 960 more


def test_sixteen_thousand_tensors_take_four_times_as_long_as_four_thousand(
    tmp_path: Path,
) -> None:
    seconds = []
    for experts in (160, 640):
        pair = mixture(tmp_path / str(experts), experts)
        begun = time.process_time()
        result = uvmerge.interpolate(*pair, scale=0.5)
        seconds.append(time.process_time() - begun)
        assert result.plan.counts()["edited"] == 8 * (3 * experts + 2) + 3
    assert seconds[1] < 6 * seconds[0]


def test_small_edits_are_left_to_one_thread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two would only wait for each other's Python."""
    pair, threads = mixture(tmp_path, 20, layers=1), set()
    spied(monkeypatch, Editor, "produce", lambda *_: threads.add(threading.get_ident()))
    run(pair, pair[2], workers=3)
    assert len(threads) == 1


# --- workers and devices -----------------------------------------------------------------------


@pytest.mark.parametrize("precision", ["exact", "fast"])
def test_neither_workers_nor_devices_change_a_byte(
    precision: str, pair: faults.Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    outputs = []
    for number, (workers, devices) in enumerate([(1, 1), (2, 1), (3, 1), (0, 3), (5, 3)]):
        monkeypatch.setattr(reading, "resolve_devices", lambda _, n=devices: ("cpu",) * n)
        out = tmp_path / f"out-{number}"
        run(pair, out, workers=workers, precision=precision)
        outputs.append(faults.contents(out))
    assert all(output == outputs[0] for output in outputs)


class Gpus:
    """Three devices that are said to be GPUs; what is to be computed on them, the CPU does."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, parties: int) -> None:
        self.streams: dict[int, str] = {}  # by thread
        self.used: dict[int, set[str]] = {}
        barrier, mine = threading.Barrier(parties), threading.local()
        real = Editor._compute

        def stream(device: str) -> None:
            self.streams[threading.get_ident()] = device

        def compute_on(editor: Editor, requests: Any, number: int, device: str) -> Any:
            self.used.setdefault(threading.get_ident(), set()).add(device)
            if not hasattr(mine, "met"):
                mine.met = barrier.wait(30)
            return real(editor, requests, number, "cpu")

        names = ("cuda:0", "cuda:1", "cuda:2")
        monkeypatch.setattr(reading, "resolve_devices", lambda _: names)
        monkeypatch.setattr(Editor, "_compute", compute_on)
        monkeypatch.setattr(torch.cuda, "set_device", lambda device: None)
        monkeypatch.setattr(torch.cuda, "Stream", lambda device: device)
        monkeypatch.setattr(torch.cuda, "set_stream", stream)


def test_each_thread_takes_its_own_device_and_stream(
    pair: faults.Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gpus = Gpus(monkeypatch, parties=6)  # two threads per device, all of them busy
    result = run(pair, tmp_path / "gpu")
    assert len(gpus.used) == 6
    for thread, devices in gpus.used.items():
        assert devices == {gpus.streams[thread]}
    assert set().union(*gpus.used.values()) == {"cuda:0", "cuda:1", "cuda:2"}
    monkeypatch.undo()
    assert (
        faults.contents(result.out)["model.safetensors"]
        == (faults.contents(run(pair, tmp_path / "cpu").out)["model.safetensors"])
    )


def test_workers_are_counted_over_all_devices(
    pair: faults.Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gpus = Gpus(monkeypatch, parties=3)
    run(pair, tmp_path / "gpu", workers=3)
    assert len(gpus.used) == 3


def test_edits_use_one_blas_thread_each_and_the_callers_number_comes_back(
    pair: faults.Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = set()
    spied(monkeypatch, Editor, "_compute", lambda *_: seen.add(torch.get_num_threads()))
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        run(pair, tmp_path / "out", workers=2)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    assert seen == {1}


def test_the_largest_edits_come_first(
    pair: faults.Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []
    spied(monkeypatch, Editor, "produce", lambda _, r: sizes.append(r[0][1].size_bytes))
    run(pair, tmp_path / "out", workers=1)
    assert sizes == sorted(sizes, reverse=True)
    assert min(sizes) > SMALL_BYTES


@pytest.mark.parametrize("workers", [1, 3])
def test_an_edit_that_fails_ends_the_run_with_its_error(
    workers: int, pair: faults.Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[int] = []

    def fail(*_: object) -> None:
        started.append(1)
        if len(started) == 2:
            raise uvmerge.RunFailed("here", "it broke")
        time.sleep(0.05)

    spied(monkeypatch, Editor, "produce", fail)
    with pytest.raises(uvmerge.RunFailed, match="it broke"):
        run(pair, pair[2], workers=workers)
    assert len(started) <= 1 + workers
    assert not pair[2].exists()


# --- memory ------------------------------------------------------------------------------------


class Crowd:
    """How many edits are in flight at once; each takes a while."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = self.most = 0
        real, mutex = Editor._edit, threading.Lock()

        def edit(editor: Editor, *arguments: Any) -> Any:
            with mutex:
                self.now += 1
                self.most = max(self.most, self.now)
            time.sleep(0.03)
            try:
                return real(editor, *arguments)
            finally:
                with mutex:
                    self.now -= 1

        monkeypatch.setattr(Editor, "_edit", edit)


@pytest.mark.parametrize(("memory", "most"), [("1KB", 1), (1, 1), ("1TB", 3), (None, 3)])
def test_less_memory_means_fewer_matrices_at_once(
    memory: str | int | None,
    most: int,
    pair: faults.Pair,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    expected = faults.contents(run(pair, tmp_path / "expected", workers=1).out)
    crowd = Crowd(monkeypatch)
    run(pair, tmp_path / "out", workers=3, memory=memory)
    assert crowd.most == most
    assert faults.contents(tmp_path / "out") == expected


def test_memory_for_two_matrices_is_for_two(
    pair: faults.Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = run(pair, tmp_path / "out", dry_run=True).plan
    largest = max(step.matrix_bytes for step in plan.edits)
    crowd = Crowd(monkeypatch)
    run(pair, tmp_path / "out", workers=4, memory=2 * largest)
    assert crowd.most == 2


@pytest.mark.parametrize("size", ["lots", "0GB", "-1GB", "8", "1e3MB", ""])
def test_a_bad_size_of_memory_is_a_usage_error(size: str, pair: faults.Pair) -> None:
    outcome = faults.uvmerge("restore", *pair, "--memory", size)
    failed(outcome, "error: --memory: ", code=2)
    assert not pair[2].exists()


def test_memory_on_the_command_line_is_a_size(
    pair: faults.Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    budgets: list[int] = []
    real = crew.Crew.__init__

    def init(self: Any, *arguments: Any) -> None:
        real(self, *arguments)
        budgets.append(self.budget)

    monkeypatch.setattr(crew.Crew, "__init__", init)
    done(faults.restore(*pair, "--memory", "64MiB"))
    monkeypatch.setattr(crew, "available_memory", lambda: 10**9)
    done(faults.restore(*pair, "--overwrite"))
    assert budgets == [64 << 20, 10**9 // 2]


# --- copies ------------------------------------------------------------------------------------


@pytest.fixture
def blocked(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """Edits wait until this is set; a run that never sets it fails."""
    event = threading.Event()

    def wait(*_: object) -> None:
        assert event.wait(20), "the copies wait for the edit"

    spied(monkeypatch, Editor, "produce", wait)
    yield event
    event.set()


@pytest.mark.parametrize("options", [{"workers": 1}, {"workers": 2}, {"memory": 1}], ids=str)
def test_copies_proceed_while_edits_take_their_time(
    options: dict[str, Any],
    tmp_path: Path,
    blocked: threading.Event,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pair = faults.pair(tmp_path, layers=4, hidden=96, shards=3)
    plan = run(pair, pair[2], dry_run=True).plan
    copies = sum(job.action == "copy" for job in local.jobs([plan]))
    assert copies >= 3
    real, finished = local._Worker._copy, []

    def copy(self: Any, *arguments: Any) -> str:
        if not finished:
            time.sleep(0.2)  # an edit has begun by now, and holds its memory
        digest = real(self, *arguments)
        finished.append(threading.get_ident())
        if len(finished) == copies:
            blocked.set()
        return digest

    monkeypatch.setattr(local._Worker, "_copy", copy)
    run(pair, pair[2], **options)
    assert len(finished) == copies
    assert len(set(finished)) == 1


def test_a_run_of_copies_alone_starts_one_thread(pair: faults.Pair) -> None:
    threads = set()
    real = local._Worker._copy

    def copy(self: Any, *arguments: Any) -> str:
        threads.add(threading.get_ident())
        return real(self, *arguments)

    with mock.patch.object(local._Worker, "_copy", copy):
        uvmerge.reset_layers(*pair, frac=1, workers=3)
    assert len(threads) == 1
    assert threads != {threading.get_ident()}


# --- what is said ------------------------------------------------------------------------------


def test_the_result_says_where_the_seconds_went(pair: faults.Pair) -> None:
    result = run(pair, pair[2])
    assert set(result.phases) == OUTER | INNER
    assert all(seconds >= 0 for seconds in result.phases.values())
    assert sum(result.phases[name] for name in OUTER) <= result.seconds
    assert result.phases["decompose"] > 0


def test_json_says_the_same(pair: faults.Pair) -> None:
    data = json.loads(done(faults.restore(*pair, "--json", "--quiet")).out)
    assert set(data["phases"]) == OUTER | INNER
    assert sum(data["phases"][name] for name in OUTER) <= data["seconds"] + 0.01


@pytest.mark.parametrize(
    ("name", "options", "missing"),
    [
        ("interpolate", {}, {"copy", "read", "decompose"}),
        ("reset_layers", {"frac": 1}, {*INNER} - {"copy"}),
    ],
)
def test_phases_that_did_not_happen_are_not_said(
    name: str, options: dict[str, Any], missing: set[str], pair: faults.Pair
) -> None:
    result = getattr(uvmerge, name)(*pair, **options)
    assert set(result.phases) == (OUTER | INNER) - missing


def test_a_dry_run_has_no_phases(pair: faults.Pair) -> None:
    assert run(pair, pair[2], dry_run=True).phases == {}


@pytest.mark.parametrize("name", ["restore", "interpolate"])
@pytest.mark.parametrize("scale", [1e-30, 1e-21, 1e19, 1e30])
def test_the_recorded_change_knows_no_scale(scale: float, name: str, tmp_path: Path) -> None:
    """Squares of such values do not fit in float32."""
    base = faults.tensors(layers=1)
    finetuned = faults.tuned(base)
    call = getattr(uvmerge, name)
    plain = call(*faults.pair_of(tmp_path / "plain", base, finetuned))
    scaled = [{n: scale * t for n, t in tensors.items()} for tensors in (base, finetuned)]
    result = call(*faults.pair_of(tmp_path / "scaled", *scaled))
    assert result.edits.keys() == plain.edits.keys()
    for tensor, entry in result.edits.items():
        expected = plain.edits[tensor]["relative_change"]
        assert entry["relative_change"] == pytest.approx(expected, rel=2e-3), tensor
    assert "NaN" not in (result.out / "uvmerge.json").read_text()
