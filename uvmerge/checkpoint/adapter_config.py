"""The config of a PEFT adapter: what of it decides the merged weights, and which kinds are refused.

Supported is what PEFT can merge exactly: LoRA with its patterns, rsLoRA, DoRA, embeddings, whole modules,
rows of tokens, and parameters of fused experts. Everything else is refused by name. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import InputRefused
from ..text import brief

MERGE_FIRST = "Merge it first: PeftModel.from_pretrained(…).merge_and_unload().save_pretrained(…)."
# Keys that do not matter for the merged weights, or that are read here.
_KNOWN = {
    "auto_mapping", "base_model_name_or_path", "revision", "inference_mode", "task_type", "peft_type",
    "peft_version", "r", "lora_alpha", "lora_dropout", "target_modules", "exclude_modules",
    "layers_to_transform", "layers_pattern", "rank_pattern", "alpha_pattern", "fan_in_fan_out",
    "use_rslora", "use_dora", "modules_to_save", "trainable_token_indices", "target_parameters",
    "ensure_weight_tying", "megatron_core", "qalora_group_size", "init_lora_weights", "bias",
    "eva_config", "runtime_config",
}  # fmt: skip
_VARIANTS = {
    "alora_invocation_tokens": "aLoRA", "use_bdlora": "BD-LoRA", "arrow_config": "Arrow",
    "use_qalora": "QA-LoRA", "monteclora_config": "MonteCLoRA", "velora_config": "VeLoRA",
    "kasa_config": "KaSA", "layer_replication": "layer replication", "lora_bias": "a bias of B",
    "megatron_config": "Megatron", "loftq_config": "LoftQ", "corda_config": "CorDA",
    "lora_ga_config": "LoRA-GA",
}  # fmt: skip
_LEAVING_THE_BASE = ("gaussian", "orthogonal", "eva")  # ways to start A and B that leave W alone
_REPEATED_GROUP = re.compile(r"\)[*+{]")  # in a pattern; matching one may take exponential time


@dataclass(frozen=True)
class Settings:
    """What of an adapter's config decides the merged weights; the names are those of PEFT."""

    r: int
    lora_alpha: float
    use_rslora: bool = False
    use_dora: bool = False
    fan_in_fan_out: bool = False
    rank_pattern: Mapping[str, int] = field(default_factory=dict)
    alpha_pattern: Mapping[str, float] = field(default_factory=dict)
    modules_to_save: tuple[str, ...] = ()
    target_parameters: tuple[str, ...] = ()
    token_indices: Mapping[str, tuple[int, ...]] = field(default_factory=dict)  # "" for a bare list

    def rank(self, module: str) -> int:
        """The rank of a module, as PEFT finds it: by the first pattern that fits, else `r`."""
        fits = (p for p in self.rank_pattern if re.match(rf"(.*\.)?({p})$", module))
        return self.rank_pattern.get(next(fits, ""), self.r)


def settings_of(path: Path, config: Mapping[str, Any]) -> Settings:
    """The settings in a config, whose kind of adapter is one that is merged here."""
    if variant := _variant(config):
        raise InputRefused(
            path, f"is an adapter with {variant}, which is not merged here", MERGE_FIRST
        )
    rank: Any = config.get("r")
    alpha: Any = config.get("lora_alpha", 8)
    if not _is_count(rank) or not _is_number(alpha):
        raise InputRefused(path, f"has no usable r and lora_alpha ({brief(rank)}, {brief(alpha)})")
    return Settings(
        r=rank,
        lora_alpha=alpha,
        use_rslora=config.get("use_rslora") is True,
        use_dora=config.get("use_dora") is True,
        fan_in_fan_out=config.get("fan_in_fan_out") is True,
        rank_pattern=_pattern(path, config.get("rank_pattern"), _is_count),
        alpha_pattern=_pattern(path, config.get("alpha_pattern"), _is_number),
        modules_to_save=_texts(path, config, "modules_to_save"),
        target_parameters=_texts(path, config, "target_parameters"),
        token_indices=_token_indices(path, config.get("trainable_token_indices")),
    )


def _variant(config: Mapping[str, Any]) -> str:
    """What an adapter is beyond LoRA as it is merged here, in words; else empty."""
    kind = config.get("peft_type")
    if kind != "LORA":
        return f"the peft_type {brief(kind)}"
    for key, words in _VARIANTS.items():
        if config.get(key):
            return f"{words} ({key})"
    if config.get("bias", "none") != "none":
        return f"biases of its own (bias: {brief(config['bias'])})"
    start = config.get("init_lora_weights", True)
    if isinstance(start, str) and start not in _LEAVING_THE_BASE:
        return f"init_lora_weights: {brief(start)}, which changes the base"
    unknown = (
        key for key, value in config.items() if value and key not in _KNOWN | _VARIANTS.keys()
    )
    return next((f"the unknown setting {brief(key)}" for key in unknown), "")


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 < value < 2**31


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and abs(value) < 1e30


def _pattern(path: Path, found: Any, fits: Callable[[Any], bool]) -> dict[str, Any]:
    """A table from patterns of module names to numbers; empty where there is none."""
    found = found or {}
    if not isinstance(found, dict) or not all(map(fits, found.values())):
        raise InputRefused(path, f"has a pattern that is no table of numbers: {brief(found)}")
    for pattern in found:
        try:
            if len(pattern) > 1000 or _REPEATED_GROUP.search(pattern):
                raise re.error("repeats a group")
            re.compile(pattern)
        except (re.error, RecursionError, OverflowError) as error:
            what = f"has the pattern '{brief(pattern)}', which is not matched: {error}"
            raise InputRefused(path, what, MERGE_FIRST) from None
    return found


def _texts(path: Path, config: Mapping[str, Any], key: str) -> tuple[str, ...]:
    """A list of texts in a config; empty where there is none."""
    found = config.get(key) or []
    if not isinstance(found, list) or not all(isinstance(each, str) for each in found):
        raise InputRefused(path, f"has {key} that is no list of names: {brief(found)}", MERGE_FIRST)
    return tuple(found)


def _token_indices(path: Path, found: Any) -> dict[str, tuple[int, ...]]:
    """`trainable_token_indices` by the name of the module; a bare list is that of the embeddings."""
    tables: dict[str, Any] = found if isinstance(found, dict) else {"": found} if found else {}
    for rows in tables.values():
        if not isinstance(rows, list) or not all(type(n) is int and n >= 0 for n in rows):
            raise InputRefused(path, f"has trainable_token_indices {brief(found)}", MERGE_FIRST)
    return {name: tuple(rows) for name, rows in tables.items()}
