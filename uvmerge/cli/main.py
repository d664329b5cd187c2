"""The command line: click around `uvmerge.api`. Commands of operations are made from signatures.

stdout carries results (a table, a path, or one JSON object with `--json`), stderr progress and
errors. Exit codes: 0 done; 1 failed while running; 2 usage; 3 input refused; 4 `check` found
problems or `diff` an unrelated pair; 130 or 143 stopped by Ctrl-C or SIGTERM.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
from typing import NoReturn

import click

from .. import __version__
from ..errors import Interrupted, ProblemsFound, UvmergeError, counted
from ..operations import operations
from ..operations.merging_options import GROUPS
from ..text import inert
from .anchor import anchor_group, build_command as anchor_build_command, build_options
from .ccci import ccci_group
from .compare import compare_command
from .completion import completion_command
from .diff import diff_command, diff_options
from .evaluate import eval_group, tasks_path_command
from .failures import of_click, of_system
from .heap import set_thresholds
from .help import CONTEXT, Group, help_command
from .hub import push_command, reproduce_command
from .look import check_command, demo_command, show_command
from .lora import extract_lora_command, merge_lora_command
from .moe import moe_command
from .recipe import recipe_group
from .scale import finish_command, plan_group, planned, work_command
from .search import search_command
from .signals import stopping_at_once
from .study import study_command
from .surgery import command_for, merge_group, run_command, sweep_command_for, sweep_group

REPAIR, PREVENT, MEASURE, TRY = "Repair", "Prevent", "Measure", "Try"
SHARE, LOOK, SCALE = "Share", "Look", "Many machines"


@click.group(cls=Group, context_settings=CONTEXT)
@click.version_option(__version__, message="uvmerge %(version)s")
def cli() -> None:
    """Undo the damage that fine-tuning does to a model's singular vectors.

    \b
    uvmerge diff BASE FINETUNED --out report             what moved, beside what chance gives
    uvmerge restore BASE FINETUNED OUT --top 0.2         repair it
    uvmerge interpolate BASE FINETUNED OUT --scale 0.3   the baseline that a repair must beat
    """


def program() -> None:
    """Run `main` and end the process as soon as all output is written.

    An ordinary exit would first tear down torch, which takes half a second.
    """
    try:
        main()
    except SystemExit as leave:
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(
                OSError, ValueError
            ):  # the reader is gone, or the stream closed
                stream.flush()
        os._exit(leave.code if isinstance(leave.code, int) else leave.code is not None)


def main() -> None:
    """Run the command line and turn every error into a message and an exit code."""
    set_thresholds()
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed by the caller
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115
    try:
        with stopping_at_once():
            if _broken is not None:
                raise _broken
            code = cli.main(prog_name="uvmerge", standalone_mode=False)
        sys.exit(code if isinstance(code, int) else 0)
    except click.exceptions.Exit as leave:
        sys.exit(leave.exit_code)
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        sys.exit(error.exit_code)
    except click.ClickException as error:
        _fail(of_click(error))
    except UvmergeError as error:
        _fail(error)
    except (KeyboardInterrupt, click.Abort):
        _fail(Interrupted("uvmerge", signal.SIGINT))
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except (OSError, MemoryError, ImportError) as error:
        failure = of_system(error)
        failure.__cause__ = error
        _fail(failure)


def _fail(error: UvmergeError) -> NoReturn:
    """Print an error, with `--json` as an object on stdout too, and end with its exit code."""
    words = sys.argv[1:]
    words = words[: words.index("--")] if "--" in words else words
    if "--json" in words:
        with contextlib.suppress(OSError, ValueError):  # the reader is gone, or the stream closed
            click.echo(json.dumps(error.as_data()))
    _complain(error)
    sys.exit(error.exit_code)


def _complain(error: UvmergeError) -> None:
    if os.environ.get("UVMERGE_DEBUG"):
        import traceback

        for line in "".join(traceback.format_exception(error)).splitlines():
            click.echo(inert(line), err=True)
    lines = str(error).splitlines() or [type(error).__name__]
    if isinstance(error, ProblemsFound):
        lines = [
            f"{error.where}: {counted(len(error.problems), 'problem')}",
            *error.problems,
            error.do,
        ]
    click.echo(
        "\n".join([f"error: {inert(lines[0])}", *(f"  {inert(x.strip())}" for x in lines[1:])]),
        err=True,
    )


def _assemble() -> UvmergeError | None:
    """Add the commands; returns the error of an operation that cannot be read."""
    error = None
    try:
        diff_command.params += diff_options()
        anchor_build_command.params += build_options()
        merge = merge_group()
        for operation in operations().values():
            if not operation.takes_several:
                _add(REPAIR, command_for(operation))
        edits = list(cli.commands.values())
        sweep_group.make = lambda: map(sweep_command_for, operations().values())
        ways = [operation for operation in operations().values() if operation.takes_several]
        for operation in sorted(ways, key=lambda way: GROUPS.index(way.group)):
            merge.add_command(command_for(operation))
            merge.headings[operation.command] = operation.group
        if merge.commands:
            _add(REPAIR, merge, moe_command)
        _add(REPAIR, extract_lora_command, merge_lora_command)
        planning = (*edits, merge, sweep_group, run_command)
        planning += (moe_command, extract_lora_command, merge_lora_command)
        plan_group.make = lambda: map(planned, planning)
    except UvmergeError as failure:
        error = failure
    _add(PREVENT, anchor_group)
    _add(MEASURE, diff_command, compare_command, eval_group, ccci_group, tasks_path_command)
    _add(TRY, sweep_group, search_command, demo_command, study_command)
    _add(SHARE, run_command, recipe_group, push_command, reproduce_command, check_command)
    _add(SCALE, plan_group, work_command, finish_command)
    _add(LOOK, show_command, help_command, completion_command)
    return error


def _add(heading: str, *commands: click.Command) -> None:
    for command in commands:
        cli.add_command(command)
        cli.headings[str(command.name)] = heading


_broken = _assemble()
