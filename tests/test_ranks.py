"""A plan as a file, done by ranks: shares, resuming, and what is refused."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import zoo
from safetensors.torch import load_file, save_file

import uvmerge
from uvmerge import InputRefused, UsageError
from uvmerge.engine.shares import balanced, shares
from uvmerge.plan import file as plan_data
from uvmerge.plan.steps import Plan


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return zoo.pair("mixtral", tmp_path_factory.mktemp("pair"), shard_bytes=zoo.SHARD_BYTES)


def planned(pair: tuple[Path, Path], folder: Path, **options: Any) -> Path:
    file = folder / "plan.json"
    uvmerge.restore(*pair, folder / "out", plan=file, **{"top": 0.2, **options})
    return file


def weights(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in folder.iterdir() if p.suffix == ".safetensors"}


def changed(data: dict[str, Any], *keys: Any, to: Any) -> dict[str, Any]:
    at: Any = data
    for key in keys[:-1]:
        at = at[key]
    at[keys[-1]] = to
    return data


# --- shares -------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 2, 7, 64])
def test_every_item_is_in_one_share_and_the_largest_share_is_near_the_mean(count: int) -> None:
    costs = [float(i % 17 + 1) for i in range(2000)]
    found = balanced(costs, [i // 100 for i in range(2000)], count)
    assert sorted(i for share in found for i in share) == list(range(2000))
    loads = [sum(costs[i] for i in share) for share in found]
    assert max(loads) <= 1.02 * sum(costs) / count


def test_items_of_a_group_stay_together_where_that_makes_no_share_larger() -> None:
    groups = [i // 8 for i in range(64)]
    found = balanced([1.0] * 64, groups, 8)
    assert [{groups[i] for i in share} for share in found] == [{n} for n in range(8)]
    apart = balanced([1.0] * 64, [0] * 64, 8)  # one group cannot stay together
    assert [len(share) for share in apart] == [8] * 8


def test_more_shares_than_items_leave_some_empty() -> None:
    found = balanced([3.0, 1.0], ["a", "a"], 4)
    assert sorted(map(tuple, found)) == [(), (), (0,), (1,)]


# --- the file -----------------------------------------------------------------------------------


def read_back(plan: Plan) -> Plan:
    """The plan after it was text."""
    written = json.dumps(plan_data.packed(plan), default=plan_data.packed_value)
    return plan_data.unpacked(json.loads(written))


def test_a_plan_is_the_same_after_it_was_a_file(pair: tuple[Path, Path], tmp_path: Path) -> None:
    plan = uvmerge.restore(*pair, tmp_path / "out", top=0.2, dry_run=True).plan
    again = read_back(plan)
    assert again == plan and again.digest == plan.digest


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda d: changed(d, "uvmerge_plan", to=2), "its format is 2, not 1"),
        (lambda d: changed(d, "versions", "torch", to="1.0"), r"other versions: torch 1.0 \(here"),
        (lambda d: changed(d, "runs", 0, "plan", "digest", to="0"), "digest is that of another"),
        (lambda d: changed(d, "runs", 0, "plan", "steps", 0, 2, to="0"), "str where int was to be"),
        (lambda d: changed(d, "runs", 0, "plan", "steps", 0, to=[1]), "1 values where"),
        (lambda d: changed(d, "runs", 0, "plan", "files", 0, 1, to="!"), "not in base 64"),
        (lambda d: changed(d, "runs", 0, "plan", "recipe", "steps", to=[]), "its recipe"),
        (lambda d: changed(d, "runs", 0, "out", to="../x"), "its output has no path"),
        (lambda d: changed(d, "runs", to=[]), "inputs are missing"),
        (lambda d: changed(d, "settings", "precision", to="rough"), "content is damaged"),
        (lambda d: [d], "list where an object was to be"),
    ],
)
def test_a_changed_file_is_refused(
    change: Callable[[dict[str, Any]], Any], words: str, pair: tuple[Path, Path], tmp_path: Path
) -> None:
    file = planned(pair, tmp_path)
    file.write_text(json.dumps(change(json.loads(file.read_text()))))
    with pytest.raises(InputRefused, match=words):
        uvmerge.work(file, rank=0, world_size=1)
    assert not list(tmp_path.glob("out*"))


@pytest.mark.parametrize("content", ["", "{", "[" * 100_000, "{}"])
def test_what_is_no_plan_is_refused(content: str, tmp_path: Path) -> None:
    (tmp_path / "plan.json").write_text(content)
    with pytest.raises(InputRefused, match="is no plan that this uvmerge reads"):
        uvmerge.finish(tmp_path / "plan.json")
    with pytest.raises(InputRefused, match="is not a file"):
        uvmerge.finish(tmp_path / "none.json")


def test_a_plan_lies_outside_of_inputs_and_replaces_nothing_unasked(
    pair: tuple[Path, Path], tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match="lies inside the input"):
        uvmerge.restore(*pair, tmp_path / "out", plan=pair[0] / "plan.json")
    file = planned(pair, tmp_path)
    with pytest.raises(InputRefused, match="is there already"):
        planned(pair, tmp_path)
    planned(pair, tmp_path, overwrite=True)
    with pytest.raises(UsageError, match="its folder is missing"):
        uvmerge.restore(*pair, tmp_path / "out", plan=tmp_path / "no" / "plan.json")
    with pytest.raises(UsageError, match="cannot be written of a plan"):
        uvmerge.restore(*pair, tmp_path / "out", plan=file, report=tmp_path / "report")


def test_another_input_than_was_planned_is_refused(tmp_path: Path) -> None:
    own = zoo.pair("llama", tmp_path)
    file = planned(own, tmp_path)
    path = own[1] / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[-1000:] = bytes(1000)
    path.write_bytes(content)
    with pytest.raises(InputRefused, match=r"is not the checkpoint that plan\.json was made for"):
        uvmerge.work(file, rank=0, world_size=1)


# --- ranks --------------------------------------------------------------------------------------


def test_ranks_in_any_order_write_the_bytes_of_one_run(
    pair: tuple[Path, Path], tmp_path: Path
) -> None:
    file = planned(pair, tmp_path)
    with pytest.raises(InputRefused, match="as no rank has begun"):
        uvmerge.finish(file)
    for rank in (2, 0, 2):
        uvmerge.work(file, rank=rank, world_size=4)
    with pytest.raises(InputRefused, match=r"pieces are not written yet, by ranks 1, 3 of 4"):
        uvmerge.finish(file)
    assert not (tmp_path / "out").exists()
    for rank in (3, 1):
        uvmerge.work(file, rank=rank, world_size=4)
    (result,) = uvmerge.finish(file)
    expected = uvmerge.restore(*pair, tmp_path / "one", top=0.2)
    assert weights(tmp_path / "out") == weights(tmp_path / "one")
    assert result.edits == expected.edits and not result.was_there
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one", "out", "plan.json"]
    (again,) = uvmerge.finish(file)
    assert again.was_there
    assert uvmerge.restore(*pair, tmp_path / "out", top=0.2).was_there
    with pytest.raises(InputRefused, match="is not empty"):
        uvmerge.work(file, rank=0, world_size=4)


def test_another_number_of_ranks_goes_on_with_what_is_there(
    pair: tuple[Path, Path], tmp_path: Path
) -> None:
    file = planned(pair, tmp_path)
    uvmerge.work(file, rank=0, world_size=2)
    root = next(tmp_path.glob("out.uvmerge-partial-*"))
    before = (root / next(p.name for p in root.glob("rank-*"))).read_text().count("\n")
    uvmerge.work(file, rank=0, world_size=1)
    (result,) = uvmerge.finish(file)
    assert result.out == tmp_path / "out" and before > 1


def test_a_sweep_is_shared_out_too(pair: tuple[Path, Path], tmp_path: Path) -> None:
    file = tmp_path / "plan.json"
    uvmerge.sweep("restore", *pair, tmp_path / "outs", top=[0.1, 0.3], plan=file)
    for rank in range(2):
        uvmerge.work(file, rank=rank, world_size=2)
    assert len(uvmerge.finish(file)) == 2
    uvmerge.sweep("restore", *pair, tmp_path / "one", top=[0.1, 0.3])
    for name in ("top-0.1", "top-0.3"):
        assert weights(tmp_path / "outs" / name) == weights(tmp_path / "one" / name)


def test_damaged_bytes_are_found_before_they_are_published(
    pair: tuple[Path, Path], tmp_path: Path
) -> None:
    file = planned(pair, tmp_path)
    uvmerge.work(file, rank=0, world_size=1)
    root = next(tmp_path.glob("out.uvmerge-partial-*"))
    shard = sorted((root / "out").glob("*.safetensors"))[0]
    with shard.open("r+b") as stream:
        stream.seek(-2, os.SEEK_END)
        stream.write(b"\x01\x02")
    with pytest.raises(uvmerge.RunFailed, match="gives other content than was written"):
        uvmerge.finish(file)
    uvmerge.work(file, rank=0, world_size=1)  # does the damaged piece again
    uvmerge.finish(file)
    uvmerge.restore(*pair, tmp_path / "one", top=0.2)
    assert weights(tmp_path / "out") == weights(tmp_path / "one")


def test_a_killed_rank_is_run_again(pair: tuple[Path, Path], tmp_path: Path) -> None:
    file = planned(pair, tmp_path)
    command = [sys.executable, "-m", "uvmerge", "work", file, "--rank", "0", "--world-size", "2"]
    process = subprocess.Popen([*command, "--workers", "1", "-q"], stdout=subprocess.DEVNULL)
    while process.poll() is None and not list(tmp_path.glob("out.uvmerge-partial-*/rank-0-*")):
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    for rank in (1, 0):
        uvmerge.work(file, rank=rank, world_size=2)
    uvmerge.finish(file)
    uvmerge.restore(*pair, tmp_path / "one", top=0.2)
    assert weights(tmp_path / "out") == weights(tmp_path / "one")


def test_nan_in_an_operand_stops_the_rank_that_meets_it(tmp_path: Path) -> None:
    pair = zoo.pair("llama", tmp_path)
    path = pair[1] / "model.safetensors"
    tensors = load_file(path)
    tensors["model.layers.1.mlp.up_proj.weight"][0, 0] = torch.nan
    save_file(tensors, path, {"format": "pt"})
    file = planned(pair, tmp_path)
    with pytest.raises(InputRefused, match="NaN or Inf in 1 tensor"):
        uvmerge.work(file, rank=0, world_size=1)


# --- who one is ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("environment", "given", "expected"),
    [
        ({"RANK": "1", "WORLD_SIZE": "4"}, {}, (1, 4)),
        ({"SLURM_PROCID": "2", "SLURM_NTASKS": "3"}, {}, (2, 3)),
        ({"JOB_COMPLETION_INDEX": "5"}, {"world_size": 8}, (5, 8)),
        ({"RANK": "1", "WORLD_SIZE": "4"}, {"rank": 3}, "--world-size"),
        ({"RANK": "1", "WORLD_SIZE": "4"}, {"rank": 3, "world_size": 5}, (3, 5)),
        ({"JOB_COMPLETION_INDEX": "5"}, {}, "--world-size"),
        ({"RANK": "x", "WORLD_SIZE": "4"}, {}, "RANK"),
        ({}, {"rank": 4, "world_size": 4}, "is no rank of 4"),
        ({}, {"rank": -1, "world_size": 4}, "is no rank of 4"),
        ({}, {"rank": 0, "world_size": 0}, "is no rank of 0"),
        ({}, {}, "--rank"),
    ],
)
def test_rank_and_number_of_ranks(
    environment: dict[str, str], given: dict[str, int], expected: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    from uvmerge.api.work import which

    for names in (
        ("RANK", "WORLD_SIZE"),
        ("SLURM_PROCID", "SLURM_NTASKS"),
        ("JOB_COMPLETION_INDEX",),
    ):
        for name in names:
            monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    arguments = given.get("rank"), given.get("world_size")
    if isinstance(expected, tuple):
        assert which(*arguments) == expected
        return
    with pytest.raises(UsageError, match=expected):
        which(*arguments)


def test_the_command_line_plans_works_and_finishes(pair: tuple[Path, Path], tmp_path: Path) -> None:
    def command(*words: Any) -> subprocess.CompletedProcess[str]:
        line = [sys.executable, "-m", "uvmerge", *map(str, words)]
        return subprocess.run(line, capture_output=True, text=True, cwd=tmp_path)

    done = command("plan", "restore", *pair, "out", "--top", "0.2", "-o", "plan.json", "-q")
    assert (done.returncode, done.stdout) == (0, "plan.json\n"), done.stderr
    assert command("finish", "plan.json").returncode == 3
    assert command("work", "plan.json").returncode == 2
    for rank in (0, 1):
        done = command("work", "plan.json", "--rank", rank, "--world-size", "2", "--json")
        assert json.loads(done.stdout)["rank"] == rank
    done = command("finish", "plan.json")
    assert (done.returncode, done.stdout) == (0, f"{tmp_path / 'out'}\n"), done.stderr
    assert command("plan", "restore", *pair, "out2").returncode == 2  # no file is named


@pytest.mark.slow
def test_four_ranks_under_torchrun(pair: tuple[Path, Path], tmp_path: Path) -> None:
    file = planned(pair, tmp_path)
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "4"]
    work = ["-m", "uvmerge", "work", str(file), "-q", "--workers", "1"]
    subprocess.run([*launcher, *work], check=True, capture_output=True)
    uvmerge.finish(file)
    uvmerge.restore(*pair, tmp_path / "one", top=0.2)
    assert weights(tmp_path / "out") == weights(tmp_path / "one")


def test_shares_of_a_plan_are_the_same_in_every_process(
    pair: tuple[Path, Path], tmp_path: Path
) -> None:
    from uvmerge.engine.local import jobs

    plan = uvmerge.restore(*pair, tmp_path / "out", top=0.2, dry_run=True).plan
    again = read_back(plan)
    assert shares(jobs([plan]), 5) == shares(jobs([again]), 5)
