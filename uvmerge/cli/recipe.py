"""The commands `recipe list` and `recipe show`."""

from __future__ import annotations

import json

import click

from .completion import files
from .help import Argument, Group, Text
from .options import json_option


@click.group("recipe", cls=Group, epilog="Example: uvmerge recipe show restore-top20")
def recipe_group() -> None:
    """Look at recipes: those that come with uvmerge, in files, and on the Hub."""


@recipe_group.command("list", epilog="Example: uvmerge recipe list")
def list_command(as_json: bool) -> None:
    """List the recipes that come with uvmerge."""
    from ..api.recipes import recipe_list

    found = recipe_list()
    click.echo(json.dumps(found) if as_json else str(found))


@recipe_group.command("show", epilog="Example: uvmerge recipe show restore-top20")
def show_command(recipe: str, as_json: bool) -> None:
    """Print a recipe as YAML, after the checks that `run` makes; nothing is run."""
    from ..api.recipes import recipe_show

    found = recipe_show(recipe)
    click.echo(json.dumps(found) if as_json else str(found))


list_command.params.append(json_option())
show_command.params += [
    Argument(
        ["recipe"], metavar="RECIPE", type=Text(str, "recipe", files),
        rows=[("RECIPE", "A YAML file, the name of a bundled recipe, or one of the Hub.")],
    ),
    json_option(),
]  # fmt: skip
