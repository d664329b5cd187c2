"""Which types and tables are reached from the variables in scope, breadth first."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from .ddl import Schema, Table
from .hole import Variable
from .index import TypeIndex, names_in
from .java import Member, Type
from .typing import Typed, Typing

MOST_TYPES = 400
Reference = tuple[str, Typed, int]
"""A name of a type, a type of the unit that it is written in, and its line; 0 for an import."""


@dataclass(frozen=True)
class Unknown:
    """A type that is named, but whose source or class is not there."""

    name: str
    file: str
    line: int
    quotes: str


@dataclass
class Mapping:
    """The table of a type, and the columns of its fields.

    Attributes:
        rule: `by @Table`, `by @Entity` or `by name`.
        columns: by name of a field the column, and the rule.
    """

    table: str
    rule: str
    columns: dict[str, tuple[str, str]] = field(default_factory=dict)


@dataclass
class View:
    """What is reached from a hole, with distances; the order is that of the search."""

    index: TypeIndex
    schema: Schema
    typing: Typing
    types: dict[Type, int] = field(default_factory=dict)
    unknown: dict[str, tuple[int, Unknown]] = field(default_factory=dict)
    tables: dict[str, tuple[int, Table]] = field(default_factory=dict)
    mappings: dict[Type, Mapping] = field(default_factory=dict)

    @property
    def variables(self) -> list[Variable]:
        """What is in scope: parameters and locals, the nearest first, then fields."""
        return [*self.typing.site.variables, *self.typing.fields]


def reach(typing: Typing, schema: Schema, depth: int) -> View:
    """Walk from the variables in scope, at most `depth` steps."""
    view = View(typing.index, schema, typing)
    if depth >= 1:
        view.types[typing.site.type] = 1
    starts = _starts(typing)
    here: list[Type] = []
    for distance in range(1, depth + 1):
        named = [*(ref for each in here for ref in _refs(each)), *starts.get(distance, ())]
        here = _next(view, named, distance)
    _reach_tables(view, depth)
    return view


def _next(view: View, named: list[Reference], distance: int) -> list[Type]:
    """Take in the types that are named, with their parents; returns those that are new."""
    fresh = []
    for name, source, line in named:
        found = view.index.resolve(name, source.unit, source.within)
        if isinstance(found, Type):
            new = [t for t in view.typing.lineage(found) if t not in view.types]
            fresh += new[: MOST_TYPES - len(view.types)]
            view.types.update(dict.fromkeys(new[: MOST_TYPES - len(view.types)], distance))
        elif found is not None and line and found not in view.unknown:
            told = Unknown(found, source.unit.file, line, name.rpartition(".")[2])
            view.unknown[found] = distance, told
    return fresh


def _starts(typing: Typing) -> dict[int, list[Reference]]:
    """Names of types that the walk starts from, by the step that it takes them at.

    First come those of parameters, of locals, of the method's result and of the hole; a step later
    those of fields, and classes of the class path that the file imports; last those of the other
    methods around the hole, and what else the file imports.
    """
    site = typing.site
    own = Typed(site.method.type, site.unit, site.type.name)
    near = [own, typing.expected()[1], *map(typing.type_of_variable, site.variables)]
    lines = [site.method.line, site.line, *(variable.line for variable in site.variables)]
    fields = list(map(typing.type_of_variable, typing.fields))
    hidden = {*site.method.variables, *site.type.variables}
    imports = [(name, Typed(name, site.unit), 0) for name in sorted(site.unit.imports)]
    libraries = [each for each in imports if _is_library(each, typing.index)]
    return {
        1: list(_names(near, lines, hidden)),
        2: [*_names(fields, [each.line for each in typing.fields], hidden), *libraries],
        4: [*_refs(site.type), *imports],
    }


def _names(
    types: Sequence[Typed | None], lines: Sequence[int], hidden: set[str]
) -> Iterator[Reference]:
    for typed, line in zip(types, lines):
        for name in names_in(typed.text) if typed is not None else ():
            if typed is not None and name not in hidden:
                yield name, typed, line


def _is_library(reference: Reference, index: TypeIndex) -> bool:
    name, source, _ = reference
    found = index.resolve(name, source.unit)
    return isinstance(found, Type) and found.unit.library


def _refs(owner: Type) -> Iterator[Reference]:
    """Names of types in the declarations of a type: parents, fields, results, parameters."""
    seen = set(owner.variables)
    source = Typed("", owner.unit, owner.name)
    for written, line in [*_written(owner.members), *((p, owner.line) for p in owner.parents)]:
        for name in names_in(written):
            if name not in seen:
                seen.add(name)
                yield name, source, line


def _written(members: list[Member]) -> Iterator[tuple[str, int]]:
    for member in members:
        for text in (member.type, *(kind for kind, _ in member.parameters)):
            if not member.variables or not set(names_in(text)) & set(member.variables):
                yield text, member.line


def _reach_tables(view: View, depth: int) -> None:
    """The tables of the types that are reached, then those that foreign keys point to."""
    for each, distance in list(view.types.items()):
        found = mapping(each, view)
        if found is not None:
            view.mappings[each] = found
            table = view.schema.get(found.table)
            if table is not None:
                view.tables.setdefault(table.name.lower(), (distance, table))
    queue = list(view.tables)
    for name in queue:
        distance, table = view.tables[name]
        for key in table.foreign:
            other = view.schema.get(key.table)
            if other is not None and distance < depth and other.name.lower() not in view.tables:
                view.tables[other.name.lower()] = distance + 1, other
                queue.append(other.name.lower())


def mapping(owner: Type, view: View) -> Mapping | None:
    """The table of a type by `@Table` or `@Entity`, else by its name; None where it has none."""
    if owner.kind not in ("class", "record"):
        return None
    told = dict(owner.annotations)
    named = _argument(told.get("Table", ""), "name") or _argument(told.get("Entity", ""), "name")
    table: Table | None
    if named:
        rule = "@Table" if "Table" in told else "@Entity"
        found, table = Mapping(named, f"by {rule}"), view.schema.get(named)
    else:
        names = (view.schema.get(name) for name in _table_names(owner.simple))
        table = next((each for each in names if each is not None), None)
        if table is None:
            return None
        found = Mapping(table.name, "by name")
    known = {column.name.lower(): column.name for column in table.columns} if table else {}
    for member in owner.members:
        if member.kind in ("field", "component") and "static" not in member.modifiers:
            column = _column(member, known)
            if column is not None:
                found.columns[member.name] = column
    return found


def _column(member: Member, known: dict[str, str]) -> tuple[str, str] | None:
    """The column of a field and the rule: by annotation, else by name."""
    for name, text in member.annotations:
        if name in ("Column", "JoinColumn") and (named := _argument(text, "name")):
            return named, f"by @{name}"
    plain = snake(member.name)
    for name in (plain, f"{plain}_id", member.name.lower()):
        if name in known:
            return known[name], "by name"
    return None


def snake(name: str) -> str:
    """`order_line` of `OrderLine`."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()


def _table_names(name: str) -> list[str]:
    """Names in lower case that the table of a class may have: with and without a plural."""
    plain = snake(re.sub(r"(?<=\w)Entity$", "", name))
    plural = plain[:-1] + "ies" if re.search("[^aeiou]y$", plain) else plain + "s"
    if re.search("(s|x|ch|sh)$", plain):
        plural = plain + "es"
    joined = [each.replace("_", "") for each in (plain, plural)]
    return list(dict.fromkeys([plain, plural, *joined]))


def _argument(text: str, key: str) -> str:
    """The string of `key = "…"`, or of `"…"` alone, in the brackets of an annotation."""
    found = re.search(rf'(?:^|[\s,]){key}\s*=\s*"([^"]*)"', text) or re.match(r'\s*"([^"]*)"', text)
    return found[1] if found else ""
