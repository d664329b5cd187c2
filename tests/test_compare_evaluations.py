"""`uvmerge compare`: what evaluations say, paired rightly, and refused where they cannot be paired."""

from __future__ import annotations

import json
import math
import random
import shutil
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command import Outcome, uv
from evaluations import STAMP, mean_and_error, write_run

import uvmerge
from uvmerge.tasks import statistics
from uvmerge.tasks.comparison import BOOTSTRAP, ERRORS_Z, MCNEMAR, POOLED_Z, Row, Table

HOSTILE = "<script>alert(1)</script>\x1b[31m"


def paired(first: int, second: int, both: int, total: int) -> tuple[list[float], list[float]]:
    """Answers of two models: right by only one, by only the other, by both."""
    cells = [(1.0, 0.0)] * first + [(0.0, 1.0)] * second + [(1.0, 1.0)] * both
    cells += [(0.0, 0.0)] * (total - len(cells))
    random.Random(5).shuffle(cells)
    return [one for one, _ in cells], [other for _, other in cells]


def totals(folder: Path, name: str, right: int, total: int) -> Path:
    """An evaluation without samples."""
    values = [1.0] * right + [0.0] * (total - right)
    return write_run(folder / name, {"cards": {"success": values}}, samples=False)


def table(found: uvmerge.Comparison, task: str, name: str, kept: str = "none") -> Table:
    return next(t for t in found.tables if t.metric == (task, name, kept))


def row(
    found: uvmerge.Comparison, checkpoint: str, task: str, name: str, kept: str = "none"
) -> Row:
    one = table(found, task, name, kept).row(checkpoint)
    assert one is not None
    return one


# --- figures -----------------------------------------------------------------------------------


def test_totals_have_wilson_intervals_and_an_unpaired_test_that_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [f"{n}={totals(tmp_path, n, c, 234)}" for n, c in {"a": 21, "b": 36}.items()]
    shown = uv(capsys, "compare", *words)
    assert shown.code == 0
    assert "0.059–0.133" in shown.out and "0.113–0.206" in shown.out
    assert "p = 0.034" in shown.out
    assert "two-sided pooled z test without correction" in shown.out
    assert "only totals are known" in " ".join(shown.out.split())
    words = [f"{n}={totals(tmp_path, n, c, 234)}" for n, c in {"c": 40, "d": 46}.items()]
    shown = uv(capsys, "compare", *words)
    assert "p = 0.47" in shown.out and "two-sided pooled z test without correction" in shown.out


def test_the_same_items_have_mcnemars_test_with_both_counts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sft, mine = paired(6, 21, 15, 234)
    for name, values in (("sft", sft), ("mine", mine)):
        write_run(tmp_path / name, {"cards": {"success": values}})
    words = [f"{name}={tmp_path / name}" for name in ("sft", "mine")]
    shown = uv(capsys, "compare", *words)
    assert shown.code == 0 and "McNemar exact 21 : 6, p = 0.0059" in shown.out
    data = json.loads(uv(capsys, "compare", *words, "--json").out)
    test = data["tables"][0]["rows"][1]["test"]
    assert (test["only_here"], test["only_there"], test["items"]) == (21, 6, 234)
    assert test["interval_95"][0] < test["difference"] == pytest.approx(15 / 234)
    assert test["p"] == test["p_holm"] == pytest.approx(statistics.mcnemar(6, 21))


def test_holm_is_over_every_comparison_that_is_shown(tmp_path: Path) -> None:
    sft, mine = paired(6, 21, 15, 234)
    for name, values in (("sft", sft), ("mine", mine), ("other", mine)):
        write_run(tmp_path / name, {"one": {"acc": values}, "two": {"acc": values}})
    found = uvmerge.compare([tmp_path / "sft", tmp_path / "mine", tmp_path / "other"])
    p = statistics.mcnemar(6, 21)
    assert [test.adjusted for _, _, test in found.tests] == pytest.approx([4 * p] * 4)


def test_recovered_has_both_readings_and_their_paired_intervals(tmp_path: Path) -> None:
    random_ = np.random.default_rng(1)
    base = random_.random(1000) < 0.8
    sft, mine = base & (random_.random(1000) < 0.5), base & (random_.random(1000) < 0.75)
    for name, values in (("base", base), ("sft", sft), ("mine", mine)):
        write_run(tmp_path / name, {"ood": {"acc": values.astype(int).tolist()}})
    paths = {name: tmp_path / name for name in ("base", "sft", "mine")}
    found = uvmerge.compare(paths, finetuned="sft")
    back = row(found, "mine", "ood", "acc").recovered
    assert back is not None and back.of_best_interval and back.of_loss_interval
    assert back.of_best == pytest.approx(mine.mean() / base.mean())
    loss = (mine.mean() - sft.mean()) / (base.mean() - sft.mean())
    assert back.of_loss == pytest.approx(loss)
    # The delta method for the ratio of paired means.
    ratio, n = mine.mean() / base.mean(), 1000
    error = (mine - ratio * base).std() / base.mean() / math.sqrt(n)
    low, high = back.of_best_interval
    assert high - low == pytest.approx(2 * statistics.Z * error, rel=0.1)
    for name, of_loss in (("base", 1.0), ("sft", 0.0)):
        other = row(found, name, "ood", "acc").recovered
        assert other is not None and other.of_loss == of_loss


