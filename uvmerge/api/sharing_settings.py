"""Settings of `push`, `recipe push` and `reproduce`."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Annotated

from ..checkpoint.roles import BASE, FINETUNED, name_of
from ..errors import UsageError, counted
from ..operations.options import MACHINE, OUTPUT, SAFETY, WHERE, Option
from ..text import brief
from .settings import Declared, parse_hub_id


def parse_hub_ids(value: object) -> tuple[str, ...] | None:
    """Hub ids between commas, or as a list; an empty text stands for none."""
    if value is None:
        return None
    several = value.split(",") if isinstance(value, str) else value
    if not isinstance(several, (list, tuple)):
        raise UsageError("id", f"'{brief(value)}' is no list of Hub ids", "Write org/a,org/b.")
    return tuple(parse_hub_id(str(each).strip()) or "" if each else "" for each in several)


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
    models_id: Annotated[
        tuple[str, ...] | None,
        Option("Hub ids of MODELS in their order, where they were folders; nothing between two commas"
               " for one that was none", parse=parse_hub_ids, accepts="str | Sequence[str]",
               metavar="ID,ID", group=OUTPUT),
    ] = None  # fmt: skip

    def ids(self, roles: Collection[str]) -> dict[str, str | None]:
        """The Hub ids by role.

        Args:
            roles: of the inputs.

        Raises:
            UsageError: there are ids of other models than the output has.
        """
        several = [role for role in roles if name_of(role) == "models"]
        given = self.models_id or ()
        if len(given) not in (0, len(several)):
            raise UsageError(
                "--models-id",
                f"has {counted(len(given), 'id')} for {counted(len(several), 'model')}",
                "Write one for each model, in the order of the manifest, or nothing between commas.",
            )
        named = dict(zip(several, given))
        return {BASE: self.base_id, FINETUNED: self.finetuned_id, **named}


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
