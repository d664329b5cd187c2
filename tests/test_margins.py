"""Goals, the front, and margins over the line of interpolation with intervals that allow for choosing."""

from __future__ import annotations

import numpy as np
import pytest

from uvmerge.errors import UsageError
from uvmerge.tasks.goals import Goal, front, parse_goals
from uvmerge.tasks.margins import place
from uvmerge.tasks.scores import Items, Score, score_of_items
from uvmerge.tasks.searched import Searched, Tried

GOALS = parse_goals(["id:max", "ood:max"])
Scores = dict[str, Score]


def total(inside: float, outside: float) -> Scores:
    return {"id": Score(inside, 0), "ood": Score(outside, 0)}


LINE = {
    "a": total(0.0, 1.0), "b": total(0.5, 0.8), "c": total(1.0, 0.0), "d": total(0.9, 0.3),
}  # fmt: skip


@pytest.mark.parametrize(
    ("point", "above", "beside"),
    [
        ((0.25, 0.9), 0.0, 0.0),  # on the line
        ((0.25, 0.95), 0.05, 0.125),
        ((0.75, 0.4), 0.0, 0.0),  # on the part from b to c
        ((1.1, 0.1), 0.1, 1.1 - (1.0 - 0.1 / 0.3 * 0.1)),  # the line has nowhere as much
        ((-0.1, 1.0), 0.0, -0.1),
    ],
)
def test_a_margin_is_over_what_the_line_offers_at_no_less(
    point: tuple[float, float], above: float, beside: float
) -> None:
    placed = place(LINE, {"p": total(*point)}, GOALS)
    found = [each.value for each in placed["p"].over_line]
    assert found == pytest.approx([above, beside], abs=1e-9)
    assert placed["p"].over_line[0].interval is None and not placed["p"].beats_line
    assert placed["a"].over_line == () and placed["a"].values[1].value == 1.0


def test_less_is_better_where_a_goal_says_so() -> None:
    goals = parse_goals(["loss:min", "ood:max"])
    line = {n: {"loss": Score(-s["id"].value, 0), "ood": s["ood"]} for n, s in LINE.items()}  # type: ignore[operator]
    placed = place(line, {"p": {"loss": Score(-0.25, 0), "ood": Score(0.95, 0)}}, goals)
    assert placed["p"].over_line[0].value == pytest.approx(0.05)


def test_with_one_goal_the_margin_is_over_the_best_of_the_line() -> None:
    goals = parse_goals(["id:max"])
    placed = place(LINE, {"p": total(0.9, 0)}, goals)
    assert [each.value for each in placed["p"].over_line] == pytest.approx([-0.1])


