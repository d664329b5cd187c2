"""`uvmerge diff`: how far checkpoints moved from their base."""

from __future__ import annotations

import json
from typing import Any

import click

from ..api.settings import SpreadSettings
from ..errors import UsageError
from ..operations import operations
from ..operations.options import HOW_MUCH, OUTPUT, SAFETY
from ..output.places import report_folder
from ..text import expanded
from .completion import files, folders
from .help import REFERENCE, Command, Option, Text
from .options import filter_options, option_for, reference, setting_options, talk_options
from .talk import popped_quiet


@click.command("diff", cls=Command, epilog="Example: uvmerge diff base sft --out report")
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
    from ..report import summary, what_now
    from .signals import SignalControl

    as_json, overwrite = settings.pop("as_json"), settings.pop("overwrite")
    progress = Progress(quiet=popped_quiet(settings), verbose=settings.pop("verbose"))
    inputs, factors = [base, *checkpoints], settings["factors"]
    if out is not None:
        report_folder(out, overwrite, inputs, factors)
    if figures is not None:
        from ..report.figures import require_matplotlib

        target = report_folder(figures, True, inputs, factors)
        if out is not None and target == expanded(out).resolve():
            raise UsageError("--figures", "is the folder of --out", "Name one inside or beside it.")
        require_matplotlib()
    found = diff(*inputs, progress=progress, control=SignalControl(), **settings)
    written = [] if out is None else found.save(out, overwrite=overwrite)
    written += [] if figures is None else found.save_figures(figures)
    click.echo(json.dumps(found.as_data(), allow_nan=False) if as_json else summary(found))
    for path in written:
        progress.say(f"wrote {path}")
    if not as_json:
        for line in what_now(found, base, checkpoints[-1], page=out is not None).lines():
            progress.say(line)
    return 4 if found.verdict == "unrelated" else 0


def diff_options() -> list[click.Parameter]:
    """Checkpoints, the rank as in `restore`, filters, folders to write to, and settings."""
    folder = Text(str, "folder", folders)
    rank = [p for p in operations()["restore"].parameters if p.name in ("top", "rank", "energy")]
    return [
        reference("base", f"The checkpoint that the others started from: {REFERENCE}."),
        reference("checkpoints", "One checkpoint, or several of a trajectory, in its order.",
                  "FINETUNED...", nargs=-1, required=True),
        *map(option_for, rank),
        *filter_options(),
        Option(["-o", "--out"], metavar="DIR", group=OUTPUT, type=folder,
               help="Write report.html, report.json, matrices.csv and a picture into DIR."),
        Option(["--figures"], metavar="DIR", group=OUTPUT, type=folder,
               help="Write the figures as PNG and PDF into DIR (needs matplotlib)."),
        Option(["--kl"], metavar="PROMPTS", group=HOW_MUCH, type=Text(str, "file", files),
               help="Run the models on a JSONL file of prompts; compare predictions."),
        Option(["--hidden"], metavar="PROMPTS", group=HOW_MUCH, type=Text(str, "file", files),
               help="Compare hidden states of the models on the last tokens of prompts."),
        *setting_options(SpreadSettings),
        Option(["--overwrite"], is_flag=True, group=SAFETY,
               help="Write into DIR even if it is not empty."),
        *talk_options(),
    ]  # fmt: skip
