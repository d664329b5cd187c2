"""Which tensors are picked, and how layers, modules and names are written."""

from __future__ import annotations

from typing import Any

import pytest

from uvmerge import InputRefused, UsageError
from uvmerge.checkpoint.anatomy import MODULES, Place
from uvmerge.checkpoint.selection import Selection, parse_layers, parse_modules, parse_names

PLACES = {
    "model.layers.0.self_attn.q_proj.weight": Place(0, 4, "attention", True),
    "model.layers.0.self_attn.q_proj.bias": Place(0, 4, "attention", False),
    "model.layers.2.mlp.up_proj.weight": Place(2, 4, "mlp", True),
    "model.layers.2.mlp.gate.weight": Place(2, 4, "router", True),
    "model.layers.2.input_layernorm.weight": Place(2, 4, "norm", False),
    "model.embed_tokens.weight": Place(None, 4, "embeddings", True),
    "model.norm.weight": Place(None, 4, "final-norm", False),
    "lm_head.weight": Place(None, 4, "head", True),
    "visual.blocks.0.attn.proj.weight": Place(None, 4, "other", True),
}
MATRICES = {name for name, place in PLACES.items() if place.is_matrix}
LAYER_MATRICES = {n for n in MATRICES if ".self_attn." in n or ".mlp.up" in n}


def picked(matrices_only: bool = True, **filters: Any) -> set[str]:
    selection = Selection(**filters)
    return {n for n, p in PLACES.items() if selection.picks(n, p, matrices_only=matrices_only)}


def test_by_default_matrices_of_attention_and_mlp_or_everything() -> None:
    assert picked() == LAYER_MATRICES
    assert picked(matrices_only=False) == set(PLACES)


@pytest.mark.parametrize("module", MODULES)
def test_a_module_is_picked_by_name(module: str) -> None:
    of_module = {name for name, place in PLACES.items() if place.module == module}
    assert of_module
    assert picked(matrices_only=False, modules=(module,)) == of_module
    assert picked(modules=(module,)) == of_module & MATRICES


def test_all_modules_means_every_matrix() -> None:
    assert picked(modules=("all",)) == MATRICES
    assert picked(matrices_only=False, modules=("all",)) == set(PLACES)


def test_layers_leave_out_what_is_in_none() -> None:
    assert picked(layers=(2, 3)) == {"model.layers.2.mlp.up_proj.weight"}
    in_layer_0 = {name for name in PLACES if ".layers.0." in name}
    assert picked(matrices_only=False, layers=(0,)) == in_layer_0
    assert picked(modules=("all",), layers=(0,)) == in_layer_0 & MATRICES


def test_include_alone_makes_every_module_eligible() -> None:
    assert picked(include=("*gate*", "lm_head*")) == {
        "model.layers.2.mlp.gate.weight",
        "lm_head.weight",
    }
    assert picked(include=("*gate*", "*up_proj*"), modules=("mlp",)) == {
        "model.layers.2.mlp.up_proj.weight"
    }
    assert picked(include=("*norm*", "*.bias")) == set()  # no matrices


def test_exclude_wins_and_globs_are_of_the_whole_name() -> None:
    assert picked(exclude=("*.self_attn.*",)) == {"model.layers.2.mlp.up_proj.weight"}
    assert picked(include=("*",), exclude=("*",)) == set()
    assert picked(exclude=("self_attn", "*.SELF_ATTN.*")) == LAYER_MATRICES


def test_modules_are_named_by_name_or_by_all() -> None:
    assert not Selection().names_module("head")
    assert not Selection(include=("lm_head*",)).names_module("head")
    assert Selection(modules=("head",)).names_module("head")
    assert Selection(modules=("all",)).names_module("head")
    assert not Selection(modules=("mlp",)).names_module("head")


def test_layers_beyond_the_model_are_refused_with_its_depth() -> None:
    Selection(layers=(0, 3)).check(4)
    with pytest.raises(InputRefused, match=r"4 decoder layers \(0 to 3\), not layer 4, 9"):
        Selection(layers=(0, 4, 9)).check(4)


@pytest.mark.parametrize(
    ("value", "layers"),
    [
        ("3", (3,)),
        (3, (3,)),
        ("0-2,7", (0, 1, 2, 7)),
        (" 4 , 1-1 ", (1, 4)),
        ("2,0-2,1", (0, 1, 2)),
        ([5, 2, "8-9"], (2, 5, 8, 9)),
        ((), ()),
    ],
)
def test_layers_are_numbers_and_ranges(value: object, layers: tuple[int, ...]) -> None:
    assert parse_layers(value) == layers


@pytest.mark.parametrize(
    "value",
    [
        "",
        "a",
        "1-",
        "-1",
        "3-1",
        "1,,2",
        "1-2-3",
        "1.5",
        "0-999999999",
        "9" * 13,
        -1,
        1.5,
        True,
        {},
    ],
)
def test_layers_written_otherwise_are_refused(value: object) -> None:
    with pytest.raises(UsageError, match="layers: "):
        parse_layers(value)


def test_modules_are_known_names() -> None:
    assert parse_modules("attention, mlp") == ("attention", "mlp")
    assert parse_modules(["head", "all"]) == ("head", "all")
    with pytest.raises(UsageError, match=r"'mpl' is not a module\n.*mlp.*all"):
        parse_modules("attention,mpl")


def test_names_are_text_separated_by_commas() -> None:
    assert parse_names("*.q_proj.*, lm_head*,") == ("*.q_proj.*", "lm_head*")
    assert parse_names(["a,b", "c"]) == ("a,b", "c")
    for value in (3, None, ["a", 1], {"a": "b"}):
        with pytest.raises(UsageError, match="names: "):
            parse_names(value)
