"""Layers, modules and matrices, read off names, shapes and the config."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import pytest

from uvmerge.checkpoint.anatomy import MODULES, Anatomy, Place, View
from uvmerge.checkpoint.folder import Tensor
from uvmerge.checkpoint.stacks import Stack, config_depths, kind_of

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


WHOLE = {"model.layers.0.self_attn.k_proj.weight": (2, 2), "model.layers.0.mlp.fc.weight": (2, 2)}


def place(found: Anatomy, name: str) -> Place:
    return found.place(found.tensors[name])


def views(found: Anatomy, name: str) -> list[View]:
    return found.views(found.tensors[name])


def stack(prefix: str, depth: int, shape: Shape = (8, 8)) -> dict[str, Shape]:
    return {f"{prefix}.{i}.mlp.up_proj.weight": shape for i in range(depth)}


def stacks(found: Anatomy) -> dict[str, tuple[int, str]]:
    """Depth and kind of each stack."""
    return {stack.name: (stack.depth, stack.kind) for stack in found.stacks.all}


def main(found: Anatomy) -> list[str]:
    """Names of the stacks that operations work on by default."""
    return sorted(stack.name for stack in found.main)


# --- stacks and depth --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("config", "depths"),
    [
        ({"num_hidden_layers": 32}, [32]),
        ({"n_layer": 12}, [12]),
        ({"n_layers": 24}, [24]),
        ({"num_layers": 6, "num_decoder_layers": 4}, [6, 4]),
        ({"encoder_layers": 6, "decoder_layers": 4, "encoder_layerdrop": 0}, [6, 4]),
        ({"text_config": {"num_hidden_layers": 4}, "num_hidden_layers": 9}, [4, 9]),
        ({"thinker_config": {"text_config": {"num_layers": 7}}}, [7]),
        ({"num_hidden_layers": 0}, []),
        ({"num_hidden_layers": "4"}, []),
        ({"num_hidden_layers": True}, []),
        ({"num_attention_heads": 4, "layer_norm_eps": 1}, []),
        ({}, []),
    ],
)
def test_every_depth_of_a_config_is_found(config: dict[str, Any], depths: list[int]) -> None:
    assert [depth for _, depth in config_depths(config)] == depths


def test_a_config_nested_without_end_is_read_to_a_limit() -> None:
    config: dict[str, Any] = {}
    config["inner"] = config
    assert not list(config_depths(config))


def test_without_a_config_the_names_tell_the_depth() -> None:
    found = anatomy(stack("model.layers", 3))
    assert (found.depth, found.notes) == (3, [])
    assert place(found, "model.layers.2.mlp.up_proj.weight").layer == 2
    assert anatomy({"weight": (2, 2)}).depth == 0


def test_a_config_with_more_layers_than_there_are_is_noted() -> None:
    found = anatomy(stack("model.layers", 3), {"num_hidden_layers": 5})
    assert found.depth == 3
    assert found.notes == ["the config says 5 layers, the weights have 3 (model.layers)"]


def test_layers_beyond_the_depth_are_no_decoder_layers_and_that_is_said() -> None:
    """DeepSeek keeps its next-token predictor behind the last layer."""
    found = anatomy(stack("model.layers", 3), {"num_hidden_layers": 2})
    assert found.depth == 2
    beyond = place(found, "model.layers.2.mlp.up_proj.weight")
    assert (beyond.layer, beyond.module) == (None, "other")
    assert found.notes == ["the config says 2 layers, the weights have 3 (model.layers)"]


@pytest.mark.parametrize(
    ("tower", "kind"),
    [("vision_tower.encoder.layers", "vision"), ("model.visual.blocks", "vision"),
     ("audio_tower.layers", "audio"), ("talker.model.layers", "audio"),
     ("model.semantic_tokenizer_encoder.stages", "audio"), ("model.diffusion_head.layers", "audio"),
     ("model.duration_predictor.conv_layers", "audio"), ("model.vqmodel.encoder.down", "vision"),
     ("model.mtp.layers", "prediction"), ("qformer.encoder.layer", "other")],
)  # fmt: skip
def test_another_tower_is_not_worked_on_by_default_however_large(tower: str, kind: str) -> None:
    shapes = stack(tower, 4, (99, 99)) | stack("model.layers", 4)
    found = anatomy(shapes, {"num_hidden_layers": 4})
    assert kind_of(tower) == kind and main(found) == ["model.layers"]
    assert stacks(found) == {tower: (4, kind), "model.layers": (4, "text")}
    other = place(found, f"{tower}.1.mlp.up_proj.weight")
    assert (other.layer, other.stack) == (1, tower)
    assert place(found, "model.layers.1.mlp.up_proj.weight").stack == "model.layers"


def test_a_model_of_one_tower_is_worked_on_whatever_it_sees() -> None:
    assert main(anatomy(stack("vit.encoder.layer", 3))) == ["vit.encoder.layer"]
    assert main(anatomy(stack("wav2vec2.encoder.layers", 3))) == ["wav2vec2.encoder.layers"]


@pytest.mark.parametrize(("encoder", "decoder"), [(4, 4), (6, 2)])
def test_encoder_and_decoder_both_count_with_depths_of_their_own(
    encoder: int, decoder: int
) -> None:
    shapes = stack("encoder.block", encoder, (99, 99)) | stack("decoder.block", decoder)
    found = anatomy(shapes, {"num_layers": encoder, "num_decoder_layers": decoder})
    assert main(found) == ["decoder.block", "encoder.block"] and not found.notes
    for name, depth in (("encoder.block", encoder), ("decoder.block", decoder)):
        last = place(found, f"{name}.{depth - 1}.mlp.up_proj.weight")
        assert (last.layer, last.depth, last.stack) == (depth - 1, depth, name)


def test_a_depth_that_one_stack_has_does_not_cut_another() -> None:
    """HuBERT has seven convolutions before four layers."""
    shapes = {f"hubert.feature_extractor.conv_layers.{i}.conv.weight": (8, 4, 3) for i in range(7)}
    found = anatomy(shapes | stack("hubert.encoder.layers", 4), {"num_hidden_layers": 4})
    assert not found.notes
    assert stacks(found)["hubert.feature_extractor.conv_layers"] == (7, "audio")


def test_parallel_lists_of_parts_are_one_stack() -> None:
    """FlauBERT and XLM keep a layer's parts in lists side by side."""
    parts = ("attentions.{}.q_lin", "attentions.{}.out_lin", "ffns.{}.lin1", "layer_norm1.{}",
             "layer_norm2.{}")  # fmt: skip
    names = [f"transformer.{part}.weight".format(i) for part in parts for i in range(3)]
    found = anatomy(dict.fromkeys(names, (8, 8)))
    assert stacks(found) == {"transformer": (3, "text")}
    modules = {place(found, name).module for name in names}
    assert modules == {"attention", "mlp", "norm"}
    assert {place(found, name).layer for name in names} == {0, 1, 2}