def test_nothing_is_recovered_where_nothing_was_lost(tmp_path: Path) -> None:
    low, high = paired(2, 30, 20, 100)
    for name, values in (("base", low), ("finetuned", high), ("mine", low)):
        write_run(tmp_path / name, {"id": {"acc": values}})
    found = uvmerge.compare([tmp_path / name for name in ("base", "finetuned", "mine")])
    assert found.against == "finetuned" and found.base == "base"
    assert all(each.recovered is None for each in found.tables[0].rows)


def test_orders_of_one_hand_are_not_independent(tmp_path: Path) -> None:
    hands = [
        " ".join(order) for h in range(30) for order in ([f"{h}", "A", "K"], ["K", f"{h}", "A"])
    ]
    sft = [float(i % 6 == 0) for i in range(30) for _ in range(2)]
    mine = [1.0 if i // 2 % 3 == 0 else v for i, v in enumerate(sft)]
    for name, values in (("sft", sft), ("mine", mine)):
        write_run(tmp_path / name, {"cards": {"success": values}}, hands=hands)
    found = uvmerge.compare([tmp_path / "sft", tmp_path / "mine"])
    test = row(found, "mine", "cards", "success").test
    assert test is not None and test.p_by_hand is not None
    sums = [int(mine[i] - sft[i] + mine[i + 1] - sft[i + 1]) for i in range(0, 60, 2)]
    assert test.p_by_hand == test.adjusted == pytest.approx(statistics.sign_flip(sums))
    assert test.p == statistics.mcnemar(10, 0) < test.p_by_hand
    # Two orders with one answer each say no more than one: the interval is wider than Wilson's.
    one = row(found, "sft", "cards", "success")
    assert one.interval == statistics.wilson(int(sum(sft)), 60)
    wide, narrow = one.by_hand, one.interval
    assert wide is not None and wide[1] - wide[0] > 1.2 * (narrow[1] - narrow[0])
    assert one.honest_interval == wide
    assert "McNemar exact 10 : 0, p = 0.002, by hand p = 0.062" in str(found)


# --- what real outputs hold ----------------------------------------------------------------------


def test_metrics_that_are_not_0_or_1_have_a_paired_bootstrap(tmp_path: Path) -> None:
    random_ = np.random.default_rng(2)
    sft = random_.random(200)
    for name, values in (("sft", sft), ("same", sft), ("mine", sft + 0.02 * random_.random(200))):
        write_run(tmp_path / name, {"qa": {"f1": values.tolist()}})
    found = uvmerge.compare([tmp_path / name for name in ("sft", "same", "mine")])
    mine, same = row(found, "mine", "qa", "f1"), row(found, "same", "qa", "f1")
    assert mine.test is not None and same.test is not None and mine.test.name == BOOTSTRAP
    assert mine.test.p < 0.001 and same.test.p == 1  # a shift far smaller than the spread of items
    assert mine.interval_name == "bootstrap" and mine.interval is not None
    assert mine.interval[1] - mine.interval[0] == pytest.approx(
        2 * statistics.Z * mean_and_error(sft)[1], rel=0.1
    )


def test_perplexity_is_a_log_likelihood_in_samples_and_rolling_metrics_are_pairs(
    tmp_path: Path,
) -> None:
    random_ = random.Random(3)
    lengths = [random_.randint(50, 200) for _ in range(40)]
    for name, rate in (("sft", 2.0), ("mine", 1.8)):
        logs = [-rate - 0.01 * (i % 5) for i in range(40)]
        pairs = [[log * n, n] for log, n in zip(logs, lengths)]
        whole = sum(p for p, _ in pairs) / sum(lengths)
        tasks = {
            "lambada": {"perplexity": logs, "acc": [i % 2 for i in range(40)]},
            "wikitext": {"word_perplexity": pairs, "bits_per_byte": pairs},
        }
        told = {
            "lambada": {"perplexity": math.exp(-sum(logs) / 40)},
            "wikitext": {
                "word_perplexity": math.exp(-whole),
                "bits_per_byte": -whole / math.log(2),
            },
        }
        write_run(tmp_path / name, tasks, totals=told)
    found = uvmerge.compare([tmp_path / "sft", tmp_path / "mine"])
    for task, name in (
        ("lambada", "perplexity"),
        ("wikitext", "word_perplexity"),
        ("wikitext", "bits_per_byte"),
    ):
        one = row(found, "mine", task, name)
        assert one.test is not None and one.test.name == BOOTSTRAP and one.test.items == 40
        assert one.test.difference < 0 and one.test.p < 0.001 and not one.caveat
        assert one.interval is not None and one.value is not None
        assert one.interval[0] <= one.value <= one.interval[1]
    assert row(found, "mine", "lambada", "acc").test is not None
    assert table(found, "lambada", "perplexity").higher_is_better is False


def test_filters_are_metrics_of_their_own(tmp_path: Path) -> None:
    strict, flexible = paired(1, 9, 5, 30)
    metrics = {"exact_match,strict-match": strict, "exact_match,flexible-extract": flexible}
    for name in ("sft", "mine"):
        write_run(tmp_path / name, {"gsm8k": metrics})
    found = uvmerge.compare([tmp_path / "sft", tmp_path / "mine"])
    values = {t.metric.filter: t.rows[0].successes for t in found.tables}
    assert values == {"strict-match": sum(strict), "flexible-extract": sum(flexible)}
    assert "exact_match (strict-match)" in str(found)


def test_samples_that_are_no_numbers_leave_the_totals(tmp_path: Path) -> None:
    for name, score in (("sft", 0.31), ("mine", 0.35)):
        metrics = {"bleu": [["a", "b"]] * 9, "mcc": [[0, 1]] * 9, "acc": [1] * 9}
        write_run(tmp_path / name, {"t": metrics}, totals={"t": {"bleu": score, "mcc": score}})
    found = uvmerge.compare([tmp_path / "sft", tmp_path / "mine"])
    for name in ("bleu", "mcc"):
        one = row(found, "mine", "t", name)
        assert one.value == 0.35 and one.test is None and "no number for each item" in one.caveat
    assert row(found, "mine", "t", "acc").test is not None


def test_a_total_that_is_not_the_mean_of_its_samples_is_not_paired(tmp_path: Path) -> None:
    for name in ("sft", "mine"):
        told = {"t": {"score": 0.9}}
        write_run(tmp_path / name, {"t": {"score": [0.1, 0.5, 0.2]}}, totals=told)
    one = row(uvmerge.compare([tmp_path / "sft", tmp_path / "mine"]), "mine", "t", "score")
    assert one.value == 0.9 and one.test is None and "not the mean of its samples" in one.caveat


def test_groups_pool_the_items_of_their_tasks(tmp_path: Path) -> None:
    a, b = paired(4, 16, 10, 60)
    for name, values in (("sft", a), ("mine", b)):
        tasks = {"m_x": {"acc": values[:20]}, "m_y": {"acc": values[20:]}}
        folder = write_run(tmp_path / name, tasks)
        path = folder / f"results_{STAMP}.json"
        data = json.loads(path.read_text())
        whole, error = mean_and_error(values)
        data["results"]["m"] = {"acc,none": whole, "acc_stderr,none": error}
        data["group_subtasks"] = {"m": ["m_x", "m_y"], **data["group_subtasks"]}
        path.write_text(json.dumps(data))
    one = row(uvmerge.compare([tmp_path / "sft", tmp_path / "mine"]), "mine", "m", "acc")
    assert one.count == 60 and one.test is not None and one.test.name == MCNEMAR
    assert (one.test.only_here, one.test.only_there) == (16, 4)


def test_a_group_that_is_weighted_otherwise_is_not_paired(tmp_path: Path) -> None:
    for name in ("sft", "mine"):
        folder = write_run(tmp_path / name, {"x": {"acc": [1.0] * 9}, "y": {"acc": [0.0] * 3}})
        path = folder / f"results_{STAMP}.json"
        data = json.loads(path.read_text())
        data["results"]["m"] = {"acc,none": 0.5, "acc_stderr,none": 0.1}
        data["group_subtasks"] = {"m": ["x", "y"]}
        path.write_text(json.dumps(data))
    one = row(uvmerge.compare([tmp_path / "sft", tmp_path / "mine"]), "mine", "m", "acc")
    assert one.value == 0.5 and one.test is not None and one.test.name == ERRORS_Z
    assert "not weighted by their items" in one.caveat


def test_the_newest_run_of_each_task_is_taken(tmp_path: Path) -> None:
    folder = tmp_path / "sft"
    early, late = "2026-11-19T09-00-00.000000", "2026-11-21T09-00-00.000000"
    write_run(folder, {"t": {"acc": [0, 0, 0, 1]}, "u": {"acc": [1, 1, 0]}}, stamp=early)
    write_run(folder, {"t": {"acc": [1, 1, 1, 0]}}, stamp=late)
    write_run(tmp_path / "mine", {"t": {"acc": [1, 1, 1, 1]}, "u": {"acc": [1, 1, 1]}})
    found = uvmerge.compare([folder, tmp_path / "mine"])
    assert row(found, "sft", "t", "acc").successes == 3
    assert row(found, "sft", "u", "acc").successes == 2
    assert any("2 runs" in note and late in note for note in found.notes)


def test_exact_duplicates_are_items_of_their_own_and_repeats_are_not(tmp_path: Path) -> None:
    for name, values in (("sft", (0, 0, 1)), ("mine", (1, 1, 1))):
        lines = [
            {"task": "t", "doc_id": i, "doc_hash": "d", "prompt_hash": "p", "ok": bool(v)}
            for i, v in enumerate(values)
        ]
        repeated = [*lines, lines[0] | {"ok": not lines[0]["ok"]}]
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(x) + "\n" for x in lines))
        (tmp_path / f"{name}2.jsonl").write_text("".join(json.dumps(x) + "\n" for x in repeated))
    found = uvmerge.compare([tmp_path / "sft.jsonl", tmp_path / "mine.jsonl"])
    one = row(found, "mine", "t", "ok")
    assert one.test is not None and (one.count, one.test.only_here) == (3, 2)
    found = uvmerge.compare([tmp_path / "sft2.jsonl", tmp_path / "mine2.jsonl"])
    one = row(found, "mine2", "t", "ok")
    assert one.count == 3 and one.value == pytest.approx(2.5 / 3)  # the mean of both counts once
    assert one.test is not None and one.test.name == BOOTSTRAP


