"""Which classes may be loaded: the model classes and the tokenizers that transformers lists by name."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

from ..checkpoint.folder import Checkpoint
from ..errors import InputRefused
from ..text import brief
from .clean import CONFIG, TOKENIZER_CONFIG, read_config
from .sealing import first_line

# Families whose models are built by another package, or need a search index.
_OUTSIDE = {"timm_backbone", "timm_wrapper", "rag"}
_QUANTISER = re.compile(r"torch\.dtype|[A-Z]\w*")  # a class, where torchao would call any function


def model_class(checkpoint: Checkpoint, named: bool) -> Any:
    """The model class that config.json names, or else the base class of its family.

    Args:
        named: refuse a config that names no class.
    """
    import transformers

    config, folder = checkpoint.config, checkpoint.on_disk()
    family, names = config.get("model_type"), config.get("architectures")
    family = family if isinstance(family, str) else ""
    name = names[0] if isinstance(names, list) and names else names
    if not names and not named:
        name = tables().get("MODEL_MAPPING_NAMES", {}).get(family)
    if not isinstance(name, str):
        shown = f": architectures is {brief(names)}" if names else ""
        raise InputRefused(
            folder,
            f"its config.json names no model class{shown}",
            "Add `architectures`, a list with the name of a class of transformers.",
        )
    for quantiser in _quantisers(config.get("quantization_config")):
        if not (isinstance(quantiser, str) and _QUANTISER.fullmatch(quantiser)):
            what = f"its quantization_config names {brief(quantiser)}, which is no class"
            raise InputRefused(folder, what, "Take the config.json that belongs to the weights.")
    kind = class_of_transformers(name, family, folder)
    if kind is None:
        of_its_own = ": it is Python code of its own, which is not run here"
        why = of_its_own if "auto_map" in config else ""
        raise InputRefused(
            folder,
            f"its model class {brief(name)} is not in transformers {transformers.__version__}{why}",
            "Only classes of transformers are run.",
        )
    return kind


def class_of_transformers(name: str, family: str, folder: Path) -> Any:
    """The model class `name`, from the tables of transformers or the module of `family`; None where
    transformers has none."""
    from transformers import PreTrainedModel
    from transformers.models.auto import configuration_auto as configs

    listed = {
        key
        for table in tables().values()
        for key, names in table.items()
        if name in ([names] if isinstance(names, str) else names)
    }
    what = f"its model class {name} cannot be used here"
    for key in (*sorted(listed), family):
        if key not in configs.CONFIG_MAPPING_NAMES:
            continue
        try:
            module = import_module(f"transformers.models.{configs.model_type_to_module_name(key)}")
            kind = getattr(module, name) if name in dir(module) else None
        except Exception as error:
            raise InputRefused(folder, f"{what}: {first_line(error)}") from error
        if isinstance(kind, type) and issubclass(kind, PreTrainedModel):
            if key in _OUTSIDE:
                why = "it is built by another package"
                raise InputRefused(folder, f"{what}: {why}") from ImportError(key)
            if key in listed or not name.endswith("PreTrainedModel"):
                return kind
        elif kind is not None and key in listed:  # a dummy for a class that cannot be imported
            raise InputRefused(folder, f"{what}: it needs other packages") from ImportError(name)
    return None


@cache
def tables() -> dict[str, dict[str, Any]]:
    """The tables of transformers, one for each task, from a family to the names of its classes."""
    from transformers.models.auto import modeling_auto

    tables = vars(modeling_auto).items()
    return {key: t for key, t in tables if key.startswith("MODEL_") and key.endswith("_NAMES")}


def _quantisers(config: Any) -> Iterator[Any]:
    """What a quantization_config names under `_type`, at any depth."""
    if isinstance(config, dict):
        if "_type" in config:
            yield config["_type"]
        config = list(config.values())
    if isinstance(config, list):
        for part in config:
            yield from _quantisers(part)


def refuse_tokenizer_class(folder: Path) -> None:
    """Refuse a `tokenizer_class` that is no tokenizer of transformers, which would try any name."""
    import transformers

    for file in (TOKENIZER_CONFIG, CONFIG):
        config = read_config(folder / file) if (folder / file).exists() else {}
        name = config.get("tokenizer_class")
        if name and not (isinstance(name, str) and is_tokenizer_class(name)):
            raise InputRefused(
                folder,
                f"transformers cannot load its tokenizer: its class {brief(name)} is not in"
                f" transformers {transformers.__version__}",
                "Code of its own is not run here.",
            )


def is_tokenizer_class(name: str) -> bool:
    """Whether transformers knows a tokenizer of that name, with or without `Fast`."""
    from transformers import PreTrainedTokenizerBase
    from transformers.models.auto import tokenization_auto as tokenizers

    listed = tokenizers.TOKENIZER_MAPPING_NAMES.values()
    known = {n for names in listed for n in ([names] if isinstance(names, str) else names or ())}
    kind = tokenizers.tokenizer_class_from_name(name)
    is_tokenizer = isinstance(kind, type) and issubclass(kind, PreTrainedTokenizerBase)
    return is_tokenizer or name.removesuffix("Fast") in known or name in known