def test_two_stacks_side_by_side_are_not_parts_of_one() -> None:
    both = stack("model.layers", 3) | stack("model.blocks", 3)
    whole = {name.replace("mlp.up_proj", "attn.q_proj"): shape for name, shape in both.items()}
    assert stacks(anatomy(both | whole)).keys() == {"model.layers", "model.blocks"}


def test_a_sequence_of_weights_is_no_stack() -> None:
    found = anatomy({f"projector.{i}.weight": (8, 8) for i in (0, 2)} | stack("model.layers", 2))
    assert stacks(found).keys() == {"model.layers"}


def test_one_layer_is_a_stack_where_it_is_a_whole_block() -> None:
    whole = {
        "model.layers.0.self_attn.q_proj.weight": (8, 8),
        "model.layers.0.mlp.up.weight": (8, 8),
    }
    assert anatomy(whole).depth == 1
    assert anatomy({"merger.mlp.0.linear_1.weight": (8, 8)}).depth == 0


def test_experts_are_numbered_but_are_no_layers() -> None:
    names = {f"{LAYER}mlp.experts.{i}.up_proj.weight": (8, 4) for i in range(9)}
    names[f"{LAYER}self_attn.q_proj.weight"] = (8, 4)
    found = anatomy(names)
    assert found.depth == 1
    assert {place(found, name).layer for name in names} == {0}


def test_a_stack_says_what_it_is() -> None:
    assert str(Stack("model.layers", 32, "text", 9)) == "model.layers (32 text layers)"
    assert str(Stack("mtp", 1, "prediction", 9)) == "mtp (1 prediction layer)"


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
    "pre_ln.weight": "norm",
    "self_attn.inner_attn_ln.weight": "norm",
    "projection.project_bn.weight": "norm",
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
    "wav2vec2.feature_projection.layer_norm.weight": "other",
    "deberta.encoder.conv.LayerNorm.weight": "other",
    "model.rotary_emb.inv_freq": "other",
}


@pytest.mark.parametrize("rest", WHERE)
def test_modules_inside_layers(rest: str) -> None:
    experts = {f"{LAYER}mlp.experts.0.up_proj.weight": (8, 8)}
    found = anatomy(WHOLE | experts | {f"{LAYER}{rest}": (8, 8)})
    assert place(found, f"{LAYER}{rest}").module == WHERE[rest]
    assert WHERE[rest] in MODULES


