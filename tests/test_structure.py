"""Structure read from names, shapes and config together: nested lists, towers, norms, ties."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from test_anatomy import anatomy, main, place, stack, stacks, views

from uvmerge.checkpoint.anatomy import anatomy_of
from uvmerge.checkpoint.folder import Checkpoint
from uvmerge.checkpoint.ties import equal_tensors, is_tied, stands_for_head

BLOCK = ("self_attn.q_proj.weight", "fc1.weight")
EMBEDDINGS = {"model.embed_tokens.weight": (9, 8)}
LLAMA = {"architectures": ["LlamaForCausalLM"]}


def blocks(prefix: str, depth: int) -> dict[str, tuple[int, ...]]:
    return {f"{prefix}.{i}.{rest}": (8, 8) for i in range(depth) for rest in BLOCK}


# --- lists in lists ----------------------------------------------------------------------------


def test_a_list_of_one_encoder_is_no_stack_but_holds_one() -> None:
    """RT-DETR has a list of encoders, of which there is one."""
    found = anatomy(blocks("model.encoder.encoder.0.layers", 3))
    assert stacks(found) == {"model.encoder.encoder.0.layers": (3, "text")}
    assert place(found, "model.encoder.encoder.0.layers.2.fc1.weight").layer == 2


def test_what_stands_beside_the_stack_in_a_list_of_one_is_in_no_layer() -> None:
    beside = "backbone.0.encoder.embeddings.cls_token"
    found = anatomy(blocks("backbone.0.encoder.layer", 2) | {beside: (1, 1, 8)})
    assert stacks(found) == {"backbone.0.encoder.layer": (2, "text")}
    assert place(found, beside).layer is None


@pytest.mark.parametrize(
    "parts",
    [
        ("layer.0.SelfAttention.q.weight", "layer.0.norm.weight", "layer.1.Dense.wi.weight"),
        ("attn.q_proj.weight", "experts.0.up.weight", "experts.1.up.weight", "experts.1.w.scale"),
    ],
    ids=["t5", "experts"],
)
def test_one_layer_with_numbered_parts_stays_one_layer(parts: tuple[str, ...]) -> None:
    found = anatomy({f"encoder.block.0.{part}": (8, 8) for part in parts})
    assert stacks(found) == {"encoder.block": (1, "text")}


def test_heads_side_by_side_are_no_stack() -> None:
    """Detection models have numbered heads under one parent, and no layer attends in them."""
    heads = ("class_embed.{}.weight", "bbox_embed.{}.weight", "enc_output.{}.weight")
    found = anatomy({f"model.{head}".format(i): (8, 8) for head in heads for i in range(3)})
    assert stacks(found) == {}


@pytest.mark.parametrize(
    "rest", ["codebook.embed_sum", "codebook.weight", "relative_attention_bias.weight"]
)
def test_a_list_of_tables_is_no_stack(rest: str) -> None:
    tables = {f"quantizer.layers.{i}.{rest}": (8, 4) for i in range(3)}
    assert stacks(anatomy(stack("model.layers", 2) | tables)) == {"model.layers": (2, "text")}


# --- which stack is the language's ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("tower", "language", "config", "kind"),
    [
        (("encoder.layers", 4), "language_model.model.layers",
         {"text_config": {"num_hidden_layers": 4}, "encoder_config": {"num_layers": 4}}, "other"),
        (("blocks", 2), "layers",
         {"text_config": {"num_hidden_layers": 4}, "vision_config": {"depth": 2}}, "vision"),
        (("qwen2.model.layers", 2), "model.layers",
         {"text_config": {"num_hidden_layers": 4}, "vision_config": {"a": {"layers": 2}}}, "vision"),
    ],
)  # fmt: skip
def test_a_tower_without_a_telling_name_is_told_by_the_config(
    tower: tuple[str, int], language: str, config: dict[str, object], kind: str
) -> None:
    name, depth = tower
    found = anatomy(stack(name, depth, (99, 99)) | stack(language, 4), config)
    assert main(found) == [language]
    assert stacks(found)[name] == (depth, kind)


def test_both_stacks_of_an_encoder_decoder_model_are_the_language_s() -> None:
    both = stack("encoder.layers", 2) | stack("decoder.layers", 4)
    config = {"text_config": {"num_hidden_layers": 4}, "is_encoder_decoder": True}
    assert main(anatomy(both, config)) == ["decoder.layers", "encoder.layers"]


def test_a_tower_deeper_than_its_config_says_is_noted_and_whole() -> None:
    config = {"vision_config": {"num_hidden_layers": 2}, "num_hidden_layers": 3}
    found = anatomy(stack("vision_model.blocks", 5) | stack("model.layers", 3), config)
    assert stacks(found)["vision_model.blocks"] == (5, "vision")
    assert found.notes == ["the config says 2 layers, the weights have 5 (vision_model.blocks)"]


# --- norms and projections -----------------------------------------------------------------------


def test_a_scale_with_one_axis_is_a_norm_and_so_is_its_shift() -> None:
    layer = "model.layers.0."
    map_, norm = {"down.1.weight": (8, 4), "down.1.bias": (8,)}, {"down.0.weight": (8,)}
    shapes = {layer + k: v for k, v in (map_ | norm | {"down.0.bias": (8,)}).items()}
    shapes |= {f"{layer}q_clip.scale": (4, 2), f"{layer}self_attn.q_proj.weight": (8, 8)}
    found = anatomy(shapes)
    own = {name.removeprefix(layer): place(found, name).module for name in shapes}
    assert own["down.0.weight"] == own["down.0.bias"] == own["q_clip.scale"] == "norm"
    assert own["down.1.weight"] == own["down.1.bias"] == "mlp"


def test_an_output_projection_beside_queries_is_attention() -> None:
    names = {f"model.layers.0.adapter.{part}.weight": (8, 8) for part in ("query", "out_proj")}
    found = anatomy(names | {"model.layers.0.mlp.out_proj.weight": (8, 8)})
    modules = [place(found, name).module for name in found.tensors]
    assert modules == ["attention", "attention", "mlp"]


def test_gate_and_up_are_told_by_twice_the_width_of_the_way_down() -> None:
    """Aria calls them fc1 and fc2, and stores (in, out)."""
    experts = "model.layers.0.mlp.experts."
    shapes = {f"{experts}fc1.weight": (6, 48, 224), f"{experts}fc2.weight": (6, 112, 48)}
    both = views(anatomy(shapes), f"{experts}fc1.weight")
    assert [view.part for view in both[:2]] == [(0, 112, 1), (112, 224, 1)]
    assert both[0].transposed and both[0].shape == (112, 48)
    plain = shapes | {f"{experts}fc1.weight": (6, 48, 112)}
    assert {view.part for view in views(anatomy(plain), f"{experts}fc1.weight")} == {None}


def test_a_router_that_stores_in_out_is_told_by_the_config() -> None:
    router = "model.layers.0.mlp.gate.weight"
    shapes = {router: (48, 6), "model.layers.0.mlp.experts.0.up_proj.weight": (40, 48)}
    config = {"hidden_size": 48, "num_experts": 6}
    (view,) = views(anatomy(shapes, config), router)
    assert view.transposed and view.shape == (6, 48)
    (view,) = views(anatomy(shapes | {router: (6, 48)}, config), router)
    assert not view.transposed


# --- ties ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("head", "config", "tied"),
    [
        ({}, LLAMA | {"tie_word_embeddings": True}, True),
        ({}, {"architectures": ["SomeNewForCausalLM"]}, True),
        ({"lm_head.weight": (9, 8)}, LLAMA | {"tie_word_embeddings": True}, False),
        ({"lm_head.weight": (7, 8)}, {"architectures": ["SomeNewForCausalLM"]}, False),
        ({"lm_head.dense.weight": (8, 8)}, {"architectures": ["RobertaForMaskedLM"]}, True),
        ({}, {"architectures": ["DiaForConditionalGeneration"]}, False),
        ({}, {"architectures": ["LlamaForSequenceClassification"]}, False),
        ({}, {"architectures": [7, None], "tie_word_embeddings": True}, True),
        ({}, {"architectures": "LlamaForCausalLM"}, False),
        ({}, {"architectures": ["SomeForTokenClassification"], "tie_word_embeddings": True}, False),
    ],
)
def test_a_head_is_the_embeddings_where_table_config_and_names_say_so(
    head: dict[str, tuple[int, ...]], config: dict[str, object], tied: bool
) -> None:
    found = anatomy(stack("model.layers", 2) | EMBEDDINGS | head, config)
    assert is_tied(found) is tied
    assert (stands_for_head(found, (9, 8)) is not None) is tied


def test_what_the_table_ties_and_a_file_stores_twice_is_one_tensor(tmp_path: Path) -> None:
    """Detection models store a head's weights in each decoder layer, too."""
    values = torch.arange(32.0).reshape(4, 8)
    names = ["class_embed.1.weight", "model.decoder.class_embed.1.weight"]
    tensors = {names[0]: values, names[1]: values.clone(), "class_embed.0.weight": values.clone()}
    save_file(tensors, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(
        '{"architectures": ["DFineForObjectDetection"], "tie_word_embeddings": true}'
    )
    with Checkpoint.open(tmp_path) as checkpoint:
        assert equal_tensors(checkpoint, anatomy_of(checkpoint)) == [names]


# --- layers that share weights ---------------------------------------------------------------------


def test_layers_that_share_one_group_are_said_to() -> None:
    """ALBERT has one group of weights for all of its layers."""
    config = {"num_hidden_layers": 12, "num_hidden_groups": 1}
    found = anatomy(blocks("encoder.albert_layer_groups", 1), config)
    said = "12 layers share the weights of 1, an edit changes all (encoder.albert_layer_groups)"
    assert found.notes == [said]


def test_a_block_that_several_layers_use_is_said_to_be_shared() -> None:
    shared = "model.layers.1.shared_transformer.self_attn.q_proj.weight"
    config = {"architectures": ["Zamba2ForCausalLM"], "tie_word_embeddings": True}
    found = anatomy(stack("model.layers", 4) | {shared: (8, 8)}, config)
    (said,) = found.notes
    assert said == f"several layers share 1 tensor: {shared}: an edit of one changes all"
    assert not anatomy(stack("model.layers", 4), config).notes


def test_a_name_of_ten_thousand_numbers_is_read_in_no_time() -> None:
    long = f"model{'.0' * 10_000}.attn.weight"
    assert len(stacks(anatomy({long: (8, 8), f"{long}.bias": (8,)}))) <= 1
