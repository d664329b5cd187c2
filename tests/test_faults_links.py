"""Links, strangers' folders and other things in the place of what uvmerge writes and removes."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import faults
import pytest
import zoo
from faults import done, failed

DO = "Look at it, move it away, and run again; uvmerge neither follows nor removes it."


@pytest.fixture
def unfinished(tmp_path: Path) -> Iterator[faults.Pair]:
    """An interrupted run, and `home`, a folder with a file of the user."""
    pair = faults.pair(tmp_path)
    (pair[1] / "chat_templates").mkdir()
    (pair[1] / "chat_templates" / "tool.jinja").write_text("x")
    with faults.full_disk(after=12):
        assert faults.restore(*pair).code == 1
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "mine.txt").write_text("mine")
    yield pair


@pytest.mark.parametrize("options", [(), ("--overwrite",)])
@pytest.mark.parametrize(
    "what", ["", "out", "journal.jsonl", "out/model.safetensors", "journal.jsonl.new", "thesis"]
)
def test_a_link_in_the_place_of_staging_is_neither_followed_nor_removed(
    what: str, options: tuple[str, ...], unfinished: faults.Pair, tmp_path: Path
) -> None:
    home = tmp_path / "home"
    place = faults.staging(unfinished[2]) / what
    if place.exists():
        place.rename(tmp_path / "aside")
    link = tmp_path / "link"
    link.symlink_to(home if what in ("", "out") else home / "mine.txt")
    link.rename(place)
    before = faults.tree(home)
    outcome = faults.restore(*unfinished, *options)
    failed(outcome, DO, code=3)
    assert str(faults.staging(unfinished[2])) in outcome.err
    assert faults.tree(home) == before and (home / "mine.txt").read_text() == "mine"
    assert place.is_symlink() and not unfinished[2].exists()


def test_links_in_the_place_of_side_files_are_replaced_and_not_followed(
    unfinished: faults.Pair, tmp_path: Path
) -> None:
    expected, out = faults.undisturbed(unfinished), faults.staging(unfinished[2]) / "out"
    (out / "config.json").symlink_to(tmp_path / "home" / "mine.txt")
    (out / "chat_templates").symlink_to(tmp_path / "home")
    done(faults.restore(*unfinished))
    assert faults.contents(unfinished[2]) == expected
    assert faults.contents(tmp_path / "home") == {"mine.txt": b"mine"}


def test_a_second_name_of_a_file_in_staging_is_not_written_to(
    unfinished: faults.Pair, tmp_path: Path
) -> None:
    """`cp -al` keeps a copy of the staging folder whose files are the same files."""
    weights = faults.staging(unfinished[2]) / "out" / zoo.SINGLE
    os.link(weights, tmp_path / "home" / "copy")
    before = (tmp_path / "home" / "copy").read_bytes()
    failed(faults.restore(*unfinished), zoo.SINGLE, DO, code=3)
    assert (tmp_path / "home" / "copy").read_bytes() == before


@pytest.mark.parametrize("kind", ["file", "folder", "pipe"])
def test_a_staging_folder_with_files_of_others_is_refused(
    kind: str, unfinished: faults.Pair
) -> None:
    place = faults.staging(unfinished[2]) / "thesis.txt"
    {"file": Path.touch, "folder": Path.mkdir, "pipe": os.mkfifo}[kind](place)
    failed(faults.restore(*unfinished), "thesis.txt does not belong there", DO, code=3)
    assert place.exists()


def test_files_in_a_staging_folder_without_a_journal_are_not_removed(
    unfinished: faults.Pair,
) -> None:
    root = faults.staging(unfinished[2])
    (root / "journal.jsonl").unlink()
    (root / "out" / "thesis.txt").write_text("mine")
    failed(faults.restore(*unfinished), "thesis.txt", code=1)
    assert (root / "out" / "thesis.txt").read_text() == "mine"


@pytest.mark.parametrize("options", [(), ("--overwrite",)])
def test_a_staging_folder_of_another_user_is_refused(
    options: tuple[str, ...], unfinished: faults.Pair
) -> None:
    before = faults.tree(unfinished[2].parent)
    with mock.patch("os.geteuid", return_value=os.geteuid() + 1):
        outcome = faults.restore(*unfinished, *options)
    failed(outcome, f"belongs to another user ({os.geteuid()})", code=3)
    assert faults.tree(unfinished[2].parent) == before


@pytest.mark.parametrize("options", [("--top", "0.5"), ("--top", "0.5", "--overwrite")])
def test_a_link_named_like_the_staging_folder_of_another_run_is_left_alone(
    options: tuple[str, ...], unfinished: faults.Pair, tmp_path: Path
) -> None:
    root = faults.staging(unfinished[2])
    root.rename(tmp_path / "aside")
    root.symlink_to(tmp_path / "aside")
    before = faults.tree(tmp_path / "aside")
    done(faults.restore(*unfinished, *options))
    assert root.is_symlink() and faults.tree(tmp_path / "aside") == before


@pytest.mark.parametrize(("mode", "expected"), [(0o1777, 0o700), (0o755, 0o755)])
def test_where_others_may_write_the_staging_folder_is_ours_alone(
    mode: int, expected: int, tmp_path: Path
) -> None:
    before = os.umask(0o022)
    try:
        tmp_path.chmod(mode)
        pair = faults.pair(tmp_path)
        with faults.full_disk(after=12):
            assert faults.restore(*pair).code == 1
        assert stat.S_IMODE(faults.staging(pair[2]).stat().st_mode) == expected
        faults.staging(pair[2]).chmod(0o777)
        done(faults.restore(*pair))
        assert stat.S_IMODE(pair[2].stat().st_mode) == 0o755
    finally:
        os.umask(before)


def test_a_link_beside_a_report_is_replaced_and_not_followed(tmp_path: Path) -> None:
    pair = faults.pair(tmp_path)
    (tmp_path / "mine.txt").write_text("mine")
    (tmp_path / "report").mkdir()
    (tmp_path / "report" / "report.json.new").symlink_to(tmp_path / "mine.txt")
    done(faults.uvmerge("diff", *pair[:2], "--out", tmp_path / "report"))
    assert (tmp_path / "mine.txt").read_text() == "mine"
    assert sorted(os.listdir(tmp_path / "report")) == faults.REPORT
