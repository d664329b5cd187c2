"""Reads DDL: tables, columns, and primary and foreign keys, statement by statement.

sqlglot's tokenizer splits a file into statements, so that a `;` in a string or a comment splits
nothing; each statement is parsed by itself, in the dialect that understands it. A statement that none
understands is noted, and costs no other one.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ...errors import InputRefused, UsageError
from ...text import brief, inert
from .java import INSTALL
from .lexing import tokens

SQL_BYTES = 16 << 20
DIALECTS = ("", "mysql", "postgres", "tsql", "oracle", "sqlite")
_CHANGES = re.compile(r"\s*(CREATE|ALTER)\s+(\w+\s+)*?TABLE\b", re.IGNORECASE)
_STARTS = re.compile(r"^(?=[ \t]*(?:CREATE|ALTER)\b)", re.IGNORECASE | re.MULTILINE)


@dataclass(slots=True)
class Column:
    """A column, with the place of its name; `comment` is what the DDL says of it."""

    name: str
    type: str
    file: str
    line: int
    required: bool = False
    comment: str = ""


@dataclass(slots=True)
class ForeignKey:
    """Columns that hold the key of a row of another table.

    Attributes:
        others: the columns that they point to; empty for the other table's primary key.
    """

    columns: tuple[str, ...]
    table: str
    others: tuple[str, ...] = ()


@dataclass(slots=True)
class Table:
    """A table, and the line of its name."""

    name: str
    file: str
    line: int
    columns: list[Column] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)
    foreign: list[ForeignKey] = field(default_factory=list)


class Schema:
    """The tables of DDL files, by name in lower case.

    Attributes:
        notes: statements that were not understood, and names given twice.
    """

    def __init__(self) -> None:
        self.tables: dict[str, Table] = {}
        self.notes: list[str] = []
        self._changes: list[tuple[str, str, Sequence[Any], _Lines]] = []

    def read(self, text: str, file: str) -> None:
        """Take in the statements of a file."""
        for chunk, line in _statements(text):
            if chunk is None:
                self.notes.append(f"{file}:{line}: the SQL from here on cannot be split, left out")
                continue
            parsed = _parsed(chunk)
            if parsed is None:
                self.notes.append(
                    f"{file}:{line}: statement not understood, left out: {brief(chunk, 60)}"
                )
                continue
            self._take(parsed, chunk, file, line)

    def finish(self) -> None:
        """Change the tables that another statement changes, and complete foreign keys without columns.

        A key that names no column of the other table is of the primary key there.
        """
        for name, place, parts, lines in self._changes:
            changed = self.get(name)
            if changed is None:
                self.notes.append(f"{place}: changes {brief(name, 60)}, which is not here")
                continue
            for part in parts:
                _take_part(part, changed, lines)
        for table in self.tables.values():
            for key in table.foreign:
                other = self.get(key.table)
                if other is not None and not key.others:
                    key.others = tuple(other.keys[: len(key.columns)])

    def get(self, name: str) -> Table | None:
        """The table of a name, whatever its case."""
        return self.tables.get(name.lower())

    def _take(self, parsed: Any, chunk: str, file: str, line: int) -> None:
        from sqlglot import exp

        target = parsed.this.this if isinstance(parsed.this, exp.Schema) else parsed.this
        if not isinstance(target, exp.Table) or not target.name:
            return
        lines = _Lines(chunk, file, line)
        if isinstance(parsed, exp.Alter):
            lines.of(target.name)
            parts = parsed.args.get("actions") or ()
            self._changes.append((target.name, f"{file}:{line}", parts, lines))
        elif isinstance(parsed, exp.Create) and isinstance(parsed.this, exp.Schema):
            here = lines.of(target.name)
            first = self.get(target.name)
            if first is not None:
                self.notes.append(
                    f"{file}:{here}: table {brief(target.name, 60)} is defined twice, first in"
                    f" {first.file}:{first.line}: the first counts"
                )
                return
            table = Table(target.name, file, here)
            for part in parsed.this.expressions:
                _take_part(part, table, lines)
            self.tables[target.name.lower()] = table


def read_schema(files: Sequence[tuple[str, Path]]) -> Schema:
    """The tables of files, each with the name that a pack calls it by.

    Raises:
        InputRefused: a file cannot be read, or is not UTF-8.
        UsageError: sqlglot is missing.
    """
    schema = Schema()
    if files:
        try:
            import sqlglot  # noqa: F401
        except ImportError as error:
            raise UsageError("ccci", "needs sqlglot, which is not here", INSTALL) from error
    for label, path in sorted(files):
        schema.read(_text(path), label)
    schema.finish()
    return schema


def _text(path: Path) -> str:
    if path.exists() and not path.is_file():
        raise InputRefused(brief(path), "is no file", "Name a file of DDL.")
    try:
        data = path.read_bytes() if path.stat().st_size <= SQL_BYTES else None
    except OSError as error:
        what = f"cannot be read: {error.strerror}"
        raise InputRefused(brief(path), what, "Name a file of DDL.") from error
    if data is None:
        what = f"is larger than {SQL_BYTES >> 20} MiB"
        raise InputRefused(brief(path), what, "Name a file of DDL, without data.")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        what = f"is not UTF-8 (byte {error.start:,})"
        raise InputRefused(brief(path), what, "Convert it to UTF-8.") from error


def _statements(text: str) -> Iterator[tuple[str | None, int]]:
    """Statements with their first lines; None for one that no tokenizer can read."""
    whole = _split(text)
    if whole is not None:
        yield from ((part, 1 + text.count("\n", 0, start)) for part, start in whole)
        return
    bounds = [0, *(match.start() for match in _STARTS.finditer(text)), len(text)]
    for start, end in itertools.pairwise(bounds):
        line = 1 + text.count("\n", 0, start)
        parts = _split(text[start:end])
        if parts is None:
            yield None, line
        for part, offset in parts or ():
            yield part, 1 + text.count("\n", 0, start + offset)


def _split(text: str) -> list[tuple[str, int]] | None:
    """Statements and where they begin; None where no dialect's tokenizer reads the text."""
    import sqlglot

    for dialect in ("postgres",) if "$$" in text else DIALECTS:
        try:
            found_tokens = sqlglot.tokenize(text, read=dialect or None)
        except (sqlglot.errors.SqlglotError, RecursionError, ValueError):
            continue
        found: list[tuple[str, int]] = []
        first = None
        for token in found_tokens:
            if token.token_type.name == "SEMICOLON":
                first = None
            elif first is None:
                first = token.start
                found.append(("", first))
            if first is not None:
                found[-1] = (text[first : token.end + 1], first)
        return found
    return None


