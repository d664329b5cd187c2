"""Kept factors: a run from them writes the bytes of a run without, and no file is believed blindly."""

from __future__ import annotations

import errno
import os
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import faults
import pytest
import torch
import zoo
from faults import done, failed
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import uvmerge
from uvmerge.engine.factors import FactorFolder, _digest
from uvmerge.engine.settings import Control
from uvmerge.output import lock
from uvmerge.spectral import reduction
from uvmerge.spectral.gram import Eigenpairs

COMMANDS = {
    "restore": ("restore", "--top", "0.2"),
    "restore both ends": ("restore", "--top", "0.3", "--tail", "0.1", "--values", "base"),
    "restore by energy": ("restore", "--energy", "0.4"),
    "truncate": ("truncate", "--top", "0.1"),
    "project": ("project", "--top", "0.2"),
    "damp-intruders": ("damp-intruders",),
    "denoise": ("denoise",),
}


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> faults.Pair:
    """A pair of one layer of 100 columns, which no rung cuts into whole blocks."""
    return faults.pair(tmp_path_factory.mktemp("small"), layers=1, hidden=100)


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> faults.Pair:
    """A pair of one layer that `fast` refines."""
    return faults.pair(tmp_path_factory.mktemp("large"), layers=1, hidden=260)


@pytest.fixture
def kept(tmp_path: Path) -> Path:
    return tmp_path / "factors"


def run(pair: faults.Pair, out: Path, command: tuple[str, ...], *options: object) -> faults.Outcome:
    name, *own = command
    return faults.uvmerge(name, *pair[:2], out, *own, "--workers", 1, "--quiet", *options)


def bytes_of(
    pair: faults.Pair, out: Path, command: tuple[str, ...], *options: object
) -> dict[str, bytes]:
    """Every file that the run writes; the output is removed."""
    done(run(pair, out, command, *options))
    found = faults.contents(out)
    shutil.rmtree(out)
    return found


class Eigenproblems:
    """The sizes of the eigenproblems solved, and of the matrices reduced, while it is entered."""

    def __enter__(self) -> list[int]:
        self.sizes: list[int] = []

        def counted(real: Any) -> Any:
            return lambda A: self.sizes.append(len(A)) or real(A)

        self.patches = [
            mock.patch.object(torch.linalg, "eigh", counted(torch.linalg.eigh)),
            mock.patch.object(reduction, "tridiagonal_form", counted(reduction.tridiagonal_form)),
        ]
        for patch in self.patches:
            patch.start()
        return self.sizes

    def __exit__(self, *_: object) -> None:
        for patch in self.patches:
            patch.stop()


def pairs_in(folder: Path) -> dict[str, Any]:
    """What each file holds; its metadata come in any order."""
    return {path.name: zoo.header(path) for path in folder.iterdir()}


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


# --- the bytes of a run without ----------------------------------------------------------------


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("precision", ["exact", "fast"])
@pytest.mark.parametrize("size", ["small", "large"])
def test_runs_from_kept_factors_write_the_bytes_of_a_run_without(
    size: str, precision: str, command: str, request: pytest.FixtureRequest, kept: Path
) -> None:
    pair: faults.Pair = request.getfixturevalue(size)
    out, words = kept.with_name("out"), COMMANDS[command]
    expected = bytes_of(pair, out, words, "--precision", precision)
    for _ in range(2):
        with Eigenproblems() as solved:
            found = bytes_of(pair, out, words, "--precision", precision, "--factors", kept)
        assert found == expected
    assert solved == []  # of the second run
    assert all(name.endswith(".safetensors") for name in names(kept))


def test_one_folder_serves_every_operation_and_policy(large: faults.Pair, kept: Path) -> None:
    out = kept.with_name("out")
    for _ in range(2):
        for words in COMMANDS.values():
            for precision in ("exact", "fast"):
                plain = bytes_of(large, out, words, "--precision", precision)
                options = ("--precision", precision, "--factors", kept)
                assert bytes_of(large, out, words, *options) == plain, (words, precision)


