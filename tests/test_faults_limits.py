"""Limits of the system: file sizes, open files, memory, folders that are read-only or gone, Ctrl-C."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import faults
import pytest
from faults import done, failed

import uvmerge
from uvmerge.cli.failures import of_system


@pytest.fixture
def pair(tmp_path: Path) -> faults.Pair:
    return faults.pair(tmp_path)


def limited(limit: str, *arguments: object) -> faults.Outcome:
    """The command line in a process of its own, under a limit of the shell."""
    command = ["sh", "-c", f'ulimit {limit} && exec "$@"', "sh", sys.executable, "-m", "uvmerge"]
    process = subprocess.run([*command, *map(str, arguments)], capture_output=True, text=True)
    return faults.Outcome(process.returncode, process.stdout, process.stderr)


def reset(pair: faults.Pair, *options: object) -> tuple[object, ...]:
    """A command that copies tensors, and imports no torch."""
    return ("reset-layers", "--frac", "0.5", *pair, *options)


def test_a_limit_of_file_sizes_is_no_full_disk(pair: faults.Pair) -> None:
    outcome = limited("-f 4", *reset(pair))  # blocks of 512 bytes
    failed(outcome, "files may not become so large here", "raise the limit (`ulimit -f`)", code=1)
    done(faults.uvmerge(*reset(pair)))


def test_a_thousand_shards_need_no_thousand_open_files(tmp_path: Path) -> None:
    pair = faults.pair(tmp_path, layers=334, hidden=4, shards=1000)
    done(limited("-n 256", *reset(pair)))
    assert len(list(pair[2].glob("*.safetensors"))) == 1000
    done(limited("-n 256", "check", pair[2], "--against", pair[1]))


def test_too_few_open_files_are_said() -> None:
    error = of_system(OSError(24, "Too many open files", "a.safetensors"))
    assert (error.where, error.exit_code) == ("a.safetensors", 1)
    assert "Too many open files" in error.what and "ulimit -n" in error.do


def test_an_address_space_too_small_for_torch_is_said(pair: faults.Pair) -> None:
    outcome = limited("-v 300000", "restore", *pair)
    failed(outcome, "raise its limit (`ulimit -v`)", code=1)
    assert "Traceback" not in outcome.err


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (MemoryError(), "error: memory: there is not enough of it Free some memory"),
        (OSError(12, "Cannot allocate memory"), "error: memory: there is not enough of it"),
        (ImportError("libx.so: failed to map segment from shared object"), "(`ulimit -v`)"),
        (ImportError("No module named 'torch'"), "No module named 'torch' Install uvmerge again."),
        (
            ModuleNotFoundError("No module named 'torch.x'", name="torch.x"),
            "torch is not installed, and this command needs it Install it: `pip install torch`.",
        ),
        (OSError(5, "Input/output error"), "error: output: cannot be read or written: Input"),
        (OSError("no number"), "error: output: cannot be read or written: no number"),
    ],
)
def test_what_the_system_refuses_is_one_sentence(
    error: Exception, sentence: str, pair: faults.Pair
) -> None:
    with mock.patch("uvmerge.api.run.run_all", side_effect=error):
        failed(faults.restore(*pair), sentence, code=1)


@pytest.mark.parametrize(
    "command", [("restore", "OUT"), ("sweep", "restore", "OUT", "--top", "0.1,0.2"), ("diff",)]
)
def test_a_read_only_parent_is_refused_before_any_work(
    command: tuple[str, ...], pair: faults.Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Root may write to any folder but one of a read-only file system."""
    real = os.access
    parent = pair[2].parent
    monkeypatch.setattr(os, "access", lambda p, mode: Path(p) != parent and real(p, mode))
    words = [each for word in command for each in (pair if word == "OUT" else [word])]
    words += [*pair[:2], "--out", pair[2]] if command == ("diff",) else []
    before = faults.tree(parent)
    outcome = faults.uvmerge(*words)
    failed(outcome, f"{pair[2]}: cannot be written: {parent} is read-only", code=2)
    assert faults.tree(parent) == before


def test_the_demo_refuses_a_read_only_parent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    failed(faults.uvmerge("demo", tmp_path / "a" / "b"), f"{tmp_path} is read-only", code=2)


@pytest.fixture
def nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, which is gone."""
    folder = tmp_path / "gone"
    folder.mkdir()
    monkeypatch.chdir(folder)
    folder.rmdir()
    return folder


def test_a_current_folder_that_is_gone_is_said(pair: faults.Pair, nowhere: Path) -> None:
    outcome = faults.uvmerge("restore", *pair[:2], "out")
    failed(outcome, "the current folder: does not exist any more", "Change to a folder", code=2)


def removed(folder: Path, real: Callable[..., Any]) -> Callable[..., Any]:
    """`real`, before whose first call a folder vanishes."""

    def call(*arguments: Any, **keywords: Any) -> Any:
        shutil.rmtree(folder, ignore_errors=True)
        return real(*arguments, **keywords)

    return call


@pytest.mark.parametrize("place", ["_edit", "verify", "publish"])
def test_a_parent_that_vanishes_in_the_run_is_one_sentence(
    place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from uvmerge.engine.compute import Editor
    from uvmerge.output.writer import Staging

    base, finetuned, _ = faults.pair(tmp_path)
    parent = tmp_path / "parent"
    parent.mkdir()
    owner: Any = Editor if place == "_edit" else Staging
    monkeypatch.setattr(owner, place, removed(parent, getattr(owner, place)))
    outcome = faults.restore(base, finetuned, parent / "out")
    failed(outcome, "No such file or directory", code=1)
    assert "Traceback" not in outcome.err


START = """
import sys
class Late:
    def find_spec(self, name, path=None, target=None):
        if name == {moment!r}:
            print("importing", flush=True)
            import time
            time.sleep(60)
sys.meta_path.insert(0, Late())
from uvmerge.__main__ import start
start()
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("moment", ["click", "uvmerge.operations.restore", "torch"])
def test_a_signal_during_imports_ends_the_process_with_a_sentence(
    moment: str, number: signal.Signals, pair: faults.Pair
) -> None:
    program = subprocess.Popen(
        [sys.executable, "-c", START.format(moment=moment), "restore", *map(str, pair)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert program.stdout is not None and program.stdout.readline() == "importing\n"
    program.send_signal(number)
    _, err = program.communicate()
    assert program.returncode == 128 + number, err
    assert err.endswith("stopped; run the same command again\n") and "Traceback" not in err
    assert faults.leftovers(pair[2]) == []


def test_a_package_that_cannot_be_loaded_is_said() -> None:
    broken = "import sys; sys.modules['click'] = None\nfrom uvmerge.__main__ import start\nstart()"
    process = subprocess.run([sys.executable, "-c", broken], capture_output=True, text=True)
    assert process.returncode == 1
    assert process.stderr.startswith("error: uvmerge cannot be loaded: ")
    assert "Traceback" not in process.stderr


def test_the_installed_program_is_the_one_that_can_be_stopped_early() -> None:
    text = (Path(uvmerge.__file__).parents[1] / "setup.cfg").read_text()
    assert "uvmerge = uvmerge.__main__:start\n" in text
