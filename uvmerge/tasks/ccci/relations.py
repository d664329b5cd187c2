"""Kind `relations`: from object to object, and from object to table.

Objects are related through fields: to one of a type, or to many through a collection, an array or
the values of a map. A type has a table by `@Table` or `@Entity` with a name; else by its own name in
snake case, with or without a plural, without `Entity` at its end. A field has a column by `@Column` or
`@JoinColumn` with a name, else by its name in snake case, with or without `_id`. Each line says which;
a field that is called as its column stands alone.
"""

from __future__ import annotations

from collections.abc import Iterator

from ...text import brief, inert
from .index import names_in
from .java import Type
from .reach import Mapping, View
from .task import Piece


def pieces(view: View) -> Iterator[Piece]:
    """The relations of the types that are reached."""
    for found, distance in view.types.items():
        if found.unit.library:
            continue
        yield from _to_objects(found, distance, view)
        if found in view.mappings:
            said = _to_table(found, view.mappings[found])
            file = found.unit.file
            yield Piece("relations", said, file, found.line, distance, 0, found.simple)


def _to_objects(found: Type, distance: int, view: View) -> Iterator[Piece]:
    for member in found.members:
        if member.kind not in ("field", "component") or "static" in member.modifiers:
            continue
        for name in names_in(member.type):
            other = view.index.resolve(name, found.unit, found.name)
            if (
                isinstance(other, Type)
                and other in view.types
                and other.name not in found.variables
            ):
                many = _is_many(member.type, name)
                said = f"{found.name}.{member.name} -> {'many' if many else 'one'} {other.name}"
                said += f" (by field {brief(member.type)})" if many else " (by field)"
                file = found.unit.file
                yield Piece("relations", said, file, member.line, distance, 0, member.name)


def _is_many(written: str, name: str) -> bool:
    """Whether a field of a type as written holds many of a name."""
    if written.endswith("[]"):
        return True
    return names_in(written)[0] not in (name, "Optional") and written.endswith(">")


def _to_table(found: Type, mapping: Mapping) -> str:
    said = f"{found.name} -> table {inert(mapping.table)} ({mapping.rule})"
    columns = [
        name if name == column else f"{name} = {inert(column)}{_unless_by_name(rule)}"
        for name, (column, rule) in mapping.columns.items()
    ]
    return f"{said}: {', '.join(columns)}" if columns else said


def _unless_by_name(rule: str) -> str:
    return "" if rule == "by name" else f" ({rule})"
