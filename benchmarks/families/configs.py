"""The families of the installed transformers, each with a configuration small enough to build.

A family is one model class of transformers' auto mappings with one configuration. Configurations
are shrunk by the names of their keys, at any depth; `exceptions` holds what that cannot know.
"""

from __future__ import annotations

import copy
import re
from dataclasses import dataclass
from typing import Any

from .exceptions import EXCEPTIONS, Config

# What a family is tried as, the first that has it; the causal class is a family of its own.
MAPPINGS = (
    "SEQ_TO_SEQ_CAUSAL_LM", "SPEECH_SEQ_2_SEQ", "IMAGE_TEXT_TO_TEXT", "MULTIMODAL_LM", "MASKED_LM",
    "TEXT_TO_WAVEFORM", "CAUSAL_LM", "CTC", "ZERO_SHOT_IMAGE_CLASSIFICATION", "IMAGE_CLASSIFICATION",
    "AUDIO_CLASSIFICATION", "TEXT_ENCODING", "OBJECT_DETECTION",
)  # fmt: skip

# Sizes that differ for different meanings, so that shapes tell tensors apart. The first pattern
# that matches a key's whole name wins; a tuple is (text, vision, audio).
Size = int | tuple[int, int, int]
SIZES: tuple[tuple[str, Size], ...] = (
    (r"vocab_size|text_vocab_size|n_token|.*_vocab_size|n_words", 136),
    (r"(n_|num_)?(hidden_|block_)?(layers|layer|blocks)|depth|num_layers|n_layers", (4, 2, 3)),
    (r"(num_)?encoder_(num_)?(hidden_)?layers|conf_num_hidden_layers|n_encoder_layers", 3),
    (r"(num_)?decoder_(num_)?(hidden_)?layers|n_decoder_layers|speech_encoder_layers", 4),
    (r"(qformer|resampler|perceiver|predictor|pred|t2u_(en|de)coder)_.*(layers|depth)", 2),
    (r"hidden_size|d_model|n_embd|embed_dim|(hidden_)?dim|emb_dim|n_embed|model_dim|width", (48, 32, 56)),
    (r"hidden_size_(text|lm)|text_(hidden|embed)_(size|dim)|out_hidden_size|text_dim", 48),
    (r"lm_hidden_size|output_hidden_size|condition_dim|thinker_hidden_size|image_token_embed_dim", 48),
    (r"backbone_hidden_size|hidden_size_global|audio_prompt_dim|lru_width|conv_dim", 48),
    (r"cross_attention_hidden_size|cross_hidden_size|vision_output_dim|projector_(in|out)put_dim", 48),
    (r"audio_hidden_size|enc_dim", 56),
    (r"moe_intermediate_size|expert_ffn_hidden_size|moe_ffn_hidden_size", 40),
    (r"(moe_)?shared_expert_intermediate_size|shared_experts?_intermediate_size", 72),
    (r"shared_intermediate_size", 72),
    (r"intermediate_size(_mlp)?|dense_intermediate_size|ffn_(hidden_)?(dim|size)", (112, 88, 96)),
    (r"(encoder_|decoder_|t2u_.*|speech_.*)?ffn_dim|d_ff|n_inner|mlp_dim|feedforward_dim", (112, 88, 96)),
    (r"(encoder|decoder|speech_encoder|projector)_(intermediate_size|ffn_dim|mlp_dim)", 112),
    (r"dff|dim_ff|d_inner|projection_intermediate_size|feed_forward_size|word_embed_dim", 112),
    (r"num_filters", 4), (r"base_channels|latent_channels|nemo_conv_channels", 32), (r"upsample_groups", 8),
    (r"encoder_hidden_dim|attention_hidden_size", 64), (r"alignment_intermediate_size", 92),
    (r"ext_pw_out_channel|depthwise_separable_out_channel|downsample_hidden_size", 40),
    (r"output_channels|upsample_initial_channel|subsampling_conv_channels|codebook_dim", 32),
    (r"o_lora_rank|hc_lowrank|embedding_rank|gated_norm_rank|loop_gate_rank|laurel_rank", 10),
    (r"moe_hidden_size|moe_latent_size", 44), (r"num_kv_shared_layers", 0),
    (r"max_image_size|max_img_size", 64), (r"block_size|context_length|context_size|canvas_length|position_embedding_size", 64),
    (r"max_2d_position_embeddings|pos_emb_(height|width)|max_pos_emb", 16),
    (r"(num_)?key_value_heads|num_kv_heads|n_kv_heads|.*num_key_value_heads", 2),
    (r".*(attention_heads|num_heads|n_heads?|n_head)", (4, 2, 4)),
    (r"linear_num_key_heads|linear_num_value_heads|linear_num_heads", 4),
    (r"head_dim|dim_head|attention_head_dim|swa_head_dim|d_head|d_kv|global_head_dim", (16, 16, 14)),
    (r"linear_(key_|value_)?head_dim", 8),
    (r"kv_lora_rank", 20), (r"q_lora_rank", 24),
    (r"qk_rope_head_dim", 8), (r"qk_nope_head_dim", 16), (r"qk_head_dim", 24), (r"v_head_dim", 12),
    (r"rotary_dim", 8), (r"index_head_dim", 16), (r"index_n_heads", 2), (r"index_topk", 4),
    (r"(n_|num_|moe_num_)?(routed_|local_)?experts", 6), (r"moe_num_experts|num_moe_experts", 6),
    (r"(n_|num_|moe_num_)?shared_experts", 1),
    (r"num_experts_per_tok(en)?|moe_(top)?k|top_k_experts|num_selected_experts|moe_topk", 2),
    (r"(n_group|topk_group|num_expert_group)", 1),
    (r"first_k_dense_replace|num_dense_layers|moe_layer_start_index", 1),
    (r"max_(position|source_position|target_position)s?(_embeddings)?|n_positions", 104),
    (r"max_(source|target)_positions|max_seq_len|model_max_length", 104),
    (r"image_size|crop_size|input_image_size", 32), (r"patch_size", 8),
    (r"num_mel_bins|input_feat_size|feature_size|input_dim|mel_dim", 16),
    (r"projection_dim|proj_dim", 44), (r"projector_hidden_size|projection_hidden_dim", 52),
    (r"embedding_size|word_embed_proj_dim", 26),
    (r"mamba_(n|num)_heads", 4), (r"mamba_d_head|mamba_head_dim", 24),
    (r"(mamba_)?(d_state|state_size|ssm_state_size)", 12), (r"(mamba_)?chunk_size", 8),
    (r"sliding_window|attention_window|local_attention|attention_chunk_size", 8),
    (r"num_position_embeddings", 64), (r"type_vocab_size", 3),
    (r"num_conv_pos_embeddings", 8), (r"num_conv_pos_embedding_groups", 2),
    (r"codebook_size|num_embeddings", 64), (r"codevector_dim|proj_codevector_dim", 16),
    (r"hidden_size_per_layer_input", 12), (r"vocab_size_per_layer_input", 136),
    (r"(attn_layer|expert_layer|full_attention|global_attn).*(period|interval|layers)", 2),
    (r"(attn_layer|expert_layer)_offset", 1), (r"decoder_sparse_step|encoder_sparse_step", 1),
    (r"encoder_hash_byte_group_vocab", 112), (r"num_buckets|relative_attention_num_buckets", 18), (r"num_labels", 5),
)  # fmt: skip

