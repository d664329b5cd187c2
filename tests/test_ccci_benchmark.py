"""The Java project and its holes: what each needs, and that the code that was there passes."""

from __future__ import annotations

import re
from collections import Counter

import pytest
from java import TOOLS, needs_sandbox, tools

from uvmerge.tasks.ccci import KINDS, judge
from uvmerge.tasks.ccci.benchmark import LIBRARY, SOURCES, TESTS, asked, tasks
from uvmerge.tasks.ccci.task import Hole

LIBRARY_CALL = re.compile(r"\b(Codes|Dates|Money|Weight)\.(\w+)\(|\.(minor|grams|plus)\(")


def texts(hole: Hole, kind: str, *without: str) -> str:
    """What the pack of a hole says of a kind."""
    pack, _ = asked(hole, without)
    return "\n".join(piece.text for piece in pack.pieces if piece.kind == kind)


def needing(kind: str) -> list[Hole]:
    return [task.hole for task in tasks() if kind in task.hole.needs]


@needs_sandbox
def test_the_code_that_was_there_passes_everywhere_and_nothing_passes_nowhere() -> None:
    assert not isinstance(TOOLS, str)
    holes = [task.hole for task in tasks()]
    codes = [(hole, hole.gold) for hole in holes] + [(hole, "") for hole in holes]
    found = judge.judge(codes, tools(TOOLS[1]))
    gold, empty = found[: len(holes)], found[len(holes) :]
    assert [h.id for h, each in zip(holes, gold) if not each.passes] == []
    assert [h.id for h, each in zip(holes, empty) if each.passes] == []


def test_every_kind_is_needed_by_eight_holes_and_every_sort_of_transfer_is_there() -> None:
    needed = Counter(kind for task in tasks() for kind in task.hole.needs)
    assert needed.keys() == set(KINDS) and min(needed.values()) >= 8
    families = {task.family for task in tasks()}
    assert families >= {"one-to-one", "nested", "collection", "enum", "date", "money", "null", "join",
                        "constant"}  # fmt: skip


def test_what_libraries_are_needed_for_is_said_by_them_alone() -> None:
    for hole in needing("libraries"):
        calls = {found[2] or found[3] for found in LIBRARY_CALL.finditer(hole.gold)}
        assert calls, hole.id
        told = texts(hole, "libraries")
        pack, _ = asked(hole, ["libraries"])
        for call in calls:
            assert re.search(rf"\b{call}\(", told), (hole.id, call)
            assert f"{call}(" not in pack.text, (hole.id, call)
    for task in tasks():
        if "libraries" not in task.hole.needs:
            assert not LIBRARY_CALL.search(task.hole.gold), task.hole.id


def test_constants_that_comments_are_needed_for_stand_in_comments_alone() -> None:
    found = 0
    for hole in needing("comments"):
        constants = re.findall(r'"([^"]+)"', hole.gold)
        for constant in constants:
            assert constant in texts(hole, "comments"), (hole.id, constant)
            assert constant not in asked(hole, ["comments"])[1].text, (hole.id, constant)
        found += bool(constants)
    assert found >= 8


def test_the_step_that_tables_are_needed_for_is_a_foreign_key() -> None:
    joins = {t.hole.id for t in tasks() if re.search(r"s\.get\(\w+\.get", t.hole.gold)}
    assert joins == {hole.id for hole in needing("tables")}
    for hole in needing("tables"):
        for key in re.findall(r"s\.get\(\w+\.get(\w+)\(\)\)", hole.gold):
            column = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", key).lower()
            assert f"foreign key ({column}) references " in texts(hole, "tables"), (hole.id, key)
        assert "references" not in asked(hole, ["tables"])[1].text.partition("File:")[0]


def test_the_steps_that_relations_are_needed_for_are_in_them() -> None:
    for hole in needing("relations"):
        told = texts(hole, "relations")
        for step in re.findall(r"\.get(\w+)\(\)\.get", hole.gold):
            assert re.search(rf"\.{step[0].lower()}{step[1:]} -> ", told), (hole.id, step)
        if "tables" in hole.needs:
            assert "-> table" in told
        assert not texts(hole, "relations", "relations")


def test_scope_and_objects_name_what_the_code_uses() -> None:
    for task in tasks():
        hole = task.hole
        for setter in re.findall(r"\.(set\w+)\(", hole.gold):
            assert re.search(rf"\b{setter}\b", texts(hole, "objects")), (hole.id, setter)
        for name in re.findall(r"\b(\w+)\.get\(", hole.gold):
            assert re.search(rf" {name}; // field", texts(hole, "scope")), (hole.id, name)


def test_no_test_and_no_answer_is_in_a_prompt() -> None:
    words = [path.stem for path in (TESTS / "checks").glob("*Test.java")]
    for task in tasks():
        pack, prompt = asked(task.hole)
        assert not any(word in prompt.text for word in words) and "Check." not in prompt.text
        assert task.hole.gold not in prompt.text, task.hole.id
        assert "checks" not in {piece.file.partition("/")[0] for piece in pack.pieces}


def test_a_key_is_followed_in_one_hole_of_a_class_alone() -> None:
    """Else the code around one hole would show the step that another one needs."""
    for file in {task.hole.file for task in tasks()}:
        steps = [
            {f"{table} {key}" for table, key in re.findall(r"(\w+)\.get\((\w+\.get\w+)\(", task.hole.gold)}
            for task in tasks() if task.hole.file == file
        ]  # fmt: skip
        counted = Counter(step for found in steps for step in found)
        assert all(count == 1 for count in counted.values()), (file, counted)


def test_the_project_is_plain_java_with_lines_that_fit() -> None:
    for folder in (SOURCES, LIBRARY, TESTS):
        for path in folder.rglob("*.java"):
            text = path.read_text(encoding="ascii")
            assert "\t" not in text and max(map(len, text.splitlines())) <= 100, path


@pytest.mark.parametrize("kind", KINDS)
def test_leaving_a_kind_out_changes_the_prompt(kind: str) -> None:
    hole = needing(kind)[0]
    assert asked(hole, [kind])[1].text != asked(hole)[1].text
