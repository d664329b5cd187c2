"""The study: its line, intervals and verdicts on planted numbers, its journal, and a mechanism at one seed."""

from __future__ import annotations

import csv
import importlib
import io
import itertools
import json
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from command import uv
from safetensors.torch import load_file

from uvmerge import demo
from uvmerge.errors import InputRefused, RunFailed, UsageError
from uvmerge.measure.situation import EVERYWHERE, Situation
from uvmerge.recipe import bundled as bundled_module
from uvmerge.recipe.advice import Advice
from uvmerge.study import (
    advice,
    comparison,
    docs,
    page as page_module,
    results as results_module,
    run as run_module,
)
from uvmerge.study.journal import Journal, read
from uvmerge.study.lab import Lab, load
from uvmerge.study.line import line_at
from uvmerge.study.results import results
from uvmerge.study.sizes import FULL, Sizes
from uvmerge.study.stage import Measured, Stage, stages
from uvmerge.study.stages import prevention
from uvmerge.study.verdicts import CANNOT_TELL, NOT_SEEN, SEEN, against_line, claim, verdict
from uvmerge.tasks.student import Mean, mean_over, t_quantile

what_now_module = importlib.import_module("uvmerge.report.what_now")
ROOT = Path(__file__).resolve().parent.parent
HEAD = {"uvmerge_study": 2, "hands": 500}


def test_the_line_is_straight_between_its_points_and_counts_with_its_best() -> None:
    points = [(0.2, 1.0), (0.6, 0.5), (0.8, 0.1)]
    assert line_at(points, 0.4).value == pytest.approx(0.75)
    assert line_at(points, 0.8).value == pytest.approx(0.1)
    back = line_at([*points, (0.5, 0.9)], 0.55)  # passed twice: going up, and coming back
    assert back.value == pytest.approx(max(0.5625, 0.1 + 0.8 * 0.25 / 0.3))
    assert line_at(points, 0.1).value == 1.0  # less than any point in domain: the best of all
    beyond = line_at(points, 0.9)
    assert (beyond.value, beyond.is_beyond) == (0.1, True) and not back.is_beyond


@pytest.mark.parametrize("freedom", [1, 2, 3, 4, 9, 30, 101])
def test_quantiles_of_t_are_those_of_scipy(freedom: int) -> None:
    stats = pytest.importorskip("scipy.stats")
    for share in (0.6, 0.9, 0.975, 0.999):
        assert t_quantile(share, freedom) == pytest.approx(stats.t.ppf(share, freedom), rel=1e-9)


def test_a_mean_over_pairs_has_the_interval_of_t() -> None:
    found = mean_over([0.1, 0.2, 0.3, 0.4])
    assert found.value == pytest.approx(0.25) and found.sd == pytest.approx(0.1290994)
    assert found.interval == pytest.approx((0.0445739, 0.4554261), abs=1e-6)
    assert mean_over([0.3]) == Mean(0.3, None, None, 1)
    assert mean_over([0.3, 0.3]) == Mean(0.3, 0.0, None, 2)  # a spread of two says little
    with pytest.raises(ValueError, match="at least one value"):
        mean_over([])


def test_verdicts_follow_from_intervals() -> None:
    assert [verdict(i) for i in ((0.1, 0.2), (-0.2, -0.1), (-0.1, 0.1), None, (0.0, 0.1))] == [
        SEEN, NOT_SEEN, CANNOT_TELL, CANNOT_TELL, CANNOT_TELL,
    ]  # fmt: skip
    assert (verdict((0.0, 0.0)), against_line((0.0, 0.0))) == (NOT_SEEN, CANNOT_TELL)
    assert claim("It is more.", "part", [0.1, 0.11, 0.12])["verdict"] == SEEN
    assert claim("It is more.", "part", [0.1])["verdict"] == CANNOT_TELL


def planted(seed: int, above: float, noise: float = 0.0) -> Measured:
    """A pair whose line falls from (0.6, 0.9) to (1, 0.5), and one model that lies `above` it."""
    dice = random.Random(seed)
    values: dict[str, Any] = {}
    for scale in prevention.LINE:
        inside = 0.6 + 0.4 * scale
        values[f"interpolate-{scale}"] = scores(inside, 1.5 - inside)
    for name in ("sft", comparison.HALF_RATE, comparison.RPSFT):
        inside = dice.uniform(0.7, 0.95)
        values[name] = scores(inside, 1.5 - inside + above + noise * dice.gauss(0, 1))
    return Measured("part", seed, values)


