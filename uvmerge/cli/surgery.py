"""The commands that write checkpoints: one for each operation, `merge`, `sweep` and `run`."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable
from typing import Any

import click

from ..api.settings import RunSettings, SweepSettings
from ..checkpoint.roles import FINETUNED
from ..errors import UsageError
from ..operations import Operation
from ..operations.options import Parameter
from ..output.commands import block
from ..text import inert
from .options import (
    Group,
    Text,
    operation_options,
    places,
    popped_places,
    setting_options,
    talk_options,
)
from .talk import called


def command_for(operation: Operation) -> click.Command:
    """The command of an operation, made from its signature."""

    def callback(**settings: Any) -> None:
        from ..api.functions import operate

        assigned = operation.assign(popped_places(operation, settings, "OUT"))

        def call(**options: Any) -> Any:
            return operate(operation, *assigned, **options)

        _perform(call, settings)

    group = ["merge"] if operation.takes_several else []
    example = next((p.option.example for p in operation.parameters if p.option.example), "")
    return click.Command(
        operation.command,
        callback=callback,
        params=[
            *places(operation, "OUT"),
            *operation_options(operation),
            *setting_options(RunSettings),
            *talk_options(),
        ],
        help=_reflow(operation.function.__doc__ or ""),
        short_help=operation.summary.rstrip("."),
        epilog=f"Example: {_example(operation, *group)} out {example}".rstrip(),
    )


def _example(operation: Operation, *groups: str) -> str:
    """The command of an operation with checkpoints: `uvmerge restore base sft`."""
    words = ["uvmerge", *groups, operation.command]
    for operand in operation.operands:
        names = ["a", "b", "c"] if operand.several else [operand.name]
        words += ["sft"] if operand.name == FINETUNED else names
    return " ".join(words)


def _perform(call: Callable[..., Any], settings: dict[str, Any]) -> None:
    """Run `call` with the command's settings and print its result."""
    result, as_json, progress = called(call, settings)
    if as_json:
        click.echo(json.dumps(result.as_data()))
    elif result.out is None:
        click.echo(result.plan.as_table())
    else:
        progress.say(result.summary)
        if result.kept is not None:
            progress.say(
                f"note: uvmerge had not written all of the old folder, which is now {result.kept}"
            )
        for line in block("next:", result.next):
            progress.say(line)
        click.echo(inert(result.out))


def _reflow(docstring: str) -> str:
    """A docstring for click, in which each labelled part is a paragraph."""
    lines = inspect.cleandoc(docstring).splitlines()
    labelled = [
        f"\n{line}" if line and not line[0].isspace() and ":" in line else line.strip()
        for line in lines
    ]
    return "\n".join(labelled)


@click.group(
    "sweep", cls=Group, epilog="Example: uvmerge sweep restore base sft out --top 0.1,0.2,0.4"
)
def sweep_group() -> None:
    """Run an operation at several settings, with one decomposition of each matrix.

    Each checkpoint is in a folder of its own in OUTDIR and has the bytes that the single command
    would have written.
    """


def sweep_command_for(operation: Operation) -> click.Command:
    """The command `sweep` of an operation, whose options take several values."""

    def callback(**settings: Any) -> None:
        from ..api.sweep import sweep

        words = popped_places(operation, settings, "OUTDIR")

        def call(**options: Any) -> Any:
            return sweep(operation.command, *words, **options)

        _perform_sweep(call, settings)

    keys = {p.name: p for p in operation.parameters}
    own = [
        _several(option, keys.get(str(option.name)))
        if option.name in keys or option.name == "layers" else option
        for option in operation_options(operation)
    ]  # fmt: skip
    several = next((p for p in operation.parameters if p.type is float), None)
    example = f"--{several.key} {'0.1,0.2' if several.option.high else '0.5,1'}" if several else ""
    return click.Command(
        operation.command,
        callback=callback,
        params=[
            *places(operation, "OUTDIR"),
            *own,
            *setting_options(SweepSettings),
            *talk_options(),
        ],
        help=_reflow(operation.function.__doc__ or ""),
        short_help=operation.summary.rstrip("."),
        epilog=f"Example: {_example(operation, 'sweep')} out {example}".rstrip(),
    )


def merge_group() -> click.Group:
    """The group of the operations on any number of checkpoints, those with `*models`."""
    about = "Make one checkpoint of any number of checkpoints."
    return Group("merge", help=about, epilog="Example: uvmerge merge NAME a b c out")


def _several(option: click.Option, parameter: Parameter | None) -> click.Option:
    """The option with several values: separated by commas, or repeated where values hold commas."""
    is_flag = parameter is not None and parameter.type is bool
    kind: Any = Text(_flag, "flag") if is_flag else option.type
    commas = parameter is not None and parameter.type is not None
    choices = "true|false" if is_flag else "|".join(parameter.choices) if parameter else ""

    def values(ctx: click.Context, param: click.Parameter, given: tuple[str, ...]) -> Any:
        pieces = [p.strip() for g in given for p in (g.split(",") if commas else [g])]
        read = [kind.convert(piece, param, ctx) for piece in pieces]
        return (read if commas else pieces) or None  # a value with commas is parsed later

    bare: dict[str, Any] = {"is_flag": False, "flag_value": "true"} if is_flag else {}
    how = "separated by commas" if commas else "each with the option again"
    return click.Option(
        [*option.opts, str(option.name)], multiple=True, callback=values,
        metavar=choices or option.metavar, **bare,
        help=f"{(option.help or '').rstrip('.')}; several values {how}",
    )  # fmt: skip


def _flag(text: str) -> bool:
    if text not in ("true", "false"):
        raise UsageError("flag", f"{text!r} is not true or false")
    return text == "true"


def _perform_sweep(call: Callable[..., Any], settings: dict[str, Any]) -> None:
    """Run a sweep with the command's settings and print the folders of its checkpoints."""
    done, as_json, progress = called(call, settings)
    if as_json:
        click.echo(json.dumps(done.as_data()))
        return
    for setting in done.settings:
        result = done.results.get(setting.name)
        if result is not None and result.out is None:
            click.echo(f"{setting.name}\n{result.plan.as_table()}")
            continue
        progress.say(f"{setting.name}: {result.summary if result else 'was there already'}")
        click.echo(inert(done.folder / setting.name))


@click.command(
    "run", epilog="Example: uvmerge run recipes/restore-top20.yaml out --base base --finetuned sft"
)
@click.argument("recipe", metavar="RECIPE")
@click.argument("out", metavar="OUT")
@click.option("--base", metavar="REF", help="The base checkpoint, instead of the recipe's.")
@click.option(
    "--finetuned", metavar="REF", help="The fine-tuned checkpoint, instead of the recipe's."
)
@click.option(
    "--models", metavar="REF", multiple=True,
    help="A model to merge, instead of the recipe's; may be repeated.",
)  # fmt: skip
def run_command(recipe: str, out: str, **settings: Any) -> None:
    """Run a recipe: several operations, chained per tensor, as one YAML file."""
    from ..api.run import run

    def call(**options: Any) -> Any:
        return run(recipe, out, **options)

    _perform(call, settings)


run_command.params += [*setting_options(RunSettings), *talk_options()]
