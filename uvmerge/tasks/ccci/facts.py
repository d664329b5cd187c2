"""What a pack says, read back from the text of its pieces, and nothing beyond it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from .index import names_in
from .java import Member, Type, read_unit
from .task import Pack, Prompt

_VARIABLE = re.compile(r"(?P<type>.+) (?P<name>\w+); // (?P<origin>\w+)")
_METHOD = re.compile(r"// method of (?P<owner>[\w.]+): (?P<signature>.*)", re.DOTALL)
_HOLE = re.compile(r"// hole: (?P<what>\w+)(?: of type (?P<type>.*?))?(?: for (?P<use>\w+))?")
_TO_OBJECT = re.compile(
    r"(?P<owner>[\w.]+)\.(?P<field>\w+) -> (?P<many>one|many) (?P<other>[\w.]+)"
)
_TO_TABLE = re.compile(
    r"(?P<owner>[\w.]+) -> table (?P<table>\S+) \(by [^)]*\)(?:: (?P<columns>.*))?"
)
_COLUMN = re.compile(r"(\w+)(?: = (\S+?))?(?: \(by @\w+\))?(?:, |$)")
_FOREIGN = re.compile(r"  foreign key \(([^,)]+)\) references (\S+) \(([^,)]+)\)")
_COMMENT = re.compile(r"(?P<name>[^\"]+): (?P<text>\".*\")", re.DOTALL)


@dataclass
class Facts:
    """The pieces of a pack as tables to look things up in.

    Attributes:
        variables: names in scope, the nearest first, with type and origin.
        owner, method: the type and the method around the hole.
        what, kind, use: of the hole: statements or an expression, its type, what it is for.
        types: by simple name; libraries: those of them that come from the class path.
        one, many: by type and field the type that the field leads to.
        tables: by type its table, and the column of each field.
        foreign: by table and column the table and column that a foreign key points to.
        comments: by `Type.member`; all others under "".
        imports, package: of the file, as the prompt shows it.
    """

    variables: list[tuple[str, str, str]] = field(default_factory=list)
    owner: str = ""
    method: Member | None = None
    what: str = ""
    kind: str = ""
    use: str = ""
    types: dict[str, list[Type]] = field(default_factory=dict)
    libraries: list[Type] = field(default_factory=list)
    one: dict[tuple[str, str], str] = field(default_factory=dict)
    many: dict[tuple[str, str], str] = field(default_factory=dict)
    tables: dict[str, tuple[str, dict[str, str]]] = field(default_factory=dict)
    foreign: dict[tuple[str, str], tuple[str, str]] = field(default_factory=dict)
    comments: dict[str, list[str]] = field(default_factory=dict)
    imports: dict[str, str] = field(default_factory=dict)
    package: str = ""

    def type(self, written: str, near: Type | None = None) -> Type | None:
        """The type that a written type means, in the file of the hole or in that of another type.

        Of several of one name that which the file imports is meant, else that of the same package.
        """
        named = names_in(written)
        name = named[0] if named else ""
        simple = name.rpartition(".")[2]
        found = [t for t in self.types.get(simple, ()) if t.qualified.endswith(name)]
        if len(found) == 1:
            return found[0]
        package = self.package if near is None else near.unit.package
        meant = f"{package}.{simple}" if near is not None else self.imports.get(simple)
        meant = meant or (f"{package}.{simple}" if package else simple)
        return next((each for each in found if each.qualified == meant), None)

    def lineage(self, start: Type) -> list[Type]:
        """A type and its parents as far as the pack shows them."""
        found = [start]
        for each in found:
            parents = (self.type(written, each) for written in each.parents)
            found += [parent for parent in parents if parent is not None and parent not in found]
        return found


def read_facts(pack: Pack, prompt: Prompt) -> Facts:
    """Read the text of each piece, and the head of the file."""
    head = read_unit(prompt.prefix, "")
    facts = Facts(imports=head.imports, package=head.package)
    readers = {
        "scope": _read_scope, "tables": _read_table, "objects": _read_type,
        "libraries": _read_library, "relations": _read_relation, "comments": _read_comment,
    }  # fmt: skip
    for piece in pack.pieces:
        readers[piece.kind](piece.text, facts)
    return facts


def _read_scope(text: str, facts: Facts) -> None:
    if found := _METHOD.fullmatch(text):
        facts.owner = found["owner"]
        unit = read_unit(f"class Holder {{ {found['signature']} {{}} }}", "")
        facts.method = unit.types[0].members[0] if unit.types[0].members else None
    elif found := _HOLE.fullmatch(text):
        facts.what, facts.kind, facts.use = found["what"], found["type"] or "", found["use"] or ""
    elif found := _VARIABLE.fullmatch(text):
        facts.variables.append((found["name"], found["type"], found["origin"]))


def _read_type(text: str, facts: Facts) -> list[Type]:
    units = read_unit(text, "").types[-1:]
    for found in units:
        found.members += [each for member in found.members for each in _accessors(member)]
        known = facts.types.setdefault(found.simple, [])
        same = [each for each in known if each.qualified == found.qualified]
        if same:
            same[0].members += found.members  # another part of a large type
        else:
            known.append(found)
    return units


def _accessors(member: Member) -> Iterator[Member]:
    """The methods that are named behind a field."""
    if member.kind == "field" and member.comment is not None:
        for name in re.findall(r"\w+", member.comment.text):
            takes, kind = (
                ((), member.type) if name[:3] != "set" else (((member.type, "it"),), "void")
            )
            yield Member("method", name, kind, member.line, takes)


def _read_library(text: str, facts: Facts) -> None:
    facts.libraries += _read_type(text, facts)


def _read_relation(text: str, facts: Facts) -> None:
    if found := _TO_TABLE.fullmatch(text):
        named = _COLUMN.findall(found["columns"] or "")
        columns = {name: column or name for name, column in named}
        facts.tables[found["owner"]] = found["table"], columns
    elif found := _TO_OBJECT.match(text):
        held = facts.many if found["many"] == "many" else facts.one
        held[found["owner"], found["field"]] = found["other"]


def _read_table(text: str, facts: Facts) -> None:
    lines = text.split("\n")
    name = lines[0].removeprefix("table ").removesuffix(" (")
    for line in lines[1:]:
        if found := _FOREIGN.fullmatch(line):
            facts.foreign[name, found[1]] = found[2], found[3]


def _read_comment(text: str, facts: Facts) -> None:
    if found := _COMMENT.fullmatch(text):
        named = re.fullmatch(r"[\w.]+\.\w+", found["name"])
        name = found["name"] if named else ""
        facts.comments.setdefault(name, []).append(json.loads(found["text"]))