def attempts(path: Path, wins: dict[int, int], hands: int, most: int = 5) -> Path:
    """Answers of `uvmerge eval cards`: of each hand in `wins`, the attempt that was right."""
    lines = []
    for i in range(hands):
        last = wins.get(i, most)
        for attempt in range(1, last + 1):
            right = attempt == wins.get(i)
            lines.append({
                "task": "cards", "rule": "ood", "seed": 1, "doc_id": i, "hand": ["A", str(i), "K", "5"],
                "attempt": attempt, "success": right, "format_error": False, "published": right,
                "doc_hash": f"d{i}", "prompt_hash": f"p{i}.{attempt}.{path.stem}" if attempt > 1 else "p",
            })  # fmt: skip
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def test_attempts_give_success_at_the_first_and_at_the_last(tmp_path: Path) -> None:
    sft = attempts(tmp_path / "sft.jsonl", {0: 1, 1: 3}, 20)
    mine = attempts(tmp_path / "mine.jsonl", {0: 1, 1: 1, 2: 4, 3: 5}, 20)
    found = uvmerge.compare({"sft": sft, "mine": mine})
    names = {t.metric.name for t in found.tables}
    assert names == {"success@1", "success@5", "published@1", "published@5", "format_error@1"}
    one = row(found, "mine", "cards_ood", "success@1")
    assert one.successes == 2 and one.test is not None and one.test.name == MCNEMAR
    assert row(found, "mine", "cards_ood", "success@5").successes == 4
    assert table(found, "cards_ood", "format_error@1").higher_is_better is False