def scores(inside: float, outside: float) -> dict[str, float]:
    """Scores of a model whose loss falls as its accuracy rises."""
    return {
        "loss": 2 * (1 - inside), "in_domain": inside, "out_of_domain": outside,
        "training_loss": 0.3, "drift": 0.5,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("above", "word"), [(0.05, "above the line"), (-0.05, "below the line"), (0.0, CANNOT_TELL)]
)
def test_a_planted_distance_from_the_line_is_found(above: float, word: str) -> None:
    found = prevention.summarise([planted(seed, above, 0.005) for seed in range(5)])
    row = next(row for row in found["rows"] if row["name"] == comparison.RPSFT)
    for key in ("at_equal_loss", "at_equal_accuracy"):
        assert row[key]["verdict"] == word
        assert row[key]["mean"] == pytest.approx(above, abs=0.01) and row[key]["beyond"] == 0
    assert row["block"]["mean"] == pytest.approx(0.25)


def test_a_random_evaluation_can_tell_nothing_in_most_seeds() -> None:
    said = []
    for first in range(0, 100, 5):
        pairs = [planted(seed, 0.0, 0.05) for seed in range(first, first + 5)]
        said += [each["verdict"] for each in prevention.summarise(pairs)["claims"]]
    assert said.count(CANNOT_TELL) >= 0.9 * len(said) and len(said) == 60


def test_an_early_stop_is_the_least_loss_and_the_first_that_is_nearly_as_accurate() -> None:
    looks = [(2.0, 0.3), (0.9, 0.895), (0.5, 0.9), (0.4, 0.7), (0.6, 0.9)]
    assert list(prevention.first_stops(looks).values()) == [3, 1]


def test_names_in_the_journal_are_unique_and_quick_is_a_part_of_the_whole() -> None:
    whole, quick = prevention.ways(), prevention.ways(quick=True)
    assert len({way.name for way in whole}) == len(whole) and set(quick) < set(whole)
    assert {way.name for way in whole} >= {comparison.RPSFT, comparison.HALF_RATE}
    every, few = ({edit.name for edit in prevention.edits(quick)} for quick in (False, True))
    assert few < every


# The journal.


def test_a_measurement_is_made_once_and_found_again(tmp_path: Path) -> None:
    path, made = tmp_path / "pair" / "journal.jsonl", []
    for _ in range(2):
        with Journal.opened(path, HEAD) as journal:
            value = journal.once("stage", "key", lambda: made.append(1) or {"loss": 0.5})
    assert value == {"loss": 0.5} and made == [1]
    assert read(path, HEAD)["stage", "key"]["value"] == {"loss": 0.5}


