"""The command `moe`."""

from __future__ import annotations

from typing import Any

import click

from ..api.moe_settings import MoeSettings
from .completion import files, folders
from .help import Argument, Command, Text
from .options import setting_options, talk_options
from .surgery import perform


@click.command("moe", cls=Command, epilog="Example: uvmerge moe config.yml out --dtype bfloat16")
@click.argument(
    "config", cls=Argument, metavar="CONFIG", type=Text(str, "file", files),
    rows=[("CONFIG", "A YAML file: base_model, gate_mode, and the experts with their prompts.")],
)  # fmt: skip
@click.argument(
    "out", cls=Argument, metavar="OUT", type=Text(str, "folder", folders),
    rows=[("OUT", "The folder to write.")],
)  # fmt: skip
def moe_command(config: str, out: str, **settings: Any) -> None:
    """Make a mixture of experts of dense models that were fine-tuned from one base.

    The experts' feed-forward blocks are copied, everything else is the base's. Llama and Mistral
    become Mixtral, Qwen2 and Qwen3 become Qwen2-MoE (with one of `shared_experts`) and Qwen3-MoE. A
    router's rows are the base's hidden states for each expert's prompts (`gate_mode: hidden`, or
    `hidden_avg`), their embeddings (`cheap_embed`), or drawn (`random`, `uniform_random`).

    The result wants training: the attention was not trained with these experts, and the routers have
    not learned to choose.
    """
    from ..api.moe import moe

    def call(**options: Any) -> Any:
        return moe(config, out, **options)

    perform(call, settings)


moe_command.params += [*setting_options(MoeSettings), *talk_options()]
