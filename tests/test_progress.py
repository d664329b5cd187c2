"""What a person sees while a run works: in a terminal, a notebook, a file, and nowhere."""

from __future__ import annotations

import io
import os
import sys
import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import faults
import pytest

import uvmerge
from uvmerge.engine import progress as module
from uvmerge.engine.progress import Progress
from uvmerge.engine.settings import Control
from uvmerge.output import tree


class Terminal(io.StringIO):
    """A terminal that keeps what is written to it."""

    def isatty(self) -> bool:
        return True


class Watched(Progress):
    """Counts the bytes of each phase."""

    def __init__(self) -> None:
        super().__init__(stream=io.StringIO())
        self.phases: dict[str, list[int]] = {}

    @contextmanager
    def phase(self, name: str, total_bytes: int) -> Iterator[Callable[[int], None]]:
        self.phases[name] = [total_bytes]
        yield self.phases[name].append


def said(**settings: object) -> str:
    """What a function of Python writes to a terminal as stderr."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stderr", Terminal())
        settings["call"](**{k: v for k, v in settings.items() if k != "call"})  # type: ignore[operator]
        return sys.stderr.getvalue()  # type: ignore[attr-defined]


def test_a_terminal_gets_bars_by_work_and_by_bytes(tmp_path: Path) -> None:
    base, finetuned, out = faults.pair(tmp_path)
    stream = Terminal()
    uvmerge.restore(base, finetuned, out, progress=Progress(stream=stream))
    text = stream.getvalue()
    assert "100% |" in text and "elapsed" in text
    for phase in ("verifying", "flushing"):
        assert f"{phase}   0% |" in text and "B of 13.3kB" in text and "B/s" in text


def test_python_shows_progress_in_a_terminal_only_and_quiet_silences_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base, finetuned, out = faults.pair(tmp_path)

    def run(**settings: object) -> None:
        uvmerge.restore(base, finetuned, out, overwrite=True, **settings)

    def diff(**settings: object) -> None:
        uvmerge.diff(base, finetuned, **settings)

    for call in (run, diff):
        assert "100% |" in said(call=call)
        assert said(call=call, quiet=True) == ""
        call()
        assert capsys.readouterr().err == ""
        call(quiet=False)
        assert "100% after" in capsys.readouterr().err


def test_the_control_of_the_caller_is_told_too(tmp_path: Path) -> None:
    base, finetuned, out = faults.pair(tmp_path)
    seen: list[str] = []

    def advance(name: str, work: float) -> None:
        seen.append(name)

    control = Control(advance=advance)
    stream = Terminal()
    uvmerge.restore(base, finetuned, out, control=control, progress=Progress(stream=stream))
    assert "100% |" in stream.getvalue() and faults.Q.format(0) in seen
    assert control.advance is advance


def test_a_notebook_gets_a_bar(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    kernel = types.SimpleNamespace(config={"IPKernelApp": {}})
    shell = types.SimpleNamespace(get_ipython=lambda: kernel)
    monkeypatch.setitem(sys.modules, "IPython", shell)
    monkeypatch.delitem(sys.modules, "tqdm.auto", raising=False)
    assert module.is_notebook()
    base, finetuned, out = faults.pair(tmp_path)
    uvmerge.restore(base, finetuned, out)
    assert "100% |" in capsys.readouterr().err


def test_a_terminal_without_columns_gets_lines(tmp_path: Path) -> None:
    base, finetuned, out = faults.pair(tmp_path)
    reader, writer = os.openpty()  # of 0 columns
    with os.fdopen(reader, "rb", buffering=0) as shown, os.fdopen(writer, "w") as stream:
        assert stream.isatty() and os.get_terminal_size(writer).columns == 0
        uvmerge.restore(base, finetuned, out, progress=Progress(stream=stream))
        text = shown.read(1 << 16).decode()
    assert "100% after" in text and "verifying 13" in text and "|" not in text


def test_verifying_and_flushing_count_every_byte(tmp_path: Path) -> None:
    base, finetuned, out = faults.pair(tmp_path)
    watched = Watched()
    uvmerge.restore(base, finetuned, out, progress=watched)
    weights = (out / "model.safetensors").stat().st_size
    everything = sum(path.stat().st_size for path in out.iterdir())
    total, *counts = watched.phases["verifying"]
    assert sum(counts) == total == weights
    total, *counts = watched.phases["flushing"]
    assert (sum(counts), total) == (everything, weights)


@pytest.mark.parametrize("pieces", [True, False])
def test_a_large_file_is_flushed_piece_by_piece(
    pieces: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tree, "FLUSHED_BYTES", 4096)
    if not pieces:
        monkeypatch.setattr(tree, "_flush_range", lambda *_: False)
    (tmp_path / "file").write_bytes(b"x" * 10_000)
    counts: list[int] = []
    with tree.Tree.at(tmp_path) as folder:
        folder.sync_all(counts.append)
    assert sum(counts) == 10_000
    if not pieces:
        assert counts == [10_000]


def test_a_disk_that_fails_while_flushing_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tree, "FLUSHED_BYTES", 4096)

    def fails(descriptor: int, start: int, flags: int) -> bool:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(tree, "_flush_range", fails)
    base, finetuned, out = faults.pair(tmp_path)
    faults.failed(faults.restore(base, finetuned, out), "Input/output error", code=1)
    assert not out.exists()


def test_lines_tell_how_much_is_left_of_a_slow_phase(monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = iter(range(0, 100, 10))
    monkeypatch.setattr(module.time, "monotonic", lambda: next(seconds))
    stream = io.StringIO()
    with Progress(stream=stream).phase("flushing", 1000) as advance:
        for _ in range(4):
            advance(250)
        advance(250)  # more than was announced
    assert stream.getvalue().splitlines() == [
        "flushing 1 KB",
        "flushing: 20% after 10 s, about 30 s left",
        "flushing: 50% after 20 s, about 20 s left",
        "flushing: 70% after 30 s, about 10 s left",
        "flushing: 100% after 40 s",
    ]