def test_a_line_that_was_cut_off_counts_as_absent(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    with Journal.opened(path, HEAD) as journal:
        for key in "ab":
            journal.once("stage", key, lambda: 1)
    path.write_bytes(path.read_bytes()[:-9])
    assert [key for _, key in read(path, HEAD)] == ["a"]
    with Journal.opened(path, HEAD) as journal:
        journal.once("stage", "c", lambda: 2)
    assert [key for _, key in read(path, HEAD)] == ["a", "c"]


def test_a_journal_of_other_sizes_is_refused_and_so_is_a_measure_that_is_none(
    tmp_path: Path,
) -> None:
    path = tmp_path / "journal.jsonl"
    with Journal.opened(path, HEAD) as journal, pytest.raises(RunFailed, match="not finite"):
        journal.once("stage", "key", lambda: {"loss": float("nan")})
    with pytest.raises(InputRefused, match="was measured with hands 500, not 300"):
        read(path, {**HEAD, "hands": 300})


_WORKER = """
import pathlib, sys, time
from uvmerge.study.journal import Journal

def train(key):
    with open(sys.argv[2], "a") as log:
        log.write(key + " begun\\n")
    time.sleep(0.01)
    return len(key) * 7

with Journal.opened(pathlib.Path(sys.argv[1]), {"uvmerge_study": 1}) as journal:
    print("open", flush=True)
    for i in range(120):
        journal.once("stage", f"run-{i}", lambda: train(f"run-{i}"))
"""


def test_no_run_is_lost_or_repeated_when_killed(tmp_path: Path) -> None:
    path, log = tmp_path / "journal.jsonl", tmp_path / "log"
    command = [sys.executable, "-c", _WORKER, str(path), str(log)]
    for kill_after in (0.05, 0.1, 0.2, 0.15, 0.3):
        with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None and process.stdout.readline() == b"open\n"
            time.sleep(kill_after)
            process.send_signal(signal.SIGKILL)
        done = len(read(path, {"uvmerge_study": 1}))
    assert 0 < done < 120
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    entries = read(path, {"uvmerge_study": 1})
    assert [key for _, key in entries] == [f"run-{i}" for i in range(120)]
    assert all(entry["value"] == 7 * len(key) for (_, key), entry in entries.items())
    assert len(log.read_text().splitlines()) <= 120 + 5  # each kill cuts one run short, at most


# A study of planted pairs.

PLANTED_ON = {"system": "Linux x86_64", "processor": "A processor", "cores": "16"}


def fill(out: Path, count: int, regimes: tuple[str, ...] = ("part",)) -> Lab:
    """A study whose pairs are planted and finished."""
    lab = Lab(out, FULL)
    for regime, seed in itertools.product(regimes, range(count)):
        with Journal.opened(lab.journal(regime, seed), lab.head) as journal:
            for key, value in planted(seed, 0.05, 0.005).values.items():
                journal.once("prevention", key, lambda value=value: value)
            journal.once("prevention", "", lambda: 1.5)
            where = {**PLANTED_ON, "torch": f"2.{seed % 2}"}
            journal.once("machine", str(seed % 2), lambda where=where: where)
    return lab


def test_results_page_and_table_follow_from_the_journals(tmp_path: Path) -> None:
    lab = fill(tmp_path, 4)
    found = json.loads(results_module.as_json(results(lab, 4)))
    assert [pair["seed"] for pair in found["stages"]["prevention"]["pairs"]] == [0, 1, 2, 3]
    check_verdicts(found)
    paths = {path.name for path in results_module.save(found, tmp_path)}
    assert paths == {"study.json", "study.md", "prevention.csv", "prevention.png"}
    page = (tmp_path / "study.md").read_text()
    assert "| SFT |" in page and "**seen here**" in page and "4 pairs" in page
    assert [machine["pairs"] for machine in found["machines"]] == [2, 2]
    first, second = (
        f"Linux x86_64 (A processor, 16 cores), one thread a process, torch 2.{i}: 2 pairs"
        for i in (0, 1)
    )
    assert f"Measured on {first}; {second}." in page
    rows = list(csv.DictReader(io.StringIO((tmp_path / "prevention.csv").read_text())))
    row = next(row for row in rows if row["name"] == comparison.RPSFT)
    assert float(row["at_equal_loss"]) == pytest.approx(0.05, abs=0.01)
    assert row["at_equal_loss_verdict"] == "above the line" and row["pairs"] == "4"


def test_the_command_of_a_finished_study_measures_nothing_and_prints_what_was_found(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fill(tmp_path / "out", 2, ("part", "unseen"))
    command = ("study", tmp_path / "out", "--only", "prevention", "--seeds", 2)
    printed = uv(capsys, *command)
    assert printed.code == 0 and printed.out.startswith("# The study\n")
    assert "prevention.csv" in printed.err and "not finished" not in printed.err
    found = json.loads(uv(capsys, *command, "--json").out)
    assert found["left"] == [] and {
        c["pairs"] for c in found["stages"]["prevention"]["claims"]
    } == {2}


def check_verdicts(found: dict[str, Any]) -> None:
    """Every interval and every verdict of a results file follows from the values of the pairs."""
    for name, summary in found["stages"].items():
        for one in summary["claims"]:
            ends = mean_over(one["values"]).interval
            assert one["interval_95"] == pytest.approx(ends, abs=1e-4)
            assert one["verdict"] == verdict(ends)
        for row in summary["rows"]:
            for key in comparison.LEVELS.keys() & row.keys():
                ends = mean_over(row[key]["values"]).interval
                assert row[key]["interval_95"] == pytest.approx(ends, abs=1e-4)
                assert row[key]["verdict"] == against_line(ends)
        measured = [Measured(**pair) for pair in summary["pairs"]]
        again = stages()[name].summarise(measured)
        for one, made in zip(summary["claims"], again["claims"], strict=True):
            assert one["mean"] == pytest.approx(made["mean"], abs=1e-4)
        for row, made in zip(summary["rows"], again["rows"], strict=True):
            if "out_of_domain" not in row:
                continue
            mean = made["out_of_domain"]["mean"]
            assert row["out_of_domain"]["mean"] == pytest.approx(mean, abs=1e-5)


def test_pairs_are_worked_on_in_parts_and_a_pair_of_another_process_is_left_to_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured = []

    def measure(pair: Any) -> None:
        pair.once("run", lambda: measured.append((pair.regime, pair.seed)) or 1)

    fake = Stage(
        "fake", 1, "Fake", ("part", "well"), measure,
        summarise=lambda pairs: {"rows": [{"n": len(pairs)}], "claims": []},
        section=lambda summary: f"{summary['rows'][0]['n']} pairs",
        draw=lambda summary: figure(), rows=lambda summary: summary["rows"],
    )  # fmt: skip
    for module in (run_module, results_module, page_module):
        monkeypatch.setattr(module, "stages", lambda: {"fake": fake})
    said: list[str] = []
    out = tmp_path / "out"
    first = run_module.run(out, seeds=2, pairs=1, on_done=said.append)
    assert measured == [("part", 0)]
    assert first.left == ("well-0 fake", "part-1 fake", "well-1 fake")
    assert first.left_said.startswith("not finished: 3 pairs: well-0 fake")
    lab = Lab(out, FULL)
    with Journal.opened(lab.journal("well", 0), lab.head):
        second = run_module.run(out, seeds=2, on_done=said.append)
    assert second.left == ("well-0 fake",) and "well-0: another process works on it" in said
    path = lab.journal("well", 0)  # begun elsewhere, with another version of torch
    path.unlink()
    with Journal.opened(path, {**lab.head, "torch": "1.0"}):
        pass
    third = run_module.run(out, seeds=2, on_done=said.append)
    assert third.left == ("well-0 fake",)
    assert said[-1].startswith("well-0: left as it is, was measured with torch 1.0, not 2")
    path.unlink()
    last = run_module.run(out, seeds=2)
    assert not last.left and len(measured) == len({*measured}) == 4
    assert last.found["stages"]["fake"]["rows"] == [{"n": 4}]
    with pytest.raises(InputRefused, match="was measured with hands 500, not 200"):
        run_module.run(out, seeds=2, quick=True)


def figure() -> Any:
    from uvmerge.report.plots import empty_figure

    return empty_figure(1, 1)


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["out", "--only", "preventon"], 2, "Did you mean"),
        (["out", "--seeds", "0"], 2, "0 is not in the range"),
        (["full"], 3, "is not empty, and holds no study"),
        (["full/file"], 2, "is a file"),
    ],
)
def test_what_cannot_be_is_refused(
    arguments: list[str],
    code: int,
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").write_text("")
    monkeypatch.chdir(tmp_path)
    done = uv(capsys, "study", *arguments)
    assert done.code == code and said in done.err


def test_a_missing_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_module, "find_spec", lambda name: None if name == "peft" else object())
    with pytest.raises(UsageError, match=r"needs peft\n.*uvmerge\[study\]"):
        run_module.run(tmp_path / "out")