@pytest.mark.parametrize("first", ["exact", "fast"])
def test_a_policy_does_not_read_the_other_ones_difference(first: str, tmp_path: Path) -> None:
    """In `fast` a difference is rounded to float32."""
    base = faults.tensors(layers=1, hidden=64)
    make = torch.Generator().manual_seed(3)
    far = {n: t + torch.randn(t.shape, generator=make) for n, t in base.items()}
    pair, out = faults.pair_of(tmp_path, base, far), tmp_path / "out"
    for precision in (first, "fast" if first == "exact" else "exact"):
        options = ("--precision", precision)
        expected = bytes_of(pair, out, COMMANDS["truncate"], *options)
        options += ("--factors", str(tmp_path / "factors"))
        assert bytes_of(pair, out, COMMANDS["truncate"], *options) == expected


def test_a_difference_shares_no_factors_with_its_sides(small: faults.Pair, kept: Path) -> None:
    out = kept.with_name("out")
    expected = bytes_of(small, out, COMMANDS["truncate"])
    bytes_of(small, out, COMMANDS["restore"], "--factors", kept)
    before = names(kept)
    assert bytes_of(small, out, COMMANDS["truncate"], "--factors", kept) == expected
    assert len(names(kept)) == len(before) + 2  # of two matrices


def test_the_same_bytes_in_another_dtype_are_another_matrix(tmp_path: Path, kept: Path) -> None:
    base, finetuned, out = faults.pair(tmp_path, layers=1, hidden=100)
    half = []
    for folder in (base, finetuned):
        tensors = {n: t.bfloat16() for n, t in load_file(folder / zoo.SINGLE).items()}
        save_file(tensors, folder / zoo.SINGLE, {"format": "pt"})
        twin = folder.with_name(f"{folder.name}-half")
        shutil.copytree(folder, twin)
        half.append(twin)
        views = {name: tensor.view(torch.float16) for name, tensor in tensors.items()}
        assert all(bool(view.isfinite().all()) for view in views.values())
        save_file(views, twin / zoo.SINGLE, {"format": "pt"})
    pair = (half[0], half[1], out)
    expected = bytes_of(pair, out, COMMANDS["restore"])
    bytes_of((base, finetuned, out), out, COMMANDS["restore"], "--factors", kept)
    assert bytes_of(pair, out, COMMANDS["restore"], "--factors", kept) == expected


def test_the_base_of_one_pair_serves_the_next(small: faults.Pair, tmp_path: Path) -> None:
    kept, out = tmp_path / "factors", tmp_path / "out"
    bytes_of(small, out, COMMANDS["project"], "--factors", kept)
    other = faults.write(
        tmp_path / "other", {n: 1.01 * t for n, t in zoo.tensors(small[1]).items()}
    )
    with Eigenproblems() as solved:
        bytes_of((small[0], other, out), out, COMMANDS["project"], "--factors", kept)
    assert solved == []


@pytest.mark.parametrize(
    ("precision", "tops"),
    [
        ("exact", {"0.05": True, "0.2": False, "0.4": True, "0.3": False}),
        ("fast", {"0.05": True, "0.4": True, "0.05 ": False, "0.4 ": False}),
    ],
)
def test_what_is_kept_serves_other_ranks(
    precision: str, tops: dict[str, bool], large: faults.Pair, kept: Path
) -> None:
    """A block of vectors, a fifth of them or somewhat more, serves all of its ranks."""
    out = kept.with_name("out")
    options = ("--precision", precision)
    for top, more in tops.items():
        words = ("project", "--top", top.strip())
        expected = bytes_of(large, out, words, *options)
        with Eigenproblems() as solved:
            assert bytes_of(large, out, words, *options, "--factors", kept) == expected, top
        assert bool(solved) == more, top


def test_as_many_vectors_are_kept_as_were_asked_for(
    large: faults.Pair, kept: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reduction, "functions", lambda: None)
    bytes_of(large, kept.with_name("out"), ("project", "--rank", "70"), "--factors", kept)
    shapes = [tuple(load_file(path)["vectors"].shape) for path in kept.iterdir()]
    assert shapes == [(260, 128)] * 2  # whole blocks of 64, not 260


# --- files that are not what they say ----------------------------------------------------------


