"""The commands `plan`, `work` and `finish`: one plan, done by many processes or machines."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from typing import Any

import click

from ..api.settings import WorkSettings
from ..errors import UsageError
from ..text import inert
from .completion import files
from .help import Argument, Command, LateGroup, Option, Text
from .options import setting_options, talk_options
from .surgery import say_written
from .talk import called

_LEFT_OUT = (
    "plan",
    "dry_run",
    "report",
    "engine",
    "address",
)  # options that a command does not have under `plan`
_FILE = Argument(
    ["file"], metavar="PLAN", type=Text(str, "plan", files),
    rows=[("PLAN", "The file that `uvmerge plan` wrote.")],
)  # fmt: skip


@click.group(
    "plan",
    cls=LateGroup,
    epilog="Example: uvmerge plan restore base sft out --top 0.2 -o plan.json",
)
def plan_group() -> None:
    """Write the plan of a command to a file, for `uvmerge work` on any number of machines.

    The plan holds all that a worker needs: inputs and their identity, the layout of the output, every
    step. `uvmerge work PLAN` does one rank's share; `uvmerge finish PLAN` verifies and publishes.
    """


def planned(command: click.Command) -> click.Command:
    """A command that writes checkpoints, as it stands under `plan`: it writes its plan to a file.

    A group has all its commands so.
    """
    if isinstance(command, click.Group):
        if isinstance(command, LateGroup):
            command.filled()
        group = copy.copy(command)
        group.commands = {name: planned(each) for name, each in command.commands.items()}
        group.epilog = _epilog(command)
        return group
    kind = Text(str, "plan", files)
    to = Option(
        ["-o", "--plan"], type=kind, metavar="FILE",
        help="The file to write; only with --estimate it may be left out.",
    )  # fmt: skip
    params = [p for p in command.params if p.name not in _LEFT_OUT]
    for number, param in enumerate(params):
        if "-o" in param.opts:  # OUT is named by its place, or with --out
            params[number] = copy.copy(param)
            params[number].opts = [word for word in param.opts if word != "-o"]
    run = command.callback
    assert run is not None

    def callback(**settings: Any) -> None:
        if settings["plan"] is None and not settings["estimate"]:
            raise UsageError("plan", "has no file to write", "Name it: -o plan.json.")
        run(**settings, dry_run=None)

    found = copy.copy(command)
    found.params, found.callback = [*params, to], callback
    found.epilog = _epilog(command)
    return found


def _epilog(command: click.Command) -> str:
    return (command.epilog or "").replace("uvmerge ", "uvmerge plan ", 1) + " -o plan.json"


@click.command(
    "work", cls=Command, epilog="Example: uvmerge work plan.json --rank 0 --world-size 4"
)
def work_command(file: str, rank: int | None, world_size: int | None, **settings: Any) -> None:
    """Do one rank's share of a plan.

    Ranks may run at the same time, one after the other, or twice, on any machines that see the inputs
    and the output under the same paths. Under torchrun and srun both numbers are known; a Kubernetes
    indexed job says the rank alone.
    """
    from ..api.work import work

    done, as_json, progress = _called(
        lambda **options: work(file, rank=rank, world_size=world_size, **options), settings
    )
    progress.say(done.summary)
    click.echo(json.dumps(done.as_data()) if as_json else inert(file))


@click.command("finish", cls=Command, epilog="Example: uvmerge finish plan.json")
def finish_command(file: str, **settings: Any) -> None:
    """Verify what the ranks of a plan have written, and publish it.

    Where ranks are missing, they are named, and nothing is published (exit code 3).
    """
    from ..api.work import finish

    results, as_json, progress = _called(lambda **options: finish(file, **options), settings)
    if as_json:
        click.echo(json.dumps([each.as_data() for each in results]))
        return
    for each in results:
        say_written(each, progress)


def _called(call: Callable[..., Any], settings: dict[str, Any]) -> tuple[Any, bool, Any]:
    def without_dry_run(*, dry_run: bool, **options: Any) -> Any:
        return call(**options)

    return called(without_dry_run, {"dry_run": False, **settings})


work_command.params += [
    _FILE,
    Option(["--rank"], type=int, metavar="R",
           help="Which share, from 0. [default: RANK, SLURM_PROCID or JOB_COMPLETION_INDEX]"),
    Option(["--world-size"], type=int, metavar="N",
           help="How many shares. [default: WORLD_SIZE or SLURM_NTASKS]"),
    *setting_options(WorkSettings),
    *talk_options(),
]  # fmt: skip
finish_command.params += [_FILE, *talk_options()]