def draw(
    generator: np.random.Generator, inside: float, outside: float, hands: int = 100, orders: int = 5
) -> Scores:
    """Answers that are alike for all orders of a hand."""
    keys = [str(i).encode() for i in range(hands * orders)]
    items = Items(keys, [str(i // orders) for i in range(hands * orders)])
    found = {}
    for name, share in (("id", inside), ("ood", outside)):
        right = np.repeat(generator.random(hands) < share, orders)
        found[name] = score_of_items(items, right.astype(np.float64))
    return found


def line_of(generator: np.random.Generator) -> dict[str, Scores]:
    return {
        f"interpolate-{i / 10:g}": draw(generator, 0.5 + 0.05 * i, 1 - 0.08 * i) for i in range(11)
    }


def test_a_point_far_above_the_line_beats_it_and_one_on_it_does_not() -> None:
    generator = np.random.default_rng(3)
    points = {"above": draw(generator, 0.95, 0.9), "on": draw(generator, 0.75, 0.6)}
    placed = place(line_of(generator), points, GOALS)
    assert placed["above"].beats_line and not placed["on"].beats_line
    low, high = placed["on"].over_line[0].interval or (1, -1)
    assert low < placed["on"].over_line[0].value < high


def test_intervals_are_clustered_and_widen_with_the_points_chosen_from() -> None:
    generator = np.random.default_rng(4)
    line, point = line_of(generator), draw(generator, 0.75, 0.6)
    loose = {
        name: {g: score_of_items(Items(s.items.keys), s.numerators) for g, s in scores.items()}  # type: ignore[union-attr]
        for name, scores in {**line, "p": point}.items()
    }

    def width(placed: dict[str, object]) -> float:
        low, high = placed["p"].over_line[0].interval  # type: ignore[attr-defined]
        return float(high - low)

    alone = width(place(line, {"p": point}, GOALS))  # type: ignore[arg-type]
    of_many = width(place(line, {"p": point}, GOALS, among=60))  # type: ignore[arg-type]
    unclustered = width(place({n: loose[n] for n in line}, {"p": loose["p"]}, GOALS))  # type: ignore[arg-type]
    assert of_many > 1.3 * alone and alone > 1.5 * unclustered


@pytest.mark.parametrize("shape", ["all alike", "on the line"])
def test_of_points_that_are_no_better_few_are_found_better(shape: str) -> None:
    """Fronts of eight points that lie on the true line, or anywhere in a cloud without one."""
    wrong = 0
    for seed in range(40):
        generator = np.random.default_rng([seed, 11])
        if shape == "all alike":
            line = {str(i): draw(generator, 0.5, 0.5) for i in range(11)}
            points = {f"p{i}": draw(generator, 0.5, 0.5) for i in range(8)}
        else:
            line = line_of(generator)
            scales = generator.random(8)
            points = {f"p{a}": draw(generator, 0.5 + 0.5 * a, 1 - 0.8 * a) for a in scales}
        wrong += any(each.beats_line for each in place(line, points, GOALS).values())
    assert wrong <= 2


def test_the_front_holds_what_nothing_exceeds_and_keeps_to_the_floors() -> None:
    values = {"a": (0.1, 0.9), "b": (0.5, 0.5), "c": (0.4, 0.5), "d": (0.9, 0.1), "e": (0.5, 0.5)}
    assert front(values, GOALS) == ["a", "b", "d"]
    assert front(values, parse_goals(["id:max:0.3", "ood:max:0.2"])) == ["b"]
    assert front(values, parse_goals(["id:min", "ood:max"])) == ["a"]
    assert front(values, parse_goals(["id:min:0.05"])) == []


@pytest.mark.parametrize("text", ["id", "id:up", "id:max:x", "id:max:nan", ":max", "id:max:1e99"])
def test_a_metric_needs_a_direction_and_a_floor_that_is_a_number(text: str) -> None:
    with pytest.raises(UsageError, match="--metric"):
        parse_goals([text])


def test_metrics_are_named_once_and_at_least_one() -> None:
    assert Goal.parse("a:b:min:-0.5") == Goal("a:b", False, -0.5)
    assert str(Goal.parse("task.acc:max:0.5")) == "task.acc:max:0.5"
    for texts in ([], ["id:max", "id:min"]):
        with pytest.raises(UsageError, match="--metric"):
            parse_goals(texts)


def searched(points: dict[str, Scores], halves: bool = True, **line: Scores) -> Searched:
    placed = place(line or LINE, points, GOALS)
    trials = tuple(Tried(name, {}, placed=placed[name]) for name in points)
    return Searched(GOALS, halves, (), trials, tuple(points))


def test_the_last_sentence_follows_from_the_intervals() -> None:
    generator = np.random.default_rng(5)
    line = line_of(generator)
    above, on = draw(generator, 0.95, 0.9), draw(generator, 0.755, 0.605)
    best = searched({"trial-1": on, "trial-2": above}, **line).sentence
    assert best.startswith("trial-2 beats interpolation: +") and best.endswith("at equal id.")
    sentence = searched({"trial-1": draw(generator, 0.6, 0.5)}, **line).sentence
    assert sentence.startswith("Nothing beats interpolation: no setting lies above the line")
    assert searched({}).sentence.startswith("Nothing beats interpolation: ")
    told = searched({"trial-1": total(0.25, 0.95)}, halves=False).sentence
    assert told.startswith("Nothing is shown to beat interpolation: the evaluation gives totals")
    assert told.endswith("chosen and judged on the same items.")