def damage(path: Path, how: str) -> None:
    content = bytearray(path.read_bytes())
    if how == "empty":
        content.clear()
    elif how == "truncated":
        del content[len(content) // 2 :]
    elif how == "a bit flipped":
        content[-1000] ^= 1
    elif how == "header":
        content[12] ^= 255
    elif how == "something else":
        content[:] = b"\x80" * 5000
    path.write_bytes(content)


@pytest.mark.parametrize("precision", ["exact", "fast"])
@pytest.mark.parametrize("how", ["empty", "truncated", "a bit flipped", "header", "something else"])
def test_a_damaged_file_is_made_anew(
    how: str, precision: str, large: faults.Pair, kept: Path
) -> None:
    out, words = kept.with_name("out"), COMMANDS["restore"]
    options = ("--precision", precision, "--factors", kept)
    expected = bytes_of(large, out, words, *options)
    files = pairs_in(kept)
    for path in kept.iterdir():
        damage(path, how)
    assert bytes_of(large, out, words, *options) == expected
    assert pairs_in(kept) == files


@pytest.mark.parametrize(
    "tensors",
    [
        {"weight": torch.ones(3)},
        {"values": torch.ones(()), "vectors": torch.ones(())},
        {"values": torch.ones(2).bfloat16(), "vectors": torch.ones(2, 2).bfloat16()},
        {"values": torch.ones(300), "vectors": torch.ones(7, 300)},
    ],
    ids=["other names", "no dimensions", "bfloat16", "other shape"],
)
@pytest.mark.parametrize("following", [None, "0x1.8p1", "much"])
def test_a_foreign_safetensors_file_is_made_anew(
    following: str | None, tensors: dict[str, torch.Tensor], small: faults.Pair, kept: Path
) -> None:
    out, words = kept.with_name("out"), COMMANDS["restore"]
    expected = bytes_of(small, out, words, "--factors", kept)
    files = pairs_in(kept)
    for path in kept.iterdir():
        save_file(tensors, path, None if following is None else {"following": following})
    assert bytes_of(small, out, words, "--factors", kept) == expected
    assert pairs_in(kept) == files


def test_a_file_under_the_name_of_another_is_made_anew(small: faults.Pair, kept: Path) -> None:
    out, words = kept.with_name("out"), COMMANDS["restore"]
    expected = bytes_of(small, out, words, "--factors", kept)
    files, contents = pairs_in(kept), faults.contents(kept)
    ordered = sorted(files)
    for name, other in zip(ordered, ordered[1:] + ordered[:1]):
        (kept / name).write_bytes(contents[other])
    assert bytes_of(small, out, words, "--factors", kept) == expected
    assert pairs_in(kept) == files


MALFORMED: dict[str, Any] = {
    "values in a table": lambda v, V: (v[:, None], V),
    "no dimensions": lambda v, V: (v.sum(), V.sum()),
    "vectors in a row": lambda v, V: (v, V.flatten()),
    "values that are too few": lambda v, V: (v[:2], V[:, :2]),
    "values that are too many": lambda v, V: (torch.cat([v, v[-1:]]), V),
    "vectors that are too short": lambda v, V: (v, V[:-1]),
    "vectors that are too long": lambda v, V: (v, torch.cat([V, V[:1]])),
    "more vectors than values": lambda v, V: (v, torch.cat([V] * 9, 1)),
    "float32": lambda v, V: (v.float(), V.float()),
    "bfloat16": lambda v, V: (v.bfloat16(), V.bfloat16()),
    "complex": lambda v, V: (v, V.to(torch.complex64)),
    "NaN in values": lambda v, V: (v * torch.nan, V),
    "Inf in vectors": lambda v, V: (v, V + torch.inf),
    "values in another order": lambda v, V: (v.flip(0), V),
}


def malformed(path: Path, change: Any, following: str | None = None) -> None:
    """Put other pairs into a file of kept factors, under its key and with the right hash."""
    with safe_open(path, "pt") as file:
        made = file.metadata()
        values, vectors = change(file.get_tensor("values"), file.get_tensor("vectors"))
    if following is not None:
        made["following"] = following
    try:
        found = float.fromhex(made["following"]) if "following" in made else None
        made["xxh3_128"] = _digest(Eigenpairs(values, vectors, found))
    except (TypeError, OverflowError, IndexError):
        pass
    tensors = {"values": values.contiguous(), "vectors": vectors.contiguous()}
    try:
        save_file(tensors, path, made)
    except KeyError:
        pytest.skip(f"this safetensors writes no {vectors.dtype}")


@pytest.mark.parametrize("precision", ["exact", "fast"])
@pytest.mark.parametrize("how", MALFORMED)
def test_malformed_factors_with_the_right_hash_are_made_anew(
    how: str, precision: str, large: faults.Pair, kept: Path
) -> None:
    out, words = kept.with_name("out"), COMMANDS["restore"]
    options = ("--precision", precision, "--factors", kept)
    expected, files = bytes_of(large, out, words, *options), pairs_in(kept)
    for path in kept.iterdir():
        malformed(path, MALFORMED[how])
    assert bytes_of(large, out, words, *options) == expected
    assert pairs_in(kept) == files


@pytest.mark.parametrize("following", ["nan", "inf", "0x1p99999", "much", ""])
def test_a_malformed_value_at_the_cut_is_made_anew(
    following: str, large: faults.Pair, kept: Path
) -> None:
    out, words = kept.with_name("out"), COMMANDS["restore"]
    options = ("--precision", "fast", "--factors", kept)
    expected, files = bytes_of(large, out, words, *options), pairs_in(kept)
    for path in kept.iterdir():
        try:
            malformed(path, lambda v, V: (v, V), following)
        except ValueError:  # no number: the hash cannot be made either
            path.write_bytes(b"")
    assert bytes_of(large, out, words, *options) == expected
    assert pairs_in(kept) == files


def test_a_pipe_in_the_place_of_factors_is_replaced(small: faults.Pair, kept: Path) -> None:
    out, words = kept.with_name("out"), COMMANDS["restore"]
    expected, files = bytes_of(small, out, words, "--factors", kept), pairs_in(kept)
    for path in kept.iterdir():
        path.unlink()
        os.mkfifo(path)
    with faults.at_most(10):
        assert bytes_of(small, out, words, "--factors", kept) == expected
    assert pairs_in(kept) == files


def test_other_files_in_the_folder_are_left_alone(small: faults.Pair, kept: Path) -> None:
    kept.mkdir()
    (kept / "notes.txt").write_text("mine")
    bytes_of(small, kept.with_name("out"), COMMANDS["restore"], "--factors", kept)
    assert (kept / "notes.txt").read_text() == "mine"


def test_factors_of_another_torch_are_not_used(
    small: faults.Pair, kept: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, words = kept.with_name("out"), COMMANDS["project"]
    bytes_of(small, out, words, "--factors", kept)
    before = names(kept)
    monkeypatch.setattr(torch, "__version__", "9.9.9")
    with Eigenproblems() as solved:
        bytes_of(small, out, words, "--factors", kept)
    assert len(solved) == 2
    assert len(names(kept)) == 2 * len(before)


def test_what_is_kept_comes_back_to_the_bit(tmp_path: Path) -> None:
    make = torch.Generator().manual_seed(0)
    values, vectors = (
        torch.randn(shape, generator=make, dtype=torch.float64) for shape in (9, (9, 5))
    )
    folder = FactorFolder(tmp_path / "a" / "b", "cpu")
    for following in (None, 0.1, 5e-324):
        folder.keep("key", Eigenpairs(values, vectors.flip(1), following))
        found = folder.recall("key", 5)
        assert found is not None
        assert torch.equal(found.values, values) and torch.equal(found.vectors, vectors.flip(1))
        assert found.following == following
    assert folder.recall("key", 6) is None
    assert folder.recall("other", 1) is None
    empty = Eigenpairs(torch.zeros(0).double(), torch.zeros(9, 0).double(), None)
    folder.keep("none", empty)
    found = folder.recall("none", 7)
    assert found is not None and len(found.values) == 0


# --- two runs, stops, disks --------------------------------------------------------------------


def test_two_runs_at_once_share_a_folder(large: faults.Pair, kept: Path, tmp_path: Path) -> None:
    expected = bytes_of(large, tmp_path / "out", COMMANDS["restore"])
    log, command = tmp_path / "log", ("restore", *large[:2])
    words = ("--top", "0.2", "--workers", "2", "--factors", kept)
    processes = [
        faults.start(faults.child, log, *command, tmp_path / f"out-{i}", *words) for i in range(2)
    ]
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0], log.read_text()
    for i in range(2):
        assert faults.contents(tmp_path / f"out-{i}") == expected
    assert len(names(kept)) == 4
    assert all(name.endswith(".safetensors") for name in names(kept))


def test_a_stopped_run_resumes_with_its_factors(small: faults.Pair, tmp_path: Path) -> None:
    out, control = tmp_path / "out", Control()
    expected = bytes_of(small, out, COMMANDS["restore"])
    control.advance = lambda name, work: control.stop.set()
    options: dict[str, Any] = {"top": 0.2, "factors": tmp_path / "factors"}
    with pytest.raises(uvmerge.Interrupted):
        uvmerge.restore(*small[:2], out, workers=1, control=control, **options)
    uvmerge.restore(*small[:2], out, **options)
    assert faults.contents(out) == expected


@pytest.fixture
def full() -> Iterator[threading.Event]:
    """Once set, nothing more fits beside the output."""
    event, real = threading.Event(), Path.write_bytes

    def write_bytes(self: Path, content: bytes) -> int:
        if event.is_set() and self.parent.name == "factors":
            real(self, content[: len(content) // 2])
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(self, content)

    with mock.patch.object(Path, "write_bytes", write_bytes):
        yield event


@pytest.mark.parametrize("precision", ["exact", "fast"])
def test_a_full_disk_is_one_error_and_the_run_goes_on_without_factors(
    precision: str, large: faults.Pair, kept: Path, full: threading.Event
) -> None:
    out, words = kept.with_name("out"), COMMANDS["restore"]
    options = ("--precision", precision)
    expected = bytes_of(large, out, words, *options)
    full.set()
    outcome = run(large, out, words, *options, "--factors", kept)
    failed(outcome, "the factors cannot be kept: No space left", "--factors", code=1)
    assert names(kept) == []
    assert not out.exists()
    assert bytes_of(large, out, words, *options) == expected


def test_a_folder_that_cannot_be_made_is_one_error(small: faults.Pair, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    out, words = tmp_path / "out", COMMANDS["restore"]
    for place in (tmp_path / "file", tmp_path / "file" / "below"):
        outcome = run(small, out, words, "--factors", place)
        failed(outcome, f"{place}: cannot hold factors", code=1)
        assert faults.leftovers(out) == []


def test_a_folder_that_cannot_be_written_is_one_error(
    small: faults.Pair, kept: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.replace

    def replace(source: Path, target: Path, **places: int) -> None:
        if Path(target).parent == kept:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        real(source, target, **places)

    monkeypatch.setattr(os, "replace", replace)
    outcome = run(small, kept.with_name("out"), COMMANDS["restore"], "--factors", kept)
    failed(outcome, "the factors cannot be kept: Permission denied", code=1)
    assert names(kept) == []


# --- places ------------------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["base", "base/factors", "finetuned/x", "out", "out/x", "."])
def test_factors_stay_out_of_inputs_and_output(where: str, tmp_path: Path) -> None:
    pair = faults.pair(tmp_path, layers=1)
    before = faults.tree(tmp_path)
    outcome = run(pair, pair[2], COMMANDS["restore"], "--factors", tmp_path / where)
    failed(outcome, str(tmp_path / where), code=2)
    assert faults.tree(tmp_path) == before


def test_a_link_to_an_input_is_that_input(tmp_path: Path) -> None:
    pair = faults.pair(tmp_path, layers=1)
    (tmp_path / "link").symlink_to(pair[0])
    outcome = run(pair, pair[2], COMMANDS["restore"], "--factors", tmp_path / "link" / "x")
    failed(outcome, "lies inside", code=2)


def test_a_dry_run_keeps_nothing(small: faults.Pair, kept: Path) -> None:
    done(run(small, kept.with_name("out"), COMMANDS["restore"], "--factors", kept, "--dry-run"))
    assert not kept.exists()


def test_a_run_that_decomposes_nothing_makes_no_folder(small: faults.Pair, kept: Path) -> None:
    bytes_of(small, kept.with_name("out"), ("reset-layers", "--frac", "1"), "--factors", kept)
    assert not kept.exists()


def test_what_a_killed_run_had_not_finished_is_removed(tmp_path: Path) -> None:
    place, mine, _ = lock.signature().split("-")
    gone, alive = f"{place}-{2**22 - 1}-1", lock.signature()
    names = [f"key.safetensors.{who}_1" for who in (gone, alive, f"{'0' * 16}-{mine}-1", "x")]
    for name in names:
        (tmp_path / name).touch()
    FactorFolder(tmp_path, "cpu")
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(names[1:])