def test_the_samples_of_eval_cards_are_read_and_not_its_attempts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, right in (("base", 8), ("finetuned", 2), ("mine", 6)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "attempts.jsonl").write_text('{"eval": "cards"}\n')
        settings = {"temperature": 0.0, "attempts": 5}
        (tmp_path / name / "results.json").write_text(json.dumps({"settings": settings}))
        lines = [
            {
                "task": f"uvmerge_cards_{rule}", "doc_id": i, "unordered": f"A {i // 2} K Q",
                "attempts": 1, "success@1": int(i < right), "success@5": int(i < right + 1),
                "format_error@1": 0,
            }
            for rule in ("id", "ood") for i in range(20)
        ]  # fmt: skip
        text = "".join(json.dumps(line) + "\n" for line in lines)
        (tmp_path / name / "samples.jsonl").write_text(text)
    paths = [tmp_path / name for name in ("base", "finetuned", "mine")]
    found = uvmerge.compare(paths)
    assert found.in_domain == ("uvmerge_cards_id", "success@1", "none")
    assert found.out_of_domain == ("uvmerge_cards_ood", "success@1", "none")
    one = row(found, "mine", "uvmerge_cards_ood", "success@1")
    assert one.test is not None and one.test.p_by_hand is not None
    assert (one.test.only_here, one.test.only_there) == (4, 0)
    changed = {"settings": {"temperature": 1.0, "attempts": 5}}
    (paths[2] / "results.json").write_text(json.dumps(changed))
    assert "temperature 0.0 and 1.0" in refused(capsys, *paths)
    (paths[2] / "samples.jsonl").unlink()
    assert "has not finished" in refused(capsys, *paths)


