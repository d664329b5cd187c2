"""Results as Python shows them: a `repr` of two lines, a summary for `print`, HTML for a notebook."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Mapping
from html.parser import HTMLParser
from typing import Any

import faults
import numpy as np
import pytest

import uvmerge
from uvmerge.api.results import Listing
from uvmerge.demo.evaluator import Answers
from uvmerge.demo.sums import RULES
from uvmerge.demo.table import DemoReport, Row

LAYERS = 120
HOSTILE = "<script>alert(1)</script>\x1b"
CONFIG = faults.CONFIG | {"num_hidden_layers": LAYERS}


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What every public call returns for a pair of some hundred tensors, one with a hostile name."""
    folder = tmp_path_factory.mktemp("shown")
    tensors = faults.tensors(layers=LAYERS, hidden=8)
    tensors[f"{HOSTILE}.weight"] = tensors[faults.HEAD]
    base, finetuned, out = faults.pair_of(folder, tensors, config=CONFIG)
    swept = uvmerge.sweep("restore", base, finetuned, folder / "sweep", top=[0.2, 0.4])
    found = uvmerge.diff(base, finetuned, folder / "sweep" / "top-0.4")
    right = np.array([True, True, False, True])
    answers = Answers(("A", "2", "3", "4"), dict.fromkeys(RULES, right))
    rows = tuple(Row(f"restore-{i}", HOSTILE, answers, 0.5, None) for i in range(80))
    return {
        "diff": found,
        "entry": found.compared[0].entries[0],
        "sweep": swept,
        "again": uvmerge.sweep("restore", base, finetuned, folder / "sweep", top=[0.2, 0.4]),
        "result": uvmerge.restore(base, finetuned, out, top=0.2, modules="all"),
        "planned": uvmerge.restore(base, finetuned, folder / "no", dry_run=True),
        "recipe": uvmerge.Recipe.from_data(
            {"uvmerge": 1, "steps": [{"restore": {"exclude": [f"{i}*" for i in range(90)]}}]}
        ),
        "contents": uvmerge.show(finetuned),
        "checked": uvmerge.check(out, against=finetuned, sha256=True),
        "checkpoint": uvmerge.Checkpoint.open(base),
        "demo": DemoReport(rows, "part", 100, 1, {}),
    }


def held(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    """A result and all results inside of it, each with its path."""
    if dataclasses.is_dataclass(value) and type(value).__module__.startswith("uvmerge"):
        yield path, value
        for each in dataclasses.fields(value):
            yield from held(getattr(value, each.name), f"{path}.{each.name}")
    elif isinstance(value, (dict, Listing)) and type(value) is not dict:
        yield path, value
    if isinstance(value, (list, tuple)):
        for i, item in enumerate(value[:5]):
            yield from held(item, f"{path}[{i}]")
    elif isinstance(value, Mapping):
        for key in list(value)[:5]:
            yield from held(value[key], f"{path}[{key!r}]")


def test_no_repr_is_longer_than_two_kilobytes_or_two_lines(results: dict[str, Any]) -> None:
    shown = {path: each for name, result in results.items() for path, each in held(result, name)}
    kinds = {type(each).__name__ for each in shown.values()}
    told = "Diff Compared Entry Listing Measures Turn Change Pair Sweep Result Plan Step Recipe"
    assert {*told.split(), "Contents", "Checked", "Checkpoint", "DemoReport"} <= kinds
    wrong = {
        path: len(text)
        for path, each in shown.items()
        if len((text := repr(each)).encode()) > 2000 or text.count("\n") > 1 or "\x1b" in text
    }
    assert not wrong


def test_a_repr_names_what_it_is_of(results: dict[str, Any]) -> None:
    diff = results["diff"]
    assert repr(diff).splitlines()[0] == "<Diff base → finetuned → top-0.4: related"
    assert f"{4 * LAYERS} matrices in .compared" in repr(diff)
    assert repr(diff.compared[0]).startswith("<Compared finetuned: related\n  240 matrices and ")
    assert "q_proj.weight (8 × 8, F32)\n  measured, moved 4.48 %" in repr(results["entry"])
    assert "(chance " in repr(results["entry"])
    assert repr(diff.compared[0].entries).startswith("<Listing 240 items: model.layers.0.")
    assert repr(results["planned"]).splitlines()[1] == "  restore; .plan>"
    assert "restore top 0.2, modules all on base, finetuned" in results["result"].plan.__repr__()
    assert "2 settings, 0 made now\n  top-0.2, top-0.4>" in repr(results["again"])


def test_print_shows_what_the_command_shows(results: dict[str, Any]) -> None:
    diff, result = results["diff"], results["result"]
    assert "related to base" in str(diff).splitlines()[0] and "by layer 0 to 119" in str(diff)
    alone = str(diff.compared[0])
    assert (
        alone.splitlines()[0].startswith("finetuned is related to base") and "top-0.4" not in alone
    )
    assert str(results["entry"]).splitlines()[1].split() == ["measure", "value", "chance"]
    assert str(result) == f"{result.summary}\n{result.out}"
    assert str(results["planned"]) == str(results["planned"].plan)
    assert results["planned"].plan.as_table() in str(results["planned"])
    assert str(results["again"]).splitlines()[0] == "top-0.2: was there already"
    assert str(results["contents"]).startswith("finetuned: ")
    assert str(results["checked"]).splitlines()[-1] == "ok"
    for name in ("contents", "checked"):
        assert json.loads(json.dumps(results[name])) == results[name]


class Checker(HTMLParser):
    """Collects open tags, and refuses scripts, event handlers and tags that are not closed."""

    VOID = ("img", "wbr", "br")

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag != "script" and not any(name.startswith("on") for name, _ in attrs)
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag != "script"

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_html_for_a_notebook_is_whole_and_names_are_escaped(results: dict[str, Any]) -> None:
    shown = [
        results[n] for n in ("diff", "entry", "sweep", "result", "planned", "contents", "demo")
    ]
    shown += [results["diff"].compared[0], results["planned"].plan, results["again"]]
    for each in shown:
        html = each._repr_html_()
        checker = Checker()
        checker.feed(html)
        assert not checker.open and "\x1b" not in html, type(each)
        assert len(html) < 500_000
    assert "&lt;script&gt;" in results["contents"]._repr_html_()
    assert "<svg" in results["entry"]._repr_html_()
    assert results["sweep"]._repr_html_().count("background:#0072B2") == 2
