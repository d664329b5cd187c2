"""The card game: its solver, its judge, its frozen hands."""

from __future__ import annotations

import itertools
import operator
import time
from fractions import Fraction

import pytest

from uvmerge.tasks.cards import Verdict, judge, judge_answer, solve

HAND = (3, 3, 8, 8)


def test_the_solver_finds_the_known_number_of_hands_and_the_judge_accepts_them() -> None:
    """1,362 of 1,820 hands have a solution; floats miss one in 45 hands, and every one of {3, 3, 8, 8}."""
    hands = itertools.combinations_with_replacement(range(1, 14), 4)
    solved = {hand: formulas for hand in hands if (formulas := solve(hand))}
    verdicts = {hand: [judge(f, hand) for f in formulas] for hand, formulas in solved.items()}
    assert len(solved) == 1362
    assert all(verdict.ok for each in verdicts.values() for verdict in each)
    published = {hand: [verdict.published for verdict in each] for hand, each in verdicts.items()}
    assert sum(not all(each) for each in published.values()) == 45
    assert [hand for hand, each in published.items() if not any(each)] == [HAND]


def reachable(numbers: tuple[Fraction, ...]) -> bool:
    """Whether 24 can be made, by joining any two numbers until one is left."""
    if len(numbers) == 1:
        return numbers[0] == 24
    steps = (operator.add, operator.sub, operator.mul, operator.truediv)
    for i, j in itertools.permutations(range(len(numbers)), 2):
        rest = tuple(n for k, n in enumerate(numbers) if k not in (i, j))
        for step in steps:
            if step is operator.truediv and not numbers[j]:
                continue
            if reachable((step(numbers[i], numbers[j]), *rest)):
                return True
    return False


def test_a_slower_search_of_another_kind_finds_the_same_hands() -> None:
    for hand in itertools.islice(
        itertools.combinations_with_replacement(range(1, 14), 4), 5, None, 90
    ):
        assert bool(solve(hand)) == reachable(tuple(map(Fraction, hand))), hand


def test_solutions_are_told_apart_and_sorted() -> None:
    assert solve(HAND) == ["8/(3-8/3)"]
    assert solve([24]) == ["24"] and solve([4, 6]) == ["4*6"] and solve([5, 5]) == []
    formulas = solve([2, 3, 4, 4])
    assert formulas == sorted(set(formulas), key=lambda text: (len(text), text))
    assert solve([0, 0, 4, 6]) and solve([10, 1, 6, 4]) == solve([4, 6, 1, 10])


@pytest.mark.parametrize("values", [[], [1, 2, 3, 4, 5], [-1], [1.5], [100], [True]])
def test_the_solver_refuses_what_is_no_hand(values: list[int]) -> None:
    with pytest.raises(ValueError, match="a hand has one to 4"):
        solve(values)


@pytest.mark.parametrize(
    "formula",
    [" 8 / ( 3 - 8/3 ) ", "8÷(3−8÷3)", "8/(3-8/3)=24", "8/(3-8/3) = 24 = 8*3", "((8))/(3-8/3)",
     "8\t/(3-8/3)\n", "-8/(8/3-3)", "8/-(8/3-3)", "-(-8)/(3-8/3)"],
)  # fmt: skip
def test_what_makes_24_is_ok_however_it_is_written(formula: str) -> None:
    assert judge(formula, HAND) == Verdict("ok", published=False, value=Fraction(24))


@pytest.mark.parametrize(
    ("formula", "values", "published"),
    [("(4+4)*3*1", (1, 3, 4, 4), True), ("(4+4)×3×1", (1, 3, 4, 4), False),
     ("(4 + 4)*3*1", (1, 3, 4, 4), False), ("(4+4)*3*1=24", (1, 3, 4, 4), True),
     ("8/(3-8/3)", HAND, False), ("-(2-5)*8*1", (1, 2, 5, 8), True)],
)  # fmt: skip
def test_the_published_judge_computes_in_floats_and_takes_no_spaces(
    formula: str, values: tuple[int, ...], published: bool
) -> None:
    verdict = judge(formula, values)
    assert verdict.ok and verdict.published is published


@pytest.mark.parametrize(
    ("formula", "reason"),
    [("8/(3-8/4)", "cards"), ("8/(3-8)", "cards"), ("8/(3-8/3)*1", "cards"), ("33+8+8", "cards"),
     ("8*3+8-3", "value"), ("8/(3-3)+8", "zero-division"), ("8/(8-8)+3", "cards"),
     ("8**3", "syntax"), ("8//3", "syntax"), ("8 8+3+3", "syntax"), ("08+8+3+3", "syntax"),
     ("8(3)+8+3", "syntax"), ("(8+8)(3+3)", "syntax"), ("+8+8+3+3", "syntax"), ("8+8+3+3-", "syntax"),
     ("8+8+(3+3", "syntax"), ("8+8+3+3)", "syntax"), ("()", "syntax"), ("", "syntax"), (" ", "syntax"),
     ("=24", "syntax"), ("-", "syntax"), ("8" * 5000, "syntax"), ("(" * 10_000, "syntax"),
     ("(" * 10_000 + "8" + ")" * 10_000, "syntax"), ("(" * 60 + "8" + ")" * 60, "syntax"),
     ("8+" * 5000 + "8", "syntax"), ("-" * 900 + "8", "cards"), ("8" * 900, "syntax"),
     ("__import__('os')", "illegal"), ("8/(3-8/3);1", "illegal"), ("8^3", "illegal"),
     ("K*2", "illegal"), ("8.0/3", "illegal"), ("８+3", "illegal"), ("8²", "illegal"), ("\0", "illegal"),
     ("\ud800", "illegal"), ("x" * 10**6, "illegal")],
)  # fmt: skip
def test_what_is_wrong_has_its_reason_at_once(formula: str, reason: str) -> None:
    started = time.process_time()
    verdict = judge(formula, HAND)
    assert time.process_time() - started < 0.01
    assert (verdict.reason, verdict.ok, verdict.published) == (reason, False, False)


@pytest.mark.parametrize(
    ("answer", "reason"),
    [('{"cards": ["3"], "number": [3], "formula": "8/(3-8/3)"}', "ok"),
     ('So:\n```json\n{\n "formula": "8/(3-8/3)=24"\n}\n```\nDone.', "ok"),
     ('{"formula": "8+8"} no, {"formula": "8/(3-8/3)"}', "ok"), ('{"a": {"formula": "8/(3-8/3)"}}', "ok"),
     ('{"formula": "8/(3-8/3)"} {"note": 1} {', "ok"), ('{"formula": "8+8+3+3"}', "value"),
     ('{"formula": ""}', "syntax"), ('{"formula": 24}', "format"), ("8/(3-8/3)", "format"), ("", "format"),
     ('{"formula": "8/(3-8/3)', "format"), ("{" * 100_000, "format"), ('{"a":' * 30_000, "format"),
     ('{"formula": ' + "9" * 10_000 + "}", "format")],
)  # fmt: skip
def test_an_answer_is_judged_by_the_last_formula_in_its_json(answer: str, reason: str) -> None:
    started = time.process_time()
    assert judge_answer(answer, HAND).reason == reason
    assert time.process_time() - started < 0.05
