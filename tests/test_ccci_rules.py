"""The completer `rules`: what it writes from a pack, and that it needs the pack for all of it."""

from __future__ import annotations

import inspect
from dataclasses import replace
from math import comb
from pathlib import Path

import pytest
from java_project import MAPPER, write

from uvmerge.tasks.ccci import (
    KINDS,
    MARKER,
    Index,
    Pack,
    complete_by_rules,
    cut,
    fits,
    open_index,
    pack,
    prompt,
)
from uvmerge.tasks.ccci.benchmark import LIBRARY, SCHEMA, SOURCES, tasks

HARD = {"order-parts", "order-sum", "claim-header", "lab-value"}  # more than a mapping of fields


def written(found: Pack, text: str) -> str:
    """What the rules write into the hole of a text."""
    prefix, _, suffix = text.partition(MARKER)
    code = complete_by_rules(found, prompt(found, prefix, suffix))
    assert cut(code, prefix, suffix) == code and fits(code, prefix, suffix)
    return code


def completed(folder: Path, files: dict[str, str], **options: object) -> str:
    write(folder, files)
    name = next(name for name, text in files.items() if MARKER in text)
    return written(pack(folder / name, **options), files[name])  # type: ignore[arg-type]


def test_each_kind_of_context_lets_the_rules_write_more(tmp_path: Path) -> None:
    write(tmp_path)
    text = (tmp_path / MAPPER).read_text()

    def lines(*without: str) -> list[str]:
        found = pack(
            tmp_path / MAPPER, schema=[tmp_path / "schema.sql"], classpath=[tmp_path / "lib"],
            without=without,
        )  # fmt: skip
        return [line.strip() for line in written(found, text).split("\n")]

    whole = lines()
    assert whole == [
        "dto.setNumber(order.getNumber());",
        "dto.setCustomerName(order.getCustomerId() == null ? null"
        " : customers.findById(order.getCustomerId()).getName());",
        "dto.setAddressCity(order.getAddress() == null ? null : order.getAddress().getCity());",
        "java.util.List<shop.dto.LineDto> lines = new java.util.ArrayList<>();",
        "for (shop.model.OrderLine orderLine : order.getLines()) {",
        "lines.add(new shop.dto.LineDto(orderLine.getSku(), orderLine.getQuantity()));",
        "}",
        "dto.setLines(lines);",
        "dto.setStatus(order.getStatus() == null ? null : order.getStatus().name());",
        "dto.setTotalCents(money.Money.ofCents(order.getTotalCents()));",
        'dto.setChannel("SHOP");',
    ]
    assert [line for line in whole if line not in lines("tables")] == [whole[1]]
    assert [line for line in whole if line not in lines("relations")] == whole[1:8]
    assert [line for line in whole if line not in lines("libraries")] == [whole[9]]
    assert [line for line in whole if line not in lines("comments")] == [whole[10]]
    assert lines("objects") == lines("scope") == lines(*KINDS) == [""]


def test_an_object_that_the_method_returns_is_made(tmp_path: Path) -> None:
    files = {
        "A.java": "class A { R f(B b) {\n/*HOLE*/\n} D g(B b) { return null; } }",
        "B.java": "class B { int getX() { return 1; } String getY() { return null; } }",
        "R.java": "record R(long x, String y) {}",
        "D.java": "class D { void setX(Long it) {} void setY(String it) {} }",
    }
    assert completed(tmp_path, files) == "return new R(b.getX(), b.getY());"
    files["A.java"] = "class A { D f(B b) {\n/*HOLE*/\n} }"
    assert completed(tmp_path, files).split("\n") == [
        "D d = new D();", "d.setX((long) b.getX());", "d.setY(b.getY());", "return d;",
    ]  # fmt: skip


def test_an_expression_is_what_the_place_wants(tmp_path: Path) -> None:
    files = {
        "A.java": "class A { void f(B b, D d) { d.setName(/*HOLE*/); } }",
        "B.java": "enum S { ON } class B { S getName() { return null; } }",
        "D.java": "class D { void setName(String it) {} }",
    }
    assert completed(tmp_path, files) == "b.getName() == null ? null : b.getName().name()"


