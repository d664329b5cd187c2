"""A PEFT adapter: which modules it changes and how, from its config and its header alone. No torch."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import InputRefused, listed
from ..text import brief
from . import header
from .adapter_config import MERGE_FIRST, Settings, settings_of
from .bounded import CONFIG_BYTES, read_json
from .folder import folder_label, inside
from .header import FLOATS, Entry, Header
from .pickled import PickledFile
from .source import LocalFile, Source

CONFIG, WEIGHTS, PICKLE = "adapter_config.json", "adapter_model.safetensors", "adapter_model.bin"
PREFIX = "base_model.model."
_LORA = re.compile(r"(.+)\.(lora_[AB])(?:\.\w+)?\.weight")
_EMBEDDING = re.compile(r"(.+)\.(lora_embedding_[AB])(?:\.\w+)?")
_MAGNITUDE = re.compile(r"(.+)\.(lora_magnitude_vector)(?:\.weight|\.\w+(?:\.weight)?)?")
_ROWS = re.compile(r"(.+?)(?:\.token_adapter)?\.(trainable_tokens_delta)(?:\.\w+)?")
_COPY = re.compile(r"(.+)\.base_layer\.weight")
_SAVED = re.compile(r"(.+?)(?:\.modules_to_save(?:\.default)?)?\.(\w+)")
_WITH = {"magnitude": ("linear", "embedding"), "linear": ("parameters",)}
_INNER = re.compile(r"\.base_layer(?=\.|$)")
_EMBEDDINGS = re.compile(r"(^|\.)(embed_tokens|lm_head|wte|embedding|embeddings|word_embeddings)$")


@dataclass(frozen=True)
class Change:
    """What an adapter does to one module.

    Attributes:
        module: path of the module in the model, without wrappers of PEFT.
        kind: `linear` and `embedding` add B A to a weight, `parameters` to one or several parameters;
            `saved` replaces a tensor, `rows` some rows of one.
        tensors: by the name that PEFT gives a tensor under the module (`lora_A.weight`,
            `base_layer.lora_A.weight`), the entry of the adapter's file.
    """

    module: str
    kind: str
    tensors: Mapping[str, Entry]


@dataclass(eq=False)
class Adapter:
    """An adapter on disk; open one with `Adapter.open`.

    Attributes:
        label, commit: as those of a checkpoint.
        base, revision: what the config names as the model that was fine-tuned; may be empty.
        changes: what the adapter does, module by module.
        copies: entries that are copies of the base's weights, by the name of the base's tensor.
    """

    folder: Path
    label: str
    commit: str | None
    config: dict[str, Any]
    settings: Settings
    header: Header
    source: Source
    changes: list[Change]
    copies: dict[str, Entry]

    @classmethod
    def open(
        cls,
        folder: Path,
        *,
        label: str | None = None,
        commit: str | None = None,
        pickles: bool = False,
    ) -> Adapter:
        """Read the config and the header in `folder`.

        Args:
            pickles: whether an `adapter_model.bin` may be read.

        Raises:
            InputRefused: the adapter is of a kind that is not merged here, or is inconsistent.
        """
        config = read_json(inside(folder, CONFIG), CONFIG_BYTES)
        settings = settings_of(folder / CONFIG, config)
        if (folder / WEIGHTS).is_file():
            source: Source = LocalFile(inside(folder, WEIGHTS))
        elif pickles:
            source = PickledFile(inside(folder, PICKLE), PICKLE)
        else:
            what = f"is an adapter that is a pickle ({PICKLE})"
            raise InputRefused(folder, what, "--allow-pickle reads it, with weights_only=True.")
        try:
            head = header.read(source)
            changes, copies = changes_of(label or folder_label(folder), head, settings)
        except BaseException:
            source.close()
            raise
        label = label or folder_label(folder)
        return cls(folder, label, commit, config, settings, head, source, changes, copies)

    @property
    def base(self) -> str:
        """The model that the config names as the fine-tuned one; empty where it names none."""
        named = self.config.get("base_model_name_or_path")
        return named if isinstance(named, str) else ""

    @property
    def revision(self) -> str | None:
        """The revision of the base that the config names."""
        named = self.config.get("revision")
        return named if isinstance(named, str) and named else None

    def read(self, entry: Entry) -> bytearray:
        """The bytes of one tensor."""
        buffer = bytearray(entry.size_bytes)
        self.source.read_into(entry.offset, memoryview(buffer))
        return buffer


def is_adapter(folder: Path) -> bool:
    """Whether a folder holds an adapter and no model."""
    models = (p for kind in ("model*.safetensors*", "pytorch_model*") for p in folder.glob(kind))
    has_weights = (folder / WEIGHTS).is_file() or (folder / PICKLE).is_file()
    return (folder / CONFIG).is_file() and has_weights and next(models, None) is None


def changes_of(
    label: str, head: Header, settings: Settings
) -> tuple[list[Change], dict[str, Entry]]:
    """The changes by module, and the copies of the base's weights."""
    by_module: dict[tuple[str, str], dict[str, Entry]] = defaultdict(dict)
    copies: dict[str, Entry] = {}
    for entry in head.entries:
        name = entry.name.removeprefix(PREFIX)
        found = _place(name, settings)
        if found is None or entry.dtype not in FLOATS:
            what = f"holds {brief(entry.name)} ({entry.dtype}), which no LoRA has"
            raise InputRefused(label, what, MERGE_FIRST)
        module, kind, part = found
        if kind == "copy":
            copies[f"{module}.weight"] = entry
        else:
            by_module[module, kind][part] = entry
    for module, kind in [key for key in by_module if key[1] in ("magnitude", "linear")]:
        others = [other for m, other in by_module if m == module and other in _WITH[kind]]
        if others:  # another part of what is done to the module
            by_module[module, others[0]] |= by_module.pop((module, kind))
    changes = [Change(module, kind, tensors) for (module, kind), tensors in by_module.items()]
    if not changes:
        raise InputRefused(label, "is an adapter without tensors", "Save the adapter again.")
    for change in changes:
        _refuse_incomplete(label, change, settings)
    return changes, copies


