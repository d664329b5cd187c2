"""`uvmerge compare`: which differences between evaluations are findings."""

from __future__ import annotations

import json
from typing import Any

import click

from ..operations.options import OUTPUT, SAFETY, WHERE
from ..output.places import report_folder
from .help import CHECKPOINTS, Argument, Command, Option
from .options import json_option


@click.command(
    "compare",
    cls=Command,
    epilog="Example: uvmerge compare base=evals/base sft=evals/sft out=evals/out",
)
@click.argument(
    "checkpoints", cls=Argument, metavar="NAME=PATH...", nargs=-1, required=True,
    rows=[("NAME=PATH", "A name, and the results of a model: README, Comparing.")],
)  # fmt: skip
@click.option(
    "--base",
    cls=Option,
    group=CHECKPOINTS,
    metavar="NAME",
    help="The original model. [default: base]",
)
@click.option(
    "--finetuned",
    cls=Option,
    group=CHECKPOINTS,
    metavar="NAME",
    help="The model that the others are tested against. [default: finetuned, else the first]",
)
@click.option(
    "--line",
    cls=Option,
    group=CHECKPOINTS,
    metavar="NAME",
    multiple=True,
    help="An interpolation, for the line of the plot; repeatable, in order."
    " [default: those called interpolate-SCALE]",
)
@click.option(
    "--in-domain",
    cls=Option,
    group=WHERE,
    metavar="TASK",
    help="TASK or TASK.METRIC along the plot. [default: a task that ends in _id]",
)
@click.option(
    "--out-of-domain",
    cls=Option,
    group=WHERE,
    metavar="TASK",
    help="TASK or TASK.METRIC up the plot. [default: its partner that ends in _ood]",
)
@click.option(
    "--force",
    cls=Option,
    group=SAFETY,
    is_flag=True,
    help="Compare what differs or is broken, and say so.",
)
@click.option(
    "-o",
    "--out",
    cls=Option,
    group=OUTPUT,
    metavar="DIR",
    help="Write report.html, report.json and scores.csv to DIR.",
)
@click.option(
    "--overwrite",
    cls=Option,
    group=SAFETY,
    is_flag=True,
    help="Write into DIR even if it is not empty.",
)
def compare_command(
    checkpoints: tuple[str, ...], out: str | None, overwrite: bool, as_json: bool, **options: Any
) -> None:
    """Compare evaluations of checkpoints on the same items: findings and noise.

    PATH is the folder of lm-evaluation-harness's results for one model (with --log_samples), a
    folder or file of JSON Lines of items, or the report.json of a demo. Every score has an interval,
    every difference from the fine-tuned model a test with Holm's correction over all of them.
    """
    from ..api.compare import compare, named_paths

    if out is not None:
        report_folder(out, overwrite, [path for _, path in named_paths(checkpoints)])
    found = compare(checkpoints, **options)
    written = [] if out is None else found.save(out, overwrite=overwrite)
    click.echo(json.dumps(found.as_data(), allow_nan=False) if as_json else str(found))
    for path in written:
        click.echo(f"wrote {path}", err=True)


compare_command.params.append(json_option())
