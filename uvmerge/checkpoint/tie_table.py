"""Names that are one tensor in each architecture of transformers: the tables in tie_table_N.json.

N is the major version of transformers that saved a model, 4 or 5. `benchmarks/zoo.py --ties` writes
the table of the installed transformers, and a test compares the two. Each row holds names that are
equal, `*` for any number and `#` for one and the same number in all of them, and the architectures
that it holds for. Pure.
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
    """Those of `names` that several layers of a model of this config use.

    (Zamba's layers share a transformer block.)
    """
    rows = [_pattern(row[0]) for row in tied_names(config) if len(row) == 1 and "*" in row[0]]
    return [name for name in names if any(row.fullmatch(name) for row in rows)] if rows else []


def tied_names(config: Mapping[str, Any]) -> list[Names]:
    """Rows of the table for the architecture that `config` names, if the config ties names at all.

    `tie_word_embeddings` tells, of the part of the config that the names begin with, else of the
    whole, else of the text part; else the architecture's default.
    """
    table, own = _table_for(config), set(architectures(config))
    default = bool(own - set(table["untied_by_default"]))
    rows = [row["names"] for row in table["always"] if not own.isdisjoint(row["architectures"])]
    rows += (
        row["names"]
        for row in table["rows"]
        if not own.isdisjoint(row["architectures"]) and _ties(config, row["names"], default)
    )
    return [tuple(row) for row in rows]


def never_ties(config: Mapping[str, Any]) -> bool:
    """Whether transformers ties no names in a model of this config, whatever the config says."""
    own = set(architectures(config))
    return bool(own) and own <= set(_table_for(config)["untied"])


def architectures(config: Mapping[str, Any]) -> list[str]:
    """The architectures that a config names; none where the config says no list of names."""
    named = config.get("architectures")
    return [name for name in named if isinstance(name, str)] if isinstance(named, list) else []


def _ties(config: Mapping[str, Any], names: Iterable[str], default: bool) -> bool:
    """Whether the config ties names; `default` where it does not say."""
    begins = {name.partition(".")[0] for name in names}
    first = begins.pop() if len(begins) == 1 else ""
    parts = [config.get(key) for key in (first, f"{first}_config")]
    scopes: list[Any] = [part for part in parts if isinstance(part, Mapping)][:1]
    if not scopes:
        scopes = [config, config.get("text_config")]
        if _major(config) == "4":  # there, composed models ask their text part first
            scopes.reverse()
    said = (scope.get(FLAG) for scope in scopes if isinstance(scope, Mapping))
    return next((flag for flag in said if isinstance(flag, bool)), default)


def _table_for(config: Mapping[str, Any]) -> dict[str, Any]:
    """The table of the major version that saved the config; of the newest where it does not say."""
    return _table(_major(config))


def _major(config: Mapping[str, Any]) -> str:
    return "4" if str(config.get("transformers_version")).startswith("4.") else "5"


@cache
def _table(major: str) -> dict[str, Any]:
    file = resources.files(__package__).joinpath(f"tie_table_{major}.json")
    text = file.read_text(encoding="utf-8")
    table: dict[str, Any] = json.loads(text)
    return table


@cache
def _pattern(name: str) -> re.Pattern[str]:
    return re.compile(re.escape(name).replace(r"\*", r"\d+").replace(r"\#", r"(\d+)"))


def _filled(name: str, numbers: tuple[str, ...]) -> str:
    """A name with the numbers of another one of its row for each `#`."""
    remaining = iter(numbers)
    return re.sub("#", lambda _: next(remaining), name)
