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
from .sizes import small_size

# What a family is tried as, the first that has it; the causal class is a family of its own.
MAPPINGS = (
    "SEQ_TO_SEQ_CAUSAL_LM", "SPEECH_SEQ_2_SEQ", "IMAGE_TEXT_TO_TEXT", "MULTIMODAL_LM", "MASKED_LM",
    "TEXT_TO_WAVEFORM", "CAUSAL_LM", "CTC", "ZERO_SHOT_IMAGE_CLASSIFICATION",
    "IMAGE_CLASSIFICATION", "AUDIO_CLASSIFICATION", "TEXT_ENCODING", "OBJECT_DETECTION",
)  # fmt: skip

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
            small[key] = small_size(key, value, where)
        elif isinstance(value, list | tuple) and WIDTHS.fullmatch(key):
            small[key] = _narrow(key, value)
        elif isinstance(value, list) and key.endswith("intermediate_size"):
            small[key] = [small_size(key, v, where) for v in value]
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
            str(new_index): {
                k: 2 * small_size(k, v, "") for k, v in own[i].items() if k == "head_dim"
            }
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
    both = (small.get("rope_parameters"), small.get("rope_scaling"))
    for options in filter(None, both):
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
