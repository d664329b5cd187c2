"""Signals, kills and power cuts: OUT is absent or whole, and the same command ends the same way."""

from __future__ import annotations

import errno
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from multiprocessing.process import BaseProcess
from pathlib import Path
from unittest import mock

import faults
import pytest
import torch
import zoo
from faults import DOWN, Q, done, failed, refused

SIGNALS = [signal.SIGINT, signal.SIGTERM]


@pytest.fixture
def pair(tmp_path: Path) -> faults.Pair:
    return faults.pair(tmp_path)


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "log"


def started(pair: faults.Pair, log: Path, pieces: int, pause_s: float = 0.1) -> BaseProcess:
    """A run that has finished so many pieces and goes on slowly."""
    process = faults.start(faults.slow_child, log, pause_s, "restore", *pair, *faults.RESTORE)
    faults.wait_for(lambda: len(faults.pieces(pair[2])) >= pieces, f"{pieces} pieces")
    return process


def edits_of(*arguments: object) -> tuple[faults.Outcome, int]:
    """What a command line did, and how many matrices it computed."""
    from uvmerge.engine.compute import Editor

    with mock.patch.object(Editor, "_edit", autospec=True, side_effect=Editor._edit) as edit:
        return faults.uvmerge(*arguments), edit.call_count


# Signals


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_stops_at_the_next_tensor_and_the_run_resumes(
    number: signal.Signals, pair: faults.Pair, log: Path
) -> None:
    expected = faults.undisturbed(pair)
    process = started(pair, log, pieces=3)
    os.kill(process.pid or 0, number)
    process.join()
    said = log.read_text()
    assert process.exitcode == 128 + number, said
    assert "stopping after the tensors in hand; again to stop at once\n" in said
    assert f"error: {pair[2]}: stopped\n  Run the same command again to resume.\n" in said
    assert "Traceback" not in said
    staging = faults.staging(pair[2])
    assert faults.leftovers(pair[2]) == [staging.name]  # and no lock
    finished = [json.loads(line) for line in faults.pieces(pair[2])]
    computed = sum("record" in line for line in finished)
    assert 0 < computed < 6
    outcome, edits = edits_of("restore", *pair, *faults.RESTORE)
    done(outcome)
    assert edits == 6 - computed
    assert faults.contents(pair[2]) == expected
    assert faults.leftovers(pair[2]) == ["out"]


@pytest.mark.parametrize("number", SIGNALS)
@pytest.mark.parametrize("second", SIGNALS)
def test_a_second_signal_stops_at_once(
    number: signal.Signals, second: signal.Signals, pair: faults.Pair, log: Path
) -> None:
    expected = faults.undisturbed(pair)
    process = faults.start(faults.slow_child, log, 600.0, "restore", *pair, *faults.RESTORE)
    weights = f"out.uvmerge-partial-*/out/{zoo.SINGLE}"
    faults.wait_for(lambda: list(pair[2].parent.glob(weights)), "the first bytes")
    time.sleep(0.1)  # handlers are in place, the first edit sleeps
    os.kill(process.pid or 0, number)
    faults.wait_for(lambda: "stopping after the tensors in hand" in log.read_text(), "the message")
    assert process.is_alive()
    before = time.monotonic()
    os.kill(process.pid or 0, second)
    process.join()
    assert time.monotonic() - before < 2
    assert process.exitcode == 128 + second
    assert not pair[2].exists()
    done(faults.restore(*pair))
    assert faults.contents(pair[2]) == expected


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_stops_the_real_program(number: signal.Signals, tmp_path: Path) -> None:
    pair = faults.pair(tmp_path, layers=4, hidden=384)
    command = [sys.executable, "-m", "uvmerge", "restore", *map(str, pair), *faults.RESTORE]
    program = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    faults.wait_for(lambda: faults.pieces(pair[2]), "the first piece")
    program.send_signal(number)
    out, err = program.communicate()
    assert program.returncode == 128 + number, err
    assert err.endswith("stopped\n  Run the same command again to resume.\n")
    assert out == ""
    assert not pair[2].exists()
    done(faults.restore(*pair))
    assert faults.contents(pair[2]) == faults.undisturbed(pair)


