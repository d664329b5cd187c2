"""The commands that write checkpoints: one for each operation, `merge`, `sweep` and `run`."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable
from typing import Any

import click

from ..api.series import series
from ..api.settings import RunSettings, SweepSettings
from ..checkpoint.roles import FINETUNED
from ..errors import UsageError, counted
from ..operations import Operation
from ..operations.options import Parameter
from ..output.commands import block
from ..text import inert
from .completion import files, folders
from .help import CHECKPOINTS, REFERENCE, Argument, Command, Group, LateGroup, Option, Text
from .options import operation_options, places, popped_places, setting_options, talk_options
from .talk import called


def command_for(operation: Operation) -> click.Command:
    """The command of an operation, made from its signature."""
    group = ["merge"] if operation.takes_several else []

    def callback(**settings: Any) -> None:
        from ..api.functions import operate

        assigned = operation.assign(*popped_places(operation, settings, "OUT", *group))

        def call(**options: Any) -> Any:
            return operate(operation, *assigned, **options)

        perform(call, settings)

    return Command(
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
        epilog=f"Example: {_example(operation, *group)} out {operation.example}".rstrip(),
    )


def _example(operation: Operation, *groups: str) -> str:
    """The command of an operation with checkpoints: `uvmerge restore base sft`."""
    words = ["uvmerge", *groups, operation.command]
    for operand in operation.operands:
        names = (
            ["a", "b", "c"][: operand.most and operand.fewest]
            if operand.several
            else [operand.name]
        )
        words += ["sft"] if operand.name == FINETUNED else names
    return " ".join(words)


def perform(call: Callable[..., Any], settings: dict[str, Any]) -> None:
    """Run `call` with the command's settings and print its result."""
    result, as_json, progress = called(call, settings)
    if as_json:
        click.echo(json.dumps(result.as_data()))
    elif result.plan_file is not None:
        if result.estimate is not None:
            progress.say(str(result.estimate))
        click.echo(inert(result.plan_file))
    elif result.estimate is not None:
        click.echo(str(result.estimate))
    elif result.out is None:
        click.echo(result.plan.as_table())
    else:
        say_written(result, progress)