def _parsed(chunk: str) -> Any:
    """The statement; None where no dialect understands it."""
    changes = _CHANGES.match(chunk)
    if not changes:
        return _parsed_as(chunk, DIALECTS[:1], changes=False)
    return _parsed_as(chunk, DIALECTS, changes=True) or _parsed_as(
        _without_extras(chunk), DIALECTS, changes=True
    )


def _without_extras(chunk: str) -> str:
    """The statement up to the bracket that closes the list of columns; options of tables follow it."""
    depth = 0
    for token, _, end in tokens(chunk):
        depth += {"(": 1, ")": -1}.get(token, 0)
        if token == ")" and depth == 0:
            return chunk[:end]
    return chunk


def _parsed_as(chunk: str, dialects: Sequence[str], changes: bool) -> Any:
    import sqlglot
    from sqlglot import exp

    for dialect in dialects:
        with _quiet():
            try:
                parsed = sqlglot.parse_one(chunk, read=dialect or None)
            except (sqlglot.errors.SqlglotError, RecursionError, ValueError):
                continue
        understood = not isinstance(parsed, (exp.Command, exp.Condition, exp.Alias))
        if understood and (not changes or isinstance(parsed, (exp.Create, exp.Alter))):
            return parsed
    return None


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """sqlglot logs statements that it does not understand; here they become notes."""
    logger = logging.getLogger("sqlglot")
    was, logger.disabled = logger.disabled, True
    try:
        yield
    finally:
        logger.disabled = was


class _Lines:
    """Lines of the names of a statement, asked for in their order."""

    def __init__(self, statement: str, file: str, first: int) -> None:
        self.file = file
        self._statement, self._first, self._at = statement, first, 0

    def of(self, name: str) -> int:
        """The line of the next place where the name stands."""
        found = re.compile(rf"(?<!\w){re.escape(name)}(?!\w)").search(self._statement, self._at)
        self._at = found.end() if found else self._at
        return self._first + self._statement.count("\n", 0, self._at)


def _take_part(part: Any, table: Table, lines: _Lines) -> None:
    """A column or a constraint of CREATE TABLE, or an action of ALTER TABLE."""
    from sqlglot import exp

    if isinstance(part, exp.ColumnDef):
        _take_column(part, table, lines)
    elif isinstance(part, exp.PrimaryKey):
        table.keys += _names(part.expressions)
    elif isinstance(part, exp.ForeignKey):
        _take_reference(tuple(_names(part.expressions)), part.args.get("reference"), table)
    elif isinstance(part, (exp.Constraint, exp.AddConstraint)):
        for inner in part.expressions:
            _take_part(inner, table, lines)


def _take_column(part: Any, table: Table, lines: _Lines) -> None:
    from sqlglot import exp

    kind = part.args.get("kind")
    written = kind.sql() if kind is not None else ""
    column = Column(part.name, written, lines.file, lines.of(part.name))
    for constraint in part.args.get("constraints") or ():
        what = constraint.args.get("kind")
        if isinstance(what, exp.PrimaryKeyColumnConstraint):
            table.keys.append(part.name)
            column.required = True
        elif isinstance(what, exp.NotNullColumnConstraint):
            column.required = not what.args.get("allow_null")
        elif isinstance(what, exp.CommentColumnConstraint):
            column.comment = what.name
        elif isinstance(what, exp.Reference):
            _take_reference((part.name,), what, table)
    column.comment = column.comment or " ".join(" ".join(part.comments or ()).split())
    column.type = inert(column.type)
    table.columns.append(column)


def _take_reference(columns: tuple[str, ...], reference: Any, table: Table) -> None:
    from sqlglot import exp

    target = reference.this if reference is not None else None
    others = _names(target.expressions) if isinstance(target, exp.Schema) else []
    target = target.this if isinstance(target, exp.Schema) else target
    if isinstance(target, exp.Table) and target.name:
        key = ForeignKey(columns, target.name, tuple(others))
        if all((k.columns, k.table) != (columns, key.table) for k in table.foreign):
            table.foreign.append(key)


def _names(expressions: Sequence[Any]) -> list[str]:
    return [each.name for each in expressions if each.name]
