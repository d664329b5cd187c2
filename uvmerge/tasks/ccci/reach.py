"""Which types and tables are reached from the variables in scope, breadth first."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from .ddl import Schema, Table
from .hole import Variable
from .index import TypeIndex, names_in
from .java import Member, Type, Unit
from .typing import Typed, Typing

MOST_TYPES = 400


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
    site = typing.site
    here = {site.type: 1} if depth >= 1 else {}
    for distance in range(1, depth + 1):
        starts = _starts(typing) if distance == 1 else ()
        named = [*starts, *(ref for each in here if each in view.types for ref in _refs(each))]
        if distance == 1:
            view.types.update(here)
        if distance == 2:
            named += _imported(site.unit)
        here = _next(view, named, distance)
    _reach_tables(view, depth)
    return view


def _next(view: View, named: list[tuple[str, Typed, int]], distance: int) -> dict[Type, int]:
    """Take in the types that are named; returns those that are new."""
    fresh: dict[Type, int] = {}
    for name, source, line in named:
        found = view.index.resolve(name, source.unit, source.within)
        if isinstance(found, Type):
            if found not in view.types and len(view.types) < MOST_TYPES:
                view.types[found] = fresh[found] = distance
        elif found is not None and line and found not in view.unknown:
            quotes = name.rpartition(".")[2]
            told = Unknown(found, source.unit.file, line, quotes)
            view.unknown[found] = distance, told
    own = view.typing.site.type
    return {own: 1, **fresh} if distance == 1 else fresh


def _starts(typing: Typing) -> Iterator[tuple[str, Typed, int]]:
    """Names of the types of variables, of the method, and of what the hole is for."""
    site = typing.site
    for variable in [*site.variables, *typing.fields]:
        typed = typing.type_of_variable(variable)
        if typed is not None:
            yield from ((name, typed, variable.line) for name in names_in(typed.text))
    own = Typed(site.method.type, site.unit, site.type.name)
    variables = {*site.method.variables, *site.type.variables}
    for typed in (own, typing.expected()[1]):
        for name in names_in(typed.text) if typed is not None else ():
            if name not in variables:
                yield name, typed, site.method.line


def _imported(unit: Unit) -> Iterator[tuple[str, Typed, int]]:
    """Names that the file imports one by one, for their static methods; without lines."""
    yield from ((name, Typed(name, unit), 0) for name in sorted(unit.imports))


def _refs(owner: Type) -> Iterator[tuple[str, Typed, int]]:
    """Names of types in the declarations of a type: parents, fields, results, parameters."""
    seen = set(owner.variables)
    source = Typed("", owner.unit, owner.name)
    for written, line in [*((p, owner.line) for p in owner.parents), *_written(owner.members)]:
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