def _place(name: str, settings: Settings) -> tuple[str, str, str] | None:
    """(module, kind, name under the module) of an adapter's tensor; None of an unknown one."""
    for pattern, kind in ((_LORA, "linear"), (_EMBEDDING, "embedding"), (_MAGNITUDE, "magnitude")):
        if match := pattern.fullmatch(name):
            module, depth = _INNER.sub("", match[1]), len(_INNER.findall(match[1]))
            if depth or _is_parameter(module, settings):
                kind = "parameters"
            ending = ".weight" if pattern is _LORA else ""
            return module, kind, f"{'base_layer.' * depth}{match[2]}{ending}"
    if match := _ROWS.fullmatch(name):
        return match[1], "rows", match[2]
    if match := _COPY.fullmatch(name):
        return match[1], "copy", "weight"
    if match := _SAVED.fullmatch(name):
        module = match[1]
        if _is_saved(module, settings):
            return module, "saved", match[2]
        if _EMBEDDINGS.search(module):
            return module, "copy", match[2]
    return None


def _is_saved(module: str, settings: Settings) -> bool:
    """Whether PEFT has saved this module whole, or one that it is in: by the ends of their names."""
    words = module.split(".")
    outer = (".".join(words[: n + 1]) for n in range(len(words)))
    return any(name.endswith(settings.modules_to_save) for name in outer)


def _is_parameter(module: str, settings: Settings) -> bool:
    """Whether a parameter of this module, not the module, is what the adapter targets."""
    owners = {target.rpartition(".")[0] for target in settings.target_parameters}
    return any(module == owner or module.endswith(f".{owner}") for owner in owners if owner)


def _refuse_incomplete(label: str, change: Change, settings: Settings) -> None:
    """Refuse factors that are not there in pairs or do not fit each other."""
    stems = {
        part.replace("lora_B", "lora_A").replace("embedding_B", "embedding_A")
        for part in change.tensors
    }
    for first in (stem for stem in stems if stem.endswith(("lora_A.weight", "embedding_A"))):
        second = first.replace("lora_A", "lora_B").replace("embedding_A", "embedding_B")
        A, B = change.tensors.get(first), change.tensors.get(second)
        if A is None or B is None:
            there = (A or B or next(iter(change.tensors.values()))).name
            raise InputRefused(
                label, f"holds {brief(there)} without its other factor", "Save it again."
            )
        if (
            len(A.shape) != 2
            or len(B.shape) != 2
            or A.shape[0] != B.shape[1]
            or 0 in A.shape + B.shape
        ):
            what = f"{change.module} has factors of shapes {list(A.shape)} and {list(B.shape)}"
            raise InputRefused(label, what, MERGE_FIRST)
        rank = settings.rank(change.module)
        if not settings.target_parameters and A.shape[0] != rank:
            what = f"{change.module} has rank {A.shape[0]}, its config says {rank}"
            raise InputRefused(
                label, what, "Take the adapter_config.json that belongs to the weights."
            )
    has_magnitude = "lora_magnitude_vector" in change.tensors
    if change.kind in ("linear", "embedding") and has_magnitude != settings.use_dora:
        says = "use_dora" if settings.use_dora else "no use_dora"
        what = f"{change.module} {'has a' if has_magnitude else 'lacks its'} magnitude, its config says {says}"
        raise InputRefused(label, what, "Take the adapter_config.json that belongs to the weights.")


def refuse_missing(label: str, base: str, names: list[str], trained_on: str) -> None:
    """Refuse an adapter that changes what the base does not have, if `names` has any."""
    if names:
        named = f"It was trained on {brief(trained_on)}: name that." if trained_on else ""
        what = f"changes {listed(names, 'module', 3)}, which {base} does not have"
        raise InputRefused(label, what, named or "Name the model that the adapter was trained on.")
