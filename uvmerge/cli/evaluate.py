"""The command `tasks-path`."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import click

from .. import tasks


@click.command(
    "tasks-path",
    epilog='Example: uvmerge tasks-path; in use: lm_eval run --include_path "$(uvmerge tasks-path)"'
    " --tasks uvmerge_cards …",
)
def tasks_path_command() -> None:
    """Print the folder of uvmerge's tasks for lm-evaluation-harness.

    The group `uvmerge_cards` is the card game under both rules, 234 hands each; `uvmerge_cards_large`
    has 2,000 each.
    """
    if find_spec("lm_eval") is None:
        click.echo(
            "note: lm-eval is not here; install it with: pip install 'uvmerge[eval]'", err=True
        )
    click.echo(Path(tasks.__file__).resolve().parent / "harness")
