"""`uvmerge search`: many settings of a repair, judged against interpolation."""

from __future__ import annotations

import json
from typing import Any

import click

from ..api.search_settings import SearchSettings
from ..errors import UsageError, counted
from ..operations.options import OUTPUT
from ..output.places import Reference
from .completion import files, folders
from .help import CHECKPOINTS, REFERENCE, Argument, Command, Option, Text
from .options import json_option, setting_options
from .talk import popped_quiet

_USAGE = "Usage: uvmerge search SPACE.yaml BASE FINETUNED OUTDIR --eval CMD --metric NAME:max"
_DEMO_USAGE = "Usage: uvmerge search --demo OUTDIR [SPACE.yaml]"


def _places(ctx: click.Context, incomplete: str) -> Any:
    """Complete the first word to a file, the others to folders."""
    return (folders if ctx.params.get("places") else files)(ctx, incomplete)


@click.command(
    "search",
    cls=Command,
    epilog="Example: uvmerge search space.yaml base sft found --eval 'python eval.py {} --half {split}'"
    " --metric id:max:0.9 --metric ood:max --trials 60",
)
@click.argument(
    "places",
    cls=Argument,
    metavar="SPACE.yaml BASE FINETUNED OUTDIR",
    nargs=-1,
    type=Text(str, "place", _places),
    rows=[
        ("SPACE.yaml", "A recipe in which values are {from: 0, to: 1} or {any: [left, right]}."),
        ("BASE", f"The checkpoint before fine-tuning: {REFERENCE}."),
        ("FINETUNED", "The checkpoint to edit, named likewise."),
        ("OUTDIR", "The folder for all that the search keeps; the same command goes on in it."),
    ],
)
@click.option(
    "--eval",
    "evaluate",
    cls=Option,
    metavar="CMD",
    group=CHECKPOINTS,
    help="The command that evaluates a checkpoint, run without a shell: {} is the checkpoint, {out} a"
    " fresh folder, {split} the half of the items (search or report). It prints one JSON object of"
    " numbers, or writes results of lm-evaluation-harness to {out}.",
)
@click.option(
    "--metric",
    "metrics",
    cls=Option,
    metavar="NAME:max|min[:FLOOR]",
    multiple=True,
    group=CHECKPOINTS,
    help="What to search for, repeatable: first in domain, second out of domain. NAME is a key of the"
    " JSON object, or TASK.METRIC of the results in {out}; FLOOR is the worst value accepted.",
)
@click.option(
    "--demo",
    cls=Option,
    is_flag=True,
    group=CHECKPOINTS,
    help="Search on the embedded pair with its own evaluation: --demo OUTDIR [SPACE.yaml].",
)
def search_command(
    places: tuple[str, ...], evaluate: str | None, metrics: tuple[str, ...], demo: bool,
    as_json: bool, **settings: Any,
) -> None:  # fmt: skip
    """Search settings of a repair, and tell whether any of them beats interpolation.

    Interpolation at 11 points comes first, on the same items. The front is chosen on one half of the
    items and reported on the other, if the command takes {split}. It can be stopped at any time, and the
    same command goes on; a larger --trials adds to what was tried. OUTDIR/front.json and
    OUTDIR/front/*.yaml hold the front, as figures and as recipes that `uvmerge run` takes.
    """
    from ..api.search import search
    from ..engine.progress import Progress
    from .signals import SignalControl

    quiet = popped_quiet(settings)
    settings |= {"progress": Progress(quiet=quiet), "control": SignalControl()}
    if demo:
        out, space = _of_demo(places, evaluate, metrics)
        from ..demo.search import search_demo

        found = search_demo(out, space, **settings)
    else:
        if len(places) != 4:
            raise UsageError("search", f"takes 4 places, not {len(places)}", _USAGE)
        if evaluate is None:
            raise UsageError("--eval", "is missing", _USAGE)
        found = search(*places, evaluate=evaluate, metrics=metrics, **settings)
    click.echo(json.dumps(found.as_data(), allow_nan=False) if as_json else str(found))


def _of_demo(
    places: tuple[str, ...], evaluate: str | None, metrics: tuple[str, ...]
) -> tuple[Reference, Reference | None]:
    """OUTDIR and SPACE of `--demo`."""
    if evaluate is not None or metrics:
        given = "--eval" if evaluate is not None else "--metric"
        raise UsageError(given, "cannot be given with --demo, which has its own", _DEMO_USAGE)
    if not 1 <= len(places) <= 2:
        what = f"takes OUTDIR and perhaps SPACE.yaml, not {counted(len(places), 'place')}"
        raise UsageError("search --demo", what, _DEMO_USAGE)
    return places[0], places[1] if len(places) == 2 else None


search_command.params += [
    *setting_options(SearchSettings),
    json_option(),
    Option(["-q", "--quiet"], is_flag=True, group=OUTPUT, help="No progress on stderr."),
]
