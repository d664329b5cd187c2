"""What was planned is what was read, and read once: inputs that change, and inputs that hold NaN."""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from unittest import mock

import faults
import pytest
import torch
import zoo
from faults import DOWN, Q, done, failed

import uvmerge
from uvmerge.api.surgery import Surgery
from uvmerge.checkpoint import source
from uvmerge.checkpoint.source import LocalFile
from uvmerge.engine.compute import Editor
from uvmerge.output.writer import Staging


@pytest.fixture
def pair(tmp_path: Path) -> faults.Pair:
    return faults.pair(tmp_path, shards=2)


def once(change: Callable[[], object], owner: Any, name: str, *, before: bool = True) -> Any:
    """A patch under which the first call of a method also makes the change."""
    real, left = getattr(owner, name), [change]

    def call(*arguments: Any, **keywords: Any) -> Any:
        if before and left:
            left.pop()()
        result = real(*arguments, **keywords)
        if left:
            left.pop()()
        return result

    return mock.patch.object(owner, name, call)


MOMENTS: dict[str, Callable[[Callable[[], object]], Any]] = {
    "after its header was read": lambda change: once(change, Surgery, "planned"),
    "while the first tensor is edited": lambda change: once(change, Editor, "_edit"),
    "before publishing": lambda change: once(change, Staging, "verify", before=False),
}


# What happens to a file


def exchanged(path: Path) -> None:
    """The checkpoint saved again, with the tensors in another order, is moved into its place."""
    entries, data = zoo.header(path)
    metadata = entries.pop("__metadata__")
    specs = {
        name: (entry["dtype"], entry["shape"], data[slice(*entry["data_offsets"])])
        for name, entry in reversed(entries.items())
    }
    zoo.write_safetensors(path.with_name("other"), specs, metadata)
    os.replace(path.with_name("other"), path)


def saved_again(path: Path) -> None:
    """The same bytes under the same time, in a new file."""
    shutil.copy2(path, path.with_name("other"))
    os.replace(path.with_name("other"), path)


