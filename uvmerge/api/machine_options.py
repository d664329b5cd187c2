"""Options of the machine that several classes of settings have, and what reads sizes and paths."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Literal

from ..errors import UsageError
from ..operations.options import MACHINE, Option
from ..text import brief, expanded, parse_size


def _parse_memory(value: object) -> int | None:
    return None if value is None else parse_size(_text_or_number(value), "memory")


def parse_shard_size(value: object) -> int | None:
    """The bytes of a `--max-shard-size`."""
    return None if value is None else parse_size(_text_or_number(value), "max-shard-size")


def _text_or_number(value: object) -> str | int:
    return value if isinstance(value, int) and not isinstance(value, bool) else str(value)


def _parse_factors(value: object) -> Path | None:
    if value == "":
        raise UsageError("--factors", "is empty", "Name a folder.")
    return parse_path(value)


def parse_plan(value: object) -> Path | None:
    """The path of the file that `--plan` names."""
    if value == "":
        raise UsageError("--plan", "is empty", "Name a file, like plan.json.")
    return parse_path(value)


def parse_path(value: object) -> Path | None:
    """A path with `~` expanded."""
    return None if value is None else expanded(str(value))


def _parse_address(value: object) -> str | None:
    if value is not None and not re.fullmatch(r"auto|local|(ray://)?[\w.\[\]:-]+:\d+", str(value)):
        raise UsageError(
            "--address", f"'{brief(value)}' is no address of a Ray cluster",
            "Write auto, local, host:6379 or ray://host:10001.",
        )  # fmt: skip
    return None if value is None else str(value)


Engine = Annotated[
    Literal["local", "ray"],
    Option("who computes: threads of this machine, or the nodes of a Ray cluster", group=MACHINE),
]
Address = Annotated[
    str | None,
    Option("the Ray cluster: auto (one that runs here), local (a new one), host:port or ray://host:port",
           parse=_parse_address, accepts="str", metavar="ADDRESS", group=MACHINE,
           unset="one that runs here, or else a new one"),
]  # fmt: skip
Workers = Annotated[
    int,
    Option("matrices computed at once; 0 is one per core, as memory allows", 0, metavar="N",
           group=MACHINE),
]  # fmt: skip
Memory = Annotated[
    int | None,
    Option("what all edits together may use, like 8GiB", parse=_parse_memory,
           accepts="str | int", metavar="SIZE", group=MACHINE, unset="half of what is free"),
]  # fmt: skip
FactorsFolder = Annotated[
    Path | None,
    Option("keep decompositions in DIR, and use those that are there",
           parse=_parse_factors, accepts="str | Path", metavar="DIR", group=MACHINE),
]  # fmt: skip