def test_what_is_set_already_is_left_alone_and_parents_count(tmp_path: Path) -> None:
    files = {
        "A.java": "class A { void other(B b, D d) { d.setX(1); }\n"
        "void f(B b, D d) { d.setX(2); /*HOLE*/ } }",
        "B.java": "class P { int getZ() { return 0; } } class B extends P { int getX() { return 1; } }",
        "D.java": "class Q { void setZ(int it) {} } class D extends Q { void setX(int it) {} }",
    }
    assert completed(tmp_path, files) == "d.setZ(b.getZ());"


def test_a_name_in_two_packages_stays_what_the_file_imports(tmp_path: Path) -> None:
    files = {
        "c/A.java": "package c; import b.D; class A { void f(B s, D d) { /*HOLE*/ } }",
        "c/B.java": "package c; class B { int getX() { return 1; } int getY() { return 1; } }",
        "a/D.java": "package a; public class D { public void setX(int it) {} }",
        "b/D.java": "package b; public class D { public void setY(int it) {} a.D other; }",
    }
    assert completed(tmp_path, files) == "d.setY(s.getY());"


@pytest.fixture(scope="module")
def index() -> Index:
    return open_index(SOURCES, schema=SCHEMA, classpath=[LIBRARY])


def answers(index: Index, *without: str) -> dict[str, str]:
    """What the rules write into each hole of the benchmark."""
    found = {}
    for task in tasks():
        hole = task.hole
        text = hole.prefix + MARKER + hole.suffix
        found[hole.id] = written(index.pack(SOURCES / hole.file, text=text, without=without), text)
    return found


def test_each_hole_changes_without_exactly_the_kinds_that_it_needs(index: Index) -> None:
    whole = answers(index)
    assert whole == answers(index)
    for kind in KINDS:
        left = answers(index, kind)
        changed = {name for name in whole if left[name] != whole[name]}
        needed = {task.hole.id for task in tasks() if kind in task.hole.needs}
        assert needed - changed <= HARD, kind
        assert changed - needed <= HARD, kind
    assert not any(answers(index, *KINDS).values())


def test_the_rules_see_no_gold_and_no_project(index: Index) -> None:
    assert list(inspect.signature(complete_by_rules).parameters) == ["pack", "prompt"]
    hole = tasks()[0].hole
    text = hole.prefix + MARKER + hole.suffix
    found = index.pack(SOURCES / hole.file, text=text)
    moved = [replace(piece, file="nowhere", line=1, quotes="") for piece in found.pieces]
    assert written(replace(found, pieces=tuple(moved)), text) == written(found, text)
    source = Path(inspect.getfile(complete_by_rules)).parent
    for name in ("rules", "values", "facts"):
        told = (source / f"{name}.py").read_text()
        assert not any(task.hole.id in told for task in tasks())
        assert not {"warehouse", "clinic", "benchmark", "open("} & set(told.split())


def test_budget_and_places_hold_on_the_benchmark(index: Index) -> None:
    for task in tasks()[::4]:
        hole = task.hole
        text = hole.prefix + MARKER + hole.suffix
        for budget in (500, 1000, 2000):
            found = index.pack(SOURCES / hole.file, text=text, budget=budget)
            assert found.tokens <= budget and len(found.text.encode()) <= 3 * budget
        for piece in found.pieces:
            roots = (SOURCES, LIBRARY.parent, SCHEMA[0].parent)
            lines = next((r / piece.file).read_text().splitlines() for r in roots
                         if (r / piece.file).exists())  # fmt: skip
            lines = text.splitlines() if piece.file == hole.file else lines
            assert piece.quotes in lines[piece.line - 1]


@pytest.mark.slow
def test_without_a_kind_fewer_holes_pass_and_with_all_of_them_not_all(index: Index) -> None:
    from uvmerge.tasks.ccci.judge import available, judge

    tools = available()
    if isinstance(tools, str):
        pytest.skip(tools)
    holes = [task.hole for task in tasks()]

    def passing(*without: str) -> set[str]:
        found = answers(index, *without)
        judged = judge([(hole, found[hole.id]) for hole in holes], tools)
        return {hole.id for hole, each in zip(holes, judged) if each.passes}

    whole = passing()
    assert 0.6 <= len(whole) / len(holes) <= 0.95
    assert len(passing("objects")) <= 0.1 * len(holes)
    sure = 0
    for kind in ("tables", "relations", "libraries", "comments"):
        left = passing(kind)
        assert left < whole
        flips = len(whole - left)
        sure += 2 * comb(flips, 0) / 2**flips <= 0.032  # exact McNemar, no flip the other way
    assert sure >= 2
    assert not passing(*KINDS)
