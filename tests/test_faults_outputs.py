"""Where an output may not go, what becomes of what is there, full disks, modes, and locks."""

from __future__ import annotations

import errno
import json
import os
import socket
import stat
import subprocess
import sys
from multiprocessing.process import BaseProcess
from pathlib import Path
from unittest import mock

import faults
import pytest
import torch
import zoo
from faults import done, failed, refused

import uvmerge
from uvmerge.output import lock as uvmerge_lock


@pytest.fixture
def pair(tmp_path: Path) -> faults.Pair:
    return faults.pair(tmp_path)


def lock(out: Path) -> Path:
    return out.with_name(f"{out.name}.uvmerge-lock")


# OUT and the inputs


@pytest.mark.parametrize("options", [(), ("--overwrite",)])
@pytest.mark.parametrize(
    ("where", "how"),
    [
        ("base", "is the input"),
        ("finetuned", "is the input"),
        ("finetuned/", "is the input"),
        ("finetuned/../finetuned", "is the input"),
        ("finetuned/out", "lies inside the input"),
        ("base/a/..", "is the input"),
        (".", "contains the input"),
        ("link", "is the input"),
        ("link/out", "lies inside the input"),
    ],
)
def test_out_that_is_in_or_around_an_input_is_refused(
    where: str, how: str, options: tuple[str, ...], pair: faults.Pair, tmp_path: Path
) -> None:
    (tmp_path / "base" / "a").mkdir()
    (tmp_path / "link").symlink_to("finetuned")
    before = faults.tree(tmp_path)
    outcome = faults.uvmerge("restore", *pair[:2], f"{tmp_path}/{where}", *options)
    failed(outcome, how, "Write to a folder beside the inputs.", code=2)
    assert faults.tree(tmp_path) == before


def test_out_that_is_an_input_given_through_a_link_is_refused(
    pair: faults.Pair, tmp_path: Path
) -> None:
    (tmp_path / "link").symlink_to("finetuned")
    refused((pair[0], tmp_path / "link", pair[1]), "is the input", code=2, options=("--overwrite",))


def test_out_that_is_an_input_is_refused_in_a_recipe(pair: faults.Pair, tmp_path: Path) -> None:
    recipe = tmp_path / "r.yaml"
    recipe.write_text(f"uvmerge: 1\nbase: {pair[0]}\nfinetuned: {pair[1]}\nsteps: [restore]\n")
    before = faults.tree(tmp_path)
    failed(faults.uvmerge("run", recipe, pair[0], "--overwrite"), "is the input", code=2)
    assert faults.tree(tmp_path) == before


# OUT itself


@pytest.mark.parametrize("kind", ["file", "pipe", "dangling link", "link to a file"])
@pytest.mark.parametrize("options", [(), ("--overwrite",)])
def test_out_that_is_a_file_is_refused(
    kind: str, options: tuple[str, ...], pair: faults.Pair
) -> None:
    out = pair[2]
    (out.parent / "file").write_text("mine")
    if kind == "file":
        out.write_text("mine")
    elif kind == "pipe":
        os.mkfifo(out)
    else:
        out.symlink_to("nowhere" if kind == "dangling link" else "file")
    refused(pair, f"{out}: is a file", "Name a folder", code=2, options=options)


def test_missing_folders_above_out_are_made_and_do_not_outlast_a_refusal(
    pair: faults.Pair, tmp_path: Path
) -> None:
    out = tmp_path / "not" / "yet" / "out"
    faults.done(faults.restore(*pair[:2], out, "--dry-run"))
    broken = faults.tuned(faults.tensors())
    broken[faults.Q.format(0)][0, 0] = float("nan")
    faults.write(tmp_path / "broken", broken)
    failed(faults.restore(pair[0], tmp_path / "broken", out), "NaN", code=3)
    assert not (tmp_path / "not").exists()
    faults.done(faults.restore(*pair[:2], out))
    assert faults.leftovers(out) == ["out"]
    (tmp_path / "file").write_text("mine")
    failed(faults.restore(*pair[:2], tmp_path / "file" / "a" / "out"), "is not a folder", code=2)
    failed(faults.restore(*pair[:2], pair[0] / "new" / "out"), "lies inside the input", code=2)
    assert not (pair[0] / "new").exists()


