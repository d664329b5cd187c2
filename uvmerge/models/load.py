"""The one way to load a model or a tokenizer: by transformers' own classes.

Code of a checkpoint never runs. The name in `architectures` chooses the model class from a closed
list, the model classes of transformers; other names in transformers, such as Auto classes and
pipelines, are refused. transformers reads a copy of the folder without code (`clean.py`), cannot ask
on the terminal, downloads nothing, and reads weights from safetensors files alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from ..checkpoint.folder import Checkpoint
from ..errors import InputRefused
from ..text import brief
from .classes import model_class, refuse_tokenizer_class
from .clean import clean_copy
from .sealing import first_line, sealed

TOKENIZER_FILES = ("tokenizer.json", "vocab.*", "*.model", "*.tiktoken", "tekken.json")
_SPARE_VALUES = 2**26  # values of buffers and tied weights, which no file holds


@dataclass(frozen=True)
class Loaded:
    """A model with its weights, in evaluation mode.

    Attributes:
        folder: where the checkpoint lies.
        model: a `transformers.PreTrainedModel`.
        missing: names of tensors that the model class needs and the checkpoint lacks.
        unexpected: names of tensors that the model class does not know.
        mismatched: names of tensors with another shape than the model class has, and both shapes.
    """

    folder: Path
    model: Any
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    mismatched: tuple[str, ...]


def load_model(
    folder: str | Path, *, device: str = "cpu", dtype: Any = "auto", causal: bool = False
) -> Loaded:
    """The model in `folder`, with eager attention, so that results depend on no installed kernel.

    Args:
        device: where to put it, as torch names it.
        dtype: a `torch.dtype`, or "auto" for the one that the checkpoint names.
        causal: refuse models that do not predict the next token of a text.

    Raises:
        InputRefused: the checkpoint is broken, or its model class is not in the installed
            transformers. The cause is an `ImportError` where the class needs a missing package, and a
            `ConnectionError` where it would fetch a file.
    """
    folder = Path(folder)
    with (
        Checkpoint.open(folder) as checkpoint,
        clean_copy(folder, checkpoint.headers) as copy,
        sealed(),
    ):
        kind = model_class(checkpoint, named=causal)
        if causal and not kind.can_generate():
            raise _not_causal(folder, kind)
        _refuse_more_than_stored(kind, copy, checkpoint)
        try:
            model, found = kind.from_pretrained(
                copy, local_files_only=True, trust_remote_code=False, use_safetensors=True,
                attn_implementation="eager", dtype=dtype, ignore_mismatched_sizes=True,
                output_loading_info=True,
            )  # fmt: skip
            model = (model if device == "cpu" else model.to(device)).eval()
        except Exception as error:
            raise _cannot_load("it", folder, copy, error) from error
    if causal and model.config.is_encoder_decoder:
        raise _not_causal(folder, kind)
    names = (
        sorted(map(_shown, found[f"{k}_keys"])) for k in ("missing", "unexpected", "mismatched")
    )
    return Loaded(folder, model, *map(tuple, names))


def load_causal(folder: str | Path, device: str) -> tuple[Any, float]:
    """A model that predicts the next token, and the largest number of tokens that it takes (infinite
    where its config has no limit): in float32 on the CPU, in its stored dtype on a GPU.

    Raises:
        InputRefused: the model cannot be loaded, or lacks a weight.
    """
    import torch

    dtype = torch.float32 if torch.device(device).type == "cpu" else "auto"
    loaded = load_model(folder, device=device, dtype=dtype, causal=True)
    if absent := sorted([*loaded.missing, *loaded.mismatched]):
        raise InputRefused(
            folder,
            f"has no weights for {brief(absent[0])}, which its model class needs",
            "What transformers would put there is random.",
        )
    text = loaded.model.config.get_text_config()
    return loaded.model, getattr(text, "max_position_embeddings", None) or math.inf


def load_tokenizer(folder: str | Path) -> Any:
    """The tokenizer in `folder`: a `transformers.PreTrainedTokenizerBase`.

    Raises:
        InputRefused: the folder has no tokenizer, or its class is not in transformers.
    """
    folder = Path(folder)
    # Without tokenizer files, transformers makes up an empty tokenizer for some families.
    if not any(path.is_file() for pattern in TOKENIZER_FILES for path in folder.glob(pattern)):
        raise InputRefused(folder, "has no tokenizer", "Add the model's tokenizer files.")
    with clean_copy(folder) as copy, sealed():
        from transformers import AutoTokenizer

        refuse_tokenizer_class(folder)
        try:
            return AutoTokenizer.from_pretrained(
                copy, local_files_only=True, trust_remote_code=False
            )
        except Exception as error:
            do = "Add the model's tokenizer files."
            raise _cannot_load("its tokenizer", folder, copy, error, do) from error


def import_transformers() -> None:
    """Import all that a tokenizer needs, so that a forked process finds it imported."""
    for name in ("models.auto.tokenization_auto", "utils.chat_template_utils"):
        import_module(f"transformers.{name}")
    with sealed():
        pass


def chat_renderer() -> Callable[..., list[str]]:
    """The function of transformers that renders chats by a template, in a sandbox without limits."""
    from transformers.utils.chat_template_utils import render_jinja_template

    def render(chats: list[Any], template: str, opens_answer: bool, words: Any) -> list[str]:
        texts: list[str] = render_jinja_template(
            chats, chat_template=template, add_generation_prompt=opens_answer, **words
        )[0]
        return texts

    return render


def _refuse_more_than_stored(kind: Any, copy: Path, checkpoint: Checkpoint) -> None:
    """Refuse a config that describes more values than the files hold; transformers would fill the rest
    with random numbers."""
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
            config = kind.config_class.from_pretrained(
                copy, local_files_only=True, trust_remote_code=False, attn_implementation="eager"
            )
            described = sum(p.numel() for p in kind(config).parameters())
    except Exception:  # any error but the count is left to the real loading, which may report it
        described = described if described > most else 0
    finally:
        for hook in counting:
            hook.remove()
    if described > stored:
        held = f"its files hold {checkpoint.size_bytes:,} bytes"
        raise InputRefused(
            checkpoint.on_disk(),
            f"its config.json describes {described:,} parameters, {held}",
            "Take the config.json that belongs to the weights.",
        )


def _cannot_load(
    part: str, folder: Path, copy: Path, error: Exception, do: str = ""
) -> InputRefused:
    what = first_line(error).replace(str(copy), str(folder))
    if isinstance(error, ConnectionError):  # what follows is advice to go online
        what = f"{what.partition(': offline')[0]}: nothing is fetched from the Hub here"
    return InputRefused(folder, f"transformers cannot load {part}: {what}", do)


def _not_causal(folder: Path, kind: Any) -> InputRefused:
    return InputRefused(
        folder,
        f"its model class {kind.__name__} is not a causal language model",
        "It has no next-token distribution.",
    )


def _shown(key: Any) -> str:
    """A tensor's name; of a mismatch, `name (shape in the file, shape in the model)`."""
    if isinstance(key, str):
        return key
    name, *shapes = key
    return f"{name} ({', '.join('×'.join(map(str, shape)) for shape in shapes)})"