_VISION = re.compile(r"visi|visual|image|video|vit|pixel|dino|sam|siglip|vq_|backbone|detector")
_AUDIO = re.compile(r"audio|speech|codec|mimi|acoustic|sound|whisper|depth_dec|decoder_audio")
_DEPTH = re.compile(r"(num_|n_)?(hidden_|decoder_)?(layers?|blocks)|depth|encoder_layers")
WIDTHS = re.compile(
    r"hidden_sizes|depths|block_sizes|blocks_per_stage|embed_dims?|embed_dim_per_stage|conv_dim"
    r"|encoder_hidden_sizes|neck_hidden_sizes|stage_\w*channels|downsample_channels|num_filters"
    r"|encoder_in_channels|decoder_in_channels|stem_channels|enc_channels|hidden_dims?|dims"
    r"|key_dim|backbone_channel_list|fpn_\w*_channels|neck_out_channels|num_blocks"
)
DERIVED = ("out_features", "out_indices", "stage_names")  # follow from the depth
_TOKEN = re.compile(r".*(token_id|token_index|_token_ids?|_index|^pad_idx|_idx)$")


@dataclass(frozen=True)
class Family:
    """One model class with one configuration; `name` is its folder in the cache."""

    name: str
    model_type: str
    architecture: str
    even: bool = False  # encoder and decoder of one depth


