"""Kind `objects`: classes, records, enums and interfaces of the project, without bodies.

Methods that get or set a private field stand behind it: `private long id; // getId, setId`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from .java import Member, Type
from .reach import View
from .task import Piece

_OF_OBJECT = ("equals", "hashCode", "toString")
MEMBERS = 60
"""Members that a piece shows; a type with more of them is shown in several pieces."""


def pieces(view: View) -> Iterator[Piece]:
    """The types of the project that are reached."""
    for found, distance in view.types.items():
        if not found.unit.library:
            own = found is view.typing.site.type
            yield from shown("objects", found, distance, own)


def shown(kind: str, found: Type, distance: int, own: bool = False) -> Iterator[Piece]:
    """A type as Java; private methods are left out, but of the type around the hole."""
    library = found.unit.library
    members = [m for m in found.members if own or _is_shown(m, library)]
    accessors = _accessors(members)
    hidden = {id(accessor) for each in accessors.values() for accessor in each}
    members = [member for member in members if id(member) not in hidden]
    file = found.unit.file
    for start in range(0, max(len(members), 1), MEMBERS):
        part = members[start : start + MEMBERS]
        line, quotes = (part[0].line, part[0].name) if start else (found.line, found.simple)
        more = f" // members {start + 1:,}-{start + len(part):,} of {len(members):,}"
        said = _text(found, part, accessors, more if len(members) > MEMBERS else "")
        yield Piece(kind, said, file, line, distance, 0, quotes)


def _is_shown(member: Member, library: bool) -> bool:
    """Whether other types may use a member; private fields are shown for what gets and sets them."""
    if "private" in member.modifiers:
        return member.kind == "field" and not library
    return member.kind != "method" or member.name not in _OF_OBJECT


def _accessors(members: list[Member]) -> dict[str, list[Member]]:
    """By name of a private field the methods that only get and set it, by their signatures."""
    fields = {m.name: m for m in members if m.kind == "field" and "private" in m.modifiers}
    found: dict[str, list[Member]] = {}
    for member in members:
        stem = re.fullmatch(r"(get|set|is)([A-Z]\w*)", member.name)
        if member.kind != "method" or stem is None or "static" in member.modifiers:
            continue
        name = stem[2][:1].lower() + stem[2][1:]
        kind = fields[name].type if name in fields else None
        takes = [each for each, _ in member.parameters]
        shape = ("void", [kind]) if stem[1] == "set" else (kind, [])
        if (
            kind is not None
            and (member.type, takes) == shape
            and "static" not in fields[name].modifiers
        ):
            found.setdefault(name, []).append(member)
    return found


def _text(found: Type, members: list[Member], accessors: dict[str, list[Member]], more: str) -> str:
    package = f"package {found.unit.package}; " if found.unit.package else ""
    outers = found.name.split(".")
    outer = "".join(f"class {name} {{ " for name in outers[:-1])
    annotations = "".join(f"@{name} " for name, _ in found.annotations)
    components = [m for m in members if m.kind == "component"]
    head = f"{found.kind} {outers[-1]}{found.generics}"
    if found.kind == "record":
        head += f"({', '.join(f'{m.type} {m.name}' for m in components)})"
    heritage = f" {found.heritage}" if found.heritage else ""
    lines = [f"{package}{outer}{annotations}{head}{heritage} {{{more}"]
    constants = [m.name for m in members if m.kind == "constant"]
    if found.kind == "enum":
        lines.append(f"  {', '.join(constants)};")
    for member in members:
        if member.kind in ("field", "method"):
            names = [each.name for each in accessors.get(member.name, ())]
            told = f" // {', '.join(names)}" if names and member.kind == "field" else ""
            lines.append(f"  {signature(member)};{told}")
    lines += [f"  {signature(m)} {{}}" for m in members if m.kind == "constructor"]
    return "\n".join([*lines, "}" * len(outers)])


def signature(member: Member) -> str:
    """A member as Java without its body: `static <T> List<T> of(T first)`."""
    told = [each for each in member.modifiers if each not in ("final", "abstract", "default")]
    name = member.name
    if member.kind in ("constructor", "method"):
        name += f"({', '.join(f'{kind} {each}' for kind, each in member.parameters)})"
    return " ".join(part for part in (*told, member.generics, member.type, name) if part)
