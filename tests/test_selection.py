"""Which tensors are picked, and how layers, modules and names are written."""

from __future__ import annotations

import re
from typing import Any

import pytest

from uvmerge import InputRefused, UsageError
from uvmerge.checkpoint.anatomy import MODULES, Place
from uvmerge.checkpoint.selection import (
    Selection,
    parse_layer_map,
    parse_layers,
    parse_modules,
    parse_names,
)
from uvmerge.checkpoint.stacks import Stack

PLACES = {
    "model.layers.0.self_attn.q_proj.weight": Place(0, 4, "attention", True),
    "model.layers.0.self_attn.q_proj.bias": Place(0, 4, "attention", False),
    "model.layers.2.mlp.up_proj.weight": Place(2, 4, "mlp", True),
    "model.layers.2.mlp.gate.weight": Place(2, 4, "router", True),
    "model.layers.1.mamba.in_proj.weight": Place(1, 4, "mixer", True),
    "model.layers.2.input_layernorm.weight": Place(2, 4, "norm", False),
    "model.embed_tokens.weight": Place(None, 4, "embeddings", True),
    "model.norm.weight": Place(None, 4, "final-norm", False),
    "lm_head.weight": Place(None, 4, "head", True),
    "visual.blocks.0.attn.proj.weight": Place(
        0, 2, "attention", True, "visual.blocks", "vision", is_main=False
    ),
}
MATRICES = {name for name, place in PLACES.items() if place.is_matrix}
LAYER_MATRICES = {n for n in MATRICES if re.search(r"\.self_attn\.|\.mlp\.up|\.mamba\.", n)}


def picked(matrices_only: bool = True, **filters: Any) -> set[str]:
    selection = Selection(**filters)
    return {n for n, p in PLACES.items() if selection.picks(n, p, matrices_only=matrices_only)}


def test_by_default_matrices_of_attention_and_mlp_or_everything() -> None:
    assert picked() == LAYER_MATRICES
    assert picked(matrices_only=False) == set(PLACES)


@pytest.mark.parametrize("module", MODULES)
def test_a_module_is_picked_by_name(module: str) -> None:
    of_module = {n for n, place in PLACES.items() if Selection().seen(place).module == module}
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
    mlp = {"model.layers.2.mlp.up_proj.weight", "model.layers.1.mamba.in_proj.weight"}
    assert picked(exclude=("*.self_attn.*",)) == mlp
    assert picked(include=("*",), exclude=("*",)) == set()
    assert picked(exclude=("self_attn", "*.SELF_ATTN.*")) == LAYER_MATRICES


def test_modules_are_named_by_name_or_by_all() -> None:
    assert not Selection().names_module("head")
    assert not Selection(include=("lm_head*",)).names_module("head")
    assert Selection(modules=("head",)).names_module("head")
    assert Selection(modules=("all",)).names_module("head")
    assert not Selection(modules=("mlp",)).names_module("head")


def test_layers_beyond_the_model_are_refused_with_its_depth() -> None:
    text, vision = Stack("model.layers", 4, "text", 9), Stack("visual.blocks", 6, "vision", 9)
    Selection(layers=(0, 3)).check([text, vision], [text])
    with pytest.raises(InputRefused, match=r"4 layers \(0 to 3\), not layer 4, 9"):
        Selection(layers=(0, 4, 9)).check([text, vision], [text])
    Selection(layers=(0, 5), stack=("vision",)).check([text, vision], [text])
    with pytest.raises(
        InputRefused, match=r"(?s)no stack 'audio'.*visual.blocks \(6 vision layers\)"
    ):
        Selection(stack=("audio",)).check([text, vision], [text])


@pytest.mark.parametrize("word", ["vision", "visual.blocks", "visual"])
def test_a_stack_is_named_by_kind_name_or_the_start_of_its_name(word: str) -> None:
    assert picked(stack=(word,)) == {"visual.blocks.0.attn.proj.weight"}
    assert picked(stack=(word,), layers=(1,)) == set()
    assert picked(matrices_only=False, stack=(word,)) == {"visual.blocks.0.attn.proj.weight"}


def test_a_stack_that_is_not_worked_on_stands_outside_of_all_layers() -> None:
    tower = PLACES["visual.blocks.0.attn.proj.weight"]
    seen = Selection().seen(tower)
    assert (seen.layer, seen.module) == (None, "other")
    assert Selection(stack=("vision",)).seen(tower) == tower
    assert "visual.blocks.0.attn.proj.weight" in picked(modules=("all",))
    assert "visual.blocks.0.attn.proj.weight" not in picked(layers=(0,), modules=("all",))


@pytest.mark.parametrize(
    ("text", "found"),
    [("0-2:0-2,3-5:5-7", {0: 0, 1: 1, 2: 2, 3: 5, 4: 6, 5: 7}), ("1:3", {1: 3}), ("0-1:0-1,2-3:0-1", {0: 0, 1: 1, 2: 0, 3: 1})],
)  # fmt: skip
def test_a_layer_map_names_layers_of_both(text: str, found: dict[int, int]) -> None:
    assert parse_layer_map(text) == found


@pytest.mark.parametrize(
    ("text", "what"),
    [("0-2", "is not a pair"), ("0-2:0-1", "maps 3 layers to 2"), ("0:1,0:2", "maps layer 0 twice"),
     ("a:b", "is not a layer")],
)  # fmt: skip
def test_a_layer_map_that_makes_no_sense_is_refused(text: str, what: str) -> None:
    with pytest.raises(UsageError, match=what):
        parse_layer_map(text)


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
    meant = {"attn": "attention", "self-attn": "attention", "q_proj": "attention", "ffn": "mlp",
             "experts": "mlp", "mamba": "mixer", "layernorm": "norm", "embed_tokens": "embeddings",
             "lm_head": "head", "Attention": "attention", "everything": None}  # fmt: skip
    for word, module in meant.items():
        with pytest.raises(UsageError) as refused:
            parse_modules(word)
        hint = "" if module is None else f"Did you mean {module!r}? "
        assert refused.value.do.startswith(f"{hint}Choose from attention, mlp")


def test_names_are_text_separated_by_commas() -> None:
    assert parse_names("*.q_proj.*, lm_head*,") == ("*.q_proj.*", "lm_head*")
    assert parse_names(["a,b", "c"]) == ("a,b", "c")
    for value in (3, None, ["a", 1], {"a": "b"}):
        with pytest.raises(UsageError, match="names: "):
            parse_names(value)
