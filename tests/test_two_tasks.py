"""The study of two tasks merged: what is asked, how a setting is chosen, and what the page says."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from uvmerge.demo import sums
from uvmerge.operations import operations

sys.path.append(str(Path(__file__).parent.parent / "benchmarks"))

import two_tasks


def test_every_merge_of_several_models_is_asked_with_options_that_it_has() -> None:
    assert two_tasks.left_out() == {"passthrough"}
    for way in two_tasks.WAYS:
        operation = operations()[way.operation]
        assert all(operation.parse(options) is not None for options in way.settings.values())
        assert len(way.settings) == len(way.varied[1])
    assert len({way.name for way in two_tasks.WAYS}) == len(two_tasks.WAYS)


def test_the_new_rule_counts_five_for_face_cards() -> None:
    hand = ("J", "Q", "3", "4", "A")
    assert two_tasks.TASK.encode("=", hand) == "= J Q 3 4 A ="
    assert [two_tasks.answer(rule, hand) for rule in ("=", "ten", "rank")] == ["18", "28", "31"]
    assert two_tasks.answer("=", hand) in sums.vocabulary()


def found(search: float, report: float) -> dict[str, Any]:
    return {"search": [search, search, 0.5], "report": [report, report, 0.5]}


def rows() -> list[dict[str, Any]]:
    """Five seeds of three ways; the setting that the search prefers is not the best of the report."""
    made = []
    for seed in range(5):
        noise = seed / 1000
        ways = {
            "task-arithmetic": {"--scale 1.0": found(0.5, 0.9), "--scale 0.5": found(0.6, 0.7 + noise)},
            "ties": {"--scale 1.0": found(0.9, 0.8 + 2 * noise), "--scale 0.5": found(0.9, 0.1)},
            "sce": {"": found(0.4, 0.6 - noise)},
        }  # fmt: skip
        models = {name: found(0.5, 0.5) for name in ("base", "ten", "five", "both")}
        made.append({"seed": seed, "cpu_s": 60.0, "models": models, "ways": ways})
    return made


def test_settings_are_chosen_on_the_search_and_reported_on_the_other_half() -> None:
    ways = two_tasks.summary(rows())["ways"]
    assert ways["task-arithmetic"]["chosen"] == {"--scale 0.5": 5}
    assert ways["task-arithmetic"]["both"]["mean"] == pytest.approx(0.702)
    assert ways["task-arithmetic"]["at_defaults"] == {"mean": 0.9, "half_of_interval_95": 0.0}
    assert ways["ties"]["chosen"] == {"--scale 1.0": 5}  # the first of equal ones
    over = ways["ties"]["over_task_arithmetic"]
    assert over["mean"] == pytest.approx(0.102) and over["half_of_interval_95"] == pytest.approx(
        2.776445 * 0.0015811 / 5**0.5, abs=1e-4
    )
    assert ways["sce"]["over_task_arithmetic"]["mean"] == pytest.approx(-0.104)
    assert ways["ties"]["p_holm"] < 0.05 and "p_holm" not in ways["task-arithmetic"]


def test_one_seed_has_no_interval_and_no_finding() -> None:
    summary = two_tasks.summary(rows()[:1])
    assert summary["ways"]["ties"]["both"] == {"mean": 0.8, "half_of_interval_95": None}
    assert "adjusted by Holm, p < 0.05): none. Worse beyond chance: none." in two_tasks.verdict(
        summary
    )


def test_the_page_says_who_wins_and_who_loses(tmp_path: Path) -> None:
    summary = two_tasks.summary(rows())
    result = {
        "date": "2026-01-01", "seeds": 5, "cpu_s": 300, "sizes": {"hands": 300}, "summary": summary
    }  # fmt: skip
    page = tmp_path / "merges.md"
    page.write_text("# Merges\n")
    for _ in range(2):  # made anew in place of the old one
        two_tasks.put_section(page, two_tasks.section(result))
    text = page.read_text()
    assert text.count("## Two tasks merged") == text.count("<!-- study: merging -->") == 1
    assert text.index("<!-- study") < text.index("5 bases") < text.index("<!-- end of study")
    assert "The best mean of both tasks has `ties` (80.4 ± 0.4)" in text
    assert "p < 0.05): `ties`. Worse beyond chance: `sce`." in text
    table = [line for line in text.splitlines() if line.startswith("| `")]
    assert [line.split("`")[1] for line in table] == ["ties", "task-arithmetic", "sce"]
    assert r"+10.2 ± 0.2 \* |" in table[0] and "-10.4" in table[2]
