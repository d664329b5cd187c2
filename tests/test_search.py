"""A search: the line first, every setting once, one decomposition, and recipes that give the same bytes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any
from unittest import mock

import faults
import pytest
import torch
from command import uv
from searching import GOALS, SPACE, Coins, command, digest_of

import uvmerge
from uvmerge.api.search import SearchResult
from uvmerge.api.trials import JOURNAL
from uvmerge.engine.settings import Control
from uvmerge.recipe.space import Space

LINE = [f"interpolate-{i / 10:g}" for i in range(11)]


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> faults.Pair:
    return faults.pair(tmp_path_factory.mktemp("pair"), layers=2, hidden=32)


@pytest.fixture
def space(tmp_path: Path) -> Path:
    path = tmp_path / "space.yaml"
    path.write_text(SPACE)
    return path


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "found"


def searched(pair: faults.Pair, out: Path, evaluate: Any, trials: int, **more: Any) -> SearchResult:
    options = {"metrics": GOALS, "space": Space.parse(SPACE), "quiet": True} | more
    return uvmerge.search(
        base=pair[0], finetuned=pair[1], out=out, evaluate=evaluate, trials=trials, **options
    )


def journalled(out: Path) -> list[Any]:
    """Every trial in the journal."""
    import optuna

    backend = optuna.storages.journal.JournalFileBackend(str(out / JOURNAL))
    study = optuna.load_study(study_name="search", storage=optuna.storages.JournalStorage(backend))
    return list(study.get_trials())


# --- what a search does ------------------------------------------------------------------------


def test_the_line_comes_first_and_the_front_is_reported_on_the_other_half(
    pair: faults.Pair, out: Path
) -> None:
    coins = Coins()
    found = searched(pair, out, coins, 6)
    line = [(name, half) for name in LINE for half in ("search", "report")]
    assert coins.asked[:22] == line
    assert coins.asked[22:28] == [(f"trial-{i}", "search") for i in range(6)]
    assert coins.asked[28:] == [(t.name, "report") for t in found.trials if t.name in found.front]
    assert len(found.trials) == 6 and [t.name for t in found.line] == LINE
    kept = {path.name for path in (out / "checkpoints").iterdir()}
    assert kept == {t.name for t in found.found}  # those of losers are gone
    assert found.items == {"id": (60, 60), "ood": (60, 60)}


def test_recipes_of_the_front_give_the_same_hashes(pair: faults.Pair, out: Path) -> None:
    searched(pair, out, Coins(2), 6)
    data = json.loads((out / "front.json").read_text())
    rows = [row for row in (*data["line"], *data["front"]) if row["on_front"]]
    assert rows
    assert {path.name for path in (out / "front").iterdir()} == {f"{r['name']}.yaml" for r in rows}
    for row in rows:
        again = out.with_name(row["name"])
        uvmerge.run(out / row["recipe"], again, quiet=True)
        assert {"model.safetensors": digest_of(again)} == row["weights_xxh3_128"]


def test_no_matrix_is_decomposed_twice(pair: faults.Pair, out: Path) -> None:
    """Though the largest rank that is asked for grows from trial to trial."""
    sizes: list[int] = []
    real = torch.linalg.eigh

    def counted(A: torch.Tensor) -> Any:
        sizes.append(len(A))
        return real(A)

    with mock.patch.object(torch.linalg, "eigh", counted):
        searched(pair, out, Coins(3), 8)
    assert len(sizes) == 4  # two layers with two matrices, of the base alone
    assert len(list((out / "factors").iterdir())) == 4


def test_more_trials_add_to_what_was_tried(pair: faults.Pair, out: Path) -> None:
    first, second = Coins(4), Coins(4)
    searched(pair, out, first, 3)
    found = searched(pair, out, second, 5)
    assert len(found.trials) == 5
    assert not {name for name, half in first.asked} & {
        name for name, half in second.asked if half == "search"
    }
    third = Coins(4)
    again = searched(pair, out, third, 5)
    assert third.asked == [] and again == found
    fewer = searched(pair, out, third, 1)  # what was tried is not forgotten
    assert third.asked == [] and fewer == found


def test_a_result_shows_itself(pair: faults.Pair, out: Path) -> None:
    found = searched(pair, out, Coins(5), 2)
    written = json.loads((out / "front.json").read_text())
    for row in (*written["line"], *written["front"]):
        assert row.pop("recipe", None) == (f"front/{row['name']}.yaml" if row["on_front"] else None)
    assert found.as_data() == written
    frame = found.to_frame()
    assert len(frame) == 13 and {"id", "ood", "reported_id", "project.top"} <= set(frame.columns)
    assert repr(found).startswith("<SearchResult 2 settings") and found.sentence in repr(found)
    assert str(found).splitlines()[-1] in found.sentence


def test_a_small_space_ends_when_every_setting_was_tried(pair: faults.Pair, out: Path) -> None:
    sides = {"uvmerge": 1, "steps": [{"project": {"side": {"any": ["two", "left", "right"]}}}]}
    found = searched(pair, out, Coins(6), 9, space=sides)
    assert sorted(str(t.settings["project.side"]) for t in found.trials) == ["left", "right", "two"]
    assert "no more settings than the 3" in found.notes[0]


def test_a_floor_keeps_points_off_the_front(pair: faults.Pair, out: Path) -> None:
    found = searched(pair, out, Coins(7), 4, metrics=["id:max:0.99", "ood:max"])
    assert found.front == () and "reaches the floors" in found.sentence


def test_halves_are_not_needed_and_it_is_said(pair: faults.Pair, out: Path) -> None:
    coins = Coins(8)
    found = searched(pair, out, lambda checkpoint: coins(checkpoint, "search"), 3)
    assert not found.has_halves and len(coins.asked) == 14
    assert str(found).splitlines()[-1] == "The points were chosen and judged on the same items."


# --- the command -------------------------------------------------------------------------------


def test_the_command_prints_the_table_or_one_object(
    pair: faults.Pair, space: Path, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [
        "search", space, *pair[:2], out, "--eval", command(out.parent), "--metric", "id:max",
        "--metric", "ood:max", "--trials", 3,
    ]  # fmt: skip
    shown = uv(capsys, *words)
    assert shown.code == 0, shown.err
    assert "3 of 3: trial-2: id 0." in shown.err
    assert all(name in shown.out for name in LINE) and "3 settings tried" in shown.out
    assert "Nothing" in shown.out.splitlines()[-1] or "(" in shown.out.splitlines()[-1]
    data = json.loads(uv(capsys, *words, "--json").out)
    assert data["tried"] == 3 and data["has_halves"] and len(data["line"]) == 11


def test_results_of_the_harness_are_read_from_the_fresh_folder(
    pair: faults.Pair, out: Path
) -> None:
    script = (
        f"sys.path[:0] = {[str(Path(__file__).parent)]}\n"
        "import random\nfrom evaluations import write_run\n"
        "random.seed(digest)\n"
        "out = pathlib.Path(sys.argv[2]); assert not list(out.iterdir())\n"
        "tasks = {t: {'acc': [float(random.random() < 0.5) for _ in range(40)]} for t in ('a', 'b')}\n"
        "write_run(out / 'model', tasks)"
    )
    found = searched(
        pair, out, command(out.parent, script, "{out}"), 2, metrics=["a.acc:max", "b.acc:max"]
    )
    assert found.items == {"a.acc": (40, 40), "b.acc": (40, 40)}
    assert all(t.placed and t.placed.over_line[0].interval for t in found.found)


def test_without_optuna_a_line_says_what_to_install(
    pair: faults.Pair, space: Path, out: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setitem(sys.modules, "optuna", None)
    shown = uv(capsys, "search", space, *pair[:2], out, "--eval", "true {}", "--metric", "a:max")
    assert shown.code == 2 and "pip install 'uvmerge[search]'" in shown.err
    assert not out.exists()


# --- stopped and gone on with ------------------------------------------------------------------


def start(pair: faults.Pair, space: Path, out: Path, trials: int) -> subprocess.Popen[bytes]:
    """A search as a process of its own."""
    words = ["search", space, *pair[:2], out, "--eval", command(out.parent), "--trials", trials]
    words += ["--metric", "id:max", "--metric", "ood:max", "--quiet"]
    return subprocess.Popen([sys.executable, "-m", "uvmerge", *map(str, words)])


@pytest.mark.parametrize(
    "kills", [[25], pytest.param([5, 24, 28], marks=pytest.mark.slow)], ids=["once", "three times"]
)
def test_killed_and_with_a_torn_journal_every_trial_is_finished_once(
    kills: list[int], pair: faults.Pair, space: Path, out: Path
) -> None:
    points, trials = out / "points", 8
    for wanted in kills:  # in the line, and among the trials
        running = start(pair, space, out, trials)
        while len(list(points.glob("*.json"))) < wanted and running.poll() is None:
            time.sleep(0.01)
        assert running.poll() is None
        running.send_signal(signal.SIGKILL)
        running.wait()
    journal = out / JOURNAL
    whole = journal.read_bytes()
    journal.write_bytes(whole + b'{"op_code":6,"trial_id":1,"sta')
    if not os.path.lexists(lock := out / f"{JOURNAL}.lock"):  # of a process killed while it wrote
        os.symlink(JOURNAL, lock)
    assert start(pair, space, out, trials).wait() == 0
    ended = [trial.state.name for trial in journalled(out)]
    assert ended.count("COMPLETE") == trials and "RUNNING" not in ended
    settings = [str(t.params) for t in journalled(out) if t.state.name == "COMPLETE"]
    assert len(set(settings)) == trials
    found = json.loads((out / "front.json").read_text())
    assert found["tried"] == trials and found["failed"] == {}
    rows = [row for row in (*found["line"], *found["front"]) if row["on_front"]]
    for row in rows:
        again = out.with_name(row["name"])
        uvmerge.run(out / row["recipe"], again, quiet=True)
        assert {"model.safetensors": digest_of(again)} == row["weights_xxh3_128"]


def test_a_stopped_search_goes_on_with_the_setting_that_it_was_at(
    pair: faults.Pair, out: Path
) -> None:
    coins, control = Coins(9), Control()

    def stopping(checkpoint: Path, half: str) -> dict[str, Any]:
        if checkpoint.name == "trial-2":
            control.stop.set()
            raise KeyboardInterrupt
        return coins(checkpoint, half)

    stopping.identity = coins.identity  # type: ignore[attr-defined]
    with pytest.raises(KeyboardInterrupt):
        searched(pair, out, stopping, 4, control=control)
    journal = (out / JOURNAL).read_text().splitlines()
    params = [json.loads(x) for x in journal if '"trial_id":2' in x and "param_name" in x]
    found = searched(pair, out, coins, 4)
    numbers = [t.name for t in found.trials]
    assert numbers == ["trial-0", "trial-1", "trial-3", "trial-4"]
    scale = next(p["param_value_internal"] for p in params if p["param_name"].endswith("scale"))
    assert found.trials[2].settings["interpolate.scale"] == pytest.approx(scale, rel=1e-3)
    assert [trial.state.name for trial in journalled(out)].count("FAIL") == 1


def test_a_trial_that_was_evaluated_before_the_kill_is_not_evaluated_again(
    pair: faults.Pair, out: Path
) -> None:
    coins = Coins(10)
    with (
        mock.patch("uvmerge.api.trials.Trials.tell", side_effect=KeyboardInterrupt),
        pytest.raises(KeyboardInterrupt),
    ):
        searched(pair, out, coins, 2)
    found = searched(pair, out, coins, 2)
    assert [t.name for t in found.trials] == ["trial-0", "trial-1"]
    assert coins.asked.count(("trial-0", "search")) == 1


def ended(group: int) -> bool:
    """Whether every process of a group is gone; the system may take a moment to bury the last."""
    for _ in range(500):
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.01)
    return False


def test_ctrl_c_ends_the_command_and_its_children(
    pair: faults.Pair, space: Path, out: Path
) -> None:
    script = "subprocess.Popen(['sleep', '60']); time.sleep(60) if is_trial else None"
    words: list[object] = ["search", space, *pair[:2], out, "--metric", "id:max", "--quiet"]
    words += ["--eval", command(out.parent, script)]
    running = subprocess.Popen(
        [sys.executable, "-m", "uvmerge", *map(str, words)], stderr=subprocess.PIPE, text=True
    )
    child = out / "evaluations" / "running.json"
    trial = out / "evaluations" / "trial-0-search"
    while not (trial.exists() and child.exists()) and running.poll() is None:
        time.sleep(0.01)
    group = json.loads(child.read_text())["pid"]
    running.send_signal(signal.SIGINT)
    _, said = running.communicate()
    assert running.returncode == 130 and "Run the same command again" in said
    assert ended(group)
    assert not child.exists()
