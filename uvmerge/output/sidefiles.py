"""Everything beside the weights that makes a folder a model: copied byte for byte, never re-written.

Trainer state, second copies of the weights and run logs stay behind.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

from ..checkpoint.folder import INDEX, Checkpoint, inside
from ..errors import InputRefused
from ..plan.steps import Plan
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


SideFile = tuple[str, Path | bytes]


def side_files(finetuned: Checkpoint, plan: Plan) -> Iterator[SideFile]:
    """(name, file or content) of each side file, in the order to write them: config last."""
    names = sorted(_names(finetuned.folder), key=lambda name: (name == "config.json", name))
    for name in names:
        if name == "config.json":
            yield from _index(finetuned, plan)
        content = finetuned.folder / name
        if name == "config.json" and plan.recipe.dtype:
            yield name, _with_dtype(content.read_bytes(), plan.recipe.dtype)
        else:
            yield name, content
    if "config.json" not in names:
        yield from _index(finetuned, plan)


def runs_code(finetuned: Checkpoint) -> bool:
    """Whether the checkpoint brings Python files that transformers would offer to run."""
    return "auto_map" in finetuned.config or any(finetuned.folder.glob("*.py"))


def _names(folder: Path) -> Iterator[str]:
    for path in folder.iterdir():
        if path.is_dir() and _FOLDERS.fullmatch(path.name):
            candidates = sorted(f"{path.name}/{child.name}" for child in path.iterdir())
        else:
            candidates = [path.name]
        for name in candidates:
            last = name.rpartition("/")[2]
            mine = name in (manifest.NAME, manifest.CARD)
            if _KEEP.fullmatch(last) and not _TRAINER.fullmatch(last) and not mine:
                path = inside(folder, name)
                if name != name.encode(errors="replace").decode():
                    raise InputRefused(
                        folder, f"the name of '{brief(name)}' is not valid text", "Rename the file."
                    )
                if path.is_file():
                    yield name
                elif path.is_symlink():
                    raise InputRefused(
                        path, "is a link to a file that is not there", "Put the file in its place."
                    )


def _index(finetuned: Checkpoint, plan: Plan) -> Iterator[SideFile]:
    if plan.index is not None:
        yield INDEX, (json.dumps(plan.index, indent=2) + "\n").encode()
    elif finetuned.index is not None and len(plan.files) == len(finetuned.headers):
        for path in sorted(finetuned.folder.glob("*.safetensors.index.json")):
            if path.name == INDEX or not (finetuned.folder / INDEX).exists():
                yield path.name, path


def _with_dtype(config: bytes, dtype: str) -> bytes:
    """The config with the stated dtype replaced in place; every other byte stays."""
    return re.sub(rb'("(?:torch_)?dtype"\s*:\s*)"\w+"', rb'\g<1>"%s"' % dtype.encode(), config)
