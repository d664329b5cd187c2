"""The commands of `ccci`: context of holes in Java code."""

from __future__ import annotations

import json
from typing import Any

import click

from ..errors import counted
from ..operations.options import HOW_MUCH, WHERE
from ..tasks.ccci.task import BUDGET, DEPTH, KINDS
from ..text import inert
from .completion import files, folders, words
from .help import Argument, Group, Option, Text
from .options import json_option


@click.group("ccci", cls=Group, epilog="Example: uvmerge ccci pack src/shop/OrderMapper.java")
def ccci_group() -> None:
    """Context for completing Java code that moves data."""


@ccci_group.command(
    "pack",
    epilog="Example: uvmerge ccci pack src/shop/OrderMapper.java --hole 24 --schema schema.sql",
)
def pack_command(file: str, as_json: bool, **options: Any) -> None:
    """Print what the code in a hole of a Java file may need to know.

    The hole is where /*HOLE*/ stands, or at --hole. What the variables in scope lead to is shown:
    tables, objects, their relations, signatures of libraries, comments; the nearest first, as much as
    the budget holds.
    """
    from ..api.pack import pack_ccci

    found = pack_ccci(file, **options)
    click.echo(json.dumps(found.as_dict(), ensure_ascii=False) if as_json else found.text)
    for note in found.notes:
        click.echo(f"note: {inert(note)}", err=True)
    left = f"; no room for {counted(found.left_out, 'piece')} more" if found.left_out else ""
    used = f"{found.tokens:,} of {found.budget:,} tokens"
    click.echo(f"{counted(len(found.pieces), 'piece')}, {used}{left}", err=True)


_FILES, _FOLDERS = Text(str, "file", files), Text(str, "folder", folders)
pack_command.params += [
    Argument(["file"], metavar="FILE.java", type=_FILES,
             rows=[("FILE.java", "The file with the hole, in UTF-8.")]),
    Option(["--hole"], metavar="LINE[:COL]", group=WHERE,
           help="Where the hole is, from 1. [default: at /*HOLE*/]"),
    Option(["--root"], metavar="DIR", type=_FOLDERS, group=WHERE,
           help="The folder of the sources. [default: that of the file's package]"),
    Option(["--schema"], metavar="FILE.sql", type=_FILES, multiple=True, group=WHERE,
           help="Tables, as DDL; repeatable."),
    Option(["--classpath"], metavar="PATH", type=_FILES, multiple=True, group=WHERE,
           help="Jars, and folders of classes or sources; repeatable."),
    Option(["--budget"], metavar="TOKENS", type=int, default=BUDGET, group=HOW_MUCH,
           help=f"Tokens that may be used, of three bytes each. [default: {BUDGET}]"),
    Option(["--depth"], metavar="STEPS", type=int, default=DEPTH, group=HOW_MUCH,
           help=f"Steps from the variables in scope. [default: {DEPTH}]"),
    Option(["--without"], metavar="KIND", multiple=True, group=HOW_MUCH,
           type=Text(str, "kind", words(KINDS)),
           help=f"Leave out a kind; repeatable: {', '.join(KINDS)}."),
    json_option(),
]  # fmt: skip
