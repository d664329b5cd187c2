"""Kind `tables`: the tables of the types that are reached, with their keys."""

from __future__ import annotations

from collections.abc import Iterator

from ...text import inert
from .ddl import Column, Table
from .reach import View
from .task import Piece

COLUMNS = 60
"""Columns that a piece shows; a table with more of them is shown in several pieces."""


def pieces(view: View) -> Iterator[Piece]:
    """A table for each type that has one, and the tables that their foreign keys point to."""
    for distance, table in view.tables.values():
        for start in range(0, max(len(table.columns), 1), COLUMNS):
            part = table.columns[start : start + COLUMNS]
            place: Column | Table = part[0] if start else table
            said = _text(table, part)
            yield Piece("tables", said, place.file, place.line, distance, 0, inert(place.name))


def _text(table: Table, columns: list[Column]) -> str:
    name = inert(table.name)
    lines = [f"table {name} ("]
    names = {column.name for column in columns}
    lines += [f"  {inert(column.name)} {column.type}{_told(column, table)}" for column in columns]
    if len(table.keys) > 1:
        lines.append(f"  primary key ({', '.join(map(inert, table.keys))})")
    for key in table.foreign:
        if names & set(key.columns):
            here, there = (", ".join(map(inert, each)) for each in (key.columns, key.others))
            lines.append(f"  foreign key ({here}) references {inert(key.table)} ({there})")
    return "\n".join([*lines, ")"])


def _told(column: Column, table: Table) -> str:
    key = " primary key" if table.keys == [column.name] else ""
    return key or (" not null" if column.required or column.name in table.keys else "")
