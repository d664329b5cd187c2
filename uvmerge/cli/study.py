"""`uvmerge study`: the claims behind uvmerge, measured on a lab of small pairs."""

from __future__ import annotations

import json

import click

from ..operations.options import HOW_MUCH
from ..study.stage import stage_names
from .completion import folders
from .help import Argument, Command, Option, Text
from .options import json_option


@click.command(
    "study", cls=Command, epilog="Example: uvmerge study study-out --only prevention --seeds 5"
)
@click.argument(
    "out", cls=Argument, metavar="OUT", type=Text(str, "folder", folders),
    rows=[("OUT", "The folder to write; one that was begun is gone on with.")],
)  # fmt: skip
@click.option(
    "--only",
    cls=Option,
    group=HOW_MUCH,
    metavar="STAGE",
    help=f"One stage: {', '.join(stage_names())}. [default: all of them]",
)
@click.option(
    "--seeds",
    cls=Option,
    group=HOW_MUCH,
    type=click.IntRange(1),
    metavar="N",
    help="Pairs of each regime, each with weights and data of a seed of its own."
    " [default: 5; 3 with --quick]",
)
@click.option(
    "--pairs",
    cls=Option,
    group=HOW_MUCH,
    type=click.IntRange(1),
    metavar="N",
    help="Work on at most N pairs now; the same command goes on with the others.",
)
@click.option(
    "--quick", cls=Option, group=HOW_MUCH, is_flag=True,
    help="Fewer settings of each method, shorter trainings and fewer hands.",
)  # fmt: skip
@click.option(
    "--jobs", cls=Option, group=HOW_MUCH, type=click.IntRange(1), metavar="N",
    help="Processes at once. [default: one for each core; 1 with --pairs]",
)  # fmt: skip
def study_command(
    out: str,
    only: str | None,
    seeds: int | None,
    pairs: int | None,
    quick: bool,
    jobs: int | None,
    as_json: bool,
) -> None:
    """Fine-tune, prevent and repair small models in many ways, and see which claims hold.

    A pair is a base that knows a card game well, in part or not at all, and what is trained from it. All
    that is measured on a pair goes into a journal, so that a stopped study goes on where it was, and
    several of these commands can work on one OUT at once. It runs on the CPU, one thread a process.
    """
    from ..study.helpers import cores
    from ..study.run import run

    found = run(
        out, only=only, seeds=seeds, pairs=pairs, quick=quick, jobs=jobs or cores(),
        on_done=lambda line: click.echo(line, err=True),
    )  # fmt: skip
    click.echo(json.dumps(found.as_data(), allow_nan=False) if as_json else str(found))
    for path in found.paths:
        click.echo(f"wrote {path}", err=True)
    if found.left:
        click.echo(found.left_said, err=True)


study_command.params.append(json_option())
