"""The commands `extract-lora` and `merge-lora`."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import click

from ..api.lora_settings import DECIDED, EMITTED, EXTRACT_OPTIONS, MERGE_OPTIONS
from ..api.settings import RunSettings
from .completion import folders
from .help import Argument, Command, Text
from .options import DECODER_LAYERS, option_for, reference, setting_options, talk_options
from .surgery import perform

_BASE = ("base", "The model before fine-tuning.")


@click.command(
    "extract-lora", cls=Command, epilog="Example: uvmerge extract-lora base sft out --rank 16"
)
def extract_lora_command(base: str, finetuned: str, out: str, **settings: Any) -> None:
    """Write the leading part of a fine-tuning as a LoRA adapter for the base.

    This is `truncate` with `--emit adapter --lossy`: of each selected matrix the best approximation of
    W_f - W_b at the rank that is chosen (5 % of min(m, n), unless an option says otherwise). What the
    adapter leaves out of the fine-tuning is told, and in `--json` for each tensor. Norms and biases
    stay behind; embeddings and heads too, unless `--modules` names them.
    """
    from ..api.lora import extract_lora

    def call(**options: Any) -> Any:
        return extract_lora(base, finetuned, out, **options)

    perform(call, settings)


@click.command(
    "merge-lora",
    cls=Command,
    epilog="Example: uvmerge merge-lora base lora-a lora-b out --scale 0.5/0.3",
)
def merge_lora_command(base: str, places: tuple[str, ...], **settings: Any) -> None:
    """Write a base with one or several LoRA adapters merged into it, as a whole model.

    The bits are those of PEFT's own merge (`pip install 'uvmerge[peft]'`). Several adapters are merged
    one after the other, which adds their changes up, each times its scale.
    """
    from ..api.lora import merge_lora

    def call(**options: Any) -> Any:
        return merge_lora(base, *places, **options)

    perform(call, settings)


def _settings(without: Collection[str]) -> list[Any]:
    return [option for option in setting_options(RunSettings) if option.name not in without]


extract_lora_command.params += [
    reference(*_BASE),
    reference("finetuned", "The model after it."),
    Argument(
        ["out"],
        metavar="OUT",
        type=Text(str, "folder", folders),
        rows=[("OUT", "The adapter to write.")],
    ),
    *(option_for(p, DECODER_LAYERS if p.name == "modules" else "") for p in EXTRACT_OPTIONS),
    *_settings(DECIDED),
    *talk_options(),
]
merge_lora_command.params += [
    reference(*_BASE),
    Argument(
        ["places"], metavar="ADAPTER... OUT", nargs=-1, type=Text(str, "folder", folders),
        rows=[("ADAPTER", "A PEFT adapter: a folder, or org/name of the Hub.")],
    ),
    *map(option_for, MERGE_OPTIONS),
    *_settings(EMITTED),
    *talk_options(),
]  # fmt: skip
