"""What goes wrong in a search: each with where, what and what to do, and nothing half done."""

from __future__ import annotations

import errno
import json
import os
import time
from pathlib import Path
from typing import Any
from unittest import mock

import faults
import numpy as np
import pytest
from command import uv
from searching import GOALS, SPACE, Coins, command

import uvmerge
from uvmerge.api.search import SearchResult
from uvmerge.api.trials import JOURNAL
from uvmerge.errors import InputRefused, Locked, RunFailed, UsageError
from uvmerge.output.lock import lock_of, locked
from uvmerge.recipe.space import Space


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> faults.Pair:
    return faults.pair(tmp_path_factory.mktemp("pair"), layers=1, hidden=16)


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "found"


def searched(pair: faults.Pair, out: Path, evaluate: Any, trials: int, **more: Any) -> SearchResult:
    options = {"metrics": GOALS, "space": Space.parse(SPACE), "quiet": True} | more
    return uvmerge.search(
        base=pair[0], finetuned=pair[1], out=out, evaluate=evaluate, trials=trials, **options
    )


# What a command does in its second trial → what is said of it.
BROKEN = {
    "prints nothing": ("sys.exit(0)", "printed nothing"),
    "prints two objects": ("print('{}')", "printed more than one JSON object"),
    "prints no object": ("print('3'); sys.exit(0)", "gave no object of numbers"),
    "prints text": ("print('score: 3'); sys.exit(0)", "printed no JSON object"),
    "prints too much": ("print('x' * 2_000_000); sys.exit(0)", "printed more than"),
    "exits 1": ("sys.exit('no GPU\\x1b[31m')", "ended with exit code 1 (no GPU\\x1b[31m)"),
    "is killed": ("os.kill(os.getpid(), 9)", "ended with signal 9"),
    "lacks a metric": ("del answer['ood']", "gave no ood"),
    "NaN": ("answer['id'] = float('nan')", "id is nan, which is no number"),
    "infinite": ("answer['id'] = float('inf')", "id is inf, which is no number"),
    "out of range": ("answer['id'] = 1e300", "id is 1e+300, which is no number"),
    "a huge integer": ("answer['id'] = 10**400", "which is no number"),
    "a text": ("answer['id'] = 'good'", "id is good, which is no number"),
    "true": ("answer['id'] = True", "id is True, which is no number"),
}


