"""Side files: the files beside the weights that a loader needs, copied byte for byte.

Every file that a loader may need is copied, whatever its name is. Second copies of the weights, the
state of a trainer, adapters and run logs stay behind, and a note names them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

from ..checkpoint.bounded import CONFIG_BYTES, parse_json
from ..checkpoint.folder import INDEX, Checkpoint
from ..checkpoint.merged import TOKENIZER_FILES
from ..errors import InputRefused
from ..plan.steps import Plan
from ..text import brief, size

LARGEST_BYTES = 256 << 20  # of one side file; no tokenizer is larger
_CONFIG = "config.json"
# Files at the top of the folder that stay behind, by reason; under the empty reason without a note.
_LEFT = {
    "": re.compile(  # indexes, what uvmerge writes anew, what git and downloads leave
        r"\..*|.*\.index(\.[\w-]+)?\.json|README\.md|uvmerge\.json|.*\.lock|.*\.metadata"
    ),
    "an adapter lies beside the weights: transformers would load it too": re.compile(r"adapter_.*"),
    "a second copy of the weights": re.compile(
        r".*\.(safetensors|gguf|h5|msgpack|onnx|onnx_data|npz|ot|mlmodel|tflite)"
        r"|(pytorch_)?model.*\.(bin|pt|pth|ckpt)|consolidated.*"
    ),
    "state of a trainer": re.compile(
        r"(optimizer|scheduler|scaler|rng_state|trainer_state|training_args|global_step|latest"
        r"|zero_to_fp32|(all|train|eval|test|predict)_results|requirements|events\.out\.tfevents).*"
        r"|.*\.(log|distcp)"
    ),
}
# Subfolders that a loader reads: modules of sentence-transformers, templates, generation code.
_FOLDERS = re.compile(r"(\d+_\w+|additional_chat_templates|chat_templates|custom_generate)")


@dataclass(frozen=True)
class SideFile:
    """A file of the output that holds no weights; its size is known before its content is read."""

    name: str
    size_bytes: int
    read: Callable[[], bytes]

    @classmethod
    def of(cls, name: str, content: bytes) -> SideFile:
        """A side file with this content."""
        return cls(name, len(content), lambda: content)


@dataclass(frozen=True)
class Sides:
    """The side files of a checkpoint.

    Attributes:
        files: those that are copied, the config last.
        left: a phrase for each reason to leave files behind: their names, and the reason.
    """

    files: tuple[SideFile, ...]
    left: tuple[str, ...]

    @property
    def notes(self) -> tuple[str, ...]:
        """What the user should know."""
        return (f"left behind: {', '.join(self.left)}",) if self.left else ()


def sides_of(checkpoint: Checkpoint) -> Sides:
    """Which side files of a checkpoint are copied, and which stay behind.

    Raises:
        InputRefused: a name that is not valid text, or a link that leads out of the folder.
    """
    folders = module_folders(checkpoint)
    kept: list[SideFile] = []
    left: dict[str, list[str]] = {}
    for name in checkpoint.side_names():
        reason = _reason_to_leave(name, folders)
        if reason is None:
            _refuse_odd_name(checkpoint, name)
            count = checkpoint.side_size(name)
            if count <= LARGEST_BYTES:
                kept.append(SideFile(name, count, partial(checkpoint.side_bytes, name)))
                continue
            reason = f"{size(count)}, more than {size(LARGEST_BYTES)}"
        if reason:
            left.setdefault(reason, []).append(name)
    kept.sort(key=lambda side: side.name == _CONFIG)
    return Sides(tuple(kept), tuple(_left_note(reason, names) for reason, names in left.items()))


def side_files(sides: Sides, checkpoint: Checkpoint, plan: Plan) -> list[SideFile]:
    """The side files of an output, in the order in which they are written: index and config last.

    An adapter for the base brings along the tokenizer of the fine-tuned checkpoint.
    """
    if plan.emission is not None:  # a model has the rest of them
        brings = plan.emission.against != plan.own
        return [s for s in sides.files if brings and TOKENIZER_FILES.fullmatch(s.name)]
    *others, last = sides.files or (None,)
    files = [side for side in others if side is not None]
    index = list(_index(checkpoint, plan))
    if last is None or last.name != _CONFIG:
        return [*files, *([last] if last else []), *index]
    if plan.recipe.dtype:
        last = SideFile.of(_CONFIG, _with_dtype(last.read(), plan.recipe.dtype))
    return [*files, *index, last]


def runs_code(checkpoint: Checkpoint) -> bool:
    """Whether the checkpoint brings Python files that transformers would offer to run."""
    scripts = (name.endswith(".py") and "/" not in name for name in checkpoint.side_names())
    return "auto_map" in checkpoint.config or any(scripts)


def module_folders(checkpoint: Checkpoint) -> set[str]:
    """The subfolders with files that `modules.json` of sentence-transformers names."""
    if "modules.json" not in checkpoint.side_names():
        return set()
    try:
        raw = b'{"modules": %s}' % checkpoint.side_start("modules.json", CONFIG_BYTES)
        modules = parse_json(raw, "modules.json", "it")["modules"]
        # A Normalize module has no files, and neither git nor the Hub keep an empty folder.
        filled = [m for m in modules if not str(m.get("type")).endswith(".Normalize")]
        return {str(module["path"]).strip("/") for module in filled}
    except (InputRefused, TypeError, KeyError, AttributeError):
        return set()


def _reason_to_leave(name: str, folders: set[str]) -> str | None:
    """Why a file stays behind: empty where no note is needed; None where the file is copied."""
    folder, _, last = name.rpartition("/")
    if folder:
        is_read = folder in folders or _FOLDERS.fullmatch(folder)
        return None if is_read and not last.startswith(".") else ""
    return next((why for why, left in _LEFT.items() if left.fullmatch(last)), None)


def _refuse_odd_name(checkpoint: Checkpoint, name: str) -> None:
    if name != name.encode(errors="replace").decode():
        what = f"the name of '{brief(name)}' is not valid text"
        raise InputRefused(checkpoint.label, what, "Rename the file.")


def _left_note(reason: str, names: list[str]) -> str:
    """What is said of the files that one reason leaves behind; names the first three."""
    shown = ", ".join(map(brief, names[:3])) + (
        f" and {len(names) - 3:,} more" if names[3:] else ""
    )
    return f"{shown} ({reason})"


def _index(checkpoint: Checkpoint, plan: Plan) -> Iterator[SideFile]:
    """The index that the plan has made, or else the checkpoint's own, if the shards are the same."""
    if plan.index is not None:
        yield SideFile.of(INDEX, (json.dumps(plan.index, indent=2) + "\n").encode())
    elif checkpoint.index is not None and len(plan.files) == len(checkpoint.headers):
        ending = ".safetensors.index.json"
        names = [n for n in checkpoint.side_names() if n.endswith(ending) and "/" not in n]
        for name in [INDEX] if INDEX in names else names:
            yield SideFile(name, checkpoint.side_size(name), partial(checkpoint.side_bytes, name))


def _with_dtype(config: bytes, dtype: str) -> bytes:
    """The config with the stated dtype replaced in place; every other byte stays."""
    return re.sub(rb'("(?:torch_)?dtype"\s*:\s*)"\w+"', rb'\g<1>"%s"' % dtype.encode(), config)
