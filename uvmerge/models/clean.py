"""The copy of a checkpoint that transformers reads: without files that hold or configs that name code.

transformers may run code of a checkpoint in several ways, for some of which it asks on the terminal:
Auto classes follow `auto_map` to Python files, a config may name a kernel of the Hub for attention,
unpickling runs any code, and an adapter names another model. The copy made here holds none of these.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from ..checkpoint.bounded import CONFIG_BYTES, read_json
from ..checkpoint.strangers import PICKLES
from ..errors import InputRefused
from ..text import brief

CONFIG, TOKENIZER_CONFIG = "config.json", "tokenizer_config.json"  # no other config is copied
MOST = 1_000_000  # layers, experts, labels: transformers makes lists of that length

_CODE = {".py", ".pyc", ".pyd", ".so", ".pkl", *PICKLES}
_PLAIN_PICKLE = "spk_dict.pt"  # voices of Qwen-Omni, which transformers reads with weights_only
# Keys of a config, at any depth, that name code to run or other files to read.
_NAMES_CODE = {
    "auto_map", "custom_generate", "custom_pipelines", "trust_remote_code", "use_kernels",
    "kernel_config", "configuration_files", "transformers_weights", "name_or_path",
}  # fmt: skip
_FETCHES = "use_pretrained_backbone"  # would fetch weights, which the checkpoint's own replace
_COUNTS = ("layers", "layer", "labels", "experts", "heads", "blocks", "depth", "stages")


@contextmanager
def clean_copy(folder: Path, shards: Iterable[str] = ()) -> Iterator[Path]:
    """A temporary folder of links to the files of `folder`, with configs that name no code.

    Args:
        shards: names of weight files; those in subfolders are linked too.

    Raises:
        InputRefused: a config is too large, too deeply nested or no JSON, or a count in it is
            excessive.
    """
    with TemporaryDirectory(prefix="uvmerge-") as made:
        copy = Path(made)
        for path in folder.iterdir():
            if path.is_file() and path.name in (CONFIG, TOKENIZER_CONFIG):
                content = json.dumps(without_code(read_config(path)))
                (copy / path.name).write_text(content, encoding="utf-8")
            elif path.is_file() and _may_be_seen(path):
                (copy / path.name).symlink_to(path.resolve())
        for name in shards:
            if not (copy / name).exists():
                (copy / name).parent.mkdir(parents=True, exist_ok=True)
                (copy / name).symlink_to((folder / name).resolve())
        yield copy


def read_config(path: Path) -> dict[str, Any]:
    """A config of a checkpoint.

    Raises:
        InputRefused: names the file, and what is wrong with it.
    """
    config = read_json(path, CONFIG_BYTES)
    _refuse_excessive(config, path)
    return config


def without_code(config: Any) -> Any:
    """`config` without the keys, at any depth, that name code, kernels or other files."""
    if isinstance(config, dict):
        kept = {k: without_code(value) for k, value in config.items() if not _names_code(k)}
        return kept | ({_FETCHES: False} if _FETCHES in kept else {})
    return [without_code(value) for value in config] if isinstance(config, list) else config


def _names_code(key: str) -> bool:
    """Whether a key is one like `auto_map`, `_attn_implementation` or `experts_implementation`."""
    return key.lstrip("_") in _NAMES_CODE or "_implementation" in key


def _may_be_seen(path: Path) -> bool:
    is_code = path.suffix.lower() in _CODE and path.name != _PLAIN_PICKLE
    return not is_code and not path.name.endswith("config.json")


def _refuse_excessive(config: Any, path: Path) -> None:
    """Refuse numbers of layers and the like for which transformers would take all memory before it
    looks at any weight."""
    do = "Take the file that belongs to the weights."
    for key, value in config.items() if isinstance(config, dict) else enumerate(config):
        if isinstance(value, (dict, list)):
            _refuse_excessive(value, path)
        elif isinstance(value, (int, float)) and value > MOST and str(key).endswith(_COUNTS):
            what = f"says {brief(key)}: {brief(value)}, which is more than {MOST:,}"
            raise InputRefused(path, what, do)
