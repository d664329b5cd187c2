"""click options made from parameters: options of operations, filters, and settings of a run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import click

from ..api.settings import Declared, parameters
from ..operations import Operation
from ..operations.options import FILTERS, Parameter, did_you_mean
from ..text import inert

DECODER_LAYERS = "attention,mlp of the decoder layers"  # what is edited or measured by default


class Group(click.Group):
    """A group that suggests a command of similar name where a command is unknown."""

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        if self.get_command(ctx, args[0]) is None and not args[0].startswith("-"):
            hint = did_you_mean(args[0], self.commands)
            raise click.UsageError(f"No such command {inert(args[0])!r}. {hint}", ctx)
        return super().resolve_command(ctx, args)


class Text(click.ParamType):  # type: ignore[type-arg]
    """A click type around a parser of uvmerge, so that errors read the same as in Python."""

    def __init__(self, parse: Callable[[str], Any], name: str) -> None:
        self.parse, self.name = parse, name

    def convert(self, value: Any, param: Any, ctx: Any) -> Any:
        """The value in its type, or the `UsageError` of the parser."""
        return self.parse(value) if isinstance(value, str) else value


def option_for(parameter: Parameter, default: str = "") -> click.Option:
    """The click option of a parameter; its value is None where it is not typed.

    Args:
        default: what `--help` shows as default, where the parameter has none of its own.
    """
    flag, about = [f"--{parameter.key}", parameter.name], parameter.option
    text = about.help[:1].upper() + about.help[1:]
    if parameter.type is bool:
        return click.Option(flag, is_flag=True, default=None, help=f"{text}.")
    if parameter.range:
        text += f" ({parameter.range}{', or like 20%' if about.percent else ''})"
    shown = default or ("" if parameter.default in (None, ()) else str(parameter.default))
    text += f". [default: {shown}]" if shown else "."
    if parameter.choices:
        return click.Option(flag, type=click.Choice(parameter.choices), help=text)
    if about.repeated:
        return click.Option(flag, multiple=True, metavar=about.metavar, help=text)
    kind = Text(parameter.parse_text, parameter.key)
    return click.Option(flag, type=kind, metavar=about.metavar, help=text)


def filter_options(
    taken: Sequence[Parameter] = (), modules: str = DECODER_LAYERS
) -> list[click.Option]:
    """The filters on tensors that are not among `taken`.

    Args:
        modules: which modules are selected by default.
    """
    names = {parameter.name for parameter in taken}
    return [
        option_for(p, modules if p.name == "modules" else "")
        for p in FILTERS
        if p.name not in names
    ]


def operation_options(operation: Operation) -> list[click.Option]:
    """An operation's own options and the filters."""
    scope = DECODER_LAYERS if operation.matrices_only else "all"
    own = [option_for(parameter) for parameter in operation.parameters]
    return [*own, *filter_options(operation.parameters, scope)]


def setting_options(settings: type[Declared]) -> list[click.Option]:
    """The settings of a class."""
    return [option_for(parameter) for parameter in parameters(settings)]


def talk_options() -> list[click.Option]:
    """Options for what a command prints, which the Python functions do not have."""
    return [
        json_option(),
        click.Option(["-q", "--quiet"], is_flag=True, help="No progress on stderr."),
        click.Option(["-v", "--verbose"], is_flag=True, help="Name each tensor when it is done."),
    ]


def json_option() -> click.Option:
    """The option `--json`."""
    return click.Option(
        ["--json", "as_json"], is_flag=True, help="Print one JSON object on stdout."
    )


def places(operation: Operation, out: str) -> list[click.Parameter]:
    """The arguments: a checkpoint or several for each operand, and the folder of the output."""
    checkpoints = [
        click.Argument([o.name], metavar=o.metavar, nargs=-1 if o.several else 1, required=True)
        for o in operation.operands
    ]
    return [*checkpoints, click.Argument([out.lower()], metavar=out)]


def popped_places(operation: Operation, settings: dict[str, Any], out: str) -> list[str]:
    """The values of the arguments of `places`, taken out of `settings`."""
    names = (*(operand.name for operand in operation.operands), out.lower())
    given = [settings.pop(name) for name in names]
    return [word for each in given for word in ([each] if isinstance(each, str) else each)]
