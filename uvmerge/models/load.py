"""The one way to load a model or a tokenizer: by transformers' own classes, and nothing else.

Code of a checkpoint never runs. The model class comes from a closed list, the model classes of
transformers, by the name in `architectures`: never an Auto class, a pipeline or anything else that
has a name in transformers. transformers sees a copy of the folder without code (`clean.py`), has
nobody to ask, fetches nothing, and reads weights from safetensors files.
"""

from __future__ import annotations

import io
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

from ..checkpoint.folder import Checkpoint
from ..errors import InputRefused
from ..text import brief
from .clean import CONFIG, TOKENIZER_CONFIG, clean_copy, read_config

TOKENIZER_FILES = ("tokenizer.json", "vocab.*", "*.model", "*.tiktoken", "tekken.json")
# Families whose models are built by another package, or look things up elsewhere.
_OUTSIDE = {"timm_backbone", "timm_wrapper", "rag"}
_SPARE_VALUES = 2**26  # buffers and tied weights that no file holds


@dataclass(frozen=True)
class Loaded:
    """A model with its weights, in evaluation mode.

    Attributes:
        folder: where the checkpoint lies.
        model: a `transformers.PreTrainedModel`.
        missing, unexpected, mismatched: names of tensors that its class needs and the checkpoint
            lacks, that its class does not know, and that have another shape (said behind the name).
    """

    folder: Path
    model: Any
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    mismatched: tuple[str, ...]


def load_model(
    folder: str | Path, *, device: str = "cpu", dtype: Any = "auto", causal: bool = False
) -> Loaded:
    """The model in `folder`, with plain attention, so that results depend on nothing installed.

    Args:
        device: where to put it, as torch names it.
        dtype: a `torch.dtype`, or "auto": as the checkpoint says.
        causal: refuse models that do not predict the next token of a text.

    Raises:
        InputRefused: a checkpoint that is broken, or has no model class of the installed
            transformers; from an `ImportError` where a package is missing that its class needs.
    """
    folder = Path(folder)
    with (
        Checkpoint.open(folder) as checkpoint,
        clean_copy(folder, checkpoint.headers) as room,
        sealed(),
    ):
        kind = _model_class(checkpoint, named=causal)
        if causal and not kind.can_generate():
            raise _not_causal(folder, kind)
        _refuse_what_no_file_holds(kind, room, checkpoint)
        try:
            model, found = kind.from_pretrained(
                room, local_files_only=True, trust_remote_code=False, use_safetensors=True,
                attn_implementation="eager", dtype=dtype, ignore_mismatched_sizes=True,
                output_loading_info=True,
            )  # fmt: skip
            model = (model if device == "cpu" else model.to(device)).eval()
        except Exception as error:
            what = first_line(error).replace(str(room), str(folder))
            raise InputRefused(folder, f"transformers cannot load it: {what}") from error
    if causal and model.config.is_encoder_decoder:
        raise _not_causal(folder, kind)
    names = (
        sorted(map(_shown, found[f"{k}_keys"])) for k in ("missing", "unexpected", "mismatched")
    )
    return Loaded(folder, model, *map(tuple, names))


def load_tokenizer(folder: str | Path) -> Any:
    """The tokenizer in `folder`: a `transformers.PreTrainedTokenizerBase`.

    Raises:
        InputRefused: there is none, or its class is not in transformers.
    """
    folder = Path(folder)
    # Without its files, transformers makes up an empty one for some families.
    if not any(path.is_file() for pattern in TOKENIZER_FILES for path in folder.glob(pattern)):
        raise InputRefused(folder, "has no tokenizer", "Add the model's tokenizer files.")
    with clean_copy(folder) as room, sealed():
        from transformers import AutoTokenizer

        _refuse_tokenizer_class(folder)
        try:
            return AutoTokenizer.from_pretrained(
                room, local_files_only=True, trust_remote_code=False
            )
        except Exception as error:
            what = first_line(error).replace(str(room), str(folder))
            raise InputRefused(
                folder, f"transformers cannot load its tokenizer: {what}",
                "Add the model's tokenizer files.",
            ) from error  # fmt: skip


@contextmanager
def sealed() -> Iterator[None]:
    """transformers without anybody to ask, kernels of the Hub, progress bars and warnings."""
    from transformers.integrations import hub_kernels
    from transformers.utils import logging

    kernels: Any = hub_kernels
    was = sys.stdin, logging.get_verbosity(), logging.is_progress_bar_enabled()
    enabled = getattr(kernels, "_kernels_enabled", False)
    sys.stdin, kernels._kernels_enabled = io.StringIO(), False
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        sys.stdin, kernels._kernels_enabled = was[0], enabled
        logging.set_verbosity(was[1])
        if was[2]:
            logging.enable_progress_bar()


def chat_renderer() -> Callable[..., list[str]]:
    """transformers' own way to make chats texts by a template: sandboxed, without limits."""
    from transformers.utils.chat_template_utils import render_jinja_template

    def render(chats: list[Any], template: str, opens_answer: bool, words: Any) -> list[str]:
        texts: list[str] = render_jinja_template(
            chats, chat_template=template, add_generation_prompt=opens_answer, **words
        )[0]
        return texts

    return render