_SMALL = """
import sys
from uvmerge.study import run, sizes
run.FULL = sizes.Sizes(quick=True, hands=20, steps=6, batch=4)
run.run(sys.argv[1], only=sys.argv[2], seeds=1, pairs=1)
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("stage", "lines"),
    [
        ("prevention", (1, 3, 9, 20, 30)),
        ("repair", (1, 3, 6, 9, 12)),
        ("hypothesis", (1, 3, 6, 9, 12)),
        ("trajectory", (1, 2, 5, 9, 15)),
        ("reinforcement", (1, 5, 11, 13, 16)),
        ("premise", (1, 1, 2, 2, 3)),
    ],
)
def test_a_killed_study_ends_with_the_results_of_an_undisturbed_one(
    stage: str, lines: tuple[int, ...], tmp_path: Path
) -> None:
    def command(name: str) -> list[str]:
        return [sys.executable, "-c", _SMALL, str(tmp_path / name), stage]

    def outcome(name: str) -> tuple[Any, list[Any]]:
        found = json.loads((tmp_path / name / "study.json").read_bytes())
        counts = [
            len(p.read_bytes().splitlines()) for p in (tmp_path / name).glob("pairs/*/*.jsonl")
        ]
        return [s.pop("cpu_s") and s for s in found["stages"].values()], counts

    subprocess.run(command("whole"), check=True)
    for count in lines:
        with subprocess.Popen(command("killed")) as process:
            while process.poll() is None and finished_lines(tmp_path / "killed") < count:
                time.sleep(0.01)
            process.send_signal(signal.SIGKILL)
    subprocess.run(command("killed"), check=True)
    assert outcome("killed") == outcome("whole")


def finished_lines(out: Path) -> int:
    return sum(len(path.read_bytes().splitlines()) for path in out.glob("pairs/*/*.jsonl"))


# What is in the repository.


@pytest.mark.parametrize(("place", "stage"), docs.PAGES.items())
def test_the_table_of_the_docs_is_that_of_the_results_file(place: str, stage: str) -> None:
    found = json.loads((ROOT / docs.RESULTS).read_bytes())
    text = (ROOT / place).read_text()
    assert docs.with_section(text, stage, docs.section(found, stage)) == text
    assert ((ROOT / place).parent / f"{stage}.png").stat().st_size > 10_000
    check_verdicts(found)
    assert (ROOT / docs.RESULTS).stat().st_size < 2_000_000


def test_one_command_makes_all_that_the_repository_holds_of_a_study(tmp_path: Path) -> None:
    out, root = tmp_path / "out", tmp_path / "root"
    out.mkdir()
    shutil.copy(ROOT / docs.RESULTS, out / "study.json")
    for place in (docs.README, *docs.PAGES):
        (root / place).parent.mkdir(parents=True, exist_ok=True)
        stale = re.sub(
            "(<!-- study: .* -->\n).*?(<!-- end)", r"\1\2", (ROOT / place).read_text(), flags=re.S
        )
        (root / place).write_text(stale)
    for place in (docs.RESULTS, docs.ADVICE):
        (root / place).parent.mkdir(parents=True, exist_ok=True)
    docs.main(out, root)
    made = [path.relative_to(root) for path in root.rglob("*") if path.is_file()]
    assert {str(path) for path in made} >= {docs.RESULTS, docs.PAGE, docs.ADVICE, docs.README}
    for path in made:
        if path.suffix != ".png":
            assert (root / path).read_bytes() == (ROOT / path).read_bytes(), path


def test_the_advice_is_that_of_the_results_file() -> None:
    given = advice.advice(json.loads((ROOT / docs.RESULTS).read_bytes()))
    assert json.loads((ROOT / docs.ADVICE).read_bytes()) == given
    readme = (ROOT / docs.README).read_text()
    before, after = docs.marked("advice")
    said = readme.partition(before)[2].partition(after)[0]
    assert " ".join(said.split()) == advice.sentence(given)


@pytest.mark.parametrize(
    ("above", "words"),
    [(0.05, "more is left out of domain"), (0.0, "no edit beats"), (-0.05, "no edit beats")],
)
def test_an_edit_is_advised_only_where_its_interval_excludes_zero(
    above: float, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    edited = comparison.rows(
        "part", [planted_edits(s, above) for s in range(5)], LABELS, PLANTED_LINE
    )
    worse = comparison.rows(
        "unseen", [planted_edits(s, -0.1) for s in range(5)], LABELS, PLANTED_LINE
    )
    pairs = [{"regime": "part", "seed": seed} for seed in range(5)]
    found = {"stages": {"repair": {"rows": edited, "pairs": pairs}}}
    given = advice.advice(found)
    is_better = above > 0
    assert [each["label"] for each in given["better"]] == [
        "project --top 0.2 --side right"
    ] * is_better
    assert given["recipes"] == ["project-right"] * is_better + ["interpolate-30"]
    assert words in advice.sentence(given) and "5 small pairs" in advice.sentence(given)
    found["stages"]["hypothesis"] = {"rows": worse, "pairs": []}
    assert not advice.advice(found)["better"]  # it lies below the line elsewhere

    ours = Advice.of(given)
    for module in (bundled_module, what_now_module):
        monkeypatch.setattr(module, "advice", lambda: ours)
    assert next(iter(bundled_module.bundled())) == given["recipes"][0]
    spread = Situation(EVERYWHERE)
    first, *_, last = what_now_module._commands(spread, "base", "tuned")
    line = "uvmerge sweep interpolate base tuned interpolated --scale 0.1,0.2,0.3,0.5"
    if is_better:
        assert first.line == "uvmerge project base tuned candidate-1 --top 0.2 --side right"
        assert (
            first.why.startswith("above interpolation in the study (part +0.045 (")
            and last.line == line
        )
    else:
        assert first.line == line and "which no edit does on the 5 small pairs" in first.why


PLANTED_LINE = [f"interpolate-{scale}" for scale in prevention.LINE]
LABELS = {
    **{name: ("line", name) for name in PLANTED_LINE},
    "edit": ("edit", "project --top 0.2 --side right"),
}


def planted_edits(seed: int, above: float) -> Measured:
    """A planted pair with one edit."""
    pair = planted(seed, above, 0.005)
    return Measured(pair.regime, seed, {**pair.values, "edit": pair.values[comparison.RPSFT]})


def test_every_stage_is_found_and_is_one_file() -> None:
    folder = ROOT / "uvmerge" / "study" / "stages"
    assert {path.stem for path in folder.glob("[a-z]*.py")} >= {*stages()}
    assert stages()["prevention"].measure is prevention.measure


# The lab.


def test_the_pair_of_seed_0_is_that_of_the_demo_and_a_checkpoint_is_whole(tmp_path: Path) -> None:
    lab = Lab(tmp_path, Sizes(hands=20))
    with lab.opened("unseen", 0, "stage") as pair:
        (pair.folder / "base.new").mkdir()  # what a kill has left
        for folder, embedded in zip((pair.base, pair.finetuned), demo.pair("unseen"), strict=True):
            ours, theirs = (load_file(f / "model.safetensors") for f in (folder, embedded))
            assert ours.keys() == theirs.keys()
            assert all(torch.equal(ours[name], theirs[name]) for name in ours)
        assert sorted(path.name for path in pair.folder.iterdir() if path.is_dir()) == [
            "base", "finetuned",
        ]  # fmt: skip
        made = pair.checkpoint("again", lambda: (load(pair.base), {"loss": 0.5}))
        assert pair.notes("again") == {"loss": 0.5}
        assert pair.checkpoint("again", lambda: pytest.fail("made twice")) == made
        shutil.rmtree(made)  # as where only journals are carried to another machine
        assert pair.checkpoint("again", lambda: (load(pair.base), {})) == made
        shutil.rmtree(made)
        with pytest.raises(RunFailed, match=r"other weights than those .*\n  Remove .*unseen-0"):
            pair.checkpoint("again", lambda: (load(pair.finetuned), {}))
        assert not made.exists() and pair.checkpoint("again", lambda: (load(pair.base), {})) == made
        assert pair.scores(pair.base)["in_domain"] < 0.2 < pair.scores(pair.base)["out_of_domain"]


# The mechanism, on the demo's base.


def test_the_penalty_holds_the_block_at_the_same_training_loss(tmp_path: Path) -> None:
    """100 steps of 32 hands, the top 20 %, λ = 1: the energy of the block is ten times smaller."""
    from uvmerge.study.training import trained

    lab = Lab(tmp_path, Sizes(hands=50))
    way = next(way for way in prevention.ways() if way.name == comparison.RPSFT)
    with lab.opened("part", 0, "prevention") as pair:
        plain, held = (trained(pair, each)[1] for each in (prevention.SFT, way))
    assert held["drift"] ** 2 < plain["drift"] ** 2 / 10
    assert held["training_loss"] < 1.02 * plain["training_loss"]


def test_a_study_computes_on_the_cpu_also_where_there_is_a_gpu() -> None:
    import uvmerge.study

    folder = Path(uvmerge.study.__file__).parent
    calls = [line for path in folder.rglob("*.py") for line in path.read_text().splitlines()]
    asked = [line for line in calls if "quiet=True" in line]
    assert asked and all('device="cpu"' in line for line in asked)
