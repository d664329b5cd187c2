"""What goes wrong around a report: folders, disks, kills, prompts, and what is said then."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import faults
import pytest
import torch
from command import process
from hub_server import COMMIT, serving

import uvmerge
from uvmerge.api import diff as comparison
from uvmerge.engine import measuring
from uvmerge.engine.settings import Control

NAMES = faults.REPORT


@pytest.fixture
def pair(tmp_path: Path) -> faults.Pair:
    return faults.pair(tmp_path)


@pytest.fixture
def unmeasured(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is measured: what can be refused before has to be."""

    def run(*_: Any) -> Any:
        raise AssertionError("measured")

    monkeypatch.setattr(measuring, "run", run)


def diff(pair: faults.Pair, *options: object) -> faults.Outcome:
    return faults.uvmerge("diff", *pair[:2], *options)


# --- folders -----------------------------------------------------------------------------------


@pytest.mark.parametrize("option", ["--out", "--figures"])
@pytest.mark.parametrize("where", ["file/report", "loop/report", "a" * 300, "readonly/report"])
@pytest.mark.usefixtures("unmeasured")
def test_a_folder_that_cannot_be_made_is_refused_at_once(
    option: str, where: str, pair: faults.Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("mine")
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "readonly").mkdir()
    monkeypatch.setattr(os, "access", lambda path, _: Path(path).name != "readonly")
    faults.failed(diff(pair, option, tmp_path / where), "", code=2)


@pytest.mark.parametrize("option", ["--figures", "--factors"])
@pytest.mark.usefixtures("unmeasured")
def test_a_report_shares_its_folder_with_nothing_else(
    option: str, pair: faults.Pair, tmp_path: Path
) -> None:
    outcome = diff(pair, "--out", tmp_path / "one", option, tmp_path / "one")
    faults.failed(outcome, "is the", code=2)


def test_factors_without_a_name_are_a_usage_error(pair: faults.Pair) -> None:
    faults.failed(diff(pair, "--factors", ""), "is empty", code=2)


def test_a_report_of_a_run_is_not_put_among_factors(pair: faults.Pair, tmp_path: Path) -> None:
    one = tmp_path / "one"
    faults.failed(faults.restore(*pair, "--report", one, "--factors", one), "is the", code=2)
    assert not pair[2].exists()


# --- disks and kills ---------------------------------------------------------------------------


@pytest.mark.parametrize("option", ["--out", "--figures"])
def test_a_disk_that_is_full_is_said_without_a_promise(
    option: str, pair: faults.Pair, tmp_path: Path
) -> None:
    with faults.full_disk(after=0):
        outcome = diff(pair, option, tmp_path / "report")
    faults.failed(outcome, "the disk is full", "ake room and run the same command again.", code=1)
    assert "resume" not in outcome and "kept" not in outcome
    assert not (tmp_path / "report").exists()


@pytest.mark.parametrize("whole", [0, 1, 2])
@pytest.mark.parametrize("at", ["write", "sync"])
def test_no_file_of_a_report_is_half_written(
    whole: int, at: str, pair: faults.Pair, tmp_path: Path
) -> None:
    with faults.full_disk(after=1 + 2 * whole + (at == "sync")):  # after the folder is made
        assert diff(pair, "--out", tmp_path / "report").code == 1
    assert len(list((tmp_path / "report").iterdir())) == whole


def test_what_a_kill_leaves_is_not_in_the_way(pair: faults.Pair, tmp_path: Path) -> None:
    folder = tmp_path / "report"
    for before in range(1, 5):
        process = faults.start(
            faults.killed_child, tmp_path / "log", before, tmp_path / "count",
            "diff", *pair[:2], "--out", folder, "-q",
        )  # fmt: skip
        process.join(60)
        left = {path.name: path for path in folder.iterdir()} if folder.exists() else {}
        assert all(json.loads(left[n].read_text()) for n in left if n == "report.json")
        if process.exitcode == 0:
            break
    faults.done(diff(pair, "--out", folder))
    assert sorted(path.name for path in folder.iterdir()) == NAMES


