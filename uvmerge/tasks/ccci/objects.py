"""Kind `objects`: classes, records, enums and interfaces of the project, without bodies."""

from __future__ import annotations

from collections.abc import Iterator

from .java import Member, Type
from .reach import View
from .task import Piece

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
    members = [m for m in found.members if own or m.kind == "field" or "private" not in m.modifiers]
    file = found.unit.file
    for start in range(0, max(len(members), 1), MEMBERS):
        part = members[start : start + MEMBERS]
        line, quotes = (part[0].line, part[0].name) if start else (found.line, found.simple)
        end = start + len(part)
        more = f" // members {start + 1:,}-{end:,} of {len(members):,}"
        said = _text(found, part, more if len(members) > MEMBERS else "")
        yield Piece(kind, said, file, line, distance, 0, quotes)


def _text(found: Type, members: list[Member], more: str) -> str:
    package = f"package {found.unit.package}; " if found.unit.package else ""
    names = found.name.split(".")
    outer = "".join(f"class {name} {{ " for name in names[:-1])
    annotations = "".join(f"@{name} " for name, _ in found.annotations)
    components = [m for m in members if m.kind == "component"]
    head = f"{found.kind} {names[-1]}{found.generics}"
    if found.kind == "record":
        head += f"({', '.join(f'{m.type} {m.name}' for m in components)})"
    heritage = f" {found.heritage}" if found.heritage else ""
    lines = [f"{package}{outer}{annotations}{head}{heritage} {{{more}"]
    constants = [m.name for m in members if m.kind == "constant"]
    if found.kind == "enum":
        lines.append(f"  {', '.join(constants)};")
    lines += [f"  {signature(m)};" for m in members if m.kind in ("field", "method")]
    lines += [f"  {signature(m)} {{}}" for m in members if m.kind == "constructor"]
    return "\n".join([*lines, "}" * len(names)])


def signature(member: Member) -> str:
    """A member as Java without its body: `static <T> List<T> of(T first)`."""
    told = [each for each in member.modifiers if each not in ("final", "abstract", "default")]
    variables = [f"<{', '.join(member.variables)}>"] if member.variables else []
    name = member.name
    if member.kind in ("constructor", "method"):
        name += f"({', '.join(f'{kind} {each}' for kind, each in member.parameters)})"
    return " ".join([*told, *variables, *([member.type] if member.type else []), name])