def families() -> list[Family]:
    """Every family of the installed transformers, by the name of its model type."""
    import transformers
    from transformers.models.auto import modeling_auto

    tables = [getattr(modeling_auto, f"MODEL_FOR_{m}_MAPPING_NAMES", {}) for m in MAPPINGS]
    found: dict[str, Family] = {}
    for model_type in sorted({key for table in tables for key in table}):
        first = next(table[model_type] for table in tables if model_type in table)
        architecture = first if isinstance(first, str) else first[0]
        found[model_type] = Family(model_type, model_type, architecture)
        if model_type in tables[0]:
            name = f"{model_type}@even"
            found[name] = Family(name, model_type, architecture, even=True)
    for model_type, architecture in modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.items():
        if any(f.architecture == architecture for f in found.values()):
            continue  # the text part of a multimodal family, under the text part's own type
        own = getattr(transformers, architecture).config_class
        name = f"{model_type}@causal"
        found[name] = Family(name, own.model_type if own else model_type, architecture)
    return list(found.values())


def small_config(family: Family) -> Any:
    """The shrunk configuration of `family`; an error of transformers' own where it refuses it."""
    import transformers
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    known = family.model_type in CONFIG_MAPPING
    config_class = (
        CONFIG_MAPPING[family.model_type]
        if known
        else getattr(transformers, family.architecture).config_class
    )
    plain = family.name.partition("@")[0]
    changes = EXCEPTIONS.get(family.name, EXCEPTIONS.get(plain, {}))
    start = {key[1:]: copy.deepcopy(v) for key, v in changes.items() if key.startswith("!")}
    small = shrunk(config_class(**start).to_dict(), "")
    for path, value in changes.items():
        if not path.startswith("!"):
            _put(small, path.split("."), value)
    if small.get("is_encoder_decoder") or "encoder_layers" in small or family.even:
        _encoder_depth(small, 4 if family.even else 3)
    return config_class.from_dict(small)


def shrunk(config: Config, path: str) -> Config:
    """`config` with small sizes in it and in every configuration below it."""
    small: Config = {}
    for key, value in config.items():
        where = f"{path}.{key}".lower()
        if key in DERIVED and "num_hidden_layers" in config:
            continue
        if isinstance(value, dict) and (key.endswith("config") or "model_type" in value):
            small[key] = shrunk(value, where)
        elif type(value) is int:
            small[key] = _small(key, value, where)
        elif isinstance(value, list | tuple) and WIDTHS.fullmatch(key):
            small[key] = _narrow(key, value)
        elif isinstance(value, list) and key.endswith("intermediate_size"):
            small[key] = [_small(key, v, where) for v in value]
        else:
            small[key] = copy.deepcopy(value)
    for key, old in config.items():
        if _DEPTH.fullmatch(key) and type(old) is int and old > small[key]:
            _trim(small, config, old, small[key])
    if config.get("head_dim") and config["head_dim"] == config.get("qk_rope_head_dim"):
        small["head_dim"] = small["qk_rope_head_dim"]
    if "kv_lora_rank" in config and small.get("num_key_value_heads"):
        small["num_key_value_heads"] = small["num_attention_heads"]
    _tokens(small, small.get("vocab_size") or 136)
    _rope(small)
    return small


