"""Reads Java: the types of a file and their members, however broken the file is.

tree-sitter-java gives a tree for any text, and the tree of a file with a hole in it still holds the
members around the hole. Bodies of methods are not read here.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ...errors import UsageError
from ...text import brief

if TYPE_CHECKING:
    from tree_sitter import Node, Tree

INSTALL = "Install it with: pip install 'uvmerge[ccci]'"
TYPES = {
    "class_declaration": "class",
    "record_declaration": "record",
    "enum_declaration": "enum",
    "interface_declaration": "interface",
    "annotation_type_declaration": "@interface",
}
METHODS = ("method_declaration", "constructor_declaration", "compact_constructor_declaration")
COMMENTS = ("block_comment", "line_comment")
_KEPT = ("private", "protected", "static", "final", "abstract", "default")


@dataclass(frozen=True, slots=True)
class Comment:
    """A comment as it stands in the file, and its line."""

    text: str
    line: int


@dataclass(frozen=True, slots=True)
class Member:
    """A field, record component, enum constant, constructor or method.

    Attributes:
        kind: `field`, `component`, `constant`, `constructor` or `method`.
        type: as written; empty for constants and constructors.
        parameters: types and names.
        annotations: names without `@`, and what stands in their brackets.
        generics, variables: the member's own type parameters as written, and their names.
    """

    kind: str
    name: str
    type: str
    line: int
    parameters: tuple[tuple[str, str], ...] = ()
    modifiers: tuple[str, ...] = ()
    annotations: tuple[tuple[str, str], ...] = ()
    comment: Comment | None = None
    generics: str = ""
    variables: tuple[str, ...] = ()


@dataclass(slots=True, eq=False)
class Unit:
    """A source file, or a class of a jar: its package, imports and types."""

    file: str
    package: str = ""
    imports: dict[str, str] = field(default_factory=dict)
    wildcards: list[str] = field(default_factory=list)
    types: list[Type] = field(default_factory=list)
    library: bool = False


@dataclass(slots=True, eq=False)
class Type:
    """A class, record, enum, interface or annotation.

    Attributes:
        name: with the names of the types around it: `Order.Line`.
        variables: names of its type parameters; `generics` is how they are written.
        parents: what it extends and implements, as written; `heritage` is the whole text.
    """

    name: str
    kind: str
    unit: Unit
    line: int
    generics: str = ""
    variables: tuple[str, ...] = ()
    heritage: str = ""
    parents: tuple[str, ...] = ()
    members: list[Member] = field(default_factory=list)
    annotations: tuple[tuple[str, str], ...] = ()
    comment: Comment | None = None

    @property
    def simple(self) -> str:
        """The name without the types around it."""
        return self.name.rpartition(".")[2]

    @property
    def qualified(self) -> str:
        """The name with the package."""
        return f"{self.unit.package}.{self.name}" if self.unit.package else self.name


@functools.cache
def parser() -> Any:
    """The parser; both known pairs of tree-sitter and tree-sitter-java work.

    Raises:
        UsageError: the packages are missing, or do not fit together.
    """
    try:
        import tree_sitter
        import tree_sitter_java
    except ImportError as error:
        name = (error.name or "tree_sitter").replace("_", "-")
        raise UsageError("ccci", f"needs {name}, which is not here", INSTALL) from error
    try:
        return tree_sitter.Parser(tree_sitter.Language(tree_sitter_java.language()))
    except (TypeError, ValueError) as error:
        what = f"tree-sitter and tree-sitter-java do not fit together: {brief(error)}"
        raise UsageError("ccci", what, INSTALL) from error


def parse(text: str) -> Tree:
    """The syntax tree of a file; positions are in bytes of UTF-8."""
    return parser().parse(text.encode())


def words(node: Node | None) -> str:
    """The text of a node, white space made one space each."""
    return " ".join(raw(node).split())


def raw(node: Node | None) -> str:
    """The text of a node as it stands."""
    return "" if node is None or node.text is None else node.text.decode()


def line_of(node: Node) -> int:
    """The line that a node begins on, from 1."""
    return node.start_point[0] + 1


def read_unit(text: str, file: str, library: bool = False) -> Unit:
    """The types of a source file."""
    unit = Unit(file, library=library)
    root = parse(text).root_node
    for node in root.named_children:
        if node.type == "package_declaration":
            names = [n for n in node.named_children if "identifier" in n.type]
            unit.package = words(names[-1]).replace(" ", "") if names else ""
        elif node.type == "import_declaration":
            _read_import(node, unit)
    for node in _declarations(root):
        read_type(node, unit, "")
    return unit


def _declarations(node: Node) -> Iterator[Node]:
    """Types directly in a node, and in what the parser could not place."""
    for child in node.named_children:
        if child.type in TYPES:
            yield child
        elif child.type == "ERROR":
            yield from (each for each in child.named_children if each.type in TYPES)


def _read_import(node: Node, unit: Unit) -> None:
    kinds = {child.type for child in node.children}
    name = next((words(n).replace(" ", "") for n in node.named_children), "")
    if "static" in kinds:
        name = name if "asterisk" in kinds else name.rpartition(".")[0]
        unit.imports.setdefault(name.rpartition(".")[2], name)
    elif "asterisk" in kinds:
        unit.wildcards.append(name)
    else:
        unit.imports[name.rpartition(".")[2]] = name


def read_type(node: Node, unit: Unit, outer: str = "") -> Type:
    """Take a declaration of a type, and those in it, into a unit; returns the outermost."""
    name = words(node.child_by_field_name("name"))
    generics = node.child_by_field_name("type_parameters")
    heritage, parents = _heritage(node)
    _, annotations = modifiers(node)
    found = Type(
        f"{outer}.{name}" if outer else name, TYPES[node.type], unit,
        line_of(node.child_by_field_name("name") or node), words(generics), _variables(generics),
        heritage, parents, annotations=annotations, comment=comment_above(node),
    )  # fmt: skip
    unit.types.append(found)
    if found.kind == "record":
        parameters = node.child_by_field_name("parameters")
        found.members += _components(parameters)
    body = node.child_by_field_name("body")
    if body is not None:
        _read_body(body, found)
    return found


def _read_body(body: Node, owner: Type) -> None:
    for child in body.named_children:
        if child.type in ("enum_body_declarations", "ERROR"):
            _read_body(child, owner)
        elif child.type == "enum_constant":
            name = child.child_by_field_name("name")
            _, annotations = modifiers(child)
            owner.members.append(
                Member("constant", words(name), "", line_of(name or child),
                       annotations=annotations, comment=comment_above(child))
            )  # fmt: skip
        elif child.type in ("field_declaration", "constant_declaration"):
            owner.members += _fields(child, owner.kind)
        elif child.type in METHODS[:2]:
            owner.members.append(method(child))
        elif child.type in TYPES:
            read_type(child, owner.unit, owner.name)


def _heritage(node: Node) -> tuple[str, tuple[str, ...]]:
    kinds = ("superclass", "super_interfaces", "extends_interfaces")
    found = [child for child in node.named_children if child.type in kinds]
    parents: list[str] = []
    for clause in found:
        lists = [n for n in clause.named_children if n.type in ("type_list", "interface_type_list")]
        for holder in lists or [clause]:
            parents += [words(n) for n in holder.named_children if n.type not in COMMENTS]
    return " ".join(words(child) for child in found), tuple(parents)


def _variables(generics: Node | None) -> tuple[str, ...]:
    if generics is None:
        return ()
    found = [n for n in generics.named_children if n.type == "type_parameter"]
    return tuple(re.sub(r"@\w+ ?", "", words(n)).split(" ")[0] for n in found)


def _components(parameters: Node | None) -> list[Member]:
    return [
        Member("component", name, kind, line, annotations=annotations, comment=comment)
        for kind, name, line, annotations, comment in parameter_nodes(parameters)
    ]


def parameter_nodes(parameters: Node | None) -> Iterator[Any]:
    """Of each formal parameter its type, name, line, annotations and comment."""
    for node in parameters.named_children if parameters is not None else ():
        if node.type not in ("formal_parameter", "spread_parameter"):
            continue
        name, kind = node.child_by_field_name("name"), node.child_by_field_name("type")
        text, many = words(kind), words(node.child_by_field_name("dimensions"))
        if node.type == "spread_parameter":
            rest = [n for n in node.named_children if n.type != "modifiers"]
            declarator = next((n for n in rest if n.type == "variable_declarator"), None)
            name = declarator.child_by_field_name("name") if declarator is not None else None
            text, many = words(rest[0]) if rest else "", "..."
        if name is not None:
            _, annotations = modifiers(node)
            yield text + many, words(name), line_of(name), annotations, comment_above(node)


def parameters_of(node: Node) -> tuple[tuple[str, str], ...]:
    """Types and names of what a method takes."""
    found = parameter_nodes(node.child_by_field_name("parameters"))
    return tuple((kind, name) for kind, name, *_ in found)


def _fields(node: Node, owner: str) -> Iterator[Member]:
    told, annotations = modifiers(node)
    if owner in ("interface", "@interface"):
        told = tuple(dict.fromkeys(("static", "final", *told)))
    kind = words(node.child_by_field_name("type"))
    for child in node.children_by_field_name("declarator"):
        name = child.child_by_field_name("name")
        if name is not None:
            many = words(child.child_by_field_name("dimensions"))
            yield Member(
                "field", words(name), kind + many, line_of(name), (), told, annotations,
                comment_above(node),
            )  # fmt: skip


def method(node: Node) -> Member:
    """The signature of a method or constructor."""
    told, annotations = modifiers(node)
    is_method = node.type == "method_declaration"
    name = node.child_by_field_name("name")
    kind = words(node.child_by_field_name("type")) if is_method else ""
    generics = node.child_by_field_name("type_parameters")
    return Member(
        "method" if is_method else "constructor", words(name), kind, line_of(name or node),
        parameters_of(node), told, annotations, comment_above(node),
        words(generics), _variables(generics),
    )  # fmt: skip


def modifiers(node: Node) -> tuple[tuple[str, ...], tuple[tuple[str, str], ...]]:
    """Modifiers of a declaration that matter to its users, and its annotations."""
    holder = next((child for child in node.children if child.type == "modifiers"), None)
    told, annotations = [], []
    for child in holder.children if holder is not None else ():
        if child.type in ("annotation", "marker_annotation"):
            arguments = words(child.child_by_field_name("arguments"))
            name = words(child.child_by_field_name("name")).rpartition(".")[2]
            annotations.append((name, arguments[1:-1]))
        elif child.type in _KEPT:
            told.append(child.type)
    return tuple(told), tuple(annotations)


def comment_above(node: Node) -> Comment | None:
    """The comment directly above a declaration, or behind it on its line."""
    before, after = node.prev_sibling, node.next_sibling
    if after is not None and after.type in (",", ";"):
        after = after.next_sibling
    if after is not None and after.type in COMMENTS and after.start_point[0] == node.end_point[0]:
        return Comment(raw(after), line_of(after))
    if before is None or before.type not in COMMENTS:
        return None
    behind = before.prev_sibling  # the comment may be of what stands before it on its line
    if behind is not None and behind.end_point[0] == before.start_point[0]:
        return None
    lines, first = [raw(before)], before
    while before.type == "line_comment" and (upper := first.prev_sibling) is not None:
        if upper.type != "line_comment" or upper.start_point[0] != first.start_point[0] - 1:
            break
        lines, first = [raw(upper), *lines], upper
    return Comment("\n".join(lines), line_of(first))
