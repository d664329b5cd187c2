"""What a shell completes: folders, files, words of a list, layers; and the script that asks for it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import click
from click.shell_completion import CompletionItem, get_completion_class, split_arg_string

from ..checkpoint.bounded import CONFIG_BYTES, read_json
from ..errors import UsageError, UvmergeError
from ..operations.options import Parameter
from .help import Argument, Command

SHELLS = ("bash", "zsh", "fish")
Items = list[CompletionItem[Any]]


def folders(ctx: click.Context, incomplete: str) -> Items:
    """Let the shell complete the name of a folder."""
    return [CompletionItem(incomplete, type="dir")]


def files(ctx: click.Context, incomplete: str) -> Items:
    """Let the shell complete the name of a file."""
    return [CompletionItem(incomplete, type="file")]


def words(known: Iterable[str], *, several: bool = False) -> Callable[..., Items]:
    """Complete to one of the known words, or to several of them between commas."""
    known = list(known)

    def complete(ctx: click.Context, incomplete: str) -> Items:
        before, comma, last = incomplete.rpartition(",") if several else ("", "", incomplete)
        given = before.split(",")
        return [
            CompletionItem(f"{before}{comma}{word}")
            for word in known
            if word.startswith(last) and word not in given
        ]

    return complete


def layers(ctx: click.Context, incomplete: str) -> Items:
    """Ranges of layers of a checkpoint that is named before: all, the first quarter, the last half."""
    # click parses no places where the last option lacks its value, so all words are looked at.
    typed = split_arg_string(os.environ.get("COMP_WORDS", ""))
    depth = next(filter(None, map(_depth, typed)), 0)
    ranges = {f"0-{depth - 1}", f"0-{max(depth // 4, 1) - 1}", f"{depth // 2}-{depth - 1}"}
    return [
        CompletionItem(each) for each in sorted(ranges) if depth and each.startswith(incomplete)
    ]


def _depth(folder: str) -> int:
    """The number of layers that the config of a checkpoint names; 0 where it names none."""
    try:
        config = read_json(Path(folder).expanduser() / "config.json", CONFIG_BYTES)
    except (OSError, RuntimeError, ValueError, UvmergeError):
        return 0
    inner = config.get("text_config")
    depth = (inner if isinstance(inner, dict) else config).get("num_hidden_layers")
    return depth if isinstance(depth, int) and not isinstance(depth, bool) and depth > 0 else 0


def of_parameter(parameter: Parameter) -> Callable[..., Items] | None:
    """How the value of an option is completed; None where nothing can be said."""
    option = parameter.option
    if parameter.name == "layers":
        return layers
    if option.metavar == "DIR":
        return folders
    if parameter.choices:
        return words((*parameter.choices, *option.aliases))
    return words(option.words, several=True) if option.words else None


@click.command("completion", cls=Command, epilog="Example: uvmerge completion bash")
@click.argument(
    "shell", cls=Argument, type=click.Choice(SHELLS), metavar="SHELL", required=False,
    rows=[("SHELL", "One of bash, zsh, fish.")],
)  # fmt: skip
def completion_command(shell: str | None) -> None:
    """Print a script with which a shell completes commands, options, folders, modules and layers.

    \b
    bash:  eval "$(uvmerge completion bash)"    (in ~/.bashrc)
    zsh:   eval "$(uvmerge completion zsh)"     (in ~/.zshrc, after compinit)
    fish:  uvmerge completion fish > ~/.config/fish/completions/uvmerge.fish
    """
    if shell is None:
        what, do = f"needs a shell: {', '.join(SHELLS)}", "For bash: uvmerge completion bash"
        raise UsageError("completion", what, do)
    root = click.get_current_context().find_root()
    found = get_completion_class(shell)
    assert found is not None
    click.echo(found(root.command, {}, "uvmerge", "_UVMERGE_COMPLETE").source())