# Layers as families store them: each name with its module, told by what is around it.
LAYERS = {
    "dbrx": {"norm_attn_norm.attn.Wqkv.weight": "attention", "norm_attn_norm.norm_1.weight": "norm",
             "norm_attn_norm.attn.out_proj.weight": "attention", "ffn.router.layer.weight": "router",
             "ffn.experts.mlp.w1": "mlp"},
    "nemotron-h attention": {"norm.weight": "norm", "mixer.q_proj.weight": "attention",
                             "mixer.o_proj.weight": "attention"},
    "nemotron-h mamba": {"mixer.in_proj.weight": "mixer", "mixer.out_proj.weight": "mixer",
                         "mixer.A_log": "mixer", "mixer.conv1d.weight": "mixer"},
    "nemotron-h mlp": {"mixer.up_proj.weight": "mlp", "mixer.down_proj.weight": "mlp"},
    "recurrentgemma attention": {"temporal_block.q_proj.weight": "attention",
                                 "temporal_block.o_proj.weight": "attention",
                                 "mlp_block.gate_proj.weight": "mlp"},
    "recurrentgemma recurrent": {"temporal_block.linear_x.weight": "mixer",
                                 "temporal_block.rg_lru.recurrent_gate_weight": "mixer",
                                 "temporal_block.conv_1d.weight": "mixer"},
    "jamba mamba": {"mamba.in_proj.weight": "mixer", "mamba.x_proj.weight": "mixer",
                    "feed_forward.router.weight": "router",
                    "feed_forward.experts.0.up_proj.weight": "mlp"},
    "hunyuan": {"mlp.gate.wg.weight": "router", "mlp.experts.0.up_proj.weight": "mlp"},
    "granite": {"block_sparse_moe.router.layer.weight": "router",
                "block_sparse_moe.input_linear.weight": "mlp"},
    "a gate without experts": {"mlp.gate.weight": "mlp", "mlp.up.weight": "mlp"},
    "rwkv": {"feed_forward.key.weight": "mlp", "attention.key.weight": "attention"},
    "t5": {"layer.0.SelfAttention.q.weight": "attention", "layer.1.DenseReluDense.wi.weight": "mlp",
           "layer.0.layer_norm.weight": "norm"},
    "a gated attention": {"self_attn.gate_proj.weight": "attention", "mlp.gate_proj.weight": "mlp"},
}  # fmt: skip


@pytest.mark.parametrize("family", LAYERS)
def test_what_is_around_a_tensor_tells_its_module(family: str) -> None:
    names = {f"model.layers.{i}.{rest}": (8, 8) for rest in LAYERS[family] for i in range(2)}
    found = anatomy(names, {"num_local_experts": 2})
    told = {rest: place(found, f"model.layers.1.{rest}").module for rest in LAYERS[family]}
    assert told == LAYERS[family]


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
        (f"{LAYER}self_attn.relative_attention_bias.weight", (32, 4), False),
        (f"{LAYER}self_attn.rel_pos.weight", (8, 4), False),
        (f"{LAYER}mixer.A_log", (8, 4), False),
        (f"{LAYER}self_attn.q_proj.lora_A.default.weight", (2, 4), False),
        (f"{LAYER}mlp.shared_expert_gate.weight", (1, 4), True),
        (f"{LAYER}mixer.conv1d.weight", (8, 1, 4), False),
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


def test_scales_beside_shifts_of_one_shape_are_no_matrix() -> None:
    norm = f"{LAYER}self_attn.q_norm."
    found = anatomy(WHOLE | {f"{norm}weight": (4, 8), f"{norm}bias": (4, 8)})
    assert not place(found, f"{norm}weight").is_matrix
    assert place(found, f"{norm}weight").module == "norm"


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


def test_experts_are_told_by_their_number_where_no_name_says_so() -> None:
    """Granite and JetMoE keep all experts of a layer in input_linear and output_linear."""
    into, out = f"{LAYER}moe.input_linear.weight", f"{LAYER}moe.output_linear.weight"
    shapes = {into: (E, 2 * I, H), out: (E, H, I), f"{LAYER}moe.router.layer.weight": (E, H)}
    found = anatomy(shapes)
    assert [view.shape for view in views(found, into)] == [(I, H)] * (2 * E)
    assert [view.shape for view in views(found, out)] == [(H, I)] * E
    conv = f"{LAYER}mixer.kernel.weight"
    assert not place(anatomy(shapes | {conv: (E + 1, I, H)}), conv).is_matrix


def test_experts_in_the_rows_of_one_matrix_are_matrices_of_their_own() -> None:
    """DBRX stores w1, v1 as (experts I, H) and w2 as (experts I, H), used (in, out)."""
    names = {w: f"transformer.blocks.{{}}.ffn.experts.mlp.{w}" for w in ("w1", "v1", "w2")}
    shapes = {n.format(i): (E * I, H) for n in names.values() for i in range(2)}
    found = anatomy(shapes, {"ffn_config": {"moe_num_experts": E}})
    w1, w2 = names["w1"].format(0), names["w2"].format(0)
    assert views(found, w1) == [View(w1, e, None, False, (I, H)) for e in range(E)]
    assert views(found, w2) == [View(w2, e, None, True, (H, I)) for e in range(E)]


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


def test_what_no_rule_understands_is_listed() -> None:
    odd = f"{LAYER}mlp.experts_memory.table"
    conv = f"{LAYER}mixer.conv1d.weight"
    found = anatomy(WHOLE | {odd: (5, 3, 2), conv: (8, 1, 4), f"{LAYER}norm.weight": (8,)})
    assert [tensor.name for tensor in found.non_matrices()] == [odd, conv]


def test_names_alike_but_for_numbers_are_decided_once() -> None:
    shapes = {f"model.layers.{i}.mlp.experts.{e}.up_proj.weight": (8, 4)
              for i in range(4) for e in range(50)}  # fmt: skip
    found = anatomy(shapes)
    for tensor in found.tensors.values():
        found.place(tensor)
    assert len(found._decided) == 1