def test_a_caller_can_stop_a_run_and_resume_it(pair: faults.Pair) -> None:
    import uvmerge
    from uvmerge.engine.settings import Control

    expected = faults.undisturbed(pair)
    control = Control()
    control.advance = lambda name, work: control.stop.set()
    with pytest.raises(uvmerge.Interrupted, match="stopped"):
        uvmerge.restore(*pair, top=0.25, workers=1, control=control)
    assert len(faults.pieces(pair[2])) in (1, 2)  # copies have a thread of their own
    assert not pair[2].exists()
    uvmerge.restore(*pair, top=0.25)
    assert faults.contents(pair[2]) == expected


# Kills


def check_after_kill(pair: faults.Pair, expected: dict[str, bytes]) -> str:
    """OUT is absent or whole; the same command finishes it. Returns what is wrong, or nothing."""
    whole = pair[2].exists()
    if whole and faults.contents(pair[2]) != expected:
        return f"half an output: {sorted(faults.contents(pair[2]))}"
    outcome = faults.restore(*pair)
    if outcome.code != 0:
        return f"does not resume: {outcome.err}"
    if faults.contents(pair[2]) != expected:
        return "other bytes than an undisturbed run"
    if faults.leftovers(pair[2]) != [pair[2].name]:
        return f"leaves {faults.leftovers(pair[2])}"
    return ""


def kill_before(pair: faults.Pair, call: int, log: Path, *options: str) -> bool:
    """Kill a run before that call that changes the disk; whether it came so far."""
    arguments = ("restore", *pair, *faults.RESTORE, *options)
    process = faults.start(faults.killed_child, log, call, log.with_name("calls"), *arguments)
    process.join()
    assert process.exitcode in (0, -signal.SIGKILL), log.read_text()
    return process.exitcode == -signal.SIGKILL


def test_killed_before_any_call_that_changes_the_disk_a_run_resumes(
    tmp_path: Path, log: Path
) -> None:
    base, finetuned, out = faults.pair(tmp_path, shards=2)
    expected = faults.undisturbed((base, finetuned, out))
    problems = {}
    call = 0
    while kill_before(pair := (base, finetuned, tmp_path / f"out-{call}"), call, log):
        if problem := check_after_kill(pair, expected):
            problems[call] = problem
        call += 1
    assert problems == {}
    assert call > 25


def test_killed_while_overwriting_the_old_output_or_the_new_is_whole(
    pair: faults.Pair, log: Path
) -> None:
    base, finetuned, out = pair
    new = faults.undisturbed(pair)
    done(faults.restore(base, finetuned, out.with_name("old"), "--alpha", "0.5"))
    old = faults.contents(out.with_name("old"))
    problems = {}
    assert not kill_before((base, finetuned, out), 10**9, log)
    last = int(log.with_name("calls").read_text())
    for call in range(last - 16, last + 4):  # verified; what is left is to publish
        folder = out.with_name(f"out-{call}")
        shutil.copytree(out.with_name("old"), folder)
        kill_before((base, finetuned, folder), call, log, "--overwrite")
        places = [p for p in folder.parent.glob(f"{folder.name}*") if (p / "config.json").exists()]
        found = [faults.contents(place) for place in places]
        if folder.exists() and faults.contents(folder) not in (old, new):
            problems[call] = "half an output"
        elif old not in found and new not in found:
            problems[call] = "neither the old nor the new output is there"
        done(faults.restore(base, finetuned, folder, "--overwrite"))
        if faults.contents(folder) != new:
            problems[call] = "other bytes than an undisturbed run"
    assert problems == {}


def test_killed_at_random_moments_a_larger_run_ends_with_the_same_bytes(
    tmp_path: Path, log: Path
) -> None:
    base, finetuned, out = faults.pair(tmp_path, layers=4, hidden=256, vocabulary=26_000)
    assert 55e6 < (finetuned / zoo.SINGLE).stat().st_size < 65e6
    begun = time.monotonic()
    expected = faults.undisturbed((base, finetuned, out))
    duration, dice = time.monotonic() - begun, random.Random(20250817)
    for attempt in range(10):
        pair = base, finetuned, tmp_path / f"out-{attempt}"
        process = faults.start(faults.child, log, "restore", *pair, *faults.RESTORE)
        time.sleep(dice.uniform(0.02, 1.1 * duration))
        process.kill()
        process.join()
        assert check_after_kill(pair, expected) == ""
        shutil.rmtree(pair[2])


