"""The tables of docs/merges.md, made from the operations on several models."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from pathlib import Path

from ..operations import Operation, operations
from ..operations.merging_options import GROUPS

DOCS = Path(__file__).parents[2] / "docs" / "merges.md"
BEGIN = "<!-- methods: made by `python -m uvmerge.api.stub` -->\n"
END = "<!-- end of methods -->"


def merges_docs() -> str:
    """The text of docs/merges.md: what is written by hand, and the table of methods between its marks."""
    before, _, rest = DOCS.read_text(encoding="utf-8").partition(BEGIN)
    return f"{before}{BEGIN}\n{methods()}\n{END}{rest.partition(END)[2]}"


def methods() -> str:
    """The methods under their headings, each with its usage, options and formula."""
    ways = [each for each in operations().values() if each.takes_several]
    return "\n".join("\n".join(_table(group, ways)) for group in GROUPS)


def _table(group: str, ways: list[Operation]) -> Iterator[str]:
    yield f"### {group}\n\n| method | options | formula |\n|---|---|---|"
    for each in ways:
        if each.group == group:
            options = " ".join(f"`--{p.key}`" for p in each.parameters)
            usage = each.usage.removeprefix("uvmerge merge ")
            cells = (f"`{usage}`: {each.summary}", options, _formula(each))
            yield f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"
    yield ""


def _formula(operation: Operation) -> str:
    """The part `Formula:` of the docstring, in one line."""
    text = inspect.getdoc(operation.function) or ""
    found = re.search(r"^Formula:(.*?)(?=^\w+:|\Z)", text, re.MULTILINE | re.DOTALL)
    return " ".join(found[1].split()) if found else ""
