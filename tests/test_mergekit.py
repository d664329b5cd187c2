"""mergekit's YAML: for each tensor of the output and each of its sources the value of every parameter."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from uvmerge.checkpoint.anatomy import Place
from uvmerge.errors import RecipeError
from uvmerge.recipe.recipe import Recipe
from uvmerge.recipe.tokenizer_rule import TokenizerRule, TokenRow

Q, MLP, NORM = (f"model.layers.{{}}.{rest}.weight" for rest in
                ("self_attn.q_proj", "mlp.down_proj", "input_layernorm"))  # fmt: skip
EMBED, HEAD, FINAL = "model.embed_tokens.weight", "lm_head.weight", "model.norm.weight"
LINEAR = "merge_method: linear\nmodels:\n  - model: a\n    parameters: {weight: %s}\n  - model: b\n"
SLERP = (
    "merge_method: slerp\nbase_model: a\nmodels: [{model: a}, {model: b}]\nparameters:\n  t: %s\n"
)
TIES = "merge_method: ties\nbase_model: base\nmodels:\n  - model: a\n  - model: b\nparameters: %s\n"


def place(name: str, depth: int = 4) -> Place:
    """Where a tensor of a Llama of this depth stands."""
    parts = name.split(".")
    if ".layers." in name:
        return Place(int(parts[2]), depth, "mlp", True, "model.layers", "text")
    module = {HEAD: "head", FINAL: "final-norm"}.get(name, "embeddings")
    return Place(None, depth, module, True)


def options(text: str, name: str, depth: int = 4, models: int = 2) -> dict[str, Any]:
    """The options of the only step for a tensor of the output."""
    (step,) = Recipe.parse(text).steps
    operands = sum(operand.name == "base" for operand in step.operation.operands)
    return step.arguments(name, place(name, depth), models + operands)


def weight(text: str, name: str, depth: int = 4) -> Any:
    return options(text, name, depth)["weight"]


def t(value: str, name: str, depth: int = 4) -> float:
    found: float = options(SLERP % value, name, depth)["t"]
    return found


def test_a_source_goes_before_the_slice_and_that_before_everything() -> None:
    text = (
        "merge_method: linear\nparameters: {weight: 0.1}\nslices:\n  - parameters: {weight: 0.2}\n"
        "    sources:\n      - {model: a, layer_range: [0, 2], parameters: {weight: 0.3}}\n"
        "      - {model: b, layer_range: [0, 2]}\n"
        "  - sources:\n      - {model: a, layer_range: [2, 4]}\n      - {model: b, layer_range: [2, 4]}\n"
    )
    assert weight(text, Q.format(1)) == (0.3, 0.2)
    assert weight(text, Q.format(2)) == (0.1, 0.1)


def test_a_module_stands_between_slice_and_everything() -> None:
    text = (
        "merge_method: linear\nparameters: {weight: 0.1, normalize: false}\nmodules:\n  default:\n"
        "    parameters: {weight: 0.2}\n    models:\n      - model: a\n"
        "      - {model: b, parameters: {weight: 0.3}}\n"
    )
    assert weight(text, Q.format(0)) == (0.2, 0.3)


def test_a_level_whose_filters_all_miss_is_passed_over() -> None:
    text = LINEAR % "[{filter: mlp, value: 0.9}]" + "parameters: {weight: 0.4}\n"
    assert weight(text, MLP.format(0)) == (0.9, 0.4)
    assert weight(text, Q.format(0)) == (0.4, 0.4)


def test_the_first_filter_that_fits_decides() -> None:
    value = (
        "[{filter: self_attn, value: 0.1}, {filter: proj, value: 0.2}, {filter: '*', value: 0.3}]"
    )
    assert [t(value, each.format(1)) for each in (Q, MLP, NORM)] == [0.1, 0.2, 0.3]


@pytest.mark.parametrize(("text", "fits"), [("norm", {NORM, FINAL}), ("layers.1.", {Q, MLP, NORM})])
def test_a_filter_is_a_part_of_the_name(text: str, fits: set[str]) -> None:
    value = f"[{{filter: {text}, value: 1}}, {{value: 0}}]"
    found = {each for each in (Q, MLP, NORM, FINAL, EMBED) if t(value, each.format(1)) == 1}
    assert found == fits


def test_a_number_at_the_end_of_a_filter_also_begins_longer_ones() -> None:
    value = "[{filter: layers.1, value: 1}, {value: 0}]"
    assert [t(value, Q.format(i), 20) for i in (1, 2, 10, 19)] == [1, 0, 1, 1]
    assert t("[{filter: layers.1., value: 1}, {value: 0}]", Q.format(10), 20) == 0


def test_one_condition_needs_no_list() -> None:
    assert t("{filter: self_attn, value: 0.3}", Q.format(0)) == 0.3
    with pytest.raises(RecipeError, match=r"t has no value for model\.layers\.0\.mlp"):
        t("{filter: self_attn, value: 0.3}", MLP.format(0))


SHIFTED = (
    "merge_method: linear\nslices:\n  - sources:\n      - model: a\n        layer_range: [2, 4]\n"
    "        parameters: {weight: [{filter: layers.2., value: 0.7}, {value: 0.1}]}\n"
    "      - {model: b, layer_range: [0, 2], parameters: {weight: 0.5}}\n"
    "parameters: {normalize: [{filter: layers.0., value: false}, {value: true}]}\n"
)


def test_a_value_of_a_model_is_matched_with_its_own_names_a_shared_one_with_the_outputs() -> None:
    found = options(SHIFTED, Q.format(0))
    assert found["weight"] == (0.7, 0.5) and found["normalize"] is False
    found = options(SHIFTED, Q.format(1))
    assert found["weight"] == (0.1, 0.5) and found["normalize"] is True


def test_a_gradient_runs_over_the_layers_of_its_slice() -> None:
    text = (
        "merge_method: passthrough\nparameters: {scale: [0, 1]}\nslices:\n"
        "  - sources: [{model: a, layer_range: [0, 3]}]\n"
        "  - sources: [{model: a, layer_range: [1, 3]}]\n"
        "  - sources: [{model: a, layer_range: [3, 4]}]\n"
    )
    found = [options(text, Q.format(i), 6, 1)["scale"][0] for i in range(6)]
    assert found == [0, 0.5, 1, 0, 1, 1]  # a slice of one layer has the last value


def test_a_gradient_is_piecewise_linear() -> None:
    found = [t("[0, 0.5, 0.3, 0.7, 1]", Q.format(i), 9) for i in range(9)]
    assert found == pytest.approx([0, 0.25, 0.5, 0.4, 0.3, 0.5, 0.7, 0.85, 1])
    assert t("[0.4]", Q.format(2)) == 0.4


def test_outside_of_layers_the_first_value_holds_for_the_head_too() -> None:
    assert [t("[0.2, 0.8]", each) for each in (EMBED, FINAL, HEAD)] == [0.2] * 3


def test_embeddings_belong_to_the_first_slice_norm_and_head_to_the_last() -> None:
    text = (
        "merge_method: passthrough\nslices:\n"
        "  - sources: [{model: a, layer_range: [0, 2], parameters: {scale: 2}}]\n"
        "  - sources: [{model: b, layer_range: [2, 4], parameters: {scale: 3}}]\n"
    )
    assert [options(text, each, 4, 1)["scale"] for each in (EMBED, FINAL, HEAD)] == [
        (2,), (3,), (3,)
    ]  # fmt: skip


@pytest.mark.parametrize(("text", "value"), [("'0.5'", 0.5), ("true", 1.0), ("1e-5", 1e-5)])
def test_words_and_switches_are_numbers(text: str, value: float) -> None:
    assert t(text, Q.format(0)) == value


@pytest.mark.parametrize(
    ("text", "value"), [("1.0", True), ("'yes'", True), ("0", False), ("'off'", False)]
)
def test_numbers_and_words_are_switches(text: str, value: bool) -> None:
    assert options(TIES % f"{{normalize: {text}, weight: 1}}", Q.format(0))["normalize"] is value


@pytest.mark.parametrize("text", ["0.5", "2", "maybe", "[]"])
def test_other_numbers_are_no_switches(text: str) -> None:
    with pytest.raises(RecipeError, match=r"recipe:6: normalize (is|has)"):
        Recipe.parse(TIES % f"{{normalize: {text}, weight: 1}}")


def test_a_whole_number_may_have_a_point() -> None:
    text = "merge_method: karcher\nmodels: [{model: a}, {model: b}]\nparameters: {max_iter: %s}\n"
    assert options(text % "7.0", Q.format(0))["max_iter"] == 7
    with pytest.raises(RecipeError, match="not a whole number"):
        Recipe.parse(text % "7.5")


@pytest.mark.parametrize(
    ("method", "normalize"),
    [("ties", True), ("della", True), ("task_arithmetic", False), ("dare_ties", False),
     ("dare_linear", False), ("della_linear", False), ("breadcrumbs", False)],
)  # fmt: skip
def test_defaults_are_those_of_the_peer(method: str, normalize: bool) -> None:
    found = options((TIES % "{weight: 1}").replace("ties", method), Q.format(0))
    assert found["normalize"] is normalize
    assert found.get("rescale_by", "norm") == "norm"


@pytest.mark.parametrize(
    ("given", "vectors"),
    [("", "whole"), ("nuslerp_flatten: false", "rows"), ("nuslerp_row_wise: true", "whole"),
     ("nuslerp_flatten: false, nuslerp_row_wise: true", "columns")],
)  # fmt: skip
def test_the_switches_of_nuslerp_name_its_vectors(given: str, vectors: str) -> None:
    text = f"merge_method: nuslerp\nmodels: [{{model: a}}, {{model: b}}]\nparameters: {{weight: 1, {given}}}\n"
    assert options(text, Q.format(0))["vectors"] == vectors


def test_a_base_that_is_not_listed_is_one_more_model_of_a_mean() -> None:
    text = "merge_method: linear\nbase_model: c\nmodels: [{model: a}, {model: b}]\nparameters: {weight: 1}\n"
    recipe = Recipe.parse(text)
    assert recipe.references == {"models": ("c", "a", "b")}
    with pytest.raises(RecipeError, match="weight has no value for c"):
        Recipe.parse(text.replace("{model: a}", "{model: a, parameters: {weight: 1}}").replace(
            "{model: b}", "{model: b, parameters: {weight: 1}}").replace("parameters: {weight: 1}\n", ""))  # fmt: skip


def test_the_base_of_slerp_comes_first_wherever_it_stands() -> None:
    text = "merge_method: slerp\nbase_model: b\nmodels: [{model: a}, {model: b}]\nparameters: {t: 0.3}\n"
    assert Recipe.parse(text).references == {"models": ("b", "a")}


def test_differences_from_a_base_are_asked_for_by_naming_one() -> None:
    text = "merge_method: nuslerp\nbase_model: c\nmodels: [{model: a}, {model: b}]\nparameters: {weight: 1}\n"
    assert Recipe.parse(text).references == {"models": ("c", "a", "b")}
    assert options(text, Q.format(0), models=3)["deltas"] is True
    assert options(text.replace("base_model: c\n", ""), Q.format(0))["deltas"] is False


def test_anchors_and_merge_keys_are_read_and_own_keys_win() -> None:
    text = (
        "x: &x {weight: 0.5, density: 0.3}\nmerge_method: ties\nbase_model: base\nmodels:\n"
        "  - {model: a, parameters: *x}\n  - {model: b, parameters: {<<: [*x], weight: 0.7}}\n"
    )
    found = options(text, Q.format(0))
    assert found["weight"] == (0.5, 0.7) and found["density"] == (0.3, 0.3)
    recipe = Recipe.parse(text)
    assert recipe.merge is not None and recipe.merge.notes == ("line 1: 'x' only holds an anchor",)
    assert options(Recipe.from_data(recipe.as_data()) and text, Q.format(0)) == found


def test_a_bomb_of_aliases_is_refused() -> None:
    bomb = "merge_method: linear\nb0: &b0 [x, x]\n"
    bomb += "".join(f"b{i}: &b{i} [{', '.join([f'*b{i - 1}'] * 9)}]\n" for i in range(1, 30))
    with pytest.raises(RecipeError, match="more than 20,000 items"):
        Recipe.parse(bomb)
    with pytest.raises(RecipeError, match=r"recipe:2: \*x stands inside of what it names"):
        Recipe.parse("merge_method: linear\nx: &x [*x]\n")
    chain = "".join(f"c{i}: &c{i} [*c{i - 1}]\n" for i in range(1, 60))
    with pytest.raises(RecipeError, match="nested deeper than 32 levels"):
        Recipe.parse("merge_method: linear\nc0: &c0 [x]\n" + chain)


def test_parameters_that_the_method_has_not_are_notes_with_their_line() -> None:
    text = (
        "name: mine\nmerge_method: model_stock\nbase_model: base\nmodels:\n"
        "  - {model: a, parameters: {weight: 1}}\n  - model: b\nparameters:\n  normalize: true\n"
    )
    recipe = Recipe.parse(text)
    assert recipe.name == "mine" and recipe.merge is not None
    assert recipe.merge.notes == (
        "line 1: name is only for people",
        "line 5: model_stock has no parameter 'weight', which is not used",
        "line 8: model_stock has no parameter 'normalize', which is not used",
    )


def test_a_weight_of_the_base_is_a_note() -> None:
    text = TIES % "{weight: 1}"
    text = text.replace("  - model: a", "  - {model: base, parameters: {weight: 9}}\n  - model: a")
    recipe = Recipe.parse(text)
    assert recipe.merge is not None
    assert recipe.merge.notes == ("line 4: weight of the base is not used",)
    assert options(text, Q.format(0))["weight"] == (1, 1)


def test_a_tokenizer_is_read_with_its_tokens() -> None:
    text = LINEAR % "1" + "parameters: {weight: 1}\n" + (
        "tokenizer:\n  source: b\n  pad_to_multiple_of: 64\n  tokens:\n    x: {source: a, force: true}\n"
        "    y: {source: {kind: zero}}\n    z: {source: {kind: model_token, model: b, token_id: 3}}\n    w:\n"
    )  # fmt: skip
    rows = {
        "x": TokenRow("models[0]", None, True),
        "y": TokenRow(),
        "z": TokenRow("models[1]", 3),
        "w": None,
    }
    rule = TokenizerRule("models[1]", rows, 64)
    assert Recipe.parse(text).tokenizer == rule
    assert Recipe.from_data(Recipe.parse(text).as_data()).tokenizer == rule
    plain = LINEAR % "1" + "parameters: {weight: 1}\ntokenizer_source: base\n"
    assert Recipe.parse(plain).tokenizer == TokenizerRule("models[0]")


def test_a_reference_may_be_written_in_parts() -> None:
    text = LINEAR % "1" + "parameters: {weight: 1}\n"
    parts = "{model: {path: org/a, revision: main}, lora: {path: org/l}}"
    recipe = Recipe.parse(text.replace("model: a", f"model: {parts}"))
    assert recipe.references == {"models": ("org/a@main+org/l", "b")}


def test_several_documents_are_refused() -> None:
    with pytest.raises(RecipeError, match="a second document begins here"):
        Recipe.parse(LINEAR % 1 + "---\n" + LINEAR % 1)


def test_the_recipe_of_a_run_names_no_folder(tmp_path: Path) -> None:
    text = SLERP % "0.5"
    recipe = Recipe.parse(text.replace("model: a", "model: /secret/a").replace(" b}", " /other/a}"))
    data = recipe.with_references({"models": ["a", "a"]})
    assert "/secret" not in str(data) and "/other" not in str(data)
    again = Recipe.from_data(data)
    assert again.references == {"models": ("a", "a (2)")} and again.asked == recipe.asked


def test_a_key_without_a_value_counts_as_not_given() -> None:
    text = SLERP % "{filter: , value: 0.5}" + "dtype:\ntokenizer:\nchat_template: null\n"
    recipe = Recipe.parse(text.replace("{model: b}", "{model: b, parameters: }"))
    assert recipe.dtype is None and recipe.tokenizer is None
    assert t("{filter: , value: 0.5}", Q.format(0)) == 0.5


def test_a_stack_of_many_slices_is_no_bomb() -> None:
    each = "  - sources:\n      - {model: a, layer_range: [%d, %d], parameters: *p}\n"
    text = "p: &p {scale: [{filter: o_proj, value: 0.5}, {value: 1}]}\nmerge_method: passthrough\nslices:\n"
    recipe = Recipe.parse(text + "".join(each % (i, i + 1) for i in range(240)))
    assert recipe.merge is not None and len(list(recipe.merge.layout.slices)) == 240