def test_killed_again_and_again_one_run_gets_there(tmp_path: Path, log: Path) -> None:
    pair = faults.pair(tmp_path, layers=4, hidden=192)
    expected, dice = faults.undisturbed(pair), random.Random(4)
    for _ in range(8):
        process = faults.start(faults.slow_child, log, 0.1, "restore", *pair, *faults.RESTORE)
        time.sleep(dice.uniform(0.1, 0.5))
        process.kill()
        process.join()
        assert not pair[2].exists() or faults.contents(pair[2]) == expected
    if not pair[2].exists():
        done(faults.restore(*pair))
    assert faults.contents(pair[2]) == expected


# What a power cut leaves


@pytest.fixture
def unfinished(pair: faults.Pair) -> Iterator[faults.Pair]:
    """An interrupted run with four of its six matrices done."""
    with faults.full_disk(after=12):
        assert faults.restore(*pair).code == 1
    assert 2 <= len(faults.pieces(pair[2])) < 10
    yield pair


def journal(out: Path) -> Path:
    return faults.staging(out) / "journal.jsonl"


@pytest.mark.parametrize(
    "tail",
    [
        b'{"file":"model.saf', b"\0" * 500, b"\0" * 500 + b"\n", b"\xff\xfe\n", b"\n",
        b"[]\n", b"7\n", b"{}\n", b"null\n", b'{"file":1,"offset":2}\n',
        b'{"file":"model.safetensors","offset":3}\n',
        b'{"file":[],"offset":0,"size":0,"xxh3_128":0}\n', '{"file":"\u2028"}\n'.encode(),
    ],
)  # fmt: skip
def test_a_torn_journal_is_mended(tail: bytes, unfinished: faults.Pair) -> None:
    expected = faults.undisturbed(unfinished)
    with journal(unfinished[2]).open("ab") as file:
        file.write(tail)
    done(faults.restore(*unfinished))
    assert faults.contents(unfinished[2]) == expected
    assert faults.leftovers(unfinished[2]) == ["out"]


def test_a_journal_without_its_head_is_not_trusted(unfinished: faults.Pair) -> None:
    """The head tells whether the inputs are still those of the pieces."""
    lines = journal(unfinished[2]).read_text().splitlines(keepends=True)
    journal(unfinished[2]).write_text("".join([lines[0][:40] + "\n", *lines[1:]]))
    other = {n: t + 0.5 if n == faults.EMBED else t * 1.01 for n, t in faults.tensors().items()}
    faults.write(unfinished[1], other)  # the same header, other bytes
    done(faults.restore(*unfinished))
    assert faults.contents(unfinished[2]) == faults.undisturbed(unfinished)


@pytest.mark.parametrize("damage", ["empty", "torn head", "wrong sizes"])
def test_a_damaged_journal_costs_time_and_not_bytes(damage: str, unfinished: faults.Pair) -> None:
    expected = faults.undisturbed(unfinished)
    lines = journal(unfinished[2]).read_text().splitlines(keepends=True)
    if damage == "empty":
        lines = []
    elif damage == "torn head":
        lines[0] = lines[0][:40] + "\n"
    else:
        lines = [re.sub(r'"size":\d+', '"size":8', line) for line in lines]
    journal(unfinished[2]).write_text("".join(lines))
    done(faults.restore(*unfinished))
    assert faults.contents(unfinished[2]) == expected


def test_bytes_that_never_reached_the_disk_are_computed_again(unfinished: faults.Pair) -> None:
    expected = faults.undisturbed(unfinished)
    file = faults.staging(unfinished[2]) / "out" / zoo.SINGLE
    size = file.stat().st_size
    os.truncate(file, 0)  # what some file systems leave of a file that was not synced
    os.truncate(file, size)
    outcome, edits = edits_of("restore", *unfinished, *faults.RESTORE)
    done(outcome)
    assert edits == 6
    assert faults.contents(unfinished[2]) == expected


