"""Untrusted YAML as nodes with their lines: no aliases, no tags, nothing deep or large.

This module knows nothing of operations; `recipe.py` makes a recipe of the nodes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from ..checkpoint.bounded import is_text
from ..errors import RecipeError
from ..operations.options import did_you_mean
from ..text import brief, inert

LIMIT_DEPTH, LIMIT_ITEMS = 32, 5_000
OUT_IN_FULL = "Write every value out, plainly."
EXAMPLE = "README, Recipes, shows one that can be read."
_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # the C parser is ten times as fast
_SAFE_TAGS = tuple(
    f"tag:yaml.org,2002:{t}" for t in ("map", "seq", "str", "int", "float", "bool", "null")
)


@dataclass(frozen=True)
class Field:
    """The value of a key in a mapping, and the line of the key, counted from 1."""

    value: yaml.Node
    line: int


class Reader:
    """Turns YAML nodes into plain values, and names the line of whatever is wrong.

    Args:
        source: name of the file or text, for messages.
    """

    def __init__(self, source: str) -> None:
        self.source = source

    def fail(self, line: int, what: str, do: str = "") -> RecipeError:
        """The error for `what` at a line, for the caller to raise."""
        return RecipeError(f"{self.source}:{line}", what, do or EXAMPLE)

    def mapping(self, node: yaml.Node, known: Sequence[str] | None = None) -> dict[str, Field]:
        """The fields of a mapping by key; every key must be among `known`, if that is given."""
        line = node.start_mark.line + 1
        if not isinstance(node, yaml.MappingNode):
            raise self.fail(line, "expected keys and values here", "Write `key: value`.")
        fields: dict[str, Field] = {}
        for key_node, value in node.value:
            key, line = str(getattr(key_node, "value", "")), key_node.start_mark.line + 1
            if not isinstance(key_node, yaml.ScalarNode):
                raise self.fail(line, "a key must be a word")
            if key in fields:
                raise self.fail(line, f"the key '{brief(key)}' stands here twice")
            if known is not None and key not in known:
                raise self.fail(line, f"unknown key '{brief(key)}'", did_you_mean(key, known))
            fields[key] = Field(value, line)
        return fields

    def data(self, node: yaml.Node) -> Any:
        """The scalar, list or mapping that a node holds, to any depth."""
        if isinstance(node, yaml.SequenceNode):
            return [self.data(child) for child in node.value]
        if isinstance(node, yaml.MappingNode):
            return {key: self.data(field.value) for key, field in self.mapping(node).items()}
        return self.value(node)

    def value(self, node: yaml.Node) -> Any:
        """The scalar or list that a node holds."""
        if isinstance(node, yaml.SequenceNode):
            return [self.value(child) for child in node.value]
        if isinstance(node, yaml.MappingNode):
            raise self.fail(node.start_mark.line + 1, "keys and values are not expected here")
        if node.tag in _SAFE_TAGS[:2] or (node.tag not in _SAFE_TAGS[:3] and len(node.value) > 100):
            raise self.fail(
                node.start_mark.line + 1, f"{brief(node.value)} is not what its tag says"
            )
        line = node.start_mark.line + 1
        if not is_text(node.value):
            raise self.fail(line, f"'{brief(node.value)}' is not valid text", "Write it in UTF-8.")
        try:
            return yaml.SafeLoader("").construct_object(node)
        except (ValueError, LookupError, OverflowError, yaml.YAMLError):
            raise self.fail(line, f"'{brief(node.value)}' cannot be read") from None


def compose(text: str | bytes, source: str) -> yaml.Node:
    """The root node of the one YAML document in `text`.

    A first pass over its events refuses anchors, aliases, unusual tags, and a document that is too
    deep or too large.

    Raises:
        RecipeError: with the line, where the document is refused or is not valid YAML.
    """
    depth = items = 0
    reader = Reader(source)
    try:
        for event in yaml.parse(text, Loader=_Loader):
            line = event.start_mark.line + 1 if event.start_mark else 1
            tag = getattr(event, "tag", None)
            if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
                raise reader.fail(line, "anchors and aliases are not allowed", OUT_IN_FULL)
            if tag and tag not in _SAFE_TAGS:
                raise reader.fail(line, f"the tag {inert(tag)} is not allowed", OUT_IN_FULL)
            items += 1
            if items > LIMIT_ITEMS:
                raise reader.fail(line, f"has more than {LIMIT_ITEMS:,} items")
            depth += isinstance(event, yaml.CollectionStartEvent)
            depth -= isinstance(event, yaml.CollectionEndEvent)
            if depth > LIMIT_DEPTH:
                raise reader.fail(line, f"nested deeper than {LIMIT_DEPTH} levels")
        node = yaml.compose(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        raise _of_yaml(error, text, reader) from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        first = str(error).splitlines()[0]
        raise reader.fail(1, f"is not valid YAML: {first}", "Save it as text in UTF-8.") from None
    if node is None:
        raise reader.fail(1, "is empty", "Start with `uvmerge: 1`.")
    return node


# What YAML was reading → what it is called, and what closes it.
_OPENED = {
    "while parsing a flow sequence": ("list", "[", "]"),
    "while parsing a flow mapping": ("list of keys", "{", "}"),
    "while scanning a quoted scalar": ("text in quotes", "a quote", "the other quote"),
}


def _of_yaml(error: yaml.MarkedYAMLError, text: str | bytes, reader: Reader) -> RecipeError:
    """The error of YAML in plain words, at the line where the mistake was made."""
    mark = error.problem_mark or error.context_mark
    line = mark.line + 1 if mark else 1
    what = error.problem or "is not valid YAML"
    # PyYAML from 6.0.4 on has a depth limit of its own, which it may reach first.
    if "nesting depth" in what:
        return reader.fail(line, f"nested deeper than {LIMIT_DEPTH} levels")
    if mark and _has_tab_before(text, mark.line, mark.column):
        return reader.fail(line, "a tab stands where YAML wants spaces", "Indent with spaces.")
    if error.context in _OPENED and error.context_mark:
        kind, opens, closes = _OPENED[error.context]
        what = f"the {kind} that begins here with {opens} is not closed"
        more = "" if closes == "the other quote" else ", or a comma between two values"
        opened = error.context_mark.line + 1
        return reader.fail(opened, f"{what} (read to line {line})", f"Add {closes}{more}.")
    return reader.fail(line, what)


def _has_tab_before(text: str | bytes, line: int, column: int) -> bool:
    """Whether a tab is part of what indents a line, or stands at this column of it."""
    whole = text.decode(errors="replace") if isinstance(text, bytes) else text
    (found,) = whole.splitlines()[line : line + 1] or [""]
    indent = found[: len(found) - len(found.lstrip())]
    return "\t" in indent or found[column : column + 1] == "\t"
