"""The copy of a checkpoint that transformers reads: without files that hold or configs that name code.

transformers may run code of a checkpoint in several ways, for some of which it asks on the terminal:
Auto classes follow `auto_map` to Python files, a config may name a kernel of the Hub for attention,
unpickling runs any code, an adapter names another model, and a key may rename other keys or name a
file anywhere on the disk. The copy made here holds none of these.
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
from ..text import brief, size

CONFIG, TOKENIZER_CONFIG = "config.json", "tokenizer_config.json"  # no other config is copied
LARGEST_BYTES = 256 * 2**20  # of another file that transformers reads, as a tokenizer's
MOST = 1_000_000  # experts, labels: transformers makes lists of that length
MOST_LAYERS = 10_000  # which may share their weights, so that files of any size suffice

_READ = {".json", ".jinja", ".txt", ".model", ".tiktoken"}  # whole, into memory
_CODE = {".py", ".pyc", ".pyd", ".so", ".pkl", *PICKLES}
_PLAIN_PICKLE = "spk_dict.pt"  # voices of Qwen-Omni, which transformers reads with weights_only
# Keys of a config, at any depth, that name code to run or other files to read, or that change how
# transformers reads the other keys.
_NAMES_CODE = {
    "auto_map", "custom_generate", "custom_pipelines", "trust_remote_code", "use_kernels",
    "kernel_config", "configuration_files", "transformers_weights", "name_or_path", "init_inputs",
    "attribute_map", "sub_configs", "sub_configs_defaults", "pretrained_cfg", "mecab_option",
    "pretrained_cfg_overlay",
}  # fmt: skip
_PLACES = ("_file", "_files", "_path", "_paths", "_dir")  # ends of keys whose value names files
_PLAIN_SPECIAL = ("__float__", "__type")  # of NaN and of an added token
_FETCHES = "use_pretrained_backbone"  # would fetch weights, which the checkpoint's own replace
_LAYERS = ("layers", "layer", "blocks", "depth", "stages")
_COUNTS = ("labels", "experts", "heads", *_LAYERS)


@contextmanager
def clean_copy(folder: Path, shards: Iterable[str] = ()) -> Iterator[Path]:
    """A temporary folder of links to the files of `folder`, with configs that name no code.

    Args:
        shards: names of weight files; those in subfolders are linked too.

    Raises:
        InputRefused: a config is too deeply nested or no JSON, a count in it is excessive, or a file
            is too large.
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
        kept = {k: without_code(v) for k, v in config.items() if not _names_code(k, v)}
        return kept | ({_FETCHES: False} if _FETCHES in kept else {})
    return [without_code(value) for value in config] if isinstance(config, list) else config


def _names_code(key: str, value: Any) -> bool:
    """Whether a key is one like `auto_map`, `_attn_implementation`, `vocab_file` or `__dict__`."""
    if key.startswith("__"):
        return key not in _PLAIN_SPECIAL
    names_file = key.endswith(_PLACES) and not isinstance(value, (int, float))
    return names_file or key.lstrip("_") in _NAMES_CODE or "_implementation" in key


def _may_be_seen(path: Path) -> bool:
    """Whether transformers may read a file: neither code nor a further config."""
    if path.suffix in _READ and path.stat().st_size > LARGEST_BYTES:
        do = "Take the file that belongs to the checkpoint."
        raise InputRefused(path, f"is larger than {size(LARGEST_BYTES)}", do)
    is_code = path.suffix.lower() in _CODE and path.name != _PLAIN_PICKLE
    return not is_code and not path.name.endswith("config.json")


def _refuse_excessive(config: Any, path: Path) -> None:
    """Refuse numbers of layers and the like for which transformers would take all memory before it
    looks at any weight."""
    do = "Take the file that belongs to the weights."
    for key, value in config.items() if isinstance(config, dict) else enumerate(config):
        if isinstance(value, (dict, list)):
            _refuse_excessive(value, path)
        elif isinstance(value, (int, float)) and str(key).endswith(_COUNTS):
            most = MOST_LAYERS if str(key).endswith(_LAYERS) else MOST
            if value > most:
                what = f"says {brief(key)}: {brief(value)}, which is more than {most:,}"
                raise InputRefused(path, what, do)
