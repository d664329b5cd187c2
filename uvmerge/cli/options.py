"""click options made from parameters: options of operations, filters, and settings of a run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import click

from ..api.settings import Declared, parameters
from ..errors import UsageError
from ..operations import Operation
from ..operations.options import FILTERS, Parameter
from .completion import folders, of_parameter
from .help import CHECKPOINTS, REFERENCE, Argument, Option, Text

DECODER_LAYERS = "attention,mlp,mixer of the layers"  # what is edited or measured by default


def option_for(parameter: Parameter, default: str = "") -> Option:
    """The click option of a parameter; its value is None where it is not typed.

    Args:
        default: what `--help` shows as default, where it is another one than the parameter's.
    """
    flag, about = [f"--{parameter.key}", parameter.name], parameter.option
    text = about.help[:1].upper() + about.help[1:]
    if parameter.type is bool and parameter.default is True:
        flag[0] = f"--{parameter.key}/--no-{parameter.key}"
        return Option(flag, default=None, help=f"{text}. [default: yes]", group=about.group)
    if parameter.type is bool:
        return Option(flag, is_flag=True, default=None, help=f"{text}.", group=about.group)
    if parameter.range:
        text += f" ({parameter.range}{', or like 20%' if about.percent else ''})"
    shown = default or parameter.shown_default
    text += f". [default: {shown}]" if shown else "."
    if about.repeated:
        return Option(flag, multiple=True, metavar=about.metavar, help=text, group=about.group)
    kind = Text(parameter.parse_text, parameter.key, of_parameter(parameter))
    metavar = f"[{'|'.join(parameter.choices)}]" if parameter.choices else about.metavar
    return Option(flag, type=kind, metavar=metavar, help=text, group=about.group)


def filter_options(taken: Sequence[Parameter] = (), modules: str = DECODER_LAYERS) -> list[Option]:
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


def operation_options(operation: Operation) -> list[Option]:
    """An operation's own options and the filters."""
    scope = DECODER_LAYERS if operation.matrices_only else "all"
    own = [option_for(parameter) for parameter in operation.parameters]
    return [*own, *filter_options(operation.parameters, scope)]


def setting_options(settings: type[Declared]) -> list[Option]:
    """The settings of a class."""
    return [option_for(parameter) for parameter in parameters(settings)]


def talk_options() -> list[Option]:
    """Options for what a command prints, which the Python functions do not have."""
    return [
        json_option(),
        Option(["-q", "--quiet"], is_flag=True, help="No progress on stderr."),
        Option(["-v", "--verbose"], is_flag=True, help="Name each tensor when it is done."),
    ]


def json_option() -> Option:
    """The option `--json`."""
    text = "Print one JSON object on stdout; of a failure, its `error`."
    return Option(["--json", "as_json"], is_flag=True, help=text)


def reference(name: str, text: str, metavar: str = "", **attributes: Any) -> Argument:
    """An argument for a checkpoint, which a shell completes to a folder."""
    shown = metavar or name.upper()
    kind = Text(str, "checkpoint", folders)
    return Argument([name], metavar=shown, type=kind, rows=[(shown, text)], **attributes)


def places(operation: Operation, out: str) -> list[click.Parameter]:
    """The checkpoints and the output: as one argument for all of them, and each as an option.

    Args:
        out: what the help calls the output.
    """
    metavars = [*(operand.metavar for operand in operation.operands), out]
    kind = Text(str, "folder", folders)
    named = [
        Option(
            [f"--{o.name}"], type=kind, metavar="REF", multiple=o.several, group=CHECKPOINTS,
            place=o.metavar, help=f"{_role(o.name)}: {REFERENCE}.",
        )
        for o in operation.operands
    ]  # fmt: skip
    made = "The folder to write" + ("" if out == "OUT" else ", with a folder for each setting")
    last = Option(
        ["-o", "--out"], type=kind, metavar="DIR", group=CHECKPOINTS, place=out, help=f"{made}."
    )
    words = Argument(["places"], nargs=-1, type=kind, metavar=" ".join(metavars))
    return [words, *named, last]


def _role(name: str) -> str:
    known = {"base": "The checkpoint before fine-tuning", "finetuned": "The checkpoint to edit"}
    return known.get(name, "A checkpoint")


def popped_places(
    operation: Operation, settings: dict[str, Any], out: str, *groups: str
) -> tuple[list[str], dict[str, Any]]:
    """The checkpoints and the output by place, and those by name, taken out of `settings`.

    Raises:
        UsageError: there are too few or too many; says which is missing or left over.
    """
    operands = operation.operands
    given = {name: settings.pop(name) for name in (*(o.name for o in operands), "out")}
    named = {name: value for name, value in given.items() if value}
    words = list(settings.pop("places"))
    shown = {o.name: o.metavar for o in operands} | {"out": out}
    empty = [metavar for name, metavar in shown.items() if name not in named]
    command = " ".join([*groups, operation.command])
    usage = f"Usage: uvmerge {command} {' '.join(shown.values())}"
    if len(words) < len(empty):
        raise UsageError(command, f"{empty[len(words)]} is missing", usage)
    if len(words) > len(empty) and not operation.takes_several:
        raise UsageError(command, f"{words[len(empty)]!r} is one checkpoint too many", usage)
    return words, named