def _small(key: str, value: int, where: str) -> int:
    if key == "vocab_size" and value < 136:
        return value
    tower = 2 if _AUDIO.search(where) else 1 if _VISION.search(where) else 0
    for pattern, size in SIZES:
        if re.fullmatch(pattern, key):
            new = size if isinstance(size, int) else size[tower]
            return min(value, new) if value >= 0 else value
    return value


def _narrow(key: str, values: list[Any] | tuple[Any, ...]) -> list[Any]:
    """Widths or depths of stages, at most 96 and 2; what was equal stays equal."""
    numbers = [v for v in values if type(v) is int]
    if len(numbers) != len(values):
        return list(values)
    if key in ("depths", "block_sizes", "blocks_per_stage", "num_blocks"):
        return [min(v, 2) for v in values]
    factor = 1
    while max(numbers) // factor > 96 and all(v % (2 * factor) == 0 for v in numbers):
        factor *= 2
    return [v // factor for v in values]


def _trim(small: Config, config: Config, old: int, new: int) -> None:
    """Lists with an entry a layer keep `new` layers, among them one of every kind."""
    lists = {
        key: list(small[key])
        for key, value in config.items()
        if isinstance(value, list | tuple) and len(value) == old and key in small
    }
    counted = {key for key, value in lists.items() if value == list(range(old))}
    kinds = [tuple(str(v[i]) for k, v in lists.items() if k not in counted) for i in range(old)]
    kept = sorted(sorted(range(old), key=lambda i: (kinds[:i].count(kinds[i]), i))[:new])
    for key, value in lists.items():
        small[key] = list(range(new)) if key in counted else [value[i] for i in kept]
    by_layer = config.get("per_layer_config")
    if isinstance(by_layer, dict):
        own = {int(key): value for key, value in by_layer.items()}
        small["per_layer_config"] = {
            str(new_index): {k: 2 * _small(k, v, "") for k, v in own[i].items() if k == "head_dim"}
            for new_index, i in enumerate(kept)
            if i in own
        }


def _tokens(small: Config, vocab: int) -> None:
    at = vocab - 1
    for key, value in small.items():
        if _TOKEN.match(key) and type(value) is int and value >= vocab:
            small[key] = at
            at -= 1
        elif _TOKEN.match(key) and isinstance(value, list) and any(
            type(v) is int and v >= vocab for v in value
        ):  # fmt: skip
            small[key] = [at]
            at -= 1


def _rope(small: Config) -> None:
    """Sections of a rotary embedding add up to half a head's width."""
    head = small.get("qk_rope_head_dim") or small.get("head_dim")
    if not isinstance(head, int):
        width, heads = small.get("hidden_size"), small.get("num_attention_heads")
        head = width // heads if isinstance(width, int) and isinstance(heads, int) else 16
    for options in (small.get("rope_parameters"), small.get("rope_scaling")):
        if isinstance(options, dict):
            part = options.get("partial_rotary_factor") or small.get("partial_rotary_factor") or 1
            for key, value in options.items():
                if key.endswith("_section") and isinstance(value, list):
                    options[key] = _split(int(head * part) // 2, len(value))


def _split(total: int, parts: int) -> list[int]:
    share = total // parts
    return [total - share * (parts - 1)] + [share] * (parts - 1)


def _put(config: Config, path: list[str], value: Any) -> None:
    for key in path[:-1]:
        config = config.setdefault(key, {})
    config[path[-1]] = value


def _encoder_depth(config: Config, depth: int) -> None:
    """Encoders get `depth` layers; the decoders that stand beside them keep their 4."""
    if "num_decoder_layers" in config and "num_layers" in config:
        config["num_layers"] = depth
    for key in ("encoder_layers", "num_encoder_layers", "encoder_num_hidden_layers"):
        if key in config:
            config[key] = depth
    encoder = config.get("encoder", config.get("encoder_config"))
    if isinstance(encoder, dict):
        text = encoder.get("text_config", encoder)
        if "num_hidden_layers" in text:
            text["num_hidden_layers"] = depth
        if isinstance(text.get("layer_types"), list):
            text["layer_types"] = (text["layer_types"] * 2)[:depth]