def say_written(result: Any, progress: Any) -> None:
    """Say what was written, and print OUT."""
    for line in result.lines:
        progress.say(line)
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
    "sweep", cls=LateGroup, epilog="Example: uvmerge sweep restore base sft out --top 0.1:0.4:0.1"
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

        words, named = popped_places(operation, settings, "OUTDIR", "sweep")

        def call(**options: Any) -> Any:
            return sweep(operation.command, *words, **named, **options)

        _perform_sweep(call, settings)

    keys = {p.name: p for p in operation.parameters}
    own = [
        _several(option, keys.get(str(option.name)))
        if option.name in keys or option.name == "layers" else option
        for option in operation_options(operation)
    ]  # fmt: skip
    numbers = [p for p in operation.parameters if p.type is float]
    example = ""
    if several := next((p for p in numbers if not p.per_model), None):
        example = f"--{several.key} {'0.1:0.4:0.1' if several.option.high else '0.5,1'}"
    elif numbers:
        example = f"--{numbers[0].key} 0.5,1"
    return Command(
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


def merge_group() -> Group:
    """The group of the operations on any number of checkpoints, those with `*models`."""
    about = """Make one checkpoint of several.

    A number for each model is a list in their order (--weight 0.7/0.3), and any number may change with
    the depth (--weight 0.7..0.3/0.3..0.7). The output has the tokenizer and the other files of BASE, else
    of the first model; the dtype of the first model; and tensors of every shape are merged.

    Of the methods that work on singular vectors a systematic study on LLMs (arXiv 2511.21437) finds that
    none is reliable, as is no other but task-arithmetic.
    """
    return Group(
        "merge", help=inspect.cleandoc(about),
        epilog="Example: uvmerge merge linear a b c out --weight 0.5/0.3/0.2",
    )  # fmt: skip


def _several(option: Option, parameter: Parameter | None) -> Option:
    """The option with several values: separated by commas, or repeated where values hold commas."""
    is_flag = parameter is not None and parameter.type is bool
    commas = parameter is not None and parameter.type is not None
    numbers = parameter is not None and parameter.type in (int, float)

    def values(ctx: click.Context, param: click.Parameter, given: tuple[str, ...]) -> Any:
        if parameter is None or not commas:  # a value with commas is parsed later
            for text in given:
                option.type.convert(text, param, ctx)
            return list(given) or None
        return [value for text in given for value in series(parameter, text)] or None

    bare: dict[str, Any] = {"is_flag": False, "flag_value": "true"} if is_flag else {}
    how = "separated by commas" if commas else "each with the option again"
    how += ", or FIRST:LAST:STEP" if numbers else ""
    return Option(
        [*option.opts, str(option.name)], multiple=True, callback=values, group=option.group,
        type=Text(str, str(option.name), getattr(option.type, "complete", None)),
        metavar="[true|false]" if is_flag else option.metavar, **bare,
        help=f"{(option.help or '').rstrip('.')}; several values {how}.",
    )  # fmt: skip


def _perform_sweep(call: Callable[..., Any], settings: dict[str, Any]) -> None:
    """Run a sweep with the command's settings and print the folders of its checkpoints."""
    done, as_json, progress = called(call, settings)
    if as_json:
        click.echo(json.dumps(done.as_data()))
        return
    if settings.get("plan") is not None:
        click.echo(inert(settings["plan"]))
        return
    if settings.get("estimate"):
        click.echo(str(next(iter(done.results.values())).estimate))
        return
    for setting in done.settings:
        result = done.results.get(setting.name)
        if result is not None and result.out is None:
            click.echo(f"{setting.name}\n{result.plan.as_table()}")
            continue
        progress.say(f"{setting.name}: {result.summary if result else 'was there already'}")
        click.echo(inert(done.folder / setting.name))
    if done.next:
        for line in block("next:", done.next):
            progress.say(line)


def _list_bundled(ctx: click.Context, _param: click.Parameter, wanted: bool) -> None:
    from ..api.recipes import recipe_list

    if wanted:
        click.echo(str(recipe_list()))
        ctx.exit()


def _pair(words: list[str], settings: dict[str, Any]) -> dict[str, str]:
    """The two checkpoints that stand before OUT, by the options that they replace."""
    if len(words) != 2:
        raise UsageError("run", f"cannot work on {counted(len(words), 'checkpoint')} before OUT",
                         "Usage: uvmerge run RECIPE [BASE FINETUNED] OUT")  # fmt: skip
    for name in ("base", "finetuned"):
        if settings[name] is not None:
            raise UsageError(f"--{name}", "is given twice", "Name it before OUT or as an option.")
    return dict(zip(("base", "finetuned"), words))


@click.command(
    "run",
    cls=Command,
    epilog="Example: uvmerge run restore-top20 base sft out",
)
@click.argument(
    "recipe",
    cls=Argument,
    metavar="RECIPE",
    type=Text(str, "recipe", files),
    rows=[("RECIPE", "A YAML file, the name of a bundled recipe (--list), or one of the Hub.")],
)
@click.argument(
    "places",
    cls=Argument,
    metavar="[BASE FINETUNED] OUT",
    nargs=-1,
    type=Text(str, "folder", folders),
    rows=[],
)
@click.option(
    "-o",
    "--out",
    cls=Option,
    metavar="DIR",
    group=CHECKPOINTS,
    place="OUT",
    type=Text(str, "folder", folders),
    help="The folder to write.",
)
@click.option(
    "--base",
    cls=Option,
    metavar="REF",
    group=CHECKPOINTS,
    type=Text(str, "checkpoint", folders),
    help=f"The base instead of the recipe's: {REFERENCE}.",
)
@click.option(
    "--finetuned",
    cls=Option,
    metavar="REF",
    group=CHECKPOINTS,
    type=Text(str, "checkpoint", folders),
    help="The checkpoint to edit, instead of the recipe's.",
)
@click.option(
    "--models", cls=Option, metavar="REF", multiple=True, group=CHECKPOINTS,
    type=Text(str, "checkpoint", folders),
    help="A model to merge, instead of the recipe's; may be repeated.",
)  # fmt: skip
@click.option(
    "--list", cls=Option, is_flag=True, is_eager=True, expose_value=False, callback=_list_bundled,
    help="Show the bundled recipes and exit.",
)  # fmt: skip
def run_command(recipe: str, places: tuple[str, ...], out: str | None, **settings: Any) -> None:
    """Run a recipe: several operations, chained per tensor, as one YAML file.

    RECIPE is a file, the name of a bundled recipe (`--list` shows them), or a file on the Hub:
    org/name/file@revision, or org/name for its recipe.yaml. A configuration of mergekit is run as
    it is.
    """
    from ..api.run import run

    pair = list(places)
    if out is None:
        if not pair:
            usage = "Usage: uvmerge run RECIPE [BASE FINETUNED] OUT"
            raise UsageError("run", "OUT is missing", usage)
        out = pair.pop()
    elif len(pair) == 1:
        raise UsageError("run", "OUT is given twice", "Name it after RECIPE or with -o.")
    if pair:
        settings |= _pair(pair, settings)

    def call(**options: Any) -> Any:
        return run(recipe, out, **options)

    perform(call, settings)


run_command.params += [*setting_options(RunSettings), *talk_options()]