@pytest.mark.parametrize("what", ["weights", "journal", "out folder"])
def test_pieces_of_the_staging_folder_that_vanished_are_made_again(
    what: str, unfinished: faults.Pair
) -> None:
    expected = faults.undisturbed(unfinished)
    if what == "weights":
        (faults.staging(unfinished[2]) / "out" / zoo.SINGLE).unlink()
    elif what == "journal":
        journal(unfinished[2]).unlink()
    else:
        shutil.rmtree(faults.staging(unfinished[2]) / "out")
    done(faults.restore(*unfinished))
    assert faults.contents(unfinished[2]) == expected


def test_bytes_that_change_on_the_disk_are_never_published(pair: faults.Pair) -> None:
    from uvmerge.output.writer import Advance, Staging

    real = Staging.verify

    def rot(self: Staging, advance: Advance) -> object:
        with (self.folder / zoo.SINGLE).open("r+b") as file:
            file.seek(-7, os.SEEK_END)
            file.write(b"\xff")
        return real(self, advance)

    with mock.patch.object(Staging, "verify", rot):
        outcome = faults.restore(*pair)
    failed(outcome, f"error: {zoo.SINGLE}: reading back bytes ", "gives other content", code=1)
    assert not pair[2].exists()
    done(faults.restore(*pair))
    assert faults.contents(pair[2]) == faults.undisturbed(pair)


# What may change between the runs, and what may not


def test_a_resumed_run_is_independent_of_workers_and_verbosity(unfinished: faults.Pair) -> None:
    expected = faults.undisturbed(unfinished)
    outcome = faults.uvmerge("restore", *unfinished, "--top", "0.25", "--workers", "3", "-v")
    done(outcome)
    assert faults.contents(unfinished[2]) == expected


@pytest.mark.parametrize("role", [0, 1])
@pytest.mark.parametrize("change", ["content", "touched", "header"])
def test_an_input_that_changed_between_the_runs_is_not_mixed_in(
    role: int, change: str, unfinished: faults.Pair
) -> None:
    file = unfinished[role] / zoo.SINGLE
    if change == "content":
        with file.open("r+b") as stream:
            stream.seek(-1, os.SEEK_END)
            stream.write(b"\0")
    elif change == "touched":
        os.utime(file, ns=(0, file.stat().st_mtime_ns + 1))
    else:
        made = faults.tensors() if role == 0 else faults.tuned(faults.tensors())
        made["extra.bias"] = torch.ones(3)
        faults.write(unfinished[role], made)
    refused(
        unfinished, f"{faults.staging(unfinished[2])}: an unfinished run with",
        "Repeat that run's command to finish it, or start over with --overwrite (or delete the"
        " folder).",
    )  # fmt: skip
    done(faults.restore(*unfinished, "--overwrite"))
    assert faults.contents(unfinished[2]) == faults.undisturbed(unfinished)
    assert faults.leftovers(unfinished[2]) == ["out"]


def test_a_changed_input_is_named_as_what_changed(unfinished: faults.Pair) -> None:
    os.utime(unfinished[0] / zoo.SINGLE, ns=(0, 0))
    refused(unfinished, "an unfinished run with other inputs is in the way")


@pytest.mark.parametrize(
    "options", [("--top", "0.5"), ("--alpha", "0.5"), ("--layers", "0"), ("--dtype", "float16"),
                ("--precision", "fast"), ("--max-shard-size", "4KB")]
)  # fmt: skip
def test_another_command_is_not_mixed_into_an_unfinished_run(
    options: tuple[str, ...], unfinished: faults.Pair
) -> None:
    refused(unfinished, "an unfinished run with", "--overwrite", options=options)
    done(faults.restore(*unfinished, *options, "--overwrite"))
    assert faults.leftovers(unfinished[2]) == ["out"]
    assert faults.contents(unfinished[2]) == faults.undisturbed(unfinished, *options)


def test_a_folder_that_only_looks_like_a_staging_folder_is_left_alone(pair: faults.Pair) -> None:
    lookalikes = [
        "out.uvmerge-partial-1234",
        "out.uvmerge-partial-notours00",
        "out2.uvmerge-partial-",
    ]
    for name in lookalikes:
        (pair[2].parent / name).mkdir()
        (pair[2].parent / name / "thesis.txt").write_text("mine")
    done(faults.restore(*pair, "--overwrite"))
    for name in lookalikes:
        assert (pair[2].parent / name / "thesis.txt").read_text() == "mine"


