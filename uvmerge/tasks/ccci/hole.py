"""Where the hole of a file is, and what is in scope there.

The parser sees a name in place of the hole, which is either an expression or, with a `;`, a
statement; whichever makes fewer errors is taken. The rest of the file may be broken.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from ...errors import InputRefused
from ...text import brief
from .java import (
    COMMENTS,
    METHODS,
    TYPES,
    Comment,
    Member,
    Type,
    Unit,
    line_of,
    method,
    parameter_nodes,
    parse,
    raw,
    read_type,
    read_unit,
    words,
)
from .lexing import opened
from .task import MARKER, Place

if TYPE_CHECKING:
    from tree_sitter import Node

STAND_IN = "hole__"
FILE_BYTES = 4 << 20
AROUND = 3
_SCOPES = ("block", "constructor_body", "switch_block_statement_group", "switch_rule")


@dataclass(frozen=True)
class Variable:
    """A name in scope.

    Attributes:
        type: as written; empty where it is not told.
        origin: `parameter`, `local` or `field`.
        owner: of a field, the type that declares it.
        value: the node that a `var` gets its type from.
    """

    name: str
    type: str
    origin: str
    line: int
    owner: Type | None = None
    value: Node | None = None


@dataclass
class Site:
    """The surroundings of a hole.

    Attributes:
        type: the innermost type around it; `method` is the method.
        variables: parameters and locals before the hole, the nearest first; no fields.
        node: what stands in for the hole, or the node around it.
        is_static: whether the method has no `this`.
        comments: those next to the hole.
    """

    unit: Unit
    line: int
    type: Type
    method: Member
    node: Node
    is_static: bool
    variables: list[Variable] = field(default_factory=list)
    comments: list[Comment] = field(default_factory=list)


def read_source(path: Path) -> str:
    """The text of a Java file.

    Raises:
        InputRefused: it cannot be read, is not UTF-8, or is empty.
    """
    try:
        if path.exists() and not path.is_file():
            raise InputRefused(brief(path), "is no file", "Name a Java source.")
        if path.stat().st_size > FILE_BYTES:
            what = f"is larger than {FILE_BYTES >> 20} MiB"
            raise InputRefused(brief(path), what, "Name a Java source.")
        text = path.read_bytes().decode("utf-8")
    except UnicodeDecodeError as error:
        what = f"is not UTF-8 (byte {error.start:,})"
        raise InputRefused(brief(path), what, "Convert it to UTF-8.") from error
    except OSError as error:
        what = f"cannot be read: {error.strerror}"
        raise InputRefused(brief(path), what, "Name a Java source.") from error
    return text


def parted(text: str, place: Place | None, name: str) -> tuple[str, str]:
    """The text before and after the hole.

    Args:
        place: where it is; None for the marker.
        name: how messages call the file.

    Raises:
        InputRefused: there is no hole, more than one, or none at that place.
    """
    if not text.strip():
        raise InputRefused(name, "is empty", "Name a Java source with a hole in it.")
    parts = text.split(MARKER)
    if len(parts) > 2 or (len(parts) == 2 and place is not None):
        at = [part.count("\n") for part in parts[:-1]]
        lines = [str(1 + sum(at[: n + 1])) for n in range(len(at))]
        if place is not None:
            do = f"Remove {MARKER}, or leave out --hole."
            raise InputRefused(name, f"holds {MARKER} in line {lines[0]} too", do)
        do = "Leave one of them, or name a place with --hole."
        raise InputRefused(name, f"holds {MARKER} in lines {', '.join(lines[:5])}", do)
    if place is None:
        if len(parts) == 1:
            do = f"Write {MARKER} where code is missing, or pass --hole LINE[:COL]."
            raise InputRefused(name, "holds no hole", do)
        return parts[0], parts[1]
    lines_of = text.split("\n")
    if not 1 <= place.line <= len(lines_of):
        what = f"has {len(lines_of):,} lines, and no line {place.line:,}"
        raise InputRefused(name, what, "Count lines from 1.")
    length = len(lines_of[place.line - 1].rstrip("\r"))
    column = length + 1 if place.column is None else place.column
    if not 1 <= column <= length + 1:
        what = f"has no column {column:,} in line {place.line:,}, which ends at {length + 1:,}"
        raise InputRefused(name, what, "Count columns from 1.")
    start = sum(len(line) + 1 for line in lines_of[: place.line - 1]) + column - 1
    return text[:start], text[start:]


def site(prefix: str, suffix: str, file: str) -> Site:
    """What is around the hole between two texts.

    Raises:
        InputRefused: the text is no Java, or the hole is outside of every method.
    """
    line = prefix.count("\n") + 1
    text, root = best_tree(prefix, suffix)
    start = len(prefix.encode())
    placed = _placed(root, start)
    if placed is None:  # the file may be so broken that the parser loses the method
        end, brackets = opened(prefix)
        text = f"{prefix}{end}{STAND_IN};{brackets}"
        root, start = parse(text).root_node, start + len(end)
        placed = _placed(root, start)
    unit = read_unit(text, file)
    if placed is None and not (unit.types or read_unit(prefix + suffix, file).types):
        do = "Name a Java source with a class in it."
        raise InputRefused(f"{file}:{line}", "is no Java that can be read: it has no type", do)
    if placed is None:
        do = "Put the hole into the body of a method."
        raise InputRefused(f"{file}:{line}", "the hole is outside of every method", do)
    node, holder, owner = placed
    around = list(_upwards(node))
    found = method(holder)
    name = words(owner.child_by_field_name("name"))
    at = line_of(owner.child_by_field_name("name") or owner)
    inner = next((t for t in unit.types if t.simple == name and t.line == at), None)
    variables = list(_variables(around[: around.index(holder)], holder, start))
    is_static = "static" in found.modifiers
    comments = list(_comments(holder, line))
    inner = inner or read_type(owner, unit)
    return Site(unit, line, inner, found, node, is_static, variables, comments)


def _placed(root: Node, start: int) -> tuple[Node, Node, Node] | None:
    """The stand-in, its method and its type; None where it is in no body of a method."""
    node = root.descendant_for_byte_range(start, start + len(STAND_IN))
    around = list(_upwards(node))
    holder = next((n for n in around if n.type in METHODS), None)
    owner = next((n for n in around if n.type in TYPES), None)
    body = holder.child_by_field_name("body") if holder is not None else None
    if node is None or holder is None or owner is None or body is None:
        return None
    return (node, holder, owner) if body.start_byte < start < body.end_byte else None


def best_tree(prefix: str, suffix: str) -> tuple[str, Node]:
    """The text with a stand-in for the hole, and its tree: the kind with fewer errors."""
    found = []
    for order, stand_in in enumerate((f"{STAND_IN};", STAND_IN)):
        text = prefix + stand_in + suffix
        root = parse(text).root_node
        found.append((sum(is_error(node) for node in _walk(root)), order, text, root))
    _, _, text, root = min(found, key=lambda each: each[:2])
    return text, root


def is_error(node: Node) -> bool:
    """Whether the parser could not read a node, or had to invent it."""
    return node.type == "ERROR" or node.is_missing


def _walk(node: Node) -> Iterator[Node]:
    """A node and what is in it, without what holds no error."""
    left = [node]
    while left:
        here = left.pop()
        yield here
        if here.has_error:
            left += here.children


def _upwards(node: Node | None) -> Iterator[Node]:
    while node is not None:
        yield node
        node = node.parent


def _variables(around: list[Node], holder: Node, start: int) -> Iterator[Variable]:
    """Locals before the hole from the innermost block on, then parameters; each name once."""
    seen = set()
    for node in [*around, holder]:
        for variable in _declared(node, start):
            if variable.name not in seen:
                seen.add(variable.name)
                yield variable


def _declared(node: Node, start: int) -> list[Variable]:
    """The variables that a node declares for what is inside of it."""
    if node.type in METHODS or node.type == "lambda_expression":
        return _parameters(node)
    if node.type == "enhanced_for_statement":
        body = node.child_by_field_name("body")
        if body is None or start < body.start_byte:
            return []
        name, value = node.child_by_field_name("name"), node.child_by_field_name("value")
        kind = words(node.child_by_field_name("type"))
        return [Variable(words(name), kind, "local", line_of(name or node), value=value)]
    if node.type == "catch_clause":
        return [
            Variable(words(child.child_by_field_name("name")), words(child.named_children[0]),
                     "local", line_of(child))
            for child in node.named_children if child.type == "catch_formal_parameter"
        ]  # fmt: skip
    held: list[Node] = list(node.named_children)
    if node.type == "try_with_resources_statement":
        held = [r for n in held if n.type == "resource_specification" for r in n.named_children]
    elif node.type not in (*_SCOPES, "for_statement", "ERROR"):
        return []
    before = [child for child in held if child.end_byte <= start]
    return [variable for child in reversed(before) for variable in _locals(child)]


def _parameters(node: Node) -> list[Variable]:
    told = node.child_by_field_name("parameters")
    if told is None:
        return []
    if told.type == "formal_parameters":
        found = parameter_nodes(told)
        return [Variable(name, kind, "parameter", line) for kind, name, line, *_ in found]
    names = [told] if told.type == "identifier" else told.named_children
    return [
        Variable(words(n), "", "parameter", line_of(n), value=node)
        for n in names if n.type == "identifier"
    ]  # fmt: skip


def _locals(node: Node) -> Iterator[Variable]:
    if node.type == "resource":
        name = node.child_by_field_name("name")
        if name is not None:
            kind = words(node.child_by_field_name("type"))
            value = node.child_by_field_name("value")
            yield Variable(words(name), kind, "local", line_of(name), value=value)
    if node.type != "local_variable_declaration":
        return
    kind = words(node.child_by_field_name("type"))
    for declarator in node.children_by_field_name("declarator"):
        name = declarator.child_by_field_name("name")
        if name is not None:
            many = words(declarator.child_by_field_name("dimensions"))
            value = declarator.child_by_field_name("value")
            yield Variable(words(name), kind + many, "local", line_of(name), value=value)


def _comments(holder: Node, line: int) -> Iterator[Comment]:
    """Comments inside of the method that stand at most a few lines from the hole."""
    left = [holder]
    found = []
    while left:
        node = left.pop()
        near = node.start_point[0] <= line + AROUND and node.end_point[0] >= line - 2 - AROUND
        if node.type in COMMENTS and near:
            found.append(Comment(raw(node), line_of(node)))
        elif near:
            left += node.children
    yield from sorted(found, key=lambda comment: comment.line)
