"""Commands whose help has headings: options by what they are about, commands by what one wants."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import click

from ..errors import UsageError
from ..operations import merge_hint
from ..operations.options import GROUPS, MESSAGES
from ..text import brief, closest

CHECKPOINTS = "Checkpoints"
REFERENCE = "a folder, or a model of the Hub: org/name or org/name@revision"


class Option(click.Option):
    """An option under a heading of the help.

    Args:
        place: the argument that the option may be given instead of; empty for most options.
    """

    def __init__(
        self, *words: Any, group: str = MESSAGES, place: str = "", **attributes: Any
    ) -> None:
        super().__init__(*words, **attributes)
        self.group, self.place = group, place

    def get_help_record(self, ctx: click.Context) -> tuple[str, str] | None:
        """How the option is written, and its sentence."""
        record = super().get_help_record(ctx)
        return (f"{self.place} or {record[0]}", record[1]) if record and self.place else record


class Argument(click.Argument):
    """An argument that the help explains.

    Args:
        rows: what the help says of the places of the argument, as (metavar, sentence).
    """

    def __init__(self, *words: Any, rows: Sequence[tuple[str, str]] = (), **attributes: Any):
        super().__init__(*words, **attributes)
        self.rows, self.group = rows, CHECKPOINTS


class Command(click.Command):
    """A command whose options stand under headings."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse the words, and name this command in an error."""
        try:
            return super().parse_args(ctx, args)
        except click.UsageError as error:
            error.ctx = error.ctx or ctx
            raise

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the arguments, then the options of each heading."""
        rows: dict[str, list[tuple[str, str]]] = {}
        for parameter in self.get_params(ctx):
            group = getattr(parameter, "group", MESSAGES)
            record = parameter.get_help_record(ctx)
            more = getattr(parameter, "rows", [record] if record else [])
            rows.setdefault(group, []).extend(more)
        for group in (CHECKPOINTS, *GROUPS):
            if rows.get(group):
                with formatter.section(group):
                    formatter.write_dl(rows[group])


class Group(click.Group):
    """A group whose commands stand under headings, and which knows words of other tools.

    Attributes:
        headings: by name of a command its heading; a command without one is under `Commands`.
    """

    command_class = Command

    def __init__(self, *words: Any, **attributes: Any) -> None:
        super().__init__(*words, **attributes)
        self.headings: dict[str, str] = {}

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        """The command of the first word; a `UsageError` with a hint where there is none."""
        if not args[0].startswith("-"):
            self.known(ctx, args[0])
        return super().resolve_command(ctx, args)

    def known(self, ctx: click.Context, word: str) -> click.Command:
        """The command called `word`.

        Raises:
            UsageError: there is none; says which one is meant.
        """
        found = self.get_command(ctx, word)
        if found is not None:
            return found
        close = closest(word, self.commands)
        hint = f"Did you mean {close!r}?" if close else f"`{ctx.command_path} --help` lists all."
        where = " ".join([*ctx.command_path.split()[1:], brief(word)])
        raise UsageError(where, "is not a command", merge_hint(word) or hint)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write each command with its first sentence, under its heading."""
        rows: dict[str, list[tuple[str, str]]] = {h: [] for h in self.headings.values()}
        for name in self.list_commands(ctx):
            heading = self.headings.get(name, "Commands")
            line = (name, self.commands[name].get_short_help_str(200))
            rows.setdefault(heading, []).append(line)
        for heading, lines in rows.items():
            with formatter.section(heading):
                formatter.write_dl(lines)


class LateGroup(Group):
    """A group whose commands are made when one is asked for, so that `uvmerge --help` is quick.

    Attributes:
        make: makes them.
    """

    make: Callable[[], Iterable[click.Command]] | None = None

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of this name; None where there is none."""
        self.filled()
        return super().get_command(ctx, cmd_name)

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names of all commands."""
        self.filled()
        return super().list_commands(ctx)

    def filled(self) -> None:
        """Make the commands, once."""
        make, self.make = self.make, None
        for command in make() if make is not None else ():
            self.add_command(command)


class Text(click.ParamType):  # type: ignore[type-arg]
    """A click type around a parser of uvmerge, so that errors read the same as in Python.

    Args:
        complete: the words that a shell may complete to, of a context and what is typed so far.
    """

    def __init__(
        self, parse: Callable[[str], Any], name: str, complete: Callable[..., Any] | None = None
    ) -> None:
        self.parse, self.name, self.complete = parse, name, complete

    def convert(self, value: Any, param: Any, ctx: Any) -> Any:
        """The value in its type, or the `UsageError` of the parser."""
        return self.parse(value) if isinstance(value, str) else value

    def shell_complete(self, ctx: click.Context, param: Any, incomplete: str) -> list[Any]:
        """What a shell offers for a word that begins with `incomplete`."""
        return self.complete(ctx, incomplete) if self.complete else []


@click.command("help", cls=Command, epilog="Example: uvmerge help restore")
@click.argument("words", nargs=-1, metavar="[COMMAND]...")
@click.pass_context
def help_command(ctx: click.Context, words: tuple[str, ...]) -> None:
    """Show the help of uvmerge, or of a command."""
    assert ctx.parent is not None
    shown = ctx.parent
    for word in words:
        if not isinstance(shown.command, Group):
            raise UsageError(f"help {' '.join(words)}", "is not a command", "Name one command.")
        found = shown.command.known(shown, word)
        shown = click.Context(found, info_name=word, parent=shown, **CONTEXT)
    click.echo(shown.get_help())


CONTEXT: dict[str, Any] = {"help_option_names": ["-h", "--help"], "max_content_width": 100}