def test_hands_that_were_not_asked_to_the_end_are_refused(tmp_path: Path) -> None:
    path = attempts(tmp_path / "sft.jsonl", {0: 1}, 8)
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:-2]))
    with pytest.raises(uvmerge.InputRefused, match="1 of 8 items lack attempts"):
        uvmerge.compare([path])
    found = uvmerge.compare([path], force=True)
    assert found.tables[0].rows[0].count == 7 and "lack attempts" in found.notes[0]


def demo(path: Path, rows: dict[str, tuple[int, int]], total: int = 2000) -> Path:
    """A report of the demo of an earlier version: right answers in domain and out of domain."""
    path.mkdir(parents=True, exist_ok=True)
    told = [
        {
            "name": name,
            "in_domain": {"right": inside, "total": total},
            "out_of_domain": {"right": outside, "total": total},
        }
        for name, (inside, outside) in rows.items()
    ]
    data = {"task": {"hands_per_rule": total, "hands_seed": 1927}, "rows": told}
    (path / "report.json").write_text(json.dumps(data))
    return path


ROWS = {
    "base": (1938, 1994), "finetuned": (2000, 858), "interpolate-0.5": (1972, 1378),
    "interpolate-0.1": (1946, 1984), "restore-0.2": (1874, 1360),
}  # fmt: skip


