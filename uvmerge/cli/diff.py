"""`uvmerge diff`: how far checkpoints moved from their base."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import click

from ..api.settings import ComputeSettings
from ..errors import Unrelated, UsageError
from ..operations import operations
from ..output.places import report_folder
from .options import filter_options, option_for, setting_options, talk_options
from .talk import popped_quiet


@click.command("diff", epilog="Example: uvmerge diff base sft --out report")
@click.argument("base", metavar="BASE")
@click.argument("checkpoints", metavar="FINETUNED...", nargs=-1, required=True)
def diff_command(
    base: str, checkpoints: tuple[str, ...], out: str | None, figures: str | None, **settings: Any
) -> int:
    """Measure how far fine-tuning moved the weights, beside what chance would show.

    For each matrix: principal angles of the leading left and right singular vectors in degrees,
    change of singular values, size and spectrum of the delta, its share in the leading directions,
    gaps at the cut. Several checkpoints are a trajectory: each checkpoint is compared with BASE and
    with every other checkpoint. Exit code 4 says that a pair is unrelated.
    """
    from ..api.diff import diff
    from ..engine.progress import Progress
    from .signals import SignalControl

    as_json, overwrite = settings.pop("as_json"), settings.pop("overwrite")
    progress = Progress(quiet=popped_quiet(settings), verbose=settings.pop("verbose"))
    inputs, factors = [base, *checkpoints], settings["factors"]
    if out is not None:
        report_folder(out, overwrite, inputs, factors)
    if figures is not None:
        from ..report.figures import require_matplotlib

        target = report_folder(figures, True, inputs, factors)
        if out is not None and target == Path(out).resolve():
            raise UsageError("--figures", "is the folder of --out", "Name one inside or beside it.")
        require_matplotlib()
    try:
        found = diff(*inputs, progress=progress, control=SignalControl(), **settings)
    except Unrelated as error:
        if as_json:
            click.echo(json.dumps({"verdict": "unrelated", "reason": error.what}))
        raise
    written = [] if out is None else found.save(out, overwrite=overwrite)
    written += [] if figures is None else found.save_figures(figures)
    click.echo(json.dumps(found.as_data(), allow_nan=False) if as_json else str(found))
    for path in written:
        progress.say(f"wrote {path}")
    last = found.compared[-1]
    if not as_json and found.verdict == "related" and last.measured:
        repairable = last.says_where and all(e.state != "nonfinite" for e in last.entries)
        for line in _next_after_diff(base, checkpoints, out, repairable):
            progress.say(line)
    return 4 if found.verdict == "unrelated" else 0


def _next_after_diff(
    base: str, checkpoints: tuple[str, ...], out: str | None, repairable: bool
) -> list[str]:
    """Lines that name the next command; none where there is nothing to repair."""
    if out is None:
        return [f"next: uvmerge diff {shlex.join([base, *checkpoints])} --out report"]
    if not repairable:
        return []
    pair = shlex.join([base, checkpoints[-1]])
    return [
        f"next: uvmerge sweep restore {pair} candidates --top 0.05,0.1,0.2,0.4",
        "      then evaluate each candidate on the tasks that matter",
    ]


def diff_options() -> list[click.Parameter]:
    """The rank as in `restore`, filters, folders to write to, and settings."""
    rank = [p for p in operations()["restore"].parameters if p.name in ("top", "rank", "energy")]
    return [
        *map(option_for, rank),
        *filter_options(),
        click.Option(["--out"], metavar="DIR",
                     help="Write report.html, report.json and matrices.csv into DIR."),
        click.Option(["--figures"], metavar="DIR",
                     help="Write the figures as PNG and PDF into DIR (needs matplotlib)."),
        click.Option(["--kl"], metavar="PROMPTS",
                     help="Run the models on a JSONL file of prompts; compare predictions."),
        click.Option(["--hidden"], metavar="PROMPTS",
                     help="Compare hidden states of the models on the last tokens of prompts."),
        *setting_options(ComputeSettings),
        click.Option(["--overwrite"], is_flag=True, help="Write into DIR even if it is not empty."),
        *talk_options(),
    ]  # fmt: skip
