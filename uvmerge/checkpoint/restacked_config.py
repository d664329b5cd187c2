"""The config of a model whose layers were put together anew: its depth, and what it says of each layer. Pure."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ..errors import counted
from .stacks import Stack, depth_keys

# Lists whose length may be the depth by chance.
_NOT_OF_LAYERS = re.compile(r"architectures|token|label|language|auto_map|size$|_dims?$")
# Lists of layers by number, and numbers of layers from the first or the last one.
_NUMBERS = re.compile(r"(layers|idxs?|indices|ids)$")
_THRESHOLD = re.compile(
    r"max_window_layers|first_k_dense_replace|num_kv_shared_layers|.*_layer_offset"
)

Layer = tuple[
    Mapping[str, Any], int
]  # the config of the model that a layer is from, and its number


def restacked_config(
    config: Mapping[str, Any], stack: Stack, layers: Sequence[Layer], notes: list[str]
) -> dict[str, Any]:
    """A config for a model whose layers are these.

    The depth is set wherever the config states that of the stack. Beside it, a list or a pattern with
    an entry for each layer gets the entries of the new layers, and a list of layer numbers the new
    numbers.

    Args:
        config: of the model whose other settings hold.
        stack: the stack of that model.
        layers: what each new layer is.
        notes: is given a sentence for each number that cannot be adapted.
    """
    found = copy.deepcopy(dict(config))
    same = [number for _, number in layers] == list(range(stack.depth))
    paths = depth_keys(config, stack) if not same else []
    if config and not same and not paths:
        notes.append(
            f"config.json: nothing in it states the {counted(stack.depth, 'layer')} of {stack.name};"
            f" the output has {len(layers)}"
        )
    for path in paths:
        *scope, key = path.split(".")
        part = _part(found, scope)
        parts = [_part(other, scope) if other else {} for other, _ in layers]
        numbers = [number for _, number in layers]
        for name, value in list(part.items()):
            if isinstance(value, (list, str)):
                part[name] = _adapted(name, value, stack.depth, list(zip(parts, numbers)))
            elif type(value) is int and _THRESHOLD.fullmatch(name) and value:
                notes.append(
                    f"config.json: {name} {value} is kept, and counts layers of the output"
                )
        part[key] = len(layers)
    return found


def _part(config: Mapping[str, Any], scope: Sequence[str]) -> dict[str, Any]:
    part: Any = config
    for key in scope:
        part = part.get(key, {}) if isinstance(part, Mapping) else {}
    return part if isinstance(part, dict) else dict(part)


def _adapted(name: str, value: Any, depth: int, layers: Sequence[Layer]) -> Any:
    """What a list or a text of the config says of the new layers; itself where it says nothing of layers."""
    if isinstance(value, str):
        is_pattern = name.endswith("pattern") and len(value) == depth
        return "".join(_entries(name, value, layers)) if is_pattern else value
    if _NOT_OF_LAYERS.search(name):
        return value
    if len(value) == depth:
        return list(_entries(name, value, layers))
    if _NUMBERS.search(name) and all(type(each) is int and each < depth for each in value):
        return [new for new, (_, old) in enumerate(layers) if old in value]
    return value


def _entries(name: str, value: Sequence[Any], layers: Sequence[Layer]) -> Iterator[Any]:
    """The entry of each layer in the config of its own model, else in that of the output."""
    for part, number in layers:
        own = part.get(name)
        entries = own if isinstance(own, type(value)) and number < len(own) else value
        yield entries[min(number, len(entries) - 1)]
