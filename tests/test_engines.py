"""Engines beside the local one: what needs no cluster, with a stand-in for Ray in this process."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import zoo
from command import process, uv
from raystand import Stand, standing
from safetensors.torch import load_file, save_file

import uvmerge
from uvmerge import InputRefused, RunFailed, UsageError
from uvmerge.engine import node
from uvmerge.engine.batches import MOST_JOBS, PROCESS_BYTES, batches
from uvmerge.engine.local import jobs
from uvmerge.engine.ray import connected
from uvmerge.engine.settings import Control
from uvmerge.output import lent


@pytest.fixture
def ray(monkeypatch: pytest.MonkeyPatch) -> Iterator[Stand]:
    yield from standing(monkeypatch)


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return zoo.pair("mixtral", tmp_path_factory.mktemp("pair"), shard_bytes=zoo.SHARD_BYTES)


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


# --- without Ray --------------------------------------------------------------------------------


def test_without_ray_one_line_says_what_to_install(
    pair: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.setitem(sys.modules, "ray", None)
    for words in (["restore"], ["sweep", "restore", "--top", "0.1,0.2"], ["run", "restore-top20"]):
        done = uv(capsys, *words, *pair, tmp_path / "out", "--engine", "ray")
        assert (done.code, done.out) == (2, "")
        assert done.err == "error: --engine ray: needs Ray\n  pip install 'uvmerge[ray]'\n"
    assert not list(tmp_path.iterdir())
    assert uv(capsys, "restore", *pair, tmp_path / "out", "--engine", "local", "-q").code == 0


def test_an_address_is_for_ray_alone_and_has_a_form(
    pair: tuple[Path, Path], tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match="is for another engine"):
        uvmerge.restore(*pair, tmp_path / "out", address="auto")
    for wrong in ("", "host", "http://host:1", "ray://host"):
        with pytest.raises(UsageError, match="is no address of a Ray cluster"):
            uvmerge.restore(*pair, tmp_path / "out", engine="ray", address=wrong)


def test_help_names_the_engines_and_a_plan_has_none() -> None:
    assert "--engine [local|ray]" in process("interpolate", "--help").out
    assert "--engine" not in process("plan", "restore", "--help").out


# --- batches ------------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [1, 4, 1000])
def test_every_job_is_in_one_batch_and_the_costliest_batch_comes_first(
    workers: int, pair: tuple[Path, Path], tmp_path: Path
) -> None:
    plans = [
        uvmerge.restore(*pair, tmp_path / "out", top=top, dry_run=True).plan for top in (0.1, 0.3)
    ]
    pending = jobs(plans)
    found = batches(pending, workers)
    assert sorted(n for batch in found for n in batch.numbers) == list(range(len(pending)))
    assert [batch.cost for batch in found] == sorted((b.cost for b in found), reverse=True)
    assert len(found) < len(pending) or workers == 1000
    for batch in found:
        several = [pending[n] for n in batch.numbers]
        assert {job.action == "edit" for job in several} == {batch.computes}
        needed = PROCESS_BYTES + max(job.memory_bytes for job in several)
        assert needed <= batch.memory_bytes <= 1.25 * needed and len(several) <= MOST_JOBS
    assert max(b.memory_bytes for b in batches(pending, workers, 1 << 20)) == 1 << 20


# --- what is shown to nodes ---------------------------------------------------------------------


def test_owner_and_node_show_each_other_that_they_see_one_folder(tmp_path: Path) -> None:
    places = [tmp_path / f"out-{n}.uvmerge-partial-0123456{n}" for n in (1, 2)]
    for place in places:
        place.mkdir()
    shown = lent.Shown(places)
    assert shown.places == places[1:]  # one of each folder is enough
    (place,) = shown.places
    told = {str(place): lent.hashed(shown.numbers[str(place)])}
    assert lent.unseen(shown.token, told, "a") == [str(place)]  # nothing is shown yet
    with shown.shown():
        assert shown.unanswered("a") == [place]
        assert lent.unseen(shown.token, told, "a") == []
        assert shown.unanswered("a") == [] and shown.unanswered("b") == [place]
        assert lent.unseen(shown.token, {str(place): lent.hashed("other")}, "b") == [str(place)]
        assert lent.unseen(shown.token, {str(tmp_path / "none"): ""}, "b")
        (place / f"seen-{shown.token}-a").write_text("another folder's answer")
        assert shown.unanswered("a") == [place]
    assert not list(place.iterdir())


# --- the driver, with the stand-in --------------------------------------------------------------


def test_the_bytes_are_those_of_the_local_engine(
    ray: Stand, pair: tuple[Path, Path], tmp_path: Path
) -> None:
    for engine in ("local", "ray"):
        uvmerge.restore(*pair, tmp_path / engine / "one", top=0.2, engine=engine)
        uvmerge.sweep("restore", *pair, tmp_path / engine / "many", top=[0.1, 0.3], engine=engine)
    for name in ("one", "many/top-0.1", "many/top-0.3"):
        assert content(tmp_path / "ray" / name) == content(tmp_path / "local" / name)
    assert not list((tmp_path / "ray").glob("*.uvmerge-*"))
    tasks = [given for given in ray.given if given.get("num_cpus") == 1]
    assert all(given["memory"] >= PROCESS_BYTES and given["max_retries"] for given in tasks)


def test_what_is_finished_is_not_done_again(
    ray: Stand, pair: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    control = Control()
    control.advance = lambda name, work: control.stop.set()
    with pytest.raises(uvmerge.Interrupted):
        uvmerge.restore(*pair, tmp_path / "out", top=0.2, engine="ray", control=control)
    assert ray.cancelled  # what was handed in and not yet taken
    (root,) = tmp_path.glob("out.uvmerge-partial-*")
    assert {path.name for path in root.iterdir()} == {"journal.jsonl", "out"}
    finished = (root / "journal.jsonl").read_text().count("\n") - 1
    written: list[int] = []
    real = lent.LentStaging.finish
    monkeypatch.setattr(
        lent.LentStaging, "finish", lambda self, *words: (written.append(1), real(self, *words))
    )
    done = uvmerge.restore(*pair, tmp_path / "out", top=0.2, engine="ray")
    pieces = sum(len(job.steps) if job.action == "edit" else 1 for job in jobs([done.plan]))
    assert finished > 0 and len(written) == pieces - finished


def test_nodes_that_see_something_else_are_named(
    ray: Stand, pair: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = lent.unseen
    monkeypatch.setattr(lent, "unseen", lambda token, numbers, at: [] if at == "b" * 8 else real(token, numbers, at))  # fmt: skip
    with pytest.raises(InputRefused, match=r"^Ray: node host-b \(bbbbbbbb\) writes to another .*out") as info:  # fmt: skip
        uvmerge.restore(*pair, tmp_path / "out", top=0.2, engine="ray")
    assert "host-a" not in str(info.value)
    found = node.look("a", "0" * 16, {}, [str(tmp_path / "none")], {"torch": "0.1"})
    assert found[0].startswith("does not see") and "not 0.1" in found[1]


def test_a_matrix_that_no_node_has_memory_for_is_refused(
    ray: Stand, pair: tuple[Path, Path], tmp_path: Path
) -> None:
    for each in ray.found:
        each["Resources"]["memory"] = float(1 << 20)
    with pytest.raises(InputRefused, match=r"needs about .* and no node of 3 nodes offers more"):
        uvmerge.restore(*pair, tmp_path / "out", top=0.2, engine="ray")
    uvmerge.restore(*pair, tmp_path / "out", top=0.2, engine="ray", memory=1 << 20)


def test_nan_and_failures_on_a_node_are_told_as_here(ray: Stand, tmp_path: Path) -> None:
    pair = zoo.pair("llama", tmp_path)
    path = pair[1] / "model.safetensors"
    tensors = load_file(path)
    tensors["model.layers.1.mlp.up_proj.weight"][0, 0] = torch.nan
    save_file(tensors, path, {"format": "pt"})
    for engine in ("local", "ray"):
        with pytest.raises(InputRefused, match="NaN or Inf in 1 tensor"):
            uvmerge.restore(*pair, tmp_path / "out", top=0.2, engine=engine)
        assert not list(tmp_path.glob("out*"))
    with pytest.raises(RunFailed, match=r"overflows? F16.* \(on node"):
        uvmerge.interpolate(*pair, tmp_path / "o", scale=1e6, dtype="float16", engine="ray",
                            exclude=["*layers.1.mlp.up_proj*"])  # fmt: skip


def test_where_nobody_listens_is_told(ray: Stand) -> None:
    ray.is_initialized = lambda: False
    ray.shutdown = lambda: None
    for address in ("127.0.0.1:1", "ray://127.0.0.1:1"):
        with (
            pytest.raises(RunFailed, match=f"--address {address}: no Ray cluster can be reached"),
            connected(address),
        ):
            pass


def test_importing_the_engine_imports_no_ray() -> None:
    code = "import sys, uvmerge.engine.ray, uvmerge.api.engines; assert 'ray' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
