"""The commands `anchor build` and `anchor show`."""

from __future__ import annotations

import json
from typing import Any

import click

from ..api.settings import AnchorSettings
from ..operations import operations
from ..text import inert
from .completion import files
from .help import REFERENCE, Argument, Group, Text
from .options import (
    filter_options,
    json_option,
    option_for,
    reference,
    setting_options,
    talk_options,
)
from .talk import called


@click.group(
    "anchor", cls=Group, epilog="Example: uvmerge anchor build base anchor.safetensors --top 0.2"
)
def anchor_group() -> None:
    """Keep the leading singular vectors of a base, for a penalty while fine-tuning."""


@anchor_group.command(
    "build", epilog="Example: uvmerge anchor build base anchor.safetensors --rank 768 --modules all"
)
def build_command(base: str, out: str, **settings: Any) -> None:
    """Write the leading singular vectors of a base's matrices to a file.

    A trainer reads the file (uvmerge.training) and penalises what turns the block that these vectors
    span. It holds U (m, k) and V (n, k) of each matrix, and hashes of the base, so that another base
    is noticed. A matrix whose k reaches its smaller side is anchored as a whole, without vectors.
    A killed build is resumed by the same command. With --energy each matrix is decomposed twice,
    unless --factors keeps what the first pass finds.
    """
    from ..api.anchor import anchor_build

    def call(**options: Any) -> Any:
        return anchor_build(base, out, **options)

    done, as_json, progress = called(call, settings)
    if as_json:
        click.echo(json.dumps(done.as_data()))
    elif done.out is None:
        click.echo(str(done))
    else:
        progress.say(done.summary)
        click.echo(inert(done.out))


def build_options() -> list[click.Parameter]:
    """The base and OUT, the rank as in `restore`, filters and settings."""
    rank = [p for p in operations()["restore"].parameters if p.name in ("top", "rank", "energy")]
    file = Text(str, "file", files)
    return [
        reference("base", f"The checkpoint that training starts from: {REFERENCE}."),
        Argument(["out"], metavar="OUT", type=file, rows=[("OUT", "The file to write.")]),
        *map(option_for, rank),
        *filter_options(),
        *setting_options(AnchorSettings),
        *talk_options(),
    ]


@anchor_group.command("show", epilog="Example: uvmerge anchor show anchor.safetensors")
def show_command(file: str, as_json: bool) -> None:
    """List the matrices of an anchor file, with k and bytes, after a check of all its bytes."""
    from ..api.anchor import anchor_show

    found = anchor_show(file)
    click.echo(json.dumps(found) if as_json else str(found))


show_command.params += [
    Argument(["file"], metavar="FILE", type=Text(str, "file", files),
             rows=[("FILE", "The anchor file.")]),
    json_option(),
]  # fmt: skip
