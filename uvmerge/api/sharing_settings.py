"""Settings of `push`, `recipe push` and `reproduce`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from ..operations.options import MACHINE, OUTPUT, SAFETY, WHERE, Option
from .settings import Declared, parse_hub_id


@dataclass(frozen=True)
class RecipePushSettings(Declared):
    """How files go to a model of the Hub."""

    private: Annotated[bool, Option("make a new model private", group=WHERE)] = False
    pr: Annotated[bool, Option("leave a pull request, which its owner merges", group=WHERE)] = False
    revision: Annotated[
        str | None,
        Option("a branch that is there", parse=lambda v: None if v is None else str(v),
               accepts="str", metavar="BRANCH", group=WHERE, unset="main"),
    ] = None  # fmt: skip
    dry_run: Annotated[
        bool, Option("print what would be pushed and send nothing", group=SAFETY)
    ] = False


@dataclass(frozen=True)
class PushSettings(RecipePushSettings):
    """How an output goes to a model of the Hub."""

    base_id: Annotated[
        str | None,
        Option("Hub id of BASE, where BASE was a folder", parse=parse_hub_id, accepts="str",
               metavar="ID", group=OUTPUT),
    ] = None  # fmt: skip
    finetuned_id: Annotated[
        str | None,
        Option("Hub id of FINETUNED, where FINETUNED was a folder", parse=parse_hub_id,
               accepts="str", metavar="ID", group=OUTPUT),
    ] = None  # fmt: skip


@dataclass(frozen=True)
class ReproduceSettings(Declared):
    """How an output is made again."""

    workers: Annotated[
        int, Option("matrices computed at once; 0 is one per core, as memory allows", 0, metavar="N",
                    group=MACHINE),
    ] = 0  # fmt: skip
    overwrite: Annotated[bool, Option("replace OUT, or an unfinished run to it", group=SAFETY)] = (
        False
    )
