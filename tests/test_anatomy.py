"""Layers, modules and matrices, read off names, shapes and the config."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import pytest

from uvmerge.checkpoint.anatomy import MODULES, Anatomy, Place, View, config_depth
from uvmerge.checkpoint.folder import Tensor

LAYER = "model.layers.0."
Shape = tuple[int, ...]


def anatomy(
    shapes: dict[str, Shape], config: dict[str, Any] | None = None, dtype: str = "BF16"
) -> Anatomy:
    tensors = {
        name: Tensor(name, dtype, shape, "model.safetensors", 0, 2 * math.prod(shape))
        for name, shape in shapes.items()
    }
    return Anatomy(SimpleNamespace(tensors=tensors, config=config or {}))  # type: ignore[arg-type]


def place(found: Anatomy, name: str) -> Place:
    return found.place(found.tensors[name])


def views(found: Anatomy, name: str) -> list[View]:
    return found.views(found.tensors[name])


def stack(prefix: str, depth: int, shape: Shape = (8, 8)) -> dict[str, Shape]:
    return {f"{prefix}.{i}.mlp.up_proj.weight": shape for i in range(depth)}


# --- depth -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("config", "depth"),
    [
        ({"num_hidden_layers": 32}, 32),
        ({"n_layer": 12}, 12),
        ({"n_layers": 24}, 24),
        ({"num_layers": 6, "num_decoder_layers": 4}, 6),
        ({"text_config": {"num_hidden_layers": 4}, "num_hidden_layers": 9}, 4),
        ({"vision_config": {"num_hidden_layers": 2}}, None),
        ({"vision_config": {"num_hidden_layers": 2}, "llm_config": {"num_layers": 7}}, 7),
        ({"audio_config": {"n_layer": 2}, "text_config": {"n_layer": 3}}, 3),
        ({"num_hidden_layers": 0}, None),
        ({"num_hidden_layers": "4"}, None),
        ({}, None),
    ],
)
def test_depth_is_that_of_the_text_model(config: dict[str, Any], depth: int | None) -> None:
    assert config_depth(config) == depth


def test_without_a_config_the_names_tell_the_depth() -> None:
    found = anatomy(stack("model.layers", 3))
    assert (found.depth, found.notes) == (3, [])
    assert place(found, "model.layers.2.mlp.up_proj.weight").layer == 2
    assert anatomy({"weight": (2, 2)}).depth == 0


def test_a_config_with_more_layers_than_there_are_is_noted() -> None:
    found = anatomy(stack("model.layers", 3), {"num_hidden_layers": 5})
    assert found.depth == 3
    assert found.notes == ["the config says 5 layers, the weights have 3 (model.layers)"]


def test_layers_beyond_the_depth_are_no_decoder_layers() -> None:
    """DeepSeek keeps its next-token predictor behind the last layer."""
    found = anatomy(stack("model.layers", 3), {"num_hidden_layers": 2})
    assert found.depth == 2
    beyond = place(found, "model.layers.2.mlp.up_proj.weight")
    assert (beyond.layer, beyond.module) == (None, "other")


@pytest.mark.parametrize(
    "tower", ["vision_tower.encoder.layers", "model.visual.blocks", "audio_tower.layers"]
)
def test_another_tower_is_not_the_decoder_however_large(tower: str) -> None:
    found = anatomy(stack(tower, 4, (99, 99)) | stack("model.layers", 4), {"num_hidden_layers": 4})
    assert place(found, f"{tower}.1.mlp.up_proj.weight").layer is None
    assert place(found, f"{tower}.1.mlp.up_proj.weight").module == "other"
    assert place(found, "model.layers.1.mlp.up_proj.weight").layer == 1


def test_of_encoder_and_decoder_the_decoder_counts() -> None:
    found = anatomy(stack("encoder.block", 4, (99, 99)) | stack("decoder.block", 4))
    assert place(found, "decoder.block.3.mlp.up_proj.weight").layer == 3
    assert place(found, "encoder.block.3.mlp.up_proj.weight").layer is None


def test_experts_are_numbered_but_are_no_layers() -> None:
    names = {f"{LAYER}mlp.experts.{i}.up_proj.weight": (8, 4) for i in range(9)}
    found = anatomy(names)
    assert found.depth == 1
    assert {place(found, name).layer for name in names} == {0}


# --- modules -----------------------------------------------------------------------------------

WHERE = {
    "self_attn.q_proj.weight": "attention",
    "self_attn.q_proj.bias": "attention",
    "self_attn.q_norm.weight": "norm",
    "attention.output.dense.weight": "attention",
    "attn.c_attn.weight": "attention",
    "linear_attn.in_proj.weight": "attention",
    "attention.output.LayerNorm.weight": "norm",
    "input_layernorm.weight": "norm",
    "ln_1.weight": "norm",
    "mlp.gate_proj.weight": "mlp",
    "mlp.gate_up_proj.weight": "mlp",
    "mlp.gate.weight": "router",
    "block_sparse_moe.gate.weight": "router",
    "mlp.router.weight": "router",
    "mlp.router.bias": "router",
    "feed_forward.router.weight": "router",
    "mlp.shared_expert_gate.weight": "router",
    "mlp.shared_expert.gate_proj.weight": "mlp",
    "mlp.experts.0.gate_proj.weight": "mlp",
    "output.dense.weight": "mlp",
}
OUTSIDE = {
    "model.embed_tokens.weight": "embeddings",
    "transformer.wte.weight": "embeddings",
    "transformer.wpe.weight": "embeddings",
    "bert.embeddings.LayerNorm.weight": "embeddings",
    "lm_head.weight": "head",
    "score.weight": "head",
    "cls.predictions.transform.dense.weight": "head",
    "model.norm.weight": "final-norm",
    "transformer.ln_f.weight": "final-norm",
    "multi_modal_projector.linear_1.weight": "other",
    "vision_tower.post_layernorm.weight": "other",
    "model.rotary_emb.inv_freq": "other",
}


@pytest.mark.parametrize("rest", WHERE)
def test_modules_inside_layers(rest: str) -> None:
    found = anatomy({f"{LAYER}{rest}": (8, 8)})
    assert place(found, f"{LAYER}{rest}").module == WHERE[rest]
    assert WHERE[rest] in MODULES


@pytest.mark.parametrize("name", OUTSIDE)
def test_modules_outside_layers(name: str) -> None:
    found = anatomy(stack("model.layers", 2) | {name: (8, 8)})
    assert (place(found, name).layer, place(found, name).module) == (None, OUTSIDE[name])
    assert OUTSIDE[name] in MODULES


@pytest.mark.parametrize(
    ("name", "shape", "is_matrix"),
    [
        (f"{LAYER}self_attn.q_proj.weight", (8, 4), True),
        (f"{LAYER}self_attn.q_proj.bias", (8,), False),
        (f"{LAYER}self_attn.rotary", (8, 4), False),
        (f"{LAYER}input_layernorm.weight", (8,), False),
        (f"{LAYER}mlp.experts.gate_up_proj", (2, 8, 4), True),
        (f"{LAYER}mlp.experts.gate_up_proj_bias", (2, 8), False),
        (f"{LAYER}mlp.experts.down_proj_bias", (2, 8, 1), False),
        (f"{LAYER}conv.weight", (8, 4, 3), False),
        (f"{LAYER}mlp.up_proj.weight", (0, 4), False),
        ("model.embed_tokens.weight", (9, 4), True),
        ("visual.patch_embed.proj.weight", (8, 3, 2, 2), False),
        ("scale", (), False),
    ],
)
def test_what_is_a_matrix(name: str, shape: Shape, is_matrix: bool) -> None:
    found = anatomy(stack("model.layers", 1) | {name: shape})
    assert place(found, name).is_matrix == is_matrix
    if not is_matrix:
        assert views(found, name) == [View(name, None, None, False, shape)]


def test_integers_are_no_matrices() -> None:
    name = f"{LAYER}self_attn.q_proj.weight"
    assert not place(anatomy({name: (8, 4)}, dtype="I32"), name).is_matrix


# --- matrices inside tensors -------------------------------------------------------------------


def test_a_linear_weight_is_out_in_and_a_conv1d_in_out() -> None:
    weight = f"{LAYER}mlp.c_fc.weight"
    linear = anatomy({weight: (6, 4), f"{LAYER}mlp.c_fc.bias": (6,)})
    assert views(linear, weight) == [View(weight, None, None, False, (6, 4))]
    conv1d = anatomy({weight: (4, 6), f"{LAYER}mlp.c_fc.bias": (6,)})
    assert views(conv1d, weight) == [View(weight, None, None, True, (6, 4))]


def test_one_bias_tells_the_orientation_of_all_layer_weights_and_of_no_other() -> None:
    square, head = f"{LAYER}attn.c_proj.weight", "head.weight"
    known = {f"{LAYER}mlp.c_fc.weight": (4, 6), f"{LAYER}mlp.c_fc.bias": (6,)}
    found = anatomy(known | {square: (4, 4), head: (9, 4)})
    assert [view.transposed for name in (square, head) for view in views(found, name)] == [
        True,
        False,
    ]


def test_without_evidence_or_with_contradictory_evidence_weights_are_out_in() -> None:
    weight, other = f"{LAYER}mlp.c_fc.weight", f"{LAYER}attn.proj.weight"
    alone = anatomy({weight: (4, 6)})
    square = anatomy({weight: (4, 4), f"{LAYER}mlp.c_fc.bias": (4,)})
    both = anatomy(
        {
            weight: (4, 6),
            f"{LAYER}mlp.c_fc.bias": (6,),
            other: (6, 4),
            f"{LAYER}attn.proj.bias": (6,),
        }
    )
    assert not any(views(found, weight)[0].transposed for found in (alone, square, both))


H, I, E = 4, 3, 2  # noqa: E741
GATE_UP, DOWN = f"{LAYER}mlp.experts.gate_up_proj", f"{LAYER}mlp.experts.down_proj"


def test_fused_experts_are_split_into_gate_and_up() -> None:
    found = anatomy({GATE_UP: (E, 2 * I, H), DOWN: (E, H, I)})
    assert views(found, GATE_UP) == [
        View(GATE_UP, expert, part, False, (I, H))
        for expert in range(E)
        for part in ((0, I, 1), (I, 2 * I, 1))
    ]
    assert views(found, DOWN) == [View(DOWN, expert, None, False, (H, I)) for expert in range(E)]
    labels = [view.label for view in views(found, GATE_UP)[1:3]]
    assert labels == [f"{GATE_UP}[0][3:6:1]", f"{GATE_UP}[1][0:3:1]"]


def test_fused_experts_stored_in_out_are_turned() -> None:
    found = anatomy({GATE_UP: (E, H, 2 * I), DOWN: (E, I, H)})
    assert [view.part for view in views(found, GATE_UP)] == [(0, I, 1), (I, 2 * I, 1)] * E
    for name, shape in ((GATE_UP, (I, H)), (DOWN, (H, I))):
        assert {(view.transposed, view.shape) for view in views(found, name)} == {(True, shape)}


def test_fused_experts_with_a_bias_alternate_gate_and_up() -> None:
    bias = f"{GATE_UP}_bias"
    found = anatomy({GATE_UP: (E, H, 2 * I), bias: (E, 2 * I), DOWN: (E, I, H)})
    assert [view.part for view in views(found, GATE_UP)] == [(0, 2 * I, 2), (1, 2 * I, 2)] * E


@pytest.mark.parametrize("in_out", [False, True])
@pytest.mark.parametrize(("hidden", "inner"), [(6, 6), (6, 3), (3, 6), (6, 12), (12, 6), (8, 5)])
def test_orientation_of_experts_is_told_where_sizes_coincide(
    hidden: int, inner: int, in_out: bool
) -> None:
    """In gpt-oss both widths are 2880."""
    shapes = {GATE_UP: (E, 2 * inner, hidden), DOWN: (E, hidden, inner)}
    if in_out:
        shapes = {name: (e, b, a) for name, (e, a, b) in shapes.items()}
    found = anatomy(shapes)
    assert {view.transposed for name in shapes for view in views(found, name)} == {in_out}
    assert {view.shape for view in views(found, GATE_UP)} == {(inner, hidden)}
    assert {view.shape for view in views(found, DOWN)} == {(hidden, inner)}


def test_an_expert_has_one_key_however_it_is_stored() -> None:
    fused = anatomy({GATE_UP: (E, 2 * I, H), DOWN: (E, H, I)})
    apart = anatomy(
        {
            f"{LAYER}mlp.experts.{e}.{p}_proj.weight": (I, H)
            for e in range(E)
            for p in ("gate", "up")
        }
        | {f"{LAYER}mlp.experts.{e}.down_proj.weight": (H, I) for e in range(E)}
    )
    mixtral = anatomy(
        {f"{LAYER}block_sparse_moe.experts.{e}.{w}.weight": (I, H) for e in range(E) for w in ("w1", "w3")}
        | {f"{LAYER}block_sparse_moe.experts.{e}.w2.weight": (H, I) for e in range(E)}
    )  # fmt: skip
    keys = {(0, expert, role) for expert in range(E) for role in ("gate", "up", "down")}
    for found in (fused, apart, mixtral):
        everything = [view for name in found.tensors for view in views(found, name)]
        assert sorted(map(found.expert_key, everything)) == sorted(keys)
    plain = anatomy({f"{LAYER}mlp.up_proj.weight": (I, H)})
    assert plain.expert_key(views(plain, f"{LAYER}mlp.up_proj.weight")[0]) is None
