"""The commands that look: `show`, `check`, and the demo."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from ..api.settings import OpenSettings
from ..errors import InputRefused, ProblemsFound
from ..text import inert
from .options import json_option, setting_options


@click.command("show", epilog="Example: uvmerge show Qwen/Qwen2.5-7B")
@click.argument("checkpoint", metavar="CHECKPOINT")
def show_command(checkpoint: str, as_json: bool, **settings: Any) -> None:
    """Show what is in a checkpoint, from headers alone."""
    from ..api.show import as_table, show

    found = show(checkpoint, **settings)
    click.echo(json.dumps(found) if as_json else as_table(found))


show_command.params += [*setting_options(OpenSettings), json_option()]


@click.command("check", epilog="Example: uvmerge check out --load --against sft")
@click.argument("out", metavar="OUT")
@click.option(
    "--load", is_flag=True, help="Build the model in transformers and run one forward pass."
)
@click.option(
    "--against", metavar="FINETUNED", help="Compare every tensor with the fine-tuned one."
)
@click.option(
    "--sha256", is_flag=True, help="Also print the sha256 of each file, as the Hub shows it."
)
def check_command(out: str, as_json: bool, **options: Any) -> None:
    """Re-read an output: files, hashes, dtypes, shapes, and that only the planned tensors changed."""
    from ..api.check import check

    if not Path(out).is_dir():
        raise InputRefused(out, "is not a folder", "Name the folder that uvmerge wrote.")
    try:
        report = check(out, **options)
    except ProblemsFound as error:
        if as_json:
            click.echo(json.dumps({"ok": False, "problems": error.problems}))
        raise
    if as_json:
        click.echo(json.dumps({"ok": True, **report}))
        return
    for key, value in report.items():
        if key != "sha256":
            click.echo(f"{key.replace('_', ' ')}: {inert(value)}", err=True)
    for name, digest in report.get("sha256", {}).items():
        click.echo(f"{digest}  {inert(name)}")
    click.echo("ok")


check_command.params += [*setting_options(OpenSettings), json_option()]


@click.command("demo", epilog="Example: uvmerge demo demo-out")
@click.argument("out", metavar="[OUT]", required=False, default="uvmerge-demo")
@click.option(
    "--hands",
    type=click.IntRange(100),
    default=2000,
    show_default=True,
    metavar="N",
    help="Fresh hands of cards to judge each checkpoint on, per rule.",
)
@click.option("--overwrite", is_flag=True, help="Replace what an earlier demo left in OUT.")
def demo_command(out: str, hands: int, overwrite: bool, as_json: bool) -> None:
    """Repair the embedded pair of small models in several ways and measure what comes back.

    The base can add up four cards under two rules; fine-tuning on the first rule alone made it forget
    the second. Every number printed is measured in this run.
    """
    from ..demo import table
    from ..demo.run import run

    def show_row(row: table.Row) -> None:
        if row.name == table.BASE:
            click.echo(table.text_header())
        click.echo(table.text_row(row))

    report = run(Path(out), hands=hands, overwrite=overwrite, on_row=None if as_json else show_row)
    click.echo(json.dumps(report.as_dict()) if as_json else table.text_footer(out))


demo_command.params.append(json_option())
