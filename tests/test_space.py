"""A space of settings: what is free in it, the recipes that it gives, and refusals with their line."""

from __future__ import annotations

import math

import pytest

from uvmerge.errors import RecipeError
from uvmerge.recipe.recipe import Recipe
from uvmerge.recipe.space import Choice, Range, Space

TEXT = """uvmerge: 1
dtype: bfloat16
steps:
  - project: {top: {from: 10%, to: 0.9}, side: {any: [two, left, right]}}
  - interpolate: {scale: {from: 0, to: 1.2, step: 0.5}, layers: 0-1}
  - interpolate: {scale: {from: 0.01, to: 1, log: true}, layers: {any: ["2-3", "3"]}}
  - restore: {rank: {from: 1, to: 9}}
"""


def test_every_range_and_choice_is_free() -> None:
    space = Space.parse(TEXT)
    assert space.dimensions == (
        Range("project.top", 0.1, 0.9),
        Choice("project.side", ('"two"', '"left"', '"right"')),
        Range("2.interpolate.scale", 0.0, 1.0, 0.5),
        Range("3.interpolate.scale", 0.01, 1.0, log=True),
        Choice("3.interpolate.layers", ('"2-3"', '"3"')),
        Range("restore.rank", 1, 9, 1.0, whole=True),
    )
    assert space.count == math.inf
    assert math.prod(space.dimensions[i].count for i in (1, 2, 4, 5)) == 3 * 3 * 2 * 9


def test_a_setting_is_a_recipe_with_few_digits_within_the_range() -> None:
    space = Space.parse(TEXT)
    values = {
        "project.top": 0.33333333, "project.side": '"left"', "2.interpolate.scale": 0.5,
        "3.interpolate.scale": 0.0099999, "3.interpolate.layers": '"3"', "restore.rank": 4,
    }  # fmt: skip
    recipe = space.recipe(values)
    assert recipe.dtype == "bfloat16"
    assert recipe.as_data()["steps"] == [
        {"project": {"top": 0.3333, "side": "left"}},
        {"interpolate": {"layers": [0, 1]}},  # 0.5 is the default
        {"interpolate": {"scale": 0.01, "layers": [3]}},
        {"restore": {"rank": 4}},
    ]
    assert Recipe.from_data(recipe.as_data()) == recipe
    assert space.settings(values)["3.interpolate.layers"] == "3"


def test_the_same_space_in_another_spelling_is_the_same() -> None:
    one = Space.parse("uvmerge: 1\nsteps:\n- reset-layers: {frac: {from: 0.1, to: 0.5}}")
    data = {"uvmerge": 1, "steps": [{"reset_layers": {"frac": {"to": 0.5, "from": 0.1}}}]}
    assert Space.from_data(data).as_data() == one.as_data()


@pytest.mark.parametrize(
    ("step", "line", "what"),
    [
        ("restore: {top: 0.2}", 1, "nothing is free"),
        ("restor: {top: {from: 0, to: 1}}", 3, "restor: is not an operation"),
        ("restore: {tpo: {from: 0, to: 1}}", 3, "tpo: is not an option"),
        ("restore: {top: {from: 0, to: 2}}", 3, "'2' is outside 0 to 1"),
        ("restore: {top: {from: 0.5, to: 0.5}}", 3, "the range from 0.5 to 0.5 is empty"),
        ("restore: {top: {from: 0.9, to: 0.5}}", 3, "is empty"),
        ("restore: {top: {from: a, to: 0.5}}", 3, "is text, not a number"),
        ("restore: {top: {from: .nan, to: 0.5}}", 3, "not a finite number"),
        ("restore: {top: {frm: 0, to: 0.5}}", 3, "unknown key 'frm'"),
        ("restore: {top: {from: 0}}", 3, "to is missing"),
        ("restore: {top: {}}", 3, "from is missing"),
        ("restore: {top: {from: 0, to: 1, step: 2}}", 3, "the step 2 does not fit"),
        ("restore: {top: {from: 0, to: 1, step: x}}", 3, "is not a number"),
        ("restore: {top: {from: 0, to: 1, log: true}}", 3, "needs a range above 0"),
        ("project:\n      top: 0.2\n      side: {any: [left, up]}", 5, "'up' is not one of"),
        ("project: {side: {any: [left]}}", 3, "a choice of 1 leaves nothing free"),
        ("project: {side: {any: [left, left]}}", 3, "stands there twice"),
        ("project: {side: {any: left}}", 3, "any is no list"),
        ("project: {side: {from: 0, to: 1}}", 3, "takes no numbers"),
        ("project: {top: {any: [{from: 0, to: 1}, 0.2]}}", 3, "not expected here"),
        ("merge_method: {a: {from: 0, to: 1}}", 3, "is not an operation"),
    ],
)
def test_a_space_is_refused_with_its_line(step: str, line: int, what: str) -> None:
    with pytest.raises(RecipeError) as refused:
        Space.parse(f"uvmerge: 1\nsteps:\n  - {step}\n", "space.yaml")
    assert refused.value.where == f"space.yaml:{line}"
    assert what in refused.value.what and refused.value.do


@pytest.mark.parametrize("text", ["", "[1]", "steps: []", "uvmerge: 1\nsteps: 3", "uvmerge: 2"])
def test_what_is_no_recipe_is_no_space(text: str) -> None:
    with pytest.raises(RecipeError):
        Space.parse(text)
