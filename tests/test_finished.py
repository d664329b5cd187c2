"""An output that is there already: recognised where it is this command's and whole, and only there."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import faults
import pytest
import zoo
from faults import done, failed

import uvmerge
from uvmerge.output import publishing

SAID = "was there already: the whole output of this command"


@pytest.fixture
def pair(tmp_path: Path) -> faults.Pair:
    made = faults.pair(tmp_path)
    (made[1] / "tokenizer.json").write_text("{}")
    done(faults.restore(*made))
    return made


def test_the_same_command_on_a_whole_output_says_so_and_writes_nothing(pair: faults.Pair) -> None:
    before = faults.tree(pair[2].parent)
    with mock.patch("uvmerge.engine.compute.Editor._edit", side_effect=AssertionError):
        outcome = done(faults.restore(*pair), SAID)
    assert outcome.out == f"{pair[2]}\n"
    assert faults.tree(pair[2].parent) == before


def test_python_and_json_get_what_the_run_did(pair: faults.Pair) -> None:
    result = uvmerge.restore(*pair, top=0.25)
    edited = json.loads((pair[2] / "uvmerge.json").read_text())["edited"]
    assert result.was_there and result.out == pair[2] and dict(result.edits) == edited
    shown = json.loads(faults.restore(*pair, "--json", "--quiet").out)
    assert shown["was_there"] and shown["edits"] == edited


def test_files_that_were_added_do_not_matter(pair: faults.Pair) -> None:
    (pair[2] / "eval.json").write_text("mine")
    done(faults.restore(*pair), SAID)
    assert (pair[2] / "eval.json").read_text() == "mine"


def test_what_is_missing_or_changed_is_named(pair: faults.Pair) -> None:
    (pair[2] / "tokenizer.json").unlink()
    with (pair[2] / zoo.SINGLE).open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        file.write(b"\0")
    expected, before = faults.undisturbed(pair), faults.tree(pair[2].parent)
    words = ["but not whole: ", "tokenizer.json is missing", f"{zoo.SINGLE} has other content"]
    failed(faults.restore(*pair), *words, "Pass --overwrite to make it again.", code=3)
    assert faults.tree(pair[2].parent) == before
    done(faults.restore(*pair, "--overwrite"))
    assert faults.contents(pair[2]) == expected


def touched(pair: faults.Pair) -> None:
    os.utime(pair[0] / zoo.SINGLE, ns=(2**62, 2**62))


def other_values(pair: faults.Pair) -> None:
    """Another fine-tuning of the same shapes, from before the output was made."""
    made = {name: tensor * 1.01 for name, tensor in faults.tuned(faults.tensors()).items()}
    faults.write(pair[1], made)
    os.utime(pair[1] / zoo.SINGLE, ns=(0, 0))


def other_side_file(pair: faults.Pair) -> None:
    (pair[1] / "tokenizer.json").write_text("[]")


def further_side_file(pair: faults.Pair) -> None:
    (pair[1] / "merges.txt").write_text("")


@pytest.mark.parametrize("change", [touched, other_values, other_side_file, further_side_file])
def test_an_output_of_other_inputs_is_not_taken_for_this_one(
    change: Callable[[faults.Pair], None], pair: faults.Pair
) -> None:
    change(pair)
    before = faults.tree(pair[2])
    failed(faults.restore(*pair), f"{pair[2]}: is not empty", "--overwrite", code=3)
    assert faults.tree(pair[2]) == before


@pytest.mark.parametrize(
    "options", [("--top", "0.5"), ("--alpha", "0.5"), ("--dtype", "float16"), ("--layers", "0"),
                ("--precision", "fast"), ("--max-shard-size", "4KB")]
)  # fmt: skip
def test_an_output_of_another_command_is_not_taken_for_this_one(
    options: tuple[str, ...], pair: faults.Pair
) -> None:
    failed(faults.restore(*pair, *options), f"{pair[2]}: is not empty", code=3)


def test_tensors_left_for_nan_count_only_where_they_may_be_left(tmp_path: Path) -> None:
    tensors = faults.tuned(faults.tensors())
    tensors[faults.Q.format(1)][0, 0] = float("nan")
    pair = faults.pair_of(tmp_path, faults.tensors(), tensors)
    done(faults.restore(*pair, "--nonfinite", "copy"))
    done(faults.restore(*pair, "--nonfinite", "copy"), SAID)
    failed(faults.restore(*pair), code=3)


def test_overwrite_makes_a_whole_output_again(pair: faults.Pair) -> None:
    before = pair[2].stat().st_ino
    outcome = done(faults.restore(*pair, "--overwrite"))
    assert SAID not in outcome and pair[2].stat().st_ino != before


def test_the_report_of_a_finished_output_can_be_made_later(pair: faults.Pair) -> None:
    done(faults.restore(*pair, "--report", pair[2].parent / "report"), SAID)
    assert (pair[2].parent / "report" / "report.html").exists()


# Killed while publishing


def killed(function: str, pair: faults.Pair, *options: str) -> None:
    """A run that ends, as by a kill, where it calls this function of `publishing`."""
    with mock.patch.object(publishing, function, side_effect=KeyboardInterrupt):
        assert faults.restore(*pair, *options).code == 130


@pytest.mark.parametrize("options", [(), ("--overwrite",)])
def test_killed_before_clearing_up_the_same_command_clears_up(
    options: tuple[str, ...], pair: faults.Pair
) -> None:
    base, finetuned, out = pair[0], pair[1], pair[2].with_name("o")
    expected = faults.undisturbed((base, finetuned, out))
    if options:
        done(faults.restore(base, finetuned, out, "--alpha", "0.5"))
    killed("clear_up", (base, finetuned, out), *options)
    assert faults.contents(out) == expected and len(faults.leftovers(out)) > 1
    done(faults.restore(base, finetuned, out, *options), SAID)
    assert faults.contents(out) == expected
    assert sorted(p.name for p in out.parent.iterdir() if p.name[:2] in ("o", "o.")) == ["o"]


def test_killed_before_clearing_up_the_old_folder_of_others_is_kept(pair: faults.Pair) -> None:
    (pair[2] / "thesis.txt").write_text("mine")
    killed("clear_up", pair, "--overwrite")
    outcome = done(faults.restore(*pair, "--overwrite"), SAID)
    aside = pair[2].with_name("out.uvmerge-old-1")
    assert f"which is now {aside}" in outcome
    assert (aside / "thesis.txt").read_text() == "mine"
    assert faults.leftovers(pair[2]) == ["out", "out.uvmerge-old-1"]


@pytest.mark.parametrize("options", [("--overwrite",), ("--overwrite", "--alpha", "0.5")])
def test_what_was_exchanged_is_never_taken_for_the_new_output(
    options: tuple[str, ...], pair: faults.Pair
) -> None:
    """After the kill somebody edits OUT, so that it is not recognised any more."""
    (pair[2] / "thesis.txt").write_text("mine")
    killed("clear_up", pair, "--overwrite")
    (pair[2] / "config.json").write_text("edited")
    done(faults.restore(*pair, *options))
    aside = [p for p in faults.leftovers(pair[2]) if (pair[2].parent / p / "thesis.txt").exists()]
    assert len(aside) == 1 and aside[0].startswith("out.uvmerge-old-")


def test_an_old_output_under_the_name_of_the_new_one_is_kept(tmp_path: Path) -> None:
    """The inode in the name may be in use again, after OUT was removed and another one was made."""
    out, root = tmp_path / "out", tmp_path / "out.uvmerge-partial-01234567"
    for folder, text in ((out, "second"), (root / "out", "new")):
        folder.mkdir(parents=True)
        (folder / "notes.txt").write_text(text)
    waiting = root / f"new-{(root / 'out').stat().st_ino}"
    waiting.mkdir()
    (waiting / "notes.txt").write_text("first")
    with publishing.opened(root) as tree:
        publishing.publish(tree, out, overwrite=True)
        publishing.clear_up(tree, out)
    found = {path.parent.name: path.read_text() for path in tmp_path.glob("*/notes.txt")}
    assert found.pop("out") == "new" and sorted(found.values()) == ["first", "second"]
    assert not root.exists()


@pytest.mark.parametrize("foreign", [False, True])
def test_without_an_exchange_the_old_output_is_moved_aside_first(
    foreign: bool, pair: faults.Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publishing, "exchanged", lambda *_: False)
    old = pair[2].with_name("o")
    done(faults.restore(*pair[:2], old, "--alpha", "0.5"))
    if foreign:
        (old / "thesis.txt").write_text("mine")
    real, calls = os.rename, []

    def rename(*places: str, **options: int) -> None:
        calls.append(places)
        if len(calls) == 3:  # the old output is aside, the new one not in its place
            raise KeyboardInterrupt
        real(*places, **options)

    run = (*pair[:2], old)
    with mock.patch("os.rename", rename):
        assert faults.restore(*run, "--overwrite").code == 130
    assert not old.exists()
    done(faults.restore(*run, "--overwrite"))
    assert faults.contents(old) == faults.undisturbed(pair)
    left = [name for name in faults.leftovers(old) if name.startswith("o.")]
    assert left == (["o.uvmerge-old-1"] if foreign else [])


def test_the_exchange_is_one_step_here(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "was").write_text(name)
    with publishing.Tree.at(tmp_path) as tree:
        if not publishing.exchanged(tree, "a", tree, "b"):
            pytest.skip("the disk cannot exchange two folders")
    assert [(tmp_path / name / "was").read_text() for name in ("a", "b")] == ["b", "a"]