def written_to(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(-8, os.SEEK_END)
        file.write(bytes(8))


def written_to_under_its_old_time(path: Path) -> None:
    before = path.stat()
    written_to(path)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


CHANGES: dict[str, Callable[[Path], object]] = {
    "exchanged": exchanged,
    "saved again": saved_again,
    "written to": written_to,
    "written to under its old time": written_to_under_its_old_time,
    "grown": lambda path: os.truncate(path, path.stat().st_size + 64),
    "shrunk": lambda path: os.truncate(path, path.stat().st_size // 2),
    "deleted": lambda path: path.unlink(),
}


@pytest.mark.parametrize("role", [0, 1], ids=["base", "finetuned"])
@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("moment", MOMENTS)
def test_a_shard_that_changes_while_running_ends_the_run(
    moment: str, change: str, role: int, pair: faults.Pair
) -> None:
    shard = zoo.files(pair[role])[1]
    with MOMENTS[moment](lambda: CHANGES[change](shard)):
        outcome = faults.restore(*pair)
    failed(outcome, "changed while running", shard.name, code=1)
    assert not pair[2].exists()


@pytest.mark.parametrize("change", CHANGES)
def test_a_shard_that_is_opened_again_is_the_same(
    change: str, pair: faults.Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where more shards are open than descriptors may be, a read opens its shard anew."""
    monkeypatch.setattr(source, "MOST_IDLE", 0)
    shard = zoo.files(pair[1])[0]
    with MOMENTS["while the first tensor is edited"](lambda: CHANGES[change](shard)):
        outcome = faults.restore(*pair)
    failed(outcome, f"{shard.name}: changed while running: ", code=1)
    assert not pair[2].exists()


def test_a_run_reads_the_file_whose_header_it_read(pair: faults.Pair) -> None:
    """No tensor has another one's bytes, also where nothing compares the states of the files."""
    expected = faults.undisturbed(pair)
    with (
        MOMENTS["after its header was read"](lambda: exchanged(zoo.files(pair[1])[0])),
        mock.patch("uvmerge.api.surgery.refuse_changed_inputs"),
    ):
        done(faults.restore(*pair))
    written = faults.contents(pair[2])
    weights = [path.name for path in zoo.files(pair[1])]
    assert {name: written[name] for name in weights} == {name: expected[name] for name in weights}


@pytest.mark.parametrize("name", ["config.json", zoo.INDEX, "tokenizer.json"])
@pytest.mark.parametrize("change", [exchanged, Path.unlink])
@pytest.mark.parametrize("moment", MOMENTS)
def test_a_side_file_that_changes_while_running_ends_the_run(
    moment: str, change: Callable[[Path], object], name: str, pair: faults.Pair
) -> None:
    (pair[1] / "tokenizer.json").write_text("{}")

    def replace() -> None:
        (pair[1] / "other").write_text('{"a": 1}')
        os.replace(pair[1] / "other", pair[1] / name)

    act = replace if change is exchanged else (pair[1] / name).unlink
    if moment == "after its header was read" and name == "tokenizer.json":
        return  # it is first looked at by the plan
    with MOMENTS[moment](act):
        failed(faults.restore(*pair), "changed while running", name, code=1)
    assert not pair[2].exists()


def test_files_that_are_not_read_may_change(pair: faults.Pair) -> None:
    (pair[1] / "trainer_state.json").write_text("{}")
    (pair[0] / "README.md").write_text("one")

    def log() -> None:
        (pair[1] / "trainer_state.json").write_text('{"step": 2}')
        (pair[0] / "README.md").write_text("two")

    with MOMENTS["while the first tensor is edited"](log):
        done(faults.restore(*pair))


@pytest.mark.parametrize("change", ["exchanged", "written to", "deleted"])
def test_a_pickle_that_changes_while_running_ends_the_run(change: str, tmp_path: Path) -> None:
    pair = faults.pair(tmp_path)
    file = pair[1] / "pytorch_model.bin"
    torch.save(faults.tuned(faults.tensors()), file)
    (pair[1] / zoo.SINGLE).unlink()

    def act() -> None:
        if change == "exchanged":
            saved_again(file)
        else:
            CHANGES[change](file)

    with MOMENTS["while the first tensor is edited"](act):
        outcome = faults.restore(*pair, "--allow-pickle")
    failed(outcome, "changed while running", code=1)
    assert not pair[2].exists()


@pytest.mark.parametrize("change", CHANGES)
def test_diff_measures_the_files_that_it_opened(change: str, pair: faults.Pair) -> None:
    from uvmerge.engine import measuring

    shard = zoo.files(pair[0])[0]
    with once(lambda: CHANGES[change](shard), measuring, "run"):
        outcome = faults.uvmerge("diff", *pair[:2])
    failed(outcome, "changed while running", shard.name, code=1)


def test_check_compares_the_files_that_it_opened(pair: faults.Pair) -> None:
    from uvmerge.api import check

    done(faults.restore(*pair))
    with once(lambda: saved_again(zoo.files(pair[1])[0]), check, "_named"):
        outcome = faults.uvmerge("check", pair[2], "--against", pair[1])
    failed(outcome, "changed while running", code=1)


# Between runs


@pytest.mark.parametrize("change", ["restored from a backup", "of another mode", "linked"])
def test_a_run_resumes_on_the_same_content(change: str, pair: faults.Pair) -> None:
    expected = faults.undisturbed(pair)
    with mock.patch.object(Staging, "publish", side_effect=KeyboardInterrupt):
        assert faults.restore(*pair).code == 130
    for shard in zoo.files(pair[1]):
        if change == "restored from a backup":
            saved_again(shard)
        elif change == "of another mode":
            shard.chmod(0o640)
        else:
            os.link(shard, pair[2].with_name(shard.name))
    with mock.patch.object(Editor, "_edit", side_effect=AssertionError):  # all is done
        done(faults.restore(*pair))
    assert faults.contents(pair[2]) == expected


# Descriptors


def files_in(folder: Path, count: int) -> list[LocalFile]:
    """`count` files, each of 64 bytes that are its number."""
    for i in range(count):
        (folder / f"{i}.safetensors").write_bytes(bytes([i]) * 64)
    return [LocalFile(folder / f"{i}.safetensors") for i in range(count)]


def open_descriptors(folder: Path) -> int:
    links = (f"/proc/self/fd/{name}" for name in os.listdir("/proc/self/fd"))
    return sum(os.path.realpath(link).startswith(str(folder)) for link in links)


def test_descriptors_are_few_and_closed_at_the_end(tmp_path: Path) -> None:
    files = files_in(tmp_path, 200)
    assert open_descriptors(tmp_path) <= source.MOST_IDLE
    assert [bytes(read(file)) for file in files] == [bytes([i]) * 64 for i in range(200)]
    assert open_descriptors(tmp_path) <= source.MOST_IDLE
    for file in files:
        file.close()
    assert open_descriptors(tmp_path) == 0


def test_a_checkpoint_that_is_refused_leaves_nothing_open(pair: faults.Pair) -> None:
    faults.change_index(pair[1], lambda names: names.pop(Q.format(0)))
    with pytest.raises(uvmerge.InputRefused):
        uvmerge.Checkpoint.open(pair[1])
    assert open_descriptors(pair[1]) == 0


def read(file: LocalFile) -> bytearray:
    buffer = bytearray(64)
    file.read_into(0, memoryview(buffer))
    return buffer


def test_threads_that_share_few_descriptors_read_right_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(source, "MOST_IDLE", 2)
    files = files_in(tmp_path, 8)

    def work(seed: int) -> bool:
        order = [(seed * 7 + i * i) % 8 for i in range(300)]
        return all(bytes(read(files[i])) == bytes([i]) * 64 for i in order)

    with ThreadPoolExecutor(6) as pool:
        assert all(pool.map(work, range(6)))
    assert open_descriptors(tmp_path) <= 2
    for file in files:
        file.close()


# NaN and Inf


@pytest.fixture
def bytes_read() -> Iterator[list[int]]:
    """The number of bytes of each read."""
    counts: list[int] = []
    real = LocalFile.read_into

    def counting(self: LocalFile, offset: int, buffer: memoryview) -> None:
        counts.append(len(buffer))
        real(self, offset, buffer)

    with mock.patch.object(LocalFile, "read_into", counting):
        yield counts


def with_nan(tmp_path: Path, names: list[str], role: int = 1, **options: Any) -> faults.Pair:
    """A pair, where the first value of these tensors of one side is NaN."""
    both = [faults.tensors(**options), faults.tuned(faults.tensors(**options))]
    for name in names:
        both[role][name].view(-1)[0] = float("nan")
    config = faults.CONFIG | {"num_hidden_layers": options.get("layers", faults.LAYERS)}
    return faults.pair_of(tmp_path, *both, config=config)


@pytest.mark.parametrize("command", [("restore", "--top", "0.25"), ("interpolate",)])
def test_a_pair_is_read_once(
    command: tuple[str, ...], tmp_path: Path, bytes_read: list[int]
) -> None:
    pair = faults.pair(tmp_path, hidden=128)
    done(faults.uvmerge(command[0], *pair, *command[1:]))
    both = sum(file.stat().st_size for folder in pair[:2] for file in zoo.files(folder))
    edited = 2 * sum(b.size_bytes for b in edited_tensors(pair))
    assert sum(bytes_read) < both + 0.3 * edited  # a sample comes first; a second read is all of it


def edited_tensors(pair: faults.Pair) -> list[Any]:
    with uvmerge.Checkpoint.open(pair[1]) as opened:
        return [t for t in opened.tensors.values() if len(t.shape) == 2 and "layers" in t.name]


@pytest.mark.parametrize("workers", [1, 4])
@pytest.mark.parametrize(
    "command",
    [("restore", "--top", "0.25", "--layers", "0-5"), ("interpolate", "--include", "*layers*")],
)
@pytest.mark.parametrize("role", [0, 1])
def test_every_tensor_with_nan_is_listed_and_nothing_is_left(
    role: int, command: tuple[str, ...], workers: int, tmp_path: Path
) -> None:
    names = [Q.format(0), DOWN.format(0), DOWN.format(3), Q.format(5)]
    pair = with_nan(tmp_path, names, role, layers=6)
    before = faults.tree(tmp_path)
    outcome = faults.uvmerge(command[0], *pair, *command[1:], "--workers", workers)
    failed(outcome, f"NaN or Inf in 4 tensors: {', '.join(names)}", "--nonfinite copy", code=3)
    assert faults.tree(tmp_path) == before


def test_after_the_first_nan_nothing_is_edited(tmp_path: Path) -> None:
    pair = with_nan(tmp_path, [DOWN.format(0)], layers=6)  # of the largest, the first
    with mock.patch.object(Editor, "_edit", autospec=True, side_effect=Editor._edit) as edit:
        failed(faults.restore(*pair), f"NaN or Inf in 1 tensor: {DOWN.format(0)}", code=3)
    assert edit.call_count == 1


def test_nan_in_one_of_several_settings_leaves_nothing_of_any(tmp_path: Path) -> None:
    pair = with_nan(tmp_path, [Q.format(1)])
    before = faults.tree(tmp_path)
    words = ("sweep", "restore", *pair, "--layers", "0", "--layers", "1")
    failed(faults.uvmerge(*words), f"NaN or Inf in 1 tensor: {Q.format(1)}", code=3)
    assert faults.tree(tmp_path) == before


def test_nan_found_by_a_resumed_run_leaves_nothing_of_the_first(tmp_path: Path) -> None:
    pair = with_nan(tmp_path, [Q.format(2)])
    before = faults.tree(tmp_path)
    with mock.patch.object(Editor, "_edit", side_effect=uvmerge.RunFailed("here", "it broke")):
        failed(faults.restore(*pair), "it broke", code=1)
    assert faults.staging(pair[2])
    failed(faults.restore(*pair), f"NaN or Inf in 1 tensor: {Q.format(2)}", code=3)
    assert faults.tree(tmp_path) == before


def test_nan_in_a_file_that_is_being_written_is_a_change(pair: faults.Pair) -> None:
    shard = zoo.files(pair[1])[0]

    def scribble() -> None:
        with shard.open("r+b") as file:
            file.seek(8 + int.from_bytes(file.read(8), "little"))
            file.write(b"\xff" * (shard.stat().st_size - file.tell()))

    with MOMENTS["while the first tensor is edited"](scribble):
        failed(faults.restore(*pair), "changed while running", shard.name, code=1)


def test_a_stop_while_looking_for_nan_is_a_stop(tmp_path: Path) -> None:
    from uvmerge.engine.settings import Control

    pair = with_nan(tmp_path, [DOWN.format(0), Q.format(2)])
    control, seen = Control(), threading.Event()

    def advance(name: str, work: float) -> None:
        if name == DOWN.format(0):
            seen.set()
            control.stop.set()

    control.advance = advance
    with pytest.raises(uvmerge.Interrupted):
        uvmerge.restore(*pair, top=0.25, workers=1, control=control)
    assert seen.is_set()
    failed(faults.restore(*pair), "NaN or Inf in 2 tensors", code=3)


def test_nan_is_looked_for_after_the_room_on_the_disk(
    tmp_path: Path, bytes_read: list[int]
) -> None:
    pair = with_nan(tmp_path, [Q.format(0)], hidden=64)
    size = (pair[1] / zoo.SINGLE).stat().st_size
    for options in ((), ("--nonfinite", "copy")):
        bytes_read.clear()
        with mock.patch("uvmerge.output.disk.free_bytes", return_value=10):
            failed(faults.restore(*pair, *options), "bytes short", code=3)
        assert sum(bytes_read) < size