def test_a_foreign_folder_with_the_name_of_a_staging_folder_is_not_deleted(
    pair: faults.Pair,
) -> None:
    folder = pair[2].with_name("out.uvmerge-partial-12345678")
    folder.mkdir()
    (folder / "thesis.txt").write_text("mine")
    faults.restore(*pair, "--overwrite")
    assert (folder / "thesis.txt").read_text() == "mine"


def test_side_files_of_the_finished_output_are_those_of_the_last_run(pair: faults.Pair) -> None:
    """A side file that went away between the runs does not come back out of the staging folder."""
    from uvmerge.output.writer import Staging

    (pair[1] / "merges.txt").write_text("old")
    with mock.patch.object(Staging, "publish", side_effect=KeyboardInterrupt):
        assert faults.restore(*pair).code == 130
    (pair[1] / "merges.txt").unlink()
    done(faults.restore(*pair))
    assert faults.contents(pair[2]) == faults.undisturbed(pair)


def test_an_input_that_shrinks_while_it_is_read_stops_the_run(pair: faults.Pair) -> None:
    from uvmerge.engine.compute import Editor

    real = Editor._edit

    def shrink(self: Editor, requests: object, device: str) -> object:
        os.truncate(pair[1] / zoo.SINGLE, 2000)
        return real(self, requests, device)  # type: ignore[arg-type]

    with mock.patch.object(Editor, "_edit", shrink):
        outcome = faults.restore(*pair)
    failed(outcome, f"{zoo.SINGLE}: changed while running: it ends at byte ", code=1)
    assert not pair[2].exists()


def test_an_input_that_changes_while_it_is_read_is_noticed(pair: faults.Pair) -> None:
    """Another training run saves over the checkpoint in place."""
    from uvmerge.engine.compute import Editor

    real, calls = Editor._edit, []

    def replace(self: Editor, requests: object, device: str) -> object:
        calls.append(requests)
        if len(calls) == 3:
            content = (pair[1] / zoo.SINGLE).read_bytes()
            (pair[1] / zoo.SINGLE).write_bytes(content[:-64] + bytes(64))
        return real(self, requests, device)  # type: ignore[arg-type]

    with mock.patch.object(Editor, "_edit", replace):
        outcome = faults.restore(*pair)
    failed(outcome, "finetuned", "changed", code=1)
    assert not pair[2].exists()
    refused(pair, "an unfinished run with other inputs is in the way")


def test_an_error_in_one_matrix_stops_the_run_and_names_it(pair: faults.Pair) -> None:
    from uvmerge.engine.compute import Editor

    real = Editor._edit

    def bad(self: Editor, requests: object, device: str) -> object:
        from uvmerge import RunFailed

        if requests[0][1].tensor == DOWN.format(1):  # type: ignore[index]
            raise RunFailed(DOWN.format(1), "went wrong")
        return real(self, requests, device)  # type: ignore[arg-type]

    with mock.patch.object(Editor, "_edit", bad):
        failed(faults.restore(*pair), f"error: {DOWN.format(1)}: went wrong", code=1)
    assert not pair[2].exists()
    outcome, edits = edits_of("restore", *pair, *faults.RESTORE)
    done(outcome)
    assert 0 < edits < 6
    assert Q.format(0) in json.loads((pair[2] / "uvmerge.json").read_text())["edited"]


@pytest.mark.parametrize(
    "error",
    [MemoryError(), RuntimeError("[enforce fail] can't allocate memory: you tried to allocate")],
)
def test_memory_that_does_not_suffice_is_one_error_that_names_the_matrix(
    error: Exception, pair: faults.Pair
) -> None:
    from uvmerge.engine.compute import Editor

    with mock.patch.object(Editor, "_edit", side_effect=error):
        failed(faults.restore(*pair), "error: model.layers.", "memory", code=1)
    assert not pair[2].exists()
    done(faults.restore(*pair))


def test_a_disk_that_cannot_be_read_is_one_error_that_names_the_file(pair: faults.Pair) -> None:
    with mock.patch("os.preadv", side_effect=OSError(errno.EIO, "Input/output error")):
        outcome = faults.restore(*pair)
    assert outcome.code in (1, 3), outcome
    assert f"error: {pair[0]}/" in outcome
    assert "Input/output error" in outcome
    assert not pair[2].exists()