@pytest.mark.parametrize("name", ["x" * 300, "x" * 245, "a\0b", "x" * 300 + "/out"])
def test_out_with_an_impossible_name_is_refused(name: str, pair: faults.Pair) -> None:
    before = faults.tree(pair[2].parent)
    outcome = faults.uvmerge("restore", *pair[:2], f"{pair[2].parent}/{name}")
    assert outcome.code in (1, 2), outcome
    assert outcome.err.count("error: ") == 1
    assert faults.tree(pair[2].parent) == before


def test_out_where_nothing_can_be_written_is_one_error(pair: faults.Pair) -> None:
    outcome = faults.uvmerge("restore", *pair[:2], "/proc/uvmerge-out")
    assert outcome.code == 3, outcome  # no byte is free there
    assert outcome.err.count("error: ") == 1
    assert "error: /proc: the output needs" in outcome


def test_out_that_is_empty_text_is_refused(
    pair: faults.Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    (pair[2].parent / "work").mkdir()
    monkeypatch.chdir(pair[2].parent / "work")  # `restore base finetuned "$UNSET"`
    assert faults.uvmerge("restore", *pair[:2], "").code == 2
    assert os.listdir() == []


def test_a_non_empty_out_is_refused_and_left_alone(pair: faults.Pair) -> None:
    pair[2].mkdir()
    (pair[2] / "notes.txt").write_text("mine")
    refused(
        pair, f"{pair[2]}: is not empty (1 entry: notes.txt)",
        "Choose another folder, or pass --overwrite.",
    )  # fmt: skip


def test_an_empty_out_is_used(pair: faults.Pair) -> None:
    expected = faults.undisturbed(pair)
    pair[2].mkdir()
    done(faults.restore(*pair))
    assert faults.contents(pair[2]) == expected
    assert faults.leftovers(pair[2]) == ["out"]


@pytest.mark.parametrize(
    "spelling", ["out/", "./out", "../work/out", ".", "ünïcödé 目录 😀", "-out"]
)
def test_out_may_be_spelt_in_any_way(
    spelling: str, pair: faults.Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = faults.undisturbed(pair)
    work = pair[2].parent / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    done(faults.uvmerge("restore", *faults.RESTORE, "--", "../base", "../finetuned", spelling))
    assert faults.contents(Path(os.path.abspath(work / spelling))) == expected
    assert sorted(os.listdir("..")) == ["base", "finetuned", "undisturbed", "work"]


def test_an_out_that_is_the_parent_folder_is_left_alone(
    pair: faults.Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a" / "work").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "a" / "work")
    outcome = faults.uvmerge("restore", *pair[:2], "..")
    failed(outcome, "is not empty (1 entry: work)", code=3)
    assert faults.tree(tmp_path / "a").keys() == {"work"}


def test_an_out_that_links_to_an_empty_folder_is_filled(pair: faults.Pair, tmp_path: Path) -> None:
    expected = faults.undisturbed(pair)
    (tmp_path / "elsewhere").mkdir()
    pair[2].symlink_to("elsewhere")
    done(faults.restore(*pair))
    assert faults.contents(pair[2]) == expected
    assert faults.leftovers(pair[2]) == ["out"]


def test_an_out_that_is_a_mount_point_is_refused_before_anything_is_computed(
    pair: faults.Pair,
) -> None:
    """A folder cannot be renamed onto one: `docker run -v …:/out uvmerge restore … /out`."""
    pair[2].mkdir()
    real = os.path.ismount
    with mock.patch("os.path.ismount", lambda path: Path(path) == pair[2] or real(path)):
        refused(pair, f"{pair[2]}: is a mount point", code=2)


# --overwrite


def test_overwrite_replaces_an_output_of_uvmerge(pair: faults.Pair) -> None:
    expected = faults.undisturbed(pair)
    done(faults.restore(*pair[:2], pair[2], "--alpha", "0.5"))
    assert faults.contents(pair[2]) != expected
    done(faults.restore(*pair, "--overwrite"))
    assert faults.contents(pair[2]) == expected
    assert faults.leftovers(pair[2]) == ["out"]


def test_overwrite_keeps_a_foreign_folder_aside_and_says_where(pair: faults.Pair) -> None:
    pair[2].mkdir()
    (pair[2] / "thesis.txt").write_text("mine")
    pair[2].with_name("out.uvmerge-old-1").write_text("also mine")
    outcome = done(faults.restore(*pair, "--overwrite"))
    aside = pair[2].with_name("out.uvmerge-old-2")
    assert f"which is now {aside}" in outcome
    assert faults.contents(aside) == {"thesis.txt": b"mine"}
    assert faults.leftovers(pair[2]) == ["out", "out.uvmerge-old-1", "out.uvmerge-old-2"]


@pytest.mark.parametrize("change", ["added", "added below", "edited", "link", "empty folder"])
def test_overwrite_never_deletes_what_someone_else_put_into_an_output(
    change: str, pair: faults.Pair
) -> None:
    done(faults.restore(*pair))
    if change == "added":
        (pair[2] / "eval.json").write_text("mine")
    elif change == "added below":
        (pair[2] / "evals").mkdir()
        (pair[2] / "evals" / "1.json").write_text("mine")
    elif change == "edited":
        (pair[2] / "config.json").write_text("mine")
    elif change == "link":
        (pair[2] / "evals").symlink_to(pair[0])
    else:
        (pair[2] / "evals").mkdir()
    before = {name: entry[2:] for name, entry in faults.tree(pair[2]).items()}
    done(faults.restore(*pair, "--overwrite"))
    aside = pair[2].with_name("out.uvmerge-old-1")
    assert aside.is_dir()
    assert {name: entry[2:] for name, entry in faults.tree(aside).items()} == before


def test_overwrite_of_a_foreign_folder_with_a_forged_manifest_deletes_nothing(
    pair: faults.Pair,
) -> None:
    pair[2].mkdir()
    (pair[2] / "thesis.txt").write_text("mine")
    (pair[2] / "uvmerge.json").write_text(json.dumps({"files": {"thesis.txt": {"bytes": 3}}}))
    done(faults.restore(*pair, "--overwrite"))
    aside = pair[2].with_name("out.uvmerge-old-1")
    assert (aside / "thesis.txt").read_text() == "mine"


@pytest.mark.parametrize("manifest", ["", "[]", '{"files": []}', '{"files": {"a": 1}}', "\x80"])
def test_overwrite_copes_with_a_broken_manifest(manifest: str, pair: faults.Pair) -> None:
    expected = faults.undisturbed(pair)
    done(faults.restore(*pair))
    (pair[2] / "uvmerge.json").write_text(manifest)
    done(faults.restore(*pair, "--overwrite"))
    assert faults.contents(pair[2]) == expected
    assert faults.leftovers(pair[2]) == ["out", "out.uvmerge-old-1"]


def test_overwrite_of_a_link_leaves_what_it_points_to(pair: faults.Pair, tmp_path: Path) -> None:
    expected = faults.undisturbed(pair)
    done(faults.restore(*pair[:2], tmp_path / "elsewhere"))
    pair[2].symlink_to("elsewhere")
    done(faults.restore(*pair, "--overwrite"))
    assert faults.contents(pair[2]) == expected


def test_a_refused_overwrite_leaves_the_old_output(pair: faults.Pair) -> None:
    done(faults.restore(*pair))
    os.truncate(pair[1] / zoo.SINGLE, 500)
    refused(pair, "claims a header of", options=("--overwrite",))


def test_a_failed_overwrite_leaves_the_old_output(pair: faults.Pair) -> None:
    done(faults.restore(*pair))
    before = faults.contents(pair[2])
    with faults.full_disk(after=5):
        assert faults.restore(*pair, "--overwrite").code == 1
    assert faults.contents(pair[2]) == before


# Modes


@pytest.mark.parametrize(
    ("umask", "file", "folder"), [(0o022, 0o644, 0o755), (0o077, 0o600, 0o700)]
)
def test_modes_follow_the_umask(umask: int, file: int, folder: int, tmp_path: Path) -> None:
    before = os.umask(umask)
    try:
        pair = faults.pair(tmp_path, shards=2)
        (pair[1] / "chat_templates").mkdir()
        (pair[1] / "chat_templates" / "tool.jinja").write_text("x")
        for path in (pair[1] / "config.json", pair[1] / "chat_templates" / "tool.jinja"):
            path.chmod(0o400)
        done(faults.restore(*pair))
    finally:
        os.umask(before)
    modes = {p.relative_to(pair[2]): stat.S_IMODE(p.stat().st_mode) for p in pair[2].rglob("*")}
    assert len(modes) == 8
    assert modes.pop(Path("chat_templates")) == stat.S_IMODE(pair[2].stat().st_mode) == folder
    assert set(modes.values()) == {file}


# Room on the disk


def test_a_disk_that_is_too_small_is_refused_with_the_missing_bytes(pair: faults.Pair) -> None:
    wanted = sum(path.stat().st_size for path in pair[1].iterdir())
    with mock.patch("shutil.disk_usage", return_value=mock.Mock(free=1000)):
        refused(
            pair,
            f"{pair[2].parent}: the output needs {wanted / 1000:.3g} KB ({wanted:,} bytes),"
            f" the disk is {wanted - 1000:,} bytes short", "Make room, or choose another disk.",
        )  # fmt: skip


def test_a_disk_that_is_just_large_enough_is_accepted(pair: faults.Pair) -> None:
    wanted = sum(path.stat().st_size for path in pair[1].iterdir())
    with mock.patch("shutil.disk_usage", return_value=mock.Mock(free=wanted)):
        done(faults.restore(*pair))


def test_what_an_unfinished_run_has_written_counts_as_room(pair: faults.Pair) -> None:
    with faults.full_disk(after=12):
        assert faults.restore(*pair).code == 1
    wanted = sum(path.stat().st_size for path in pair[1].iterdir())
    written = sum(p.stat().st_blocks * 512 for p in faults.staging(pair[2]).rglob("*.safetensors"))
    assert written > 0
    with mock.patch("shutil.disk_usage", return_value=mock.Mock(free=max(0, wanted - written))):
        done(faults.restore(*pair))


def test_a_full_disk_says_what_to_do_and_the_run_resumes(pair: faults.Pair) -> None:
    expected = faults.undisturbed(pair)
    with faults.full_disk(after=8):
        outcome = faults.restore(*pair)
    failed(
        outcome, f"error: {zoo.SINGLE}: the disk is full (",
        "What is finished is kept: make room and run the same command again to resume.", code=1,
    )  # fmt: skip
    assert not pair[2].exists()
    assert len(faults.pieces(pair[2])) > 0
    done(faults.restore(*pair))
    assert faults.contents(pair[2]) == expected
    assert faults.leftovers(pair[2]) == ["out"]


def test_a_disk_that_fills_up_anywhere_is_one_error_and_the_run_resumes(tmp_path: Path) -> None:
    pair = faults.pair(tmp_path, shards=2)
    expected = faults.undisturbed(pair)
    with faults.full_disk(after=10**9) as calls:
        done(faults.restore(*pair))
    problems = []
    for after in range(calls[0]):
        out = tmp_path / f"out-{after}"
        with faults.full_disk(after):
            try:
                outcome = faults.restore(*pair[:2], out)
                failed(outcome, "disk is full", code=1)
            except (OSError, AssertionError) as error:
                problems.append(f"call {after}: {type(error).__name__}: {error}")
        if not out.exists():
            done(faults.restore(*pair[:2], out))
        if faults.contents(out) != expected:
            problems.append(f"call {after}: other bytes than an undisturbed run")
    assert problems == []


@pytest.mark.parametrize("lines", [0, 1, 5])
def test_a_disk_too_full_for_the_journal_is_one_error_and_the_run_resumes(
    lines: int, pair: faults.Pair
) -> None:
    from uvmerge.output.writer import Staging

    expected, real, calls = faults.undisturbed(pair), Staging._log, []

    def log(self: Staging, line: dict[str, object]) -> None:
        if len(calls) == lines:
            self._journal_file.close()
            self._journal_file = open("/dev/full", "a", encoding="utf-8")  # noqa: SIM115
        calls.append(line)
        real(self, line)

    with mock.patch.object(Staging, "_log", log):
        failed(faults.restore(*pair), "disk is full", code=1)
    assert not pair[2].exists()
    done(faults.restore(*pair))
    assert faults.contents(pair[2]) == expected


def limited_child(log: Path, limit: int, *arguments: object) -> None:
    import resource

    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
    faults.child(log, *arguments)


@pytest.mark.parametrize("limit", [0, 64, 500, 5000])
def test_a_limit_on_file_sizes_is_one_error_and_the_run_resumes(
    limit: int, pair: faults.Pair
) -> None:
    expected, log = faults.undisturbed(pair), pair[2].parent / "log"
    os.mkfifo(log)  # what goes through a pipe is not limited
    process = faults.start(limited_child, log, limit, "restore", *pair, *faults.RESTORE)
    said = log.read_text()
    process.join()
    assert process.exitcode == 1, said
    assert said.count("error: ") == 1, said
    assert "Traceback" not in said
    assert not pair[2].exists()
    done(faults.restore(*pair))
    assert faults.contents(pair[2]) == expected


# Locks


def running(pair: faults.Pair, pause_s: float = 0.2) -> BaseProcess:
    """A run that takes a while and holds its lock already."""
    log = pair[2].parent / "log"
    process = faults.start(faults.slow_child, log, pause_s, "restore", *pair, *faults.RESTORE)
    faults.wait_for(lambda: lock(pair[2]).exists() and lock(pair[2]).read_text(), "the lock")
    return process


@pytest.mark.parametrize("options", [(), ("--overwrite",), ("--alpha", "0.5", "--overwrite")])
def test_a_second_run_is_turned_away_and_the_first_is_not_disturbed(
    options: tuple[str, ...], pair: faults.Pair
) -> None:
    expected = faults.undisturbed(pair)
    process = running(pair)
    outcome = faults.restore(*pair, *options)
    failed(
        outcome, f"{lock(pair[2])}: process {process.pid} on this host is writing to this output",
        "Wait for it.", code=1,
    )  # fmt: skip
    process.join()
    assert process.exitcode == 0
    assert faults.contents(pair[2]) == expected
    assert faults.leftovers(pair[2]) == ["out"]


def test_the_lock_of_a_killed_run_is_taken_over(pair: faults.Pair) -> None:
    expected = faults.undisturbed(pair)
    process = running(pair)
    process.kill()
    process.join()
    assert lock(pair[2]).exists()
    done(faults.restore(*pair))
    assert faults.contents(pair[2]) == expected
    assert faults.leftovers(pair[2]) == ["out"]


def owner(**changes: object) -> str:
    return json.dumps({"host": socket.gethostname(), "pid": os.getpid(), "started": "1"} | changes)


def test_the_lock_of_a_process_whose_number_is_used_again_is_taken_over(pair: faults.Pair) -> None:
    lock(pair[2]).write_text(owner())
    done(faults.restore(*pair))
    assert faults.leftovers(pair[2]) == ["out"]


def test_the_lock_of_another_host_is_explained_and_kept(pair: faults.Pair) -> None:
    lock(pair[2]).write_text(owner(host="node-17", pid=4242))
    before = faults.tree(pair[2].parent)
    failed(
        faults.restore(*pair),
        f"{lock(pair[2])}: process 4242 on host node-17 is writing to this output",
        "If that run is gone, delete the lock file and run again.", code=1,
    )  # fmt: skip
    assert faults.tree(pair[2].parent) == before


@pytest.mark.parametrize(
    "content",
    ["", "{}", "[]", "7", "null", "\x80", "not JSON", owner(pid="7"),
     owner(pid=10**30), owner(pid=None), owner(pid=[1]), owner(pid="../../etc"),
     owner(pid=1.5), owner(host=None, pid="\x1b[2J")],
)  # fmt: skip
def test_a_lock_that_names_no_owner_is_explained_and_kept(content: str, pair: faults.Pair) -> None:
    lock(pair[2]).write_text(content)
    before = faults.tree(pair[2].parent)
    outcome = faults.restore(*pair)
    failed(outcome, f"{lock(pair[2])}: ", "delete the", code=1)
    assert "\x1b" not in outcome.err
    assert faults.tree(pair[2].parent) == before


@pytest.mark.parametrize("what", ["folder", "pipe", "link", "dangling link", "device"])
def test_what_is_no_file_in_place_of_the_lock_is_refused_at_once(
    what: str, pair: faults.Pair
) -> None:
    place, home = lock(pair[2]), pair[2].parent / "home"
    home.write_text(owner(started="1"))  # a lock that would be stale
    if what == "folder":
        place.mkdir()
    elif what == "pipe":
        os.mkfifo(place)
    else:
        place.symlink_to({"link": home, "device": "/dev/zero"}.get(what, "nowhere"))
    before = faults.tree(pair[2].parent)
    with faults.at_most(20):
        outcome = faults.restore(*pair)
    failed(outcome, f"{place}: is in the place of the lock file", "Move it away", code=3)
    assert faults.tree(pair[2].parent) == before
    assert home.read_text() == owner(started="1")


def test_a_held_output_is_refused_before_any_value_is_read(pair: faults.Pair) -> None:
    with (
        uvmerge_lock.locked(lock(pair[2])),
        mock.patch("uvmerge.engine.compute.editor", side_effect=AssertionError),
    ):
        failed(faults.restore(*pair), f"process {os.getpid()} on this host is writing", code=1)


def test_a_read_only_output_is_refused_before_the_work(pair: faults.Pair) -> None:
    done(faults.restore(*pair))
    real = os.access
    with mock.patch("os.access", lambda path, mode: Path(path) != pair[2] and real(path, mode)):
        refused(pair, f"{pair[2]}: is read-only", options=("--overwrite",))


def test_the_lock_of_a_zombie_is_taken_over(pair: faults.Pair) -> None:
    """A killed run that its parent has not yet waited for, as in a container without init."""
    ended = subprocess.Popen(["true"])
    stat_file = Path(f"/proc/{ended.pid}/stat")
    faults.wait_for(lambda: ") Z " in stat_file.read_text(), "the end")
    started = stat_file.read_text().rpartition(")")[2].split()[19]
    lock(pair[2]).write_text(owner(pid=ended.pid, started=started))
    done(faults.restore(*pair))
    ended.wait()
    assert faults.leftovers(pair[2]) == ["out"]


def test_the_lock_of_another_container_is_explained_and_kept(pair: faults.Pair) -> None:
    """Its processes have other numbers here: number 7 there may be nobody here."""
    content = json.dumps(uvmerge_lock.owner() | {"pid_namespace": "pid:[1]", "pid": 2**22 - 1})
    lock(pair[2]).write_text(content)
    failed(
        faults.restore(*pair), "on host", "in another container, is writing to this output",
        "If that run is gone, delete the lock file and run again.", code=1,
    )  # fmt: skip
    assert lock(pair[2]).read_text() == content


@pytest.mark.parametrize(("namespace", "code"), [("pid:[4026531836]", 0), ("pid:[9]", 1)])
def test_a_lock_from_before_a_reboot_is_taken_over_outside_of_containers(
    namespace: str, code: int, pair: faults.Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A container of the same name and namespace may run on another machine."""
    monkeypatch.setattr(uvmerge_lock, "_namespace", lambda: namespace)
    lock(pair[2]).write_text(json.dumps(uvmerge_lock.owner() | {"boot": "before"}))
    assert faults.restore(*pair).code == code


def test_a_lock_is_whole_from_the_first_moment(tmp_path: Path) -> None:
    seen = []

    def link(*places: str, **options: object) -> None:
        real(*places, **options)  # type: ignore[arg-type]
        seen.append(json.loads((tmp_path / "lock").read_text()))

    real = os.link
    with mock.patch("os.link", link), uvmerge_lock.locked(tmp_path / "lock"):
        assert os.listdir(tmp_path) == ["lock"]
    assert seen == [uvmerge_lock.owner()]
    assert os.listdir(tmp_path) == []


def test_a_disk_without_hard_links_is_locked_too(tmp_path: Path) -> None:
    error = OSError(errno.EPERM, "Operation not permitted")
    with mock.patch("os.link", side_effect=error), uvmerge_lock.locked(tmp_path / "lock"):
        with pytest.raises(uvmerge.Locked, match="is writing"):
            uvmerge_lock.locked(tmp_path / "lock").__enter__()
        assert os.listdir(tmp_path) == ["lock"]
    assert os.listdir(tmp_path) == []


def test_what_a_killed_run_wrote_beside_its_lock_is_removed(pair: faults.Pair) -> None:
    for name, content in (("0a1b2c3d", ""), ("0a1b2c3e", owner()), ("0a1b2c3f", "mine")):
        lock(pair[2]).with_name(f"out.uvmerge-lock.{name}").write_text(content)
    done(faults.restore(*pair))
    assert faults.leftovers(pair[2]) == ["out", "out.uvmerge-lock.0a1b2c3f"]


def test_a_run_whose_lock_was_given_to_another_one_leaves_it(tmp_path: Path) -> None:
    with uvmerge_lock.locked(tmp_path / "lock"):
        (tmp_path / "lock").write_text(owner(host="node-17"))
    assert (tmp_path / "lock").read_text() == owner(host="node-17")


@pytest.mark.parametrize("stale", [False, True])
def test_of_several_runs_at_once_one_writes(stale: bool, pair: faults.Pair) -> None:
    expected, log = faults.undisturbed(pair), pair[2].parent / "log"
    if stale:
        lock(pair[2]).write_text(owner(pid=2**22 - 1))
    arguments = ("restore", *pair, *faults.RESTORE)
    processes = [faults.start(faults.slow_child, log, 0.05, *arguments) for _ in range(5)]
    for process in processes:
        process.join()
    codes = sorted(process.exitcode or 0 for process in processes)
    assert codes[0] == 0, log.read_text()
    assert set(codes[1:]) <= {0, 1, 3}, codes  # 0: finished already; 3: it has just come
    assert faults.contents(pair[2]) == expected
    assert faults.leftovers(pair[2]) == ["out"]
    assert "Traceback" not in log.read_text()


# The way there


def test_inputs_are_never_written_to(tmp_path: Path) -> None:
    pair = faults.pair(tmp_path, shards=2)
    before = faults.tree(pair[0]), faults.tree(pair[1])
    done(faults.restore(*pair))
    assert (faults.tree(pair[0]), faults.tree(pair[1])) == before


def test_nothing_is_left_beside_a_finished_output(pair: faults.Pair) -> None:
    done(faults.restore(*pair))
    assert sorted(os.listdir(pair[2].parent)) == ["base", "finetuned", "out"]


def test_a_dry_run_writes_nothing(pair: faults.Pair) -> None:
    before = faults.tree(pair[2].parent)
    assert done(faults.restore(*pair, "--dry-run")).out.startswith("plan: 6 matrices edited")
    assert faults.tree(pair[2].parent) == before


@pytest.mark.parametrize("size", ["0", "-1", "nan", "5XB", "1e9", ""])
def test_a_shard_size_that_is_none_is_refused(size: str, pair: faults.Pair) -> None:
    outcome = faults.restore(*pair, f"--max-shard-size={size}")
    assert outcome.code == 2, outcome
    assert faults.leftovers(pair[2]) == []


def test_a_shard_size_of_one_byte_makes_a_file_per_tensor(pair: faults.Pair) -> None:
    done(faults.restore(*pair, "--max-shard-size", "1B"))
    assert len(list(pair[2].glob("*.safetensors"))) == 12
    assert zoo.tensors(pair[2]).keys() == zoo.tensors(pair[1]).keys()


def test_a_pair_without_anything_to_compute_needs_no_torch(pair: faults.Pair) -> None:
    code = "import sys; from uvmerge.cli import main; sys.modules['torch'] = None; main.main()"
    arguments = [sys.executable, "-c", code, "reset-layers", *map(str, pair)]
    result = subprocess.run(arguments, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert torch.equal(*(zoo.tensors(f)[faults.Q.format(0)] for f in (pair[0], pair[2])))
