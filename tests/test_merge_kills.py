"""Merges of mergekit's YAML and mixtures of experts, killed (SIGKILL) and run again: the same bytes."""

from __future__ import annotations

import json
import random
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import faults
import merging
import pytest
import test_moe
import yaml
import zoo

KINDS = {
    "ties": ("run", "ties"),
    "union tokenizer": ("run", "tokenizer-union"),
    "frankenmerge": ("run", "passthrough"),
    "repeated layers": ("run", "repeated-layers"),
    "mixture": ("moe", "random"),
    "mixture of prompts": ("moe", "cheap_embed"),
}
QUICK = [kind for kind in KINDS if kind != "mixture of prompts"]  # which reads a tokenizer
MOST = 10**6  # more calls than any run makes


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The models, and a configuration of each kind that names them in full."""
    folder = merging.make(tmp_path_factory.mktemp("kills"), others=True)
    for name in ("ties", "tokenizer-union", "passthrough", "repeated-layers"):
        text = (merging.EXAMPLES / f"{name}.yml").read_text()
        (folder / f"{name}.yml").write_text(text.replace("models/", f"{folder}/models/"))
    models = test_moe.family("llama", folder / "experts", dtype="float32")
    for mode in ("random", "cheap_embed"):
        mixture = test_moe.config(models, mode, seed=3)
        (folder / f"{mode}.yml").write_text(yaml.safe_dump(mixture))
    return folder


class Bench:
    """One command, run undisturbed first.

    Attributes:
        expected: the bytes of every file that it writes.
        calls: how many calls that change the disk it makes.
    """

    def __init__(self, kind: str, folder: Path, place: Path) -> None:
        command, name = KINDS[kind]
        self.words: Sequence[Any] = (command, folder / f"{name}.yml")
        self.one_worker = ("--workers", "1") if command == "run" else ()
        self.place, self.log, self.counter = place, place / "log", place / "calls"
        assert self.killed(MOST, "whole") == 0, self.log.read_text()
        self.expected = faults.contents(place / "whole" / "out")
        self.calls = int(self.counter.read_text())

    def killed(self, before: int, name: str) -> int | None:
        """The exit code of a run in a place of its own that is killed before one of those calls."""
        (self.place / name).mkdir(exist_ok=True)
        words = (*self.words, self.place / name / "out", *self.one_worker)
        process = faults.start(faults.killed_child, self.log, before, self.counter, *words)
        process.join()
        return process.exitcode

    def finishes(self, name: str) -> str:
        """What is wrong with the place of a killed run, and after the same command; else nothing."""
        out = self.place / name / "out"
        if out.exists() and faults.contents(out) != self.expected:
            return "half an output"
        done = faults.uvmerge(*self.words, out)
        if done.code != 0:
            return f"does not resume: {done.err}"
        differ = {n for n, raw in faults.contents(out).items() if raw != self.expected.get(n)}
        if differ or faults.contents(out).keys() != self.expected.keys():
            return f"other bytes than an undisturbed run: {sorted(differ)}"
        return "" if faults.leftovers(out) == ["out"] else f"leaves {faults.leftovers(out)}"

    def problems(self, moments: Sequence[int]) -> dict[int, str]:
        """What goes wrong, by the call before which a run was killed."""
        found = {}
        for before in moments:
            assert self.killed(before, str(before)) == -signal.SIGKILL, self.log.read_text()
            if wrong := self.finishes(str(before)):
                found[before] = wrong
        return found


@pytest.mark.parametrize("kind", QUICK)
def test_a_killed_merge_resumes_with_the_same_bytes(
    kind: str, folder: Path, tmp_path: Path
) -> None:
    """While tensors are written, and while the finished folder is published."""
    bench = Bench(kind, folder, tmp_path)
    assert bench.problems([bench.calls // 3, bench.calls - 6]) == {}


def test_what_was_written_before_a_kill_is_not_computed_again(folder: Path, tmp_path: Path) -> None:
    from uvmerge.engine.compute import Editor

    bench = Bench("ties", folder, tmp_path)
    assert bench.killed(bench.calls // 2, "half") == -signal.SIGKILL
    pieces = map(json.loads, faults.pieces(tmp_path / "half" / "out"))
    computed = sum("record" in piece for piece in pieces)
    total = len(zoo.tensors(tmp_path / "whole" / "out"))
    with mock.patch.object(Editor, "_edit", autospec=True, side_effect=Editor._edit) as edit:
        assert bench.finishes("half") == ""
    assert 0 < computed < total and edit.call_count == total - computed


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_killed_at_ten_moments_each_kind_of_merge_resumes_with_the_same_bytes(
    kind: str, folder: Path, tmp_path: Path
) -> None:
    bench = Bench(kind, folder, tmp_path)
    moments = [0, 1, *random.Random(kind).sample(range(2, bench.calls), 8)]
    assert bench.problems(moments) == {}


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_killed_again_and_again_each_kind_of_merge_gets_there(
    kind: str, folder: Path, tmp_path: Path
) -> None:
    bench, codes = Bench(kind, folder, tmp_path), []
    for before in (2, 5, 9, 20, 4, 40, 7, 60, 80, 3):
        codes.append(bench.killed(before, "again"))
        out = tmp_path / "again" / "out"
        assert not out.exists() or faults.contents(out) == bench.expected
    assert codes.count(-signal.SIGKILL) >= 5
    assert bench.finishes("again") == ""
