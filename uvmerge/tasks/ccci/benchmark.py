"""The tasks of the benchmark: regions of a small Java project that have to be written again.

`project/` holds tables (`schema/`), a library (`lib/`), two domains of business (`src/`) and the tests
of each region (`tests/`). `holes.json` names the lines of every region, of which the first and the last
are the code that was there.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from .metrics import without_comments
from .packing import Index, open_index
from .prompting import prompt
from .task import BUDGET, DEPTH, MARKER, Hole, Infilling, Pack, Place, Prompt

TASK = "uvmerge_ccci"
PROJECT = Path(__file__).resolve().parent / "project"
SOURCES, LIBRARY, TESTS = PROJECT / "src", PROJECT / "lib", PROJECT / "tests"
SCHEMA = (PROJECT / "schema" / "warehouse.sql", PROJECT / "schema" / "clinic.sql")
CHECKS = "checks"  # the package of all tests


@dataclass(frozen=True)
class Task:
    """A hole, and what sort of transfer its code is.

    Attributes:
        doc_id: its place among all tasks.
        family: such as `nested`, `join` or `constant`.
    """

    doc_id: int
    hole: Hole
    family: str


@cache
def tasks() -> tuple[Task, ...]:
    """Every task, in the order of `holes.json`."""
    rows = json.loads((PROJECT / "holes.json").read_text())
    return tuple(Task(number, _hole(row), row["family"]) for number, row in enumerate(rows))


@cache
def index() -> Index:
    """The project as the packer reads it."""
    return open_index(SOURCES, schema=SCHEMA, classpath=[LIBRARY])


def asked(
    hole: Hole, without: Collection[str] = (), budget: int = BUDGET, depth: int = DEPTH,
    style: str | Infilling = "instruct",
) -> tuple[Pack, Prompt]:  # fmt: skip
    """The context of a hole, and the prompt for it.

    Without the kind `comments`, the code around the hole is shown without its comments as well.
    """
    text = hole.prefix + MARKER + hole.suffix
    pack = index().pack(SOURCES / hole.file, text=text, budget=budget, without=without, depth=depth)
    around = (hole.prefix, hole.suffix)
    if "comments" in without:
        around = (without_comments(hole.prefix), without_comments(hole.suffix))
    return pack, prompt(pack, *around, style)


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
