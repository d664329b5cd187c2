"""Expressions for a property, from what a pack says: the second half of the completer `rules`."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from .facts import Facts
from .index import names_in
from .java import Member, Type
from .typing import arguments

_WIDER = ("byte", "short", "int", "long", "float", "double")
_BOXES = {
    "Byte": "byte", "Short": "short", "Integer": "int", "Long": "long", "Float": "float",
    "Double": "double", "Boolean": "boolean", "Character": "char",
}  # fmt: skip
_OBJECT = ("hashCode", "toString", "clone", "getClass")
_PARSED = {
    "LocalDate": "java.time.LocalDate.parse({})", "LocalDateTime": "java.time.LocalDateTime.parse({})",
    "Instant": "java.time.Instant.parse({})", "BigDecimal": "new java.math.BigDecimal({})",
    "UUID": "java.util.UUID.fromString({})", "int": "Integer.parseInt({})",
    "long": "Long.parseLong({})", "double": "Double.parseDouble({})",
}  # fmt: skip
_ALWAYS = re.compile(r"\balways (?:is )?(?:\{@code ([^}]+)\}|\"([^\"]+)\")")
_NAMED = re.compile(r"\{@code (\w+)\} is always (?:\{@code ([^}]+)\}|\"([^\"]+)\")")
_ELSE = re.compile(
    r"(?:\{@code ([^}]+)\}|\"([^\"]+)\") (?:where|when|if|for|without)\b.*"
    r"\b(?:no|none|not|nothing|null|missing|absent|unknown|without|empty)\b",
    re.IGNORECASE,
)
_DEPTH = 4


@dataclass(frozen=True)
class Source:
    """An expression in Java.

    Attributes:
        kind: its type as written.
        guards: expressions that must not be null for this one to be evaluated.
    """

    code: str
    kind: str
    guards: tuple[str, ...] = ()


def primitive(kind: str) -> str:
    """The primitive type of a primitive or its box; empty for any other."""
    kind = _BOXES.get(kind, kind)
    return kind if kind in _WIDER or kind in ("boolean", "char") else ""


def readable(found: Type, facts: Facts) -> dict[str, tuple[str, str]]:
    """Properties that can be read: type, and how they are read."""
    properties: dict[str, tuple[str, str]] = {}
    for member in (m for each in facts.lineage(found) for m in each.members):
        name = member.name
        if member.kind == "component":
            properties.setdefault(name, (member.type, f"{name}()"))
        elif member.kind == "field" and not {"private", "static"} & set(member.modifiers):
            properties.setdefault(name, (member.type, name))
        elif member.kind == "method" and not member.parameters and member.type != "void":
            stem = re.fullmatch(r"(?:get|is)([A-Z]\w*)", name)
            if stem is not None and "static" not in member.modifiers:
                properties[lower(stem[1])] = member.type, f"{name}()"
    return properties


def writable(found: Type, facts: Facts) -> dict[str, tuple[str, str]]:
    """Properties that can be set: type, and how they are set, with `{}` for the value."""
    properties: dict[str, tuple[str, str]] = {}
    for member in (m for each in facts.lineage(found) for m in each.members):
        if (
            member.kind == "method"
            and len(member.parameters) == 1
            and "static" not in member.modifiers
        ):
            stem = re.fullmatch(r"set([A-Z]\w*)", member.name)
            if stem is not None:
                how = f"{member.name}({{}})"
                properties.setdefault(lower(stem[1]), (member.parameters[0][0], how))
    return properties


def lower(name: str) -> str:
    """`name` of `Name`."""
    return name[:1].lower() + name[1:]


class Values:
    """Writes expressions from what a pack says."""

    def __init__(self, facts: Facts) -> None:
        self.facts = facts

    def named(self, found: Type) -> str:
        """How code at the hole calls a type."""
        head = found.name.partition(".")[0]
        prefix = f"{found.unit.package}." if found.unit.package else ""
        own = found.unit.package == self.facts.package and head not in self.facts.imports
        return (
            found.name
            if own or self.facts.imports.get(head) == prefix + head
            else prefix + found.name
        )

    def value(self, name: str, kind: str, owner: str, sources: Sequence[Source]) -> str | None:
        """The expression for a property of a type; None where the pack does not tell it."""
        fixed = self._constant(name, kind, owner)
        if fixed is not None:
            return fixed
        for source in sources:
            for found in self._paths(name, source, _DEPTH):
                code = self.convert(found.code, found.kind, kind)
                if code is not None:
                    return self._guarded(found, code, kind, self._default(name, kind, owner))
        return None

    def _guarded(self, found: Source, code: str, kind: str, default: str | None) -> str:
        guards = list(found.guards)
        if code != found.code or default is not None:
            guards += [] if found.kind in (*_WIDER, "boolean", "char") else [found.code]
        if not guards or (kind == primitive(kind) and default is None):
            return code
        nothing = " || ".join(f"{guard} == null" for guard in dict.fromkeys(guards))
        return f"{nothing} ? {default or 'null'} : {code}"

    def _constant(self, name: str, kind: str, owner: str) -> str | None:
        """The literal that a comment says a property always has."""
        for text in self.facts.comments.get(f"{owner}.{name}", ()):
            if found := _ALWAYS.search(text):
                return self._literal(found[1] or found[2], kind)
        for text in self.facts.comments.get("", ()):
            for found in _NAMED.finditer(text):
                if found[1] == name:
                    return self._literal(found[2] or found[3], kind)
        return None

    def _default(self, name: str, kind: str, owner: str) -> str | None:
        """The literal that a comment says a property has where its source is null."""
        for text in self.facts.comments.get(f"{owner}.{name}", ()):
            if found := _ELSE.search(text):
                return self._literal(found[1] or found[2], kind)
        return None

    def _literal(self, text: str, kind: str) -> str | None:
        number = re.fullmatch(r"-?\d[\d_]*(\.\d+)?", text)
        if kind == "String":
            return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
        if kind == "boolean" or kind == "Boolean":
            return text if text in ("true", "false") else None
        if primitive(kind) in _WIDER:
            suffix = "L" if primitive(kind) == "long" else ""
            return f"{text}{suffix}" if number else None
        if kind == "BigDecimal" and number:
            return f'new java.math.BigDecimal("{text}")'
        found = self.facts.type(kind)
        constants = [m.name for m in found.members if m.kind == "constant"] if found else []
        return f"{self.named(found)}.{text}" if found and text in constants else None

    def _paths(self, name: str, source: Source, left: int) -> Iterator[Source]:
        """Ways from a source to a property of a name, the direct one first."""
        found = self.facts.type(source.kind)
        if found is None or left <= 0:
            return
        properties = readable(found, self.facts)
        if name in properties:
            kind, read = properties[name]
            yield Source(f"{source.code}.{read}", kind, source.guards)
        for stem in sorted(properties, key=len, reverse=True):
            word = re.sub(r"(?<=\w)Id$", "", stem)  # of a key
            rest = name[len(word) :]
            if name.startswith(word) and rest[:1].isupper() and stem != name:
                for step in self._steps(found, stem, source, properties[stem]):
                    yield from self._paths(lower(rest), step, left - 1)
        if name not in properties:
            yield from self._only(found, name, source, properties)

    def _steps(
        self, found: Type, stem: str, source: Source, read: tuple[str, str]
    ) -> Iterator[Source]:
        """The object that a property holds, or whose key it holds."""
        code = f"{source.code}.{read[1]}"
        other = self.facts.one.get((found.name, stem))
        if other is not None and names_in(read[0])[:1] == [other]:
            yield Source(code, other, (*source.guards, code))
        table, columns = self.facts.tables.get(found.name, ("", {}))
        target = self.facts.foreign.get((table, columns.get(stem, "")))
        for name, (mapped, held) in self.facts.tables.items():
            if target is not None and mapped == target[0] and target[1] in held.values():
                guards = source.guards if primitive(read[0]) == read[0] else (*source.guards, code)
                for looked in self._looked_up(code, read[0], name):
                    yield Source(looked, name, guards)

    def _looked_up(self, key: str, kind: str, wanted: str) -> Iterator[str]:
        """Calls on a variable in scope that give the object of a type for its key."""
        for name, held, _ in self.facts.variables:
            inside = re.fullmatch(r"(?:\w*Map)<(.*)>", held)
            parts = arguments(inside[1]) if inside else []
            if parts[1:] == [wanted]:
                is_long = parts[0] == "Long" and kind in ("int", "Integer")
                yield f"{name}.get({'(long) ' if is_long else ''}{key})"
            found = self.facts.type(held)
            for member in found.members if found is not None else ():
                takes = [self.convert(key, kind, each) for each, _ in member.parameters]
                if member.kind == "method" and len(takes) == 1 and takes[0] is not None:
                    call = f"{name}.{member.name}({takes[0]})"
                    if member.type == wanted:
                        yield call
                    elif member.type == f"Optional<{wanted}>":
                        yield f"{call}.orElse(null)"

    def _only(
        self, found: Type, name: str, source: Source, properties: dict[str, tuple[str, str]]
    ) -> Iterator[Source]:
        """The property of the only related object that has one of this name."""
        ways = []
        for stem, (_, read) in properties.items():
            other = self.facts.type(self.facts.one.get((found.name, stem), ""), found)
            held = readable(other, self.facts) if other is not None else {}
            if name in held:
                code = f"{source.code}.{read}"
                kind, inner = held[name]
                ways.append(Source(f"{code}.{inner}", kind, (*source.guards, code)))
        if len(ways) == 1:
            yield ways[0]

    def convert(self, code: str, kind: str, to: str) -> str | None:
        """The expression as another type; None where no rule and no signature converts it."""
        if kind == to or to == "Object":
            return code
        if primitive(kind) and primitive(to):
            return self._as_number(code, kind, to)
        return next(self._converted(code, kind, to), None) or self._by_jdk(code, kind, to)

    def _as_number(self, code: str, kind: str, to: str) -> str | None:
        have, want = primitive(kind), primitive(to)
        if have == want:
            return code
        if have not in _WIDER or want not in _WIDER:
            return None
        if _WIDER.index(have) < _WIDER.index(want):
            return code if to == want else f"({want}) {code}"
        return f"Math.toIntExact({code})" if (have, want) == ("long", "int") else None

    def _converted(self, code: str, kind: str, to: str) -> Iterator[str]:
        """Calls of methods that the pack shows: static ones, own ones, constructors, of the value."""
        own = self.facts.type(self.facts.owner) if self.facts.owner else None
        for each in [*([own] if own else []), *self.facts.libraries]:
            for member in each.members:
                prefix = "" if each is own else f"{self.named(each)}."
                if member.kind == "method" and (each is own or "static" in member.modifiers):
                    taken = self._call(member, code, kind, to)
                    if taken is not None and member.name != self._around():
                        yield f"{prefix}{member.name}({taken})"
        held = self.facts.type(kind)
        for member in held.members if held is not None and held in self.facts.libraries else ():
            plain = (
                member.kind == "method"
                and not member.parameters
                and "static" not in member.modifiers
            )
            if plain and member.type == to and member.name not in _OBJECT:
                yield f"{code}.{member.name}()"

    def _around(self) -> str:
        return self.facts.method.name if self.facts.method is not None else ""

    def _call(self, member: Member, code: str, kind: str, to: str) -> str | None:
        """The arguments of a call that makes one type of another; None where it does not."""
        takes = [each for each, _ in member.parameters]
        if len(takes) == 1 and member.type == to:
            same = takes[0] == kind or (
                primitive(takes[0]) and primitive(kind) and self._as_number(code, kind, takes[0])
            )
            return code if same else None
        variables = set(member.variables)
        if (
            len(takes) == 2
            and member.type in variables
            and takes == [f"Class<{member.type}>", kind]
        ):
            found = self.facts.type(to)
            if found is not None and self._bounded(member, found):
                return f"{self.named(found)}.class, {code}"
        return None

    def _bounded(self, member: Member, found: Type) -> bool:
        """Whether a type is within the bounds of a method's type parameter."""
        bounds = set(names_in(member.generics.strip("<>"))) - {*member.variables}
        held = {name for written in found.parents for name in names_in(written)}
        return bounds <= held | ({"Enum"} if found.kind == "enum" else set())

    def _by_jdk(self, code: str, kind: str, to: str) -> str | None:
        held, wanted = self.facts.type(kind), self.facts.type(to)
        if to == "String" and held is not None and held.kind == "enum":
            return f"{code}.name()"
        if to == "String" and (primitive(kind) or kind in _PARSED):
            return f"String.valueOf({code})"
        if kind == "String" and wanted is not None and wanted.kind == "enum":
            return f"{self.named(wanted)}.valueOf({code})"
        if kind == "String" and (to in _PARSED or primitive(to) in _PARSED):
            return _PARSED[to if to in _PARSED else primitive(to)].format(code)
        return None
