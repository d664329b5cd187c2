"""The commands `push`, `recipe push` and `reproduce`."""

from __future__ import annotations

import json
from typing import Any

import click

from ..api.sharing_settings import PushSettings, RecipePushSettings, ReproduceSettings
from ..text import inert
from .completion import files, folders
from .help import Argument, Command, Option, Text
from .options import json_option, setting_options, talk_options
from .recipe import recipe_group
from .talk import called, popped_quiet

_MODEL = ("MODEL", "The model of the Hub: org/name. It is made where it is missing.")


@click.command("push", cls=Command, epilog="Example: uvmerge push out org/name --dry-run")
def push_command(out: str, repo: str, as_json: bool, **settings: Any) -> None:
    """Push an output to the Hub, whole, with a card and a lock that lets others make it again.

    The output is checked first. Large files go one by one, and what the Hub has is not sent again;
    one commit then names all files. A card that is there keeps its text.
    """
    quiet = popped_quiet(settings)
    from ..api.push import push

    def tell(line: str) -> None:
        if not quiet:
            click.echo(inert(line), err=True)

    _say(push(out, repo, tell=tell, **settings), as_json)


@recipe_group.command(
    "push", cls=Command, epilog="Example: uvmerge recipe push recipe.yaml org/name"
)
def recipe_push_command(file: str, repo: str, as_json: bool, **settings: Any) -> None:
    """Push a recipe to the Hub, for `uvmerge run org/name OUT`."""
    from ..api.push import recipe_push

    _say(recipe_push(file, repo, **settings), as_json)


def _say(done: Any, as_json: bool) -> None:
    click.echo(json.dumps(done.as_data()) if as_json else str(done))


@click.command("reproduce", cls=Command, epilog="Example: uvmerge reproduce org/name")
def reproduce_command(repo: str, out: str | None, **settings: Any) -> None:
    """Make a pushed output again from its recipe and lock, and compare every file.

    Exit code 0 where all files are identical, or equal within the precision of the lock; 4 where
    one is different, with its tensors.
    """
    from ..api.reproduce import reproduce

    def call(*, dry_run: bool, **options: Any) -> Any:
        return reproduce(repo, out, **options)

    done, as_json, _ = called(call, {"dry_run": False, **settings})
    _say(done, as_json)


_QUIET = Option(["-q", "--quiet"], is_flag=True, help="Say nothing about single files on stderr.")
push_command.params += [
    Argument(["out"], metavar="OUT", type=Text(str, "folder", folders),
             rows=[("OUT", "The folder that uvmerge wrote.")]),
    Argument(["repo"], metavar="MODEL", rows=[_MODEL]),
    *setting_options(PushSettings),
    json_option(),
    _QUIET,
]  # fmt: skip
recipe_push_command.params += [
    Argument(["file"], metavar="FILE", type=Text(str, "recipe", files),
             rows=[("FILE", "The YAML file.")]),
    Argument(["repo"], metavar="MODEL", rows=[_MODEL]),
    *setting_options(RecipePushSettings),
    json_option(),
]  # fmt: skip
reproduce_command.params += [
    Argument(["repo"], metavar="MODEL",
             rows=[("MODEL", "A model that `uvmerge push` made: org/name or org/name@revision.")]),
    Argument(["out"], metavar="[OUT]", required=False, type=Text(str, "folder", folders),
             rows=[("OUT", "The folder to write. [default: NAME-reproduced]")]),
    *setting_options(ReproduceSettings),
    *talk_options(),
]  # fmt: skip
