"""The type of an expression around a hole, as far as declarations tell it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .hole import Site, Variable
from .index import TypeIndex, names_in
from .java import Member, Type, Unit, words

if TYPE_CHECKING:
    from tree_sitter import Node

MOST_PARENTS = 50
_ELEMENTS = ("stream", "iterator", "get", "of", "asList", "filter", "sorted", "orElseThrow")
_CALLS = 30


@dataclass(frozen=True)
class Typed:
    """A type as written in a unit, in which its names are looked up; `within` a type of it."""

    text: str
    unit: Unit
    within: str = ""

    @property
    def element(self) -> Typed:
        """The type of what is in a collection, stream, optional or array of this type."""
        inside = re.fullmatch(r"[\w.$]+\s*<(.*)>", self.text)
        if inside is None:
            return Typed(self.text.removesuffix("[]"), self.unit, self.within)
        last = arguments(inside[1])[-1]
        return Typed(re.sub(r"^\? (extends|super) ", "", last), self.unit, self.within)


def arguments(text: str) -> list[str]:
    """The types between the commas of `A, Map<B, C>`."""
    found, depth = [""], 0
    for character in text:
        depth += {"<": 1, ">": -1}.get(character, 0)
        if character == "," and not depth:
            found.append("")
        else:
            found[-1] += character
    return [each.strip() for each in found]


class Typing:
    """Types of what is around a hole."""

    def __init__(self, index: TypeIndex, site: Site) -> None:
        self.index, self.site = index, site
        self.fields = list(self._fields())
        self._names = {each.name: each for each in [*self.fields, *reversed(site.variables)]}

    def _fields(self) -> Iterator[Variable]:
        """Fields that the method sees: of its type, of its parents, of the types around it."""
        seen = {variable.name for variable in self.site.variables}
        for owner in self.lineage(self.site.type):
            for member in owner.members:
                hidden = owner is not self.site.type and "private" in member.modifiers
                usable = not self.site.is_static or "static" in member.modifiers
                is_field = member.kind in ("field", "component", "constant")
                if is_field and usable and not hidden and member.name not in seen:
                    seen.add(member.name)
                    kind = member.type or owner.name
                    yield Variable(member.name, kind, "field", member.line, owner)

    def lineage(self, owner: Type) -> list[Type]:
        """A type and its parents as far as they are known, each once."""
        found = [owner]
        for each in found:
            if len(found) >= MOST_PARENTS:
                break
            for written in each.parents:
                named = names_in(written)
                parent = self.index.resolve(named[0], each.unit, each.name) if named else None
                if isinstance(parent, Type) and parent not in found:
                    found.append(parent)
        return found

    def type_of_variable(self, variable: Variable, left: int = _CALLS) -> Typed | None:
        """The type of a variable; that of a `var` or of a lambda's parameter from its value."""
        if variable.type and variable.type != "var":
            owner = variable.owner or self.site.type
            return Typed(variable.type, owner.unit, owner.name)
        value = variable.value
        if value is None or left <= 0:
            return None
        if value.type == "lambda_expression":
            call = value.parent.parent if value.parent is not None else None
            over = call.child_by_field_name("object") if call is not None else None
            known = self.type_of(over, left - 1) if over is not None else None
            return known.element if known is not None else None
        known = self.type_of(value, left - 1)
        is_loop = value.parent is not None and value.parent.type == "enhanced_for_statement"
        return known.element if known is not None and is_loop else known

    def type_of(self, node: Node | None, left: int = _CALLS) -> Typed | None:
        """The type of an expression; None where it is not told."""
        here = (self.site.unit, self.site.type.name)
        if node is None or left <= 0:
            return None
        if node.type == "identifier":
            known = self._names.get(words(node))
            if known is not None:
                return self.type_of_variable(known, left - 1)
            return Typed(words(node), *here) if words(node)[:1].isupper() else None
        if node.type == "this":
            return Typed(self.site.type.name, *here)
        if node.type in ("object_creation_expression", "cast_expression"):
            return Typed(words(node.child_by_field_name("type")), *here)
        if node.type == "parenthesized_expression":
            return self.type_of(node.named_children[0], left - 1)
        if node.type == "field_access":
            owner = self.known(self.type_of(node.child_by_field_name("object"), left - 1))
            name = words(node.child_by_field_name("field"))
            found = self.members(owner, name, ("field", "component"))
            return Typed(found[0][1].type, found[0][0].unit, found[0][0].name) if found else None
        if node.type == "method_invocation":
            return self._result(node, left)
        return None

    def _result(self, node: Node, left: int) -> Typed | None:
        over = node.child_by_field_name("object")
        name = words(node.child_by_field_name("name"))
        held = self.type_of(over, left - 1) if over is not None else None
        owner = self.known(held) if over is not None else self.site.type
        found = self.members(owner, name, ("method", "component"))
        if found:
            return Typed(found[0][1].type, found[0][0].unit, found[0][0].name)
        if name in _ELEMENTS and owner is None and held is not None:
            return held if name in ("stream", "filter", "sorted") else held.element
        return None

    def known(self, typed: Typed | None) -> Type | None:
        """The type of the index that a written type names."""
        named = names_in(typed.text) if typed is not None else []
        if typed is None or not named:
            return None
        found = self.index.resolve(named[0], typed.unit, typed.within)
        return found if isinstance(found, Type) else None

    def members(
        self, owner: Type | None, name: str, kinds: tuple[str, ...]
    ) -> list[tuple[Type, Member]]:
        """Members of a name, of a type and its parents, with the type that declares them."""
        return [
            (each, member)
            for each in (self.lineage(owner) if owner is not None else ())
            for member in each.members
            if member.name == name and member.kind in kinds
        ]

    def expected(self) -> tuple[str, Typed | None, str]:
        """What the hole is: `statements` or `expression`, its type, and what it is for."""
        node = self.site.node
        parent = node.parent
        if node.type != "identifier" or parent is None or parent.type == "expression_statement":
            return "statements", None, ""
        here = (self.site.unit, self.site.type.name)
        if parent.type == "return_statement":
            return "expression", Typed(self.site.method.type, *here), self.site.method.name
        if parent.type == "variable_declarator":
            name = words(parent.child_by_field_name("name"))
            declaration = parent.parent
            written = declaration.child_by_field_name("type") if declaration is not None else None
            kind = words(written)
            return "expression", Typed(kind, *here) if kind not in ("", "var") else None, name
        if parent.type == "assignment_expression":
            target = parent.child_by_field_name("left")
            name = words(target).rpartition(".")[2]
            return "expression", self.type_of(target), name
        if parent.type == "argument_list":
            return self._argument(parent, node)
        return "expression", None, ""

    def _argument(self, holder: Node, node: Node) -> tuple[str, Typed | None, str]:
        call = holder.parent
        place = [child.start_byte for child in holder.named_children].index(node.start_byte)
        count = len(holder.named_children)
        if call is None:
            return "expression", None, ""
        name = words(call.child_by_field_name("name"))
        if call.type == "object_creation_expression":
            owner = self.known(self.type_of(call))
            found = self.members(owner, owner.simple, ("constructor",)) if owner else []
            if owner is not None and owner.kind == "record" and not found:
                parts = [m for m in owner.members if m.kind == "component"]
                if place < len(parts):
                    typed = Typed(parts[place].type, owner.unit, owner.name)
                    return "expression", typed, parts[place].name
        else:
            over = call.child_by_field_name("object")
            owner = self.known(self.type_of(over)) if over is not None else self.site.type
            found = self.members(owner, name, ("method",))
        for declaring, member in found:
            if len(member.parameters) == count:
                kind, parameter = member.parameters[place]
                hint = name[3:4].lower() + name[4:] if name.startswith("set") else parameter
                return "expression", Typed(kind, declaring.unit, declaring.name), hint
        return "expression", None, name
