"""Names that are one tensor in each architecture of transformers: the table in tie_table.json.

`benchmarks/zoo.py --ties` writes the table from the installed transformers, and a test compares the
two. Each row holds names that are equal, `*` for any number and `#` for one and the same number in
all of them, and the architectures that it holds for. Pure.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Set as AbstractSet
from functools import cache
from importlib import resources
from typing import Any

Names = tuple[str, ...]
FLAG = "tie_word_embeddings"


def tied_sets(config: Mapping[str, Any], names: Iterable[str]) -> list[frozenset[str]]:
    """Sets of names that are one tensor in a model of this config, of which `names` has one.

    A set holds names that are absent from `names` too: the head is not stored where it is the
    embeddings. Of names with `*` those alone that are there can be told.
    """
    present = set(names)
    found = {own for row in tied_names(config) for own in _sets(row, present)}
    largest = sorted(found, key=lambda own: (-len(own), sorted(own)))
    kept = [own for i, own in enumerate(largest) if not any(own < other for other in largest[:i])]
    return [own for own in kept if len(own) > 1]


def _sets(row: Names, present: AbstractSet[str]) -> Iterator[frozenset[str]]:
    """The sets of one row of the table, one for each choice of its `#`."""
    groups: dict[tuple[str, ...], set[str]] = defaultdict(set)
    for entry in row:
        for name in present if "*" in entry or "#" in entry else present & {entry}:
            if match := _pattern(entry).fullmatch(name):
                groups[match.groups()].add(name)
    plain = [name for name in row if "*" not in name]
    for numbers, own in groups.items():
        yield frozenset(own | {_filled(name, numbers) for name in plain})


def shared_by_layers(config: Mapping[str, Any], names: Iterable[str]) -> list[str]:
    """Those of `names` that several layers of a model of this config use, whatever number is theirs.

    (Zamba's layers share a transformer block.)
    """
    rows = [_pattern(row[0]) for row in tied_names(config) if len(row) == 1 and "*" in row[0]]
    return [name for name in names if any(row.fullmatch(name) for row in rows)] if rows else []


def tied_names(config: Mapping[str, Any]) -> list[Names]:
    """Rows of the table for the architecture that `config` names, if the config ties names at all.

    `tie_word_embeddings` tells, of the part of the config that the names begin with, else of the
    whole, else of the text part; else the architecture's default.
    """
    table, own = _table(), set(architectures(config))
    default = bool(own - set(table["untied_by_default"]))
    return [
        tuple(row["names"])
        for row in table["rows"]
        if not own.isdisjoint(row["architectures"]) and _ties(config, row["names"], default)
    ]


def never_ties(config: Mapping[str, Any]) -> bool:
    """Whether transformers ties no names in a model of this config, whatever the config says."""
    own = set(architectures(config))
    return bool(own) and own <= set(_table()["untied"])


def architectures(config: Mapping[str, Any]) -> list[str]:
    """The architectures that a config names; none where the config says no list of names."""
    named = config.get("architectures")
    return [name for name in named if isinstance(name, str)] if isinstance(named, list) else []


def _ties(config: Mapping[str, Any], names: Iterable[str], default: bool) -> bool:
    """Whether the config ties names; `default` where it does not say."""
    begins = {name.partition(".")[0] for name in names}
    first = begins.pop() if len(begins) == 1 else ""
    keys = (first, f"{first}_config")
    part: Any = next((config[key] for key in keys if isinstance(config.get(key), Mapping)), {})
    scopes = (part, config, config.get("text_config"))
    said = (scope.get(FLAG) for scope in scopes if isinstance(scope, Mapping))
    return next((flag for flag in said if isinstance(flag, bool)), default)


@cache
def _table() -> dict[str, Any]:
    text = resources.files(__package__).joinpath("tie_table.json").read_text(encoding="utf-8")
    table: dict[str, Any] = json.loads(text)
    return table


@cache
def _pattern(name: str) -> re.Pattern[str]:
    return re.compile(re.escape(name).replace(r"\*", r"\d+").replace(r"\#", r"(\d+)"))


def _filled(name: str, numbers: tuple[str, ...]) -> str:
    """A name with the numbers of another one of its row for each `#`."""
    remaining = iter(numbers)
    return re.sub("#", lambda _: next(remaining), name)
