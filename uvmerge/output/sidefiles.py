"""Everything beside the weights that makes a folder a model: copied byte for byte, never re-written.

Trainer state, second copies of the weights and run logs stay behind.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

from ..checkpoint.folder import INDEX, Checkpoint
from ..errors import InputRefused
from ..plan.planner import Plan
from ..text import brief
from . import manifest

_KEEP = re.compile(
    r".*\.(json|jinja|py|model|tiktoken|vocab|bpe|txt|spm)|(LICEN[SC]E|NOTICE|USE_POLICY|COPYING).*",
    re.IGNORECASE,
)
_TRAINER = re.compile(
    r"(trainer_state|training_args|(all|train|eval|test|predict)_results|adapter_config|optimizer"
    r"|scheduler|requirements|zero_to_fp32|latest).*|.*\.index\.json"
)
_FOLDERS = re.compile(r"(\d+_\w+|additional_chat_templates|chat_templates|custom_generate)")
_CONFIG = "config.json"


@dataclass(frozen=True)
class SideFile:
    """One file of the output that holds no weights: its size is known before it is read."""

    name: str
    size_bytes: int
    read: Callable[[], bytes]

    @classmethod
    def of(cls, name: str, content: bytes) -> SideFile:
        """A file whose content is there."""
        return cls(name, len(content), lambda: content)


def side_files(finetuned: Checkpoint, plan: Plan) -> list[SideFile]:
    """The side files in the order to write them: the index and the config last.

    Raises:
        InputRefused: a name that is not valid text, or a link that leads out of the folder.
    """
    names = [name for name in finetuned.side_names() if _is_kept(name)]
    for name in names:
        if name != name.encode(errors="replace").decode():
            what = f"the name of '{brief(name)}' is not valid text"
            raise InputRefused(finetuned.label, what, "Rename the file.")
    files = [_copied(finetuned, name) for name in names if name != _CONFIG]
    files += _index(finetuned, plan)
    if _CONFIG in names:
        config = _copied(finetuned, _CONFIG)
        dtype = plan.recipe.dtype
        files.append(SideFile.of(_CONFIG, _with_dtype(config.read(), dtype)) if dtype else config)
    return files


def runs_code(finetuned: Checkpoint) -> bool:
    """Whether the checkpoint brings Python files that transformers would offer to run."""
    scripts = (name.endswith(".py") and "/" not in name for name in finetuned.side_names())
    return "auto_map" in finetuned.config or any(scripts)


def _is_kept(name: str) -> bool:
    folder, _, last = name.rpartition("/")
    return bool(
        (not folder or _FOLDERS.fullmatch(folder))
        and _KEEP.fullmatch(last)
        and not _TRAINER.fullmatch(last)
        and name not in (manifest.NAME, manifest.CARD)
    )


def _copied(finetuned: Checkpoint, name: str) -> SideFile:
    return SideFile(name, finetuned.side_size(name), partial(finetuned.side_bytes, name))


def _index(finetuned: Checkpoint, plan: Plan) -> Iterator[SideFile]:
    if plan.index is not None:
        yield SideFile.of(INDEX, (json.dumps(plan.index, indent=2) + "\n").encode())
    elif finetuned.index is not None and len(plan.files) == len(finetuned.headers):
        ending = ".safetensors.index.json"
        names = [n for n in finetuned.side_names() if n.endswith(ending) and "/" not in n]
        for name in [INDEX] if INDEX in names else names:
            yield _copied(finetuned, name)


def _with_dtype(config: bytes, dtype: str) -> bytes:
    """The config with the stated dtype replaced in place; every other byte stays."""
    return re.sub(rb'("(?:torch_)?dtype"\s*:\s*)"\w+"', rb'\g<1>"%s"' % dtype.encode(), config)