def test_the_report_of_the_demo_is_compared_row_by_row(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = uvmerge.compare([demo(tmp_path / "demo", ROWS)])
    assert found.checkpoints == tuple(ROWS)
    assert (found.base, found.finetuned) == ("base", "finetuned")
    assert found.line == ("interpolate-0.1", "interpolate-0.5")
    assert "restore-0.2" not in found.front() and "base" in found.front()
    test = row(found, "restore-0.2", "out_of_domain", "accuracy").test
    assert test is not None and test.name == POOLED_Z
    shown = uv(capsys, "compare", f"d={tmp_path / 'demo' / 'report.json'}")
    assert "d/restore-0.2" in shown.out and "recovered" in shown.out


def run_demo(path: Path, hands: int, shares: dict[str, tuple[float, float]]) -> Path:
    """The report of a demo, as a run writes it, of rows with so many right in and out of domain."""
    from uvmerge.demo import sums
    from uvmerge.demo.evaluator import Answers
    from uvmerge.demo.table import DemoReport, Row as DemoRow

    clusters = tuple(map(sums.unordered, sums.deal(hands, 1927)))
    rows = []
    for name, both in shares.items():
        right = {r: np.arange(hands) < hands * both[r != sums.IN_DOMAIN] for r in sums.RULES}
        rows.append(DemoRow(name, "", Answers(clusters, right), None, None))
    data = DemoReport(tuple(rows), "part", hands, 1927, {}).as_dict()
    path.mkdir()
    (path / "report.json").write_text(json.dumps(data))
    return path


def test_the_report_of_a_demo_that_was_run_is_paired_by_hand(tmp_path: Path) -> None:
    shares = {"base": (0.5, 0.9), "finetuned": (1.0, 0.4), "restore-0.2": (0.9, 0.6)}
    found = uvmerge.compare([run_demo(tmp_path / "demo", 1500, shares)])  # some hands come twice
    inside = row(found, "restore-0.2", "in_domain", "accuracy")
    outside = row(found, "restore-0.2", "out_of_domain", "accuracy")
    assert (inside.count, outside.count) == (1500, 4500)  # a hand under one rule is an item
    assert outside.value == pytest.approx(0.6) and outside.successes == 2700
    assert outside.test is not None and outside.test.name == MCNEMAR
    assert (outside.test.only_here, outside.test.only_there) == (900, 0)
    assert outside.by_hand is not None and outside.interval is not None
    assert outside.by_hand[1] - outside.by_hand[0] > outside.interval[1] - outside.interval[0]
    assert outside.recovered is not None and outside.recovered.of_loss == pytest.approx(0.4)


@pytest.mark.parametrize("told", ["01", "0" * 99 + "2", 7, None])
def test_a_report_of_a_demo_with_broken_answers_is_refused(tmp_path: Path, told: object) -> None:
    path = run_demo(tmp_path / "demo", 100, {"base": (0.5, 0.9)}) / "report.json"
    data = json.loads(path.read_text())
    data["rows"][0]["answers"]["low"] = told
    path.write_text(json.dumps(data))
    with pytest.raises(uvmerge.InputRefused, match="not a 0 or 1 for each hand"):
        uvmerge.compare([path])
    data["rows"][0]["answers"] = {}
    path.write_text(json.dumps(data))
    with pytest.raises(uvmerge.InputRefused, match="not a 0 or 1 for each hand"):
        uvmerge.compare([path])


# --- the page and the files ----------------------------------------------------------------------


class Tags(HTMLParser):
    """The tags of a page; fails on tags that are not closed in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[str] = []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.seen.append(tag)
        assert not any(name.startswith("on") for name, _ in attributes)
        if tag not in {"meta", "link", "br", "wbr"}:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.seen.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.open.pop() == tag, tag


def test_the_page_has_the_plot_and_no_scripts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "report"
    shown = uv(capsys, "compare", demo(tmp_path / "demo", ROWS), "--out", out)
    assert shown.code == 0
    names = sorted(path.name for path in out.iterdir())
    assert names == ["report.html", "report.json", "scores.csv"]
    page = (out / "report.html").read_text()
    tags = Tags(page).seen
    assert "script" not in tags and '<svg class="pareto"' in page and "polyline" in tags
    assert tags.count("circle") == len(ROWS)
    assert "Content-Security-Policy" in page and "http" not in page.replace(
        "http-equiv", ""
    ).replace("http://www.w3.org", "")
    data = json.loads((out / "report.json").read_text(), parse_constant=pytest.fail)
    assert data["front"] and len(data["tables"]) == 2
    assert (out / "scores.csv").read_text().count("\n") == 1 + 2 * len(ROWS)
    assert uv(capsys, "compare", tmp_path / "demo", "--out", out).code == 0  # its own files
    assert uv(capsys, "compare", out).code == 3  # a report of a comparison is no evaluation


def test_the_axes_can_be_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("sft", "mine"):
        write_run(tmp_path / name, {"gsm8k": {"acc": [1, 0, 1]}, "mmlu": {"acc": [1, 1, 0]}})
    words = [tmp_path / "sft", tmp_path / "mine"]
    assert uvmerge.compare(words).in_domain is None
    found = uvmerge.compare(words, in_domain="gsm8k", out_of_domain="mmlu.acc")
    assert len(found.points()) == 2
    refused = uv(capsys, "compare", *words, "--in-domain", "gsm8k", "--out-of-domain", "mmlu.f1")
    assert refused.code == 2 and "There are: gsm8k.acc, mmlu.acc" in refused.err
    assert uv(capsys, "compare", *words, "--in-domain", "gsm8k").code == 2


def test_names_are_inert_everywhere(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    task = f"x_{HOSTILE.replace('/', '')}"
    rows = {f"{HOSTILE}{i}": (10 * i, 20) for i in range(3)}
    out = tmp_path / "out"
    shown = uv(capsys, "compare", demo(tmp_path / "demo", rows, 50), "--out", out)
    assert shown.code == 0 and "\x1b" not in shown.out + shown.err
    for path in out.iterdir():
        assert "\x1b" not in path.read_text() and (
            path.suffix != ".html" or "<script" not in path.read_text()
        )
    for name in ("sft", "mine"):
        write_run(tmp_path / name, {task: {"acc": [1, 0, 1]}})
    shown = uv(capsys, "compare", tmp_path / "sft", tmp_path / "mine", "--out", out, "--json")
    assert shown.code == 0 and "\x1b" not in shown.out
    assert "<script" not in (out / "report.html").read_text()


def test_the_frame_has_the_rows_of_the_csv(tmp_path: Path) -> None:
    found = uvmerge.compare([demo(tmp_path / "demo", ROWS)])
    try:
        import pandas  # noqa: F401
    except ImportError:
        with pytest.raises(uvmerge.UsageError, match="needs pandas") as refused:
            found.to_frame()
        assert refused.value.do == "pip install pandas"
    else:
        assert len(found.to_frame()) == 2 * len(ROWS)
    assert "<table" in found._repr_html_()


# --- what is refused -----------------------------------------------------------------------------


def refused(capsys: pytest.CaptureFixture[str], *words: Any, code: int = 3) -> str:
    """The message, on one line, of a command that is refused."""
    shown: Outcome = uv(capsys, "compare", *words)
    assert shown.code == code, shown.err
    return " ".join(shown.err.split())


CHANGES: dict[str, tuple[dict[str, Any], str]] = {
    "version": ({"versions": {"t": 2.0}}, "version 1.0 and 2.0"),
    "template": ({"chat_template_sha": "abc"}, "chat template null and abc"),
    "limit": ({"config": {"limit": 12.0}}, "limit null and 12.0"),
    "shots": ({"n-shot": {"t": 5}}, "examples 0 and 5"),
    "hash": ({"task_hashes": {"t": "other"}}, "task hash"),
    "choices": ({"configs": {"t": {"doc_to_text": "<function f at 0x9>", "dataset_path": "csv"}}},
                "dataset_path json and csv"),
}  # fmt: skip


@pytest.mark.parametrize("name", CHANGES)
def test_evaluations_that_differ_are_named_and_refused(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    changes, said = CHANGES[name]
    sft, mine = paired(6, 21, 15, 234)
    a = write_run(tmp_path / "a", {"t": {"acc": sft}})
    b = write_run(tmp_path / "b", {"t": {"acc": mine}}, changes=changes)
    message = refused(capsys, a, b)
    assert said in message and "--force" in message and "doc_to_text" not in message
    shown = uv(capsys, "compare", a, b, "--force")
    assert shown.code == 0 and "Compared though they differ" in shown.out and "21 : 6" in shown.out


def test_other_prompts_are_counted_and_with_force_unpaired(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    a = write_run(tmp_path / "a", {"t": {"acc": [1, 0] * 10}})
    b = write_run(
        tmp_path / "b", {"t": {"acc": [1, 1] * 10}}, prompt="Q: ", changes={"task_hashes": {}}
    )
    assert "20 prompts to the same question" in refused(capsys, a, b)
    one = row(uvmerge.compare([a, b], force=True), "b", "t", "acc")
    assert one.test is not None and one.test.name == POOLED_Z


def test_the_items_that_both_have_are_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    a = write_run(tmp_path / "a", {"t": {"acc": [1, 0] * 10}}, changes={"task_hashes": {}})
    b = write_run(tmp_path / "b", {"t": {"acc": [1, 1] * 6}}, changes={"task_hashes": {}})
    assert "20 and 12 items, 12 in common" in refused(capsys, a, b)
    shown = uv(capsys, "compare", a, b, "--force")
    assert shown.code == 0 and "McNemar exact 6 : 0" in shown.out and " on 12" not in shown.out
    test = row(uvmerge.compare([a, b], force=True), "b", "t", "acc").test
    assert test is not None and test.items == 12 and test.difference == 0.5


def test_a_line_that_is_cut_is_named_and_left_out_with_force(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    a, b = (write_run(tmp_path / n, {"t": {"acc": [1, 0] * 10}}) for n in "ab")
    path = b / f"samples_t_{STAMP}.jsonl"
    path.write_bytes(path.read_bytes()[:-40])
    message = refused(capsys, a, b)
    assert f"{path.name}:20" in message and "ends in the middle of a line" in message
    assert "--force" in message
    shown = uv(capsys, "compare", a, b, "--force")
    assert shown.code == 0 and "left out line 20" in shown.out and "19 in common" in shown.out


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("{" * 100_000, "not valid JSON"),
        ("[1]", "not a JSON object"),
        ('{"doc_id": 1' + "0" * 5000 + "}", "not valid JSON"),
    ],
)
def test_lines_that_are_no_items_are_refused(
    line: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.jsonl").write_text(line + "\n")
    assert said in refused(capsys, tmp_path / "a.jsonl")


def test_nan_is_named_and_left_out_with_force(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    a = write_run(tmp_path / "a", {"t": {"acc": [0.5, 0.25] * 10}})
    b = write_run(tmp_path / "b", {"t": {"acc": [0.5, 0.75] * 9 + [math.nan, 0.5]}})
    assert "NaN" in (b / f"samples_t_{STAMP}.jsonl").read_text()
    message = refused(capsys, a, b)
    assert "acc is not finite in 1 of 20 items" in message and "samples_t" in message
    shown = uv(capsys, "compare", a, b, "--force", "--json")
    data = json.loads(shown.out, parse_constant=pytest.fail)
    assert data["tables"][0]["rows"][1]["test"]["items"] == 19


def test_totals_that_are_nan_have_no_score_and_no_test(tmp_path: Path) -> None:
    a = write_run(tmp_path / "a", {"t": {"acc": [1, 0]}}, samples=False)
    b = write_run(tmp_path / "b", {"t": {"acc": [math.nan, 1]}}, samples=False)
    found = uvmerge.compare([a, b])
    one = row(found, "b", "t", "acc")
    assert one.value is None and one.test is None and one.interval is None
    json.dumps(found.as_data(), allow_nan=False)
    assert "No difference from a could be tested." in str(found)


def test_what_holds_no_evaluation_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    a = write_run(tmp_path / "runs" / "a", {"t": {"acc": [1, 0]}})
    assert "does not exist Name a folder" in refused(capsys, tmp_path / "none")
    message = refused(capsys, tmp_path / "runs" / "aa")
    assert f"does not exist Did you mean the folder '{a}'?" in message
    (tmp_path / "empty").mkdir()
    assert "holds no evaluation" in refused(capsys, tmp_path / "empty")
    assert uv(capsys, "compare", f"x={tmp_path / 'runs'}").code == 0  # the one model in it
    write_run(tmp_path / "runs" / "b", {"t": {"acc": [1, 0]}})
    assert "2 models: a, b" in refused(capsys, tmp_path / "runs")
    (a / f"samples_t_{STAMP}.jsonl").write_text("")
    assert "holds no items" in refused(capsys, a)
    (a / f"samples_t_{STAMP}.jsonl").unlink()
    (a / f"results_{STAMP}.json").write_text('{"results": {"t": {"alias": "t"}}}')
    assert "holds no score" in refused(capsys, a)
    (a / f"results_{STAMP}.json").write_text("[]")
    assert "results_" in refused(capsys, a)
    (tmp_path / "x.jsonl").write_text("\n")
    assert "holds no items" in refused(capsys, tmp_path / "x.jsonl")
    (tmp_path / "x.jsonl").write_text('{"task": "t", "doc_id": 1}\n')
    assert "holds no metric" in refused(capsys, tmp_path / "x.jsonl")
    assert "a row without items" in refused(capsys, demo(tmp_path / "d", {"x": (0, 0)}, 0))


def test_a_task_of_0_items_is_named_and_left_out_with_force(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    count = {"t": {"original": 9, "effective": 0}, "u": {"original": 2, "effective": 2}}
    changes = {"n-samples": count, "config": {"limit": 0.0}}
    for name in "ab":
        tasks = {"t": {"acc": [0.0, 0.0]}, "u": {"acc": [1, 0]}}
        write_run(tmp_path / name, tasks, samples=False, changes=changes)
    message = refused(capsys, tmp_path / "a", tmp_path / "b")
    assert f"results_{STAMP}.json: t was asked 0 items" in message and "--force" in message
    found = uvmerge.compare([tmp_path / "a", tmp_path / "b"], force=True)
    assert [str(each.metric) for each in found.tables] == ["u, acc"]
    assert "a: t: 0 items, left out" in found.notes


def test_lines_with_the_mark_of_utf_8_are_read(tmp_path: Path) -> None:
    line = json.dumps({"task": "t", "doc_id": 1, "ok": True, "text": "é"})
    (tmp_path / "a.jsonl").write_text(line, encoding="utf-8-sig")
    assert uvmerge.compare([tmp_path / "a.jsonl"]).tables[0].rows[0].successes == 1


def test_names_and_paths_are_given_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a = write_run(tmp_path / "a", {"t": {"acc": [1, 0]}})
    shutil.copytree(a, tmp_path / "b")
    (tmp_path / "link").symlink_to(a)
    message = refused(capsys, f"x={a}", f"y={tmp_path / 'link'}", code=2)
    assert "is given twice" in message
    message = refused(capsys, f"x={a}", f"x={tmp_path / 'b'}", code=2)
    assert "is the name of two checkpoints" in message
    message = refused(capsys, f"first={a}", f"other={tmp_path / 'b'}", "--base", "frist", code=2)
    assert "Did you mean 'first'?" in message
    shown = uv(capsys, "compare", f"x={a}", f"y={tmp_path / 'b'}")  # alike, and said so
    assert shown.code == 0 and "0 : 0, p = 1" in shown.out
    assert "The one difference from x is no finding at 5 % (a single test)." in shown.out


def test_a_metric_of_one_checkpoint_alone_is_shown_and_noted(tmp_path: Path) -> None:
    a = write_run(tmp_path / "a", {"t": {"acc": [1, 0]}})
    b = write_run(tmp_path / "b", {"t": {"acc": [1, 1], "f1": [0.5, 0.5]}, "u": {"acc": [0, 1]}})
    found = uvmerge.compare([a, b])
    assert row(found, "b", "t", "f1").test is None
    assert (
        "t, f1: not measured for a" in found.notes and "u, acc: not measured for a" in found.notes
    )


def test_a_metric_of_some_items_alone_is_paired_on_these(tmp_path: Path) -> None:
    for name in ("a", "b"):
        lines = [{"task": "t", "doc_id": i, "ok": True, "late": i % 2 == 0} for i in range(6)]
        del lines[3]["late"]
        path = tmp_path / f"{name}.jsonl"
        path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    found = uvmerge.compare([tmp_path / "a.jsonl", tmp_path / "b.jsonl"])
    test = row(found, "b", "t", "late").test
    assert test is not None and test.items == 5
    assert "a: a.jsonl: late is not measured for 1 item" in found.notes


def test_tasks_that_the_first_checkpoint_lacks_are_held_to_the_same(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    a = write_run(tmp_path / "a", {"t": {"acc": [1, 0]}})
    b = write_run(tmp_path / "b", {"t": {"acc": [1, 0]}, "u": {"acc": [1, 0]}})
    changes = {"versions": {"t": 1.0, "u": 3.0}}
    c = write_run(tmp_path / "c", {"t": {"acc": [1, 0]}, "u": {"acc": [1, 1]}}, changes=changes)
    assert "b and c: u: version 1.0 and 3.0" in refused(capsys, a, b, c)


def test_the_report_is_not_written_into_an_evaluation(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    a = write_run(tmp_path / "a", {"t": {"acc": [1, 0]}})
    assert "is the input" in refused(capsys, a, "--out", a, code=2)
    before = sorted(path.name for path in a.iterdir())
    assert "lies inside" in refused(capsys, a, "--out", a / "report", code=2)
    assert sorted(path.name for path in a.iterdir()) == before
