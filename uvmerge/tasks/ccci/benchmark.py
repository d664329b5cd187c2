"""The tasks of the benchmark: regions of a small Java project that have to be written again.

`project/` holds tables (`schema/`), a library (`lib/`), two domains of business (`src/`) and the tests
of each region (`tests/`). `holes.json` names the lines of every region, of which the first and the last
are the code that was there.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from .task import Hole, Place

PROJECT = Path(__file__).resolve().parent / "project"
SOURCES, LIBRARY, TESTS = PROJECT / "src", PROJECT / "lib", PROJECT / "tests"
SCHEMA = (PROJECT / "schema" / "warehouse.sql", PROJECT / "schema" / "clinic.sql")
CHECKS = "checks"  # the package of all tests


@dataclass(frozen=True)
class Task:
    """A hole, and what sort of transfer its code is.

    Attributes:
        family: such as `nested`, `join` or `constant`.
    """

    hole: Hole
    family: str


@cache
def tasks() -> tuple[Task, ...]:
    """Every task, in the order of `holes.json`."""
    rows = json.loads((PROJECT / "holes.json").read_text())
    return tuple(Task(_hole(row), row["family"]) for row in rows)


def _hole(row: dict[str, object]) -> Hole:
    file, first, last = str(row["file"]), int(str(row["first"])), int(str(row["last"]))
    lines = (PROJECT / file).read_text().splitlines(keepends=True)
    region = "".join(lines[first - 1 : last])
    gold = region.strip()
    indent = region[: region.index(gold)]
    name, needs = str(row["id"]), row["needs"]
    assert isinstance(needs, list)
    return Hole(
        name, file.partition("/")[2], Place(first, len(indent) + 1), gold, tuple(needs),
        f"{CHECKS}.{''.join(map(str.capitalize, name.split('-')))}Test",
        prefix="".join(lines[: first - 1]) + indent,
        suffix=region[len(indent) + len(gold) :] + "".join(lines[last:]),
        domain=file.split("/")[1],
    )  # fmt: skip