def first_line(error: Exception) -> str:
    """What an error of another package says, as far as it fits into a sentence."""
    return brief((str(error).strip() or type(error).__name__).splitlines()[0], 300)


def _model_class(checkpoint: Checkpoint, named: bool) -> Any:
    """The class that config.json names; its family's first one where none is named and may be."""
    import transformers

    config, folder = checkpoint.config, checkpoint.on_disk()
    family, names = config.get("model_type"), config.get("architectures")
    family = family if isinstance(family, str) else ""
    name = names[0] if isinstance(names, list) and names else names
    if not names and not named:
        name = _tables().get("MODEL_MAPPING_NAMES", {}).get(family)
    if not isinstance(name, str):
        shown = f": architectures is {brief(names)}" if names else ""
        raise InputRefused(
            folder, f"its config.json names no model class{shown}",
            "Add `architectures`, a list with the name of a class of transformers.",
        )  # fmt: skip
    kind = _class_of_transformers(name, family, folder)
    if kind is None:
        of_its_own = ": it is Python code of its own, which is not run here"
        why = of_its_own if "auto_map" in config else ""
        raise InputRefused(
            folder, f"its model class {brief(name)} is not in transformers"
            f" {transformers.__version__}{why}", "Only classes of transformers are run.",
        )  # fmt: skip
    return kind


def _class_of_transformers(name: str, family: str, folder: Path) -> Any:
    """The model class of that name, from the tables of transformers or the family's own module."""
    from transformers import PreTrainedModel
    from transformers.models.auto import configuration_auto as configs

    listed = {
        key for table in _tables().values() for key, names in table.items()
        if name in ([names] if isinstance(names, str) else names)
    }  # fmt: skip
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
        elif kind is not None and key in listed:  # stands for one that cannot be imported
            raise InputRefused(folder, f"{what}: it needs other packages") from ImportError(name)
    return None


@cache
def _tables() -> dict[str, dict[str, Any]]:
    """The tables of transformers from a family to the names of its classes, one for each task."""
    from transformers.models.auto import modeling_auto

    tables = vars(modeling_auto).items()
    return {key: t for key, t in tables if key.startswith("MODEL_") and key.endswith("_NAMES")}


def _refuse_what_no_file_holds(kind: Any, room: Path, checkpoint: Checkpoint) -> None:
    """Refuse a config of more values than the files hold: transformers would make the rest up."""
    import torch
    from torch.nn.modules import module as hooks

    packed = 8 if "quantization_config" in checkpoint.config else 1  # values in a byte, at most
    stored = checkpoint.size_bytes * packed
    most = 4 * stored + _SPARE_VALUES
    described = 0

    def count(_module: Any, _name: str, tensor: Any) -> None:
        nonlocal described
        described += 0 if tensor is None else tensor.numel()
        if described > most:
            raise OverflowError

    counting = [
        hooks.register_module_parameter_registration_hook(count),
        hooks.register_module_buffer_registration_hook(count),
    ]
    try:
        with torch.device("meta"):
            config = kind.config_class.from_pretrained(room, local_files_only=True)
            described = sum(p.numel() for p in kind(config).parameters())
    except Exception:  # too much; or transformers' own loader says what is wrong, or gets further
        described = described if described > most else 0
    finally:
        for each in counting:
            each.remove()
    if described > stored:
        held = f"its files hold {checkpoint.size_bytes:,} bytes"
        raise InputRefused(
            checkpoint.on_disk(), f"its config.json describes {described:,} parameters, {held}",
            "Take the config.json that belongs to the weights.",
        )  # fmt: skip


def _refuse_tokenizer_class(folder: Path) -> None:
    """Refuse a `tokenizer_class` that is no tokenizer of transformers: any name would be tried."""
    import transformers

    for file in (TOKENIZER_CONFIG, CONFIG):
        config = read_config(folder / file) if (folder / file).exists() else {}
        name = config.get("tokenizer_class")
        if name and not (isinstance(name, str) and _is_tokenizer_class(name)):
            raise InputRefused(
                folder, f"transformers cannot load its tokenizer: its class {brief(name)} is not in"
                f" transformers {transformers.__version__}", "Code of its own is not run here.",
            )  # fmt: skip


def _is_tokenizer_class(name: str) -> bool:
    """Whether transformers knows a tokenizer of that name, with or without `Fast`."""
    from transformers import PreTrainedTokenizerBase
    from transformers.models.auto import tokenization_auto as tokenizers

    listed = tokenizers.TOKENIZER_MAPPING_NAMES.values()
    known = {n for names in listed for n in ([names] if isinstance(names, str) else names or ())}
    kind = tokenizers.tokenizer_class_from_name(name)
    is_tokenizer = isinstance(kind, type) and issubclass(kind, PreTrainedTokenizerBase)
    return is_tokenizer or name.removesuffix("Fast") in known or name in known


def _not_causal(folder: Path, kind: Any) -> InputRefused:
    return InputRefused(
        folder, f"its model class {kind.__name__} is not a causal language model",
        "It has no next-token distribution.",
    )  # fmt: skip


def _shown(key: Any) -> str:
    """`name`, or `name (shape in the file, shape in the model)` of a mismatch."""
    if isinstance(key, str):
        return key
    name, *shapes = key
    return f"{name} ({', '.join('×'.join(map(str, shape)) for shape in shapes)})"
