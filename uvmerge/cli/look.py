"""The commands `show`, `check` and `demo`."""

from __future__ import annotations

import json
from typing import Any

import click

from ..api.settings import OpenSettings
from ..operations.options import HOW_MUCH, SAFETY
from ..text import expanded, inert
from .completion import folders
from .help import REFERENCE, Argument, Command, Option, Text
from .options import json_option, reference, setting_options


@click.command("show", cls=Command, epilog="Example: uvmerge show Qwen/Qwen2.5-7B")
def show_command(checkpoint: str, as_json: bool, **settings: Any) -> None:
    """Show what is in a checkpoint, from headers alone."""
    from ..api.show import as_table, show

    found = show(checkpoint, **settings)
    click.echo(json.dumps(found) if as_json else as_table(found))


show_command.params += [
    reference("checkpoint", f"The checkpoint: {REFERENCE}."),
    *setting_options(OpenSettings),
    json_option(),
]


@click.command("check", cls=Command, epilog="Example: uvmerge check out --load --against sft")
@click.option(
    "--load",
    cls=Option,
    group=HOW_MUCH,
    is_flag=True,
    help="Build the model in transformers and run one forward pass.",
)
@click.option(
    "--against",
    cls=Option,
    group=HOW_MUCH,
    metavar="FINETUNED",
    type=Text(str, "checkpoint", folders),
    help="Compare every tensor with that of FINETUNED.",
)
@click.option(
    "--sha256", cls=Option, group=HOW_MUCH, is_flag=True,
    help="Also print the sha256 of each file, as the Hub shows it.",
)  # fmt: skip
def check_command(out: str, as_json: bool, **options: Any) -> None:
    """Re-read an output: files, hashes, dtypes, shapes, and which tensors changed.

    With `--against`, only the planned tensors may differ from the fine-tuned checkpoint.
    """
    from ..api.check import check

    report = check(out, **options)
    if as_json:
        click.echo(json.dumps({"ok": True, **report}))
        return
    for key, value in report.items():
        if key != "sha256":
            click.echo(f"{key.replace('_', ' ')}: {inert(value)}", err=True)
    for name, digest in report.get("sha256", {}).items():
        click.echo(f"{digest}  {inert(name)}")
    click.echo("ok")


check_command.params += [
    reference("out", "The folder that uvmerge wrote, or its URL in an object store."),
    *setting_options(OpenSettings),
    json_option(),
]


@click.command("demo", cls=Command, epilog="Example: uvmerge demo demo-out")
@click.argument(
    "out", cls=Argument, metavar="[OUT]", required=False, default="uvmerge-demo",
    type=Text(str, "folder", folders), rows=[("OUT", "The folder to write.")],
)  # fmt: skip
@click.option(
    "--hands",
    cls=Option,
    group=HOW_MUCH,
    type=click.IntRange(100),
    default=1000,
    show_default=True,
    metavar="N",
    help="Hands of cards that each checkpoint is asked under each rule.",
)
@click.option(
    "--pair",
    cls=Option,
    group=HOW_MUCH,
    type=click.Choice(["part", "unseen"]),
    default="part",
    show_default=True,
    help="The base knows the rule of the fine-tuning in part, or has never seen it.",
)
@click.option(
    "--overwrite", cls=Option, group=SAFETY, is_flag=True,
    help="Replace the files of an earlier demo in OUT.",
)  # fmt: skip
def demo_command(out: str, hands: int, pair: str, overwrite: bool, as_json: bool) -> None:
    """Repair an embedded pair of small models in several ways and measure what comes back.

    The base model can add up five cards under several rules; fine-tuning on one rule alone made it
    forget the others. Every number printed is measured in this run.
    """
    from ..demo import table
    from ..demo.run import run

    def show_row(row: table.Row) -> None:
        if row.name == table.BASE:
            click.echo(table.text_header())
        click.echo(table.text_row(row))

    on_row = None if as_json else show_row
    report = run(expanded(out), pair=pair, hands=hands, overwrite=overwrite, on_row=on_row)
    click.echo(json.dumps(report.as_dict()) if as_json else table.text_footer(out, report))


demo_command.params.append(json_option())