def test_a_report_that_fails_after_a_run_does_not_hide_the_run(
    pair: faults.Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: Any, **__: Any) -> Any:
        raise uvmerge.InputRefused("selection", "nothing selected")

    monkeypatch.setattr(comparison, "compare", fails)
    outcome = faults.restore(*pair, "--report", tmp_path / "report")
    said = (
        f"{pair[2]} is finished; for the report: uvmerge diff {pair[0]} {pair[1]} {pair[2]} --out"
    )
    faults.failed(outcome, "could not be made: selection: nothing selected", said, code=1)
    assert (pair[2] / "uvmerge.json").exists()


def test_a_stop_while_a_run_is_reported_does_not_hide_the_run(
    pair: faults.Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    control = Control()
    monkeypatch.setattr(measuring, "work_of", lambda *_: control.stop.set() or 1.0)  # type: ignore[func-returns-value]
    with pytest.raises(uvmerge.Interrupted, match="is finished") as stopped:
        uvmerge.restore(*pair, top=0.2, report=tmp_path / "report", control=control)
    assert stopped.value.exit_code == 130 and "Nothing was written" not in str(stopped.value)
    assert (pair[2] / "uvmerge.json").exists() and not (tmp_path / "report").exists()


# --- streams -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("closing", "code", "said"),
    [(">&-", 0, ""), ("2>&-", 0, ""), (">/dev/full", 1, "error: output: cannot be"),
     ("| head -c 1", 0, "")],
)  # fmt: skip
def test_streams_that_are_closed_or_full_make_no_traceback(
    closing: str, code: int, said: str, pair: faults.Pair
) -> None:
    command = f'"{sys.executable}" -m uvmerge diff base finetuned --json {closing}'
    done = subprocess.run(command, shell=True, capture_output=True, text=True, cwd=pair[0].parent)
    assert done.returncode == code and said in done.stderr and "Traceback" not in done.stderr
    assert "measuring" not in done.stdout


@pytest.mark.hub
def test_quiet_is_quiet_about_downloads_and_a_report_measures_what_was_edited(
    pair: faults.Pair, tmp_path: Path
) -> None:
    out, report = tmp_path / "out", tmp_path / "report"
    with serving({"org/base": pair[0], "org/sft": pair[1]}) as hub:
        environment = {
            "HF_ENDPOINT": hub.address,
            "HF_HOME": str(tmp_path / "hf"),
            "HF_HUB_OFFLINE": "0",
        }
        words = ("restore", "org/base", "org/sft", out, "--top", "0.2", "--report", report, "-q")
        done = process(*words, environment=environment)
    assert (done.code, done.err) == (0, "")
    assert sum(line.endswith("/org/sft/revision/main") for line in hub.asked) <= 1
    first = json.loads((report / "report.json").read_text())["checkpoints"][0]
    assert (first["reference"], first["commit"]) == ("org/sft", COMMIT)


def test_a_stop_says_that_factors_are_kept(pair: faults.Pair, tmp_path: Path) -> None:
    control = Control()
    control.stop.set()
    with pytest.raises(uvmerge.Interrupted, match="goes on from there"):
        uvmerge.diff(*pair[:2], factors=tmp_path / "factors", control=control)


def test_json_says_that_names_are_unrelated(tmp_path: Path) -> None:
    odd = {
        n.replace("q_proj", "a").replace("down_proj", "b"): t for n, t in faults.tensors().items()
    }
    base, other, _ = faults.pair_of(tmp_path, faults.tensors(), odd)
    outcome = faults.uvmerge("diff", base, other, "--json")
    assert outcome.code == 4 and "nothing matched: the base has no 6 selected tensors" in outcome
    data = json.loads(outcome.out)
    assert data["verdict"] == "unrelated" and "nothing matched" in data["reason"]


# --- values ------------------------------------------------------------------------------------


def test_an_integer_in_the_base_is_noted(pair: faults.Pair) -> None:
    faults.write(
        pair[0], faults.tensors() | {faults.Q.format(0): torch.ones(16, 16).to(torch.int8)}
    )
    notes = uvmerge.diff(*pair[:2]).compared[0].notes
    assert any("F32 against I8 in the base" in note for note in notes)


def test_singular_values_beyond_float64_are_refused_by_name(tmp_path: Path) -> None:
    huge = {n: t.double().sign() * 1e308 for n, t in faults.tensors().items()}
    base, finetuned, _ = faults.pair_of(tmp_path, huge, {n: t / 2 for n, t in huge.items()})
    outcome = faults.uvmerge("diff", base, finetuned)
    sentence = "its singular values, or those of a counterpart, are beyond the range of float64"
    faults.failed(outcome, "model.layers.", sentence, "--exclude", code=1)