def test_broken_evaluations_are_recorded_and_the_search_goes_on(
    pair: faults.Pair, out: Path
) -> None:
    """Two trials of three are broken, each in another way."""
    broken = [number for number in range(3 * len(BROKEN) // 2) if number % 3]
    cases = [f"if number == {n}:\n    {does}" for n, (does, _) in zip(broken, BROKEN.values())]
    evaluate = command(out.parent, "\n".join(cases), "search")
    found = searched(pair, out, evaluate, broken[-1] + 1)
    assert len(broken) == len(BROKEN)
    assert [i for i, t in enumerate(found.trials) if t.error is not None] == broken
    for number, (fault, (_, said)) in zip(broken, BROKEN.items()):
        assert said in (found.trials[number].error or ""), fault
    assert f"{len(BROKEN)} failed (the last: trial-" in " ".join(str(found).split())
    assert "\x1b" not in str(found)
    assert found.as_data()["failed"].keys() == {found.trials[number].name for number in broken}


def test_an_evaluation_that_hangs_is_ended_with_its_children(pair: faults.Pair, out: Path) -> None:
    script = (
        "if number == 0:\n"
        "    import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "    child = subprocess.Popen(['sleep', '60'])\n"
        "    (folder.parent.parent / 'pids').write_text(f'{os.getpid()} {child.pid}')\n"
        "    time.sleep(60)"
    )
    with mock.patch("uvmerge.api.evaluator._GRACE_S", 0.1):
        found = searched(pair, out, command(out.parent, script), 1, trial_timeout=1.0)
    assert "did not end within 1 s" in (found.trials[0].error or "")
    for pid in (out / "pids").read_text().split():
        assert is_gone(int(pid))


def is_gone(pid: int) -> bool:
    """Whether a process ends within a few seconds, or waits for its parent to notice."""
    for _ in range(100):
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except (FileNotFoundError, ProcessLookupError):
            return True
        if state in "ZX":
            return True
        time.sleep(0.05)
    return False


def test_what_a_killed_search_left_running_is_ended(pair: faults.Pair, out: Path) -> None:
    import subprocess

    from uvmerge.output.lock import owner

    searched(pair, out, Coins(), 1)
    left = subprocess.Popen(["sleep", "60"], start_new_session=True)
    (out / "evaluations" / "running.json").write_text(json.dumps(owner(left.pid)))
    searched(pair, out, Coins(), 1)
    assert left.wait(5) == -9
    other = subprocess.Popen(["sleep", "60"], start_new_session=True)
    mark = {**owner(other.pid), "started": "1"}  # another process under the number of the first
    (out / "evaluations" / "running.json").write_text(json.dumps(mark))
    searched(pair, out, Coins(), 1)
    assert other.poll() is None
    other.kill()
    other.wait()


class Failing(Coins):
    """Coins that fail for the trials with certain numbers."""

    def __init__(self, numbers: set[int]) -> None:
        super().__init__()
        self.numbers = numbers

    def __call__(self, checkpoint: Path, half: str) -> dict[str, Any]:
        kind, _, number = checkpoint.name.rpartition("-")
        if kind == "trial" and int(number) in self.numbers:
            raise ValueError(f"trial {number} <b>fails</b>")
        return super().__call__(checkpoint, half)


def test_three_failures_in_a_row_stop_and_are_tried_again(pair: faults.Pair, out: Path) -> None:
    with pytest.raises(RunFailed, match=r"3 trials in a row failed: .*trial 4 <b>fails") as stopped:
        searched(pair, out, Failing({0, 2, 3, 4}), 9)
    assert "tries them again" in stopped.value.do
    found = searched(pair, out, Failing(set()), 6)
    assert [t.error is None for t in found.trials] == [False, True, True, True, True, True]
    assert [t.name for t in found.trials][:5] == [
        "trial-0",
        "trial-1",
        *(f"trial-{i}" for i in (5, 6, 7)),
    ]


def test_without_the_line_there_is_no_search(pair: faults.Pair, out: Path) -> None:
    with pytest.raises(RunFailed, match="ended with exit code 1"):
        searched(pair, out, command(out.parent, "sys.exit(1)"), 3)
    found = searched(pair, out, command(out.parent), 1)
    assert len(found.trials) == 1


def test_a_command_that_failed_at_once_can_be_put_right(pair: faults.Pair, out: Path) -> None:
    """A metric that is not there is found out by the first evaluation; the folder is not spoilt."""
    with pytest.raises(RunFailed, match="gave no accuracy"):
        searched(pair, out, command(out.parent), 1, metrics=["accuracy:max"])
    found = searched(pair, out, command(out.parent), 1)
    assert len(found.trials) == 1
    with pytest.raises(InputRefused, match="other metrics"):
        searched(pair, out, command(out.parent), 1, metrics=["id:max"])


def test_other_items_than_before_are_a_failure(pair: faults.Pair, out: Path) -> None:
    coins = Coins()

    def fewer(checkpoint: Path, half: str) -> dict[str, Any]:
        found = coins(checkpoint, half)
        return {k: v[:-1] for k, v in found.items()} if checkpoint.name == "trial-0" else found

    found = searched(pair, out, fewer, 2)
    assert "id is of other items than before (60 and now 59)" in (found.trials[0].error or "")


@pytest.mark.parametrize(
    "value", [np.array([]), np.zeros((2, 2)), np.array([0.0, np.nan]), ["a"], None, "1", {}, b"1"]
)
def test_a_function_has_to_give_numbers(value: object, pair: faults.Pair, out: Path) -> None:
    with pytest.raises(RunFailed, match=r"id is .*which is no number"):
        searched(pair, out, lambda checkpoint: {"id": value, "ood": 1.0}, 1)


# --- words that make no sense ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("evaluate", "metrics", "said"),
    [
        ("python eval.py", GOALS, "does not name the checkpoint"),
        ("python 'eval.py {}", GOALS, "cannot be split into words"),
        ("no-such-program {}", GOALS, "there is no program no-such-program"),
        ("true {}", [], "--metric: is missing"),
        ("true {}", ["id"], "names no direction"),
        ("true {}", ["id:max", "id:max"], "is given twice"),
    ],
)
def test_words_that_make_no_sense_are_refused(
    evaluate: str, metrics: list[str], said: str, pair: faults.Pair, out: Path
) -> None:
    with pytest.raises(UsageError, match=said):
        searched(pair, out, evaluate, 1, metrics=metrics)
    assert not out.exists()


def test_the_command_names_what_is_missing(
    pair: faults.Pair, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for words, said in [
        (["x.yaml", *pair[:2]], "takes 4 places, not 3"),
        (["x.yaml", *pair[:2], out], "--eval: is missing"),
        (
            ["x.yaml", *pair[:2], out, "--eval", "true {}", "--metric", "a:max"],
            "no such recipe file",
        ),
        (["--demo", out, "--metric", "a:max"], "cannot be given with --demo"),
        (["--demo"], "takes OUTDIR and perhaps SPACE.yaml, not 0 places"),
        (["x.yaml", *pair[:2], out, "--eval", "true {}", "--trials", "0"], "0' is outside"),
    ]:
        shown = uv(capsys, "search", *words)
        assert shown.code == 2 and said in shown.err, shown.err
    assert not out.exists()


def test_a_timeout_is_for_commands(pair: faults.Pair, out: Path) -> None:
    with pytest.raises(UsageError, match="a function cannot be ended"):
        searched(pair, out, Coins(), 1, trial_timeout=3)


# --- the folder --------------------------------------------------------------------------------


def test_a_folder_of_another_search_is_refused(
    pair: faults.Pair, out: Path, tmp_path: Path
) -> None:
    searched(pair, out, Coins(), 1)
    before = faults.tree(out)
    other = Space.parse(SPACE.replace("0.9", "0.8"))
    swapped = (pair[1], pair[0], pair[2])
    grown = faults.pair(tmp_path / "other", layers=1, hidden=16, vocabulary=40)
    for changed, said in [
        (lambda: searched(pair, out, Coins(), 1, space=other), "other space"),
        (lambda: searched(pair, out, Coins(1), 1), "other evaluation"),
        (lambda: searched(pair, out, Coins(), 1, metrics=["id:max"]), "other metrics"),
        (lambda: searched(swapped, out, Coins(), 1), "other inputs"),
        (lambda: searched(grown, out, Coins(), 1), "other inputs"),
        (lambda: searched(pair, out, Coins(), 1, precision="fast"), "other precision"),
    ]:
        with pytest.raises(InputRefused, match=f"holds a search with {said}") as refused:
            changed()
        assert "Name another OUTDIR" in refused.value.do
    assert faults.tree(out) == before


def test_a_folder_with_something_else_is_refused(pair: faults.Pair, out: Path) -> None:
    out.mkdir()
    (out / "thesis.tex").write_text("mine")
    with pytest.raises(InputRefused, match=r"holds no search \(thesis.tex\)"):
        searched(pair, out, Coins(), 1)
    file = out / "thesis.tex"
    with pytest.raises(UsageError, match="is a file"):
        searched(pair, file, Coins(), 1)
    with pytest.raises(UsageError, match="lies inside the input"):
        searched(pair, pair[0] / "found", Coins(), 1)
    assert [path.name for path in out.iterdir()] == ["thesis.tex"]


def test_two_searches_do_not_share_a_folder(pair: faults.Pair, out: Path) -> None:
    searched(pair, out, Coins(), 1)
    with (
        locked(lock_of(out)),
        mock.patch("uvmerge.output.lock.is_gone", return_value=False),
        pytest.raises(Locked),
    ):
        searched(pair, out, Coins(), 1)


def test_a_broken_journal_or_point_is_named(pair: faults.Pair, out: Path) -> None:
    searched(pair, out, Coins(), 2)
    point = out / "points" / "interpolate-0.search.json"
    whole = point.read_bytes()
    for content in (whole[:40], b"[]", b'{"scores": {"id": 3}}'):
        point.write_bytes(content)
        with pytest.raises(InputRefused, match="is not as a search has written it"):
            searched(pair, out, Coins(), 2)
    point.write_bytes(whole)
    journal = out / JOURNAL
    lines = journal.read_bytes().splitlines(keepends=True)
    journal.write_bytes(b"".join([*lines[:2], b"\0\0\0\n", *lines[2:]]))
    with pytest.raises(InputRefused, match=r"line 3 of .* cannot be read"):
        searched(pair, out, Coins(), 2)


def test_a_full_disk_stops_and_the_same_call_goes_on(pair: faults.Pair, out: Path) -> None:
    coins, real = Coins(), os.replace

    def full(source: Any, target: Any, **places: Any) -> None:
        if str(target) == "trial-1.search.json":
            raise OSError(errno.ENOSPC, "No space left on device")
        real(source, target, **places)

    with (
        mock.patch.object(os, "replace", full),
        pytest.raises(RunFailed, match="the disk is full") as stopped,
    ):
        searched(pair, out, coins, 2)
    assert "run the same command again to resume" in stopped.value.do
    found = searched(pair, out, coins, 2)
    assert [t.error for t in found.trials] == [None, None]


def test_a_setting_that_cannot_be_run_is_a_failed_trial(pair: faults.Pair, out: Path) -> None:
    both = {"uvmerge": 1, "steps": [{"restore": {"top": 0.2, "rank": {"from": 1, "to": 4}}}]}
    with pytest.raises(
        RunFailed, match="3 trials in a row failed: recipe:5: restore: --top and --rank"
    ):
        searched(pair, out, Coins(), 5, space=both)