def test_a_measure_that_does_not_converge_names_the_matrix(
    pair: faults.Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: torch.Tensor) -> None:
        raise torch.linalg.LinAlgError("svdvals: did not converge")  # type: ignore[attr-defined]

    monkeypatch.setattr(torch.linalg, "svdvals", fail)
    outcome = faults.uvmerge("diff", *pair[:2])
    faults.failed(outcome, "model.layers.", "svdvals: did not converge", "--exclude", code=1)


def test_a_cosine_that_rounding_swamps_is_none(tmp_path: Path) -> None:
    tiny = {n: t * 1e-30 for n, t in faults.tensors().items()}
    base, finetuned, _ = faults.pair_of(tmp_path, tiny, faults.tuned(faults.tensors()))
    for entry in uvmerge.diff(base, finetuned).compared[0].measured:
        assert entry.measures is not None and math.isnan(entry.measures.change.cosine)


def test_integers_are_compared_piece_by_piece(
    pair: faults.Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    from uvmerge.checkpoint.folder import Checkpoint

    monkeypatch.setattr(measuring, "PIECE_BYTES", 1000)
    mask = torch.zeros(5000, dtype=torch.int8)
    changed = mask.clone()
    changed[-1] = 1
    extra = {"same": mask, "other": mask}
    faults.write(pair[0], faults.tensors() | extra)
    faults.write(pair[1], faults.tuned(faults.tensors()) | extra | {"other": changed})
    real, most = Checkpoint.read, [0]

    def read(self: Checkpoint, file: str, offset: int, size: int) -> Any:
        most[0] = max(most[0], size)
        return real(self, file, offset, size)

    monkeypatch.setattr(Checkpoint, "read", read)
    others = {o.name: o.relative for o in uvmerge.diff(*pair[:2]).compared[0].others}
    assert (others["same"], others["other"]) == (0.0, None)
    assert most[0] < 5000


# --- prompts -----------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/proc/self/mem", "a" * 300, ""])
def test_prompts_that_cannot_be_read_are_a_usage_error(path: str, pair: faults.Pair) -> None:
    faults.failed(diff(pair, "--kl", path), code=2)


@pytest.mark.usefixtures("unmeasured")
def test_models_that_cannot_be_run_are_refused_before_anything_is_measured(
    pair: faults.Pair, tmp_path: Path
) -> None:
    (tmp_path / "prompts.jsonl").write_text('"hello"\n')
    faults.failed(diff(pair, "--kl", tmp_path / "prompts.jsonl"), "has no tokenizer", code=3)


# --- many, and twice ---------------------------------------------------------------------------


@pytest.mark.parametrize(("layers", "checkpoints"), [(3, 12), (120, 1)])
def test_the_summary_of_many_fits_a_screen(layers: int, checkpoints: int, tmp_path: Path) -> None:
    config = faults.CONFIG | {"num_hidden_layers": layers}
    base, finetuned, _ = faults.pair(tmp_path, layers=layers, hidden=4, config=config)
    lines = faults.done(faults.uvmerge("diff", base, *checkpoints * [finetuned])).out.splitlines()
    assert len(lines) <= 45 and max(map(len, lines)) <= 100


def test_a_base_tensor_is_compared_once_and_the_other_is_noted(tmp_path: Path) -> None:
    tuned = faults.tuned(faults.tensors())
    twice = {f"language.{name}": t for name, t in tuned.items()} | {faults.HEAD: tuned[faults.HEAD]}
    base, finetuned, _ = faults.pair_of(tmp_path, faults.tensors(), twice)
    found = uvmerge.diff(base, finetuned, modules="head").compared[0]
    assert len(found.entries) == 1
    said = f"language.{faults.HEAD} (its counterpart is that of another tensor)"
    assert any(said in note for note in found.notes)


def test_a_file_that_cannot_be_written_whole_leaves_the_old_one_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from uvmerge.output import manifest

    target = tmp_path / "report.html"
    target.write_bytes(b"old")
    real = os.pwrite

    def half(descriptor: int, content: bytes, offset: int) -> int:
        real(descriptor, content[: len(content) // 2], offset)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "pwrite", half)
    with pytest.raises(OSError, match="No space left"):
        manifest.write_whole(target, b"new content")
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]
    assert target.read_bytes() == b"old"
