"""YAML of strangers as nodes with their lines: no aliases, no tags, nothing deep or large.

This knows nothing of operations; `recipe.py` makes a recipe of the nodes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from ..errors import RecipeError
from ..operations.options import did_you_mean
from ..text import brief, inert

LIMIT_DEPTH, LIMIT_ITEMS = 32, 5_000
_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # the C parser is ten times as fast
_SAFE_TAGS = tuple(
    f"tag:yaml.org,2002:{t}" for t in ("map", "seq", "str", "int", "float", "bool", "null")
)


@dataclass(frozen=True)
class Field:
    """The value of a key, and the line of the key."""

    value: yaml.Node
    line: int


class Reader:
    """Plain values out of YAML nodes, with the line of whatever is wrong."""

    def __init__(self, source: str) -> None:
        self.source = source

    def fail(self, line: int, what: str, do: str = "") -> RecipeError:
        return RecipeError(f"{self.source}:{line}", what, do)

    def mapping(self, node: yaml.Node, known: Sequence[str] | None = None) -> dict[str, Field]:
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

    def value(self, node: yaml.Node) -> Any:
        if isinstance(node, yaml.SequenceNode):
            return [self.value(child) for child in node.value]
        if isinstance(node, yaml.MappingNode):
            raise self.fail(node.start_mark.line + 1, "keys and values are not expected here")
        if node.tag in _SAFE_TAGS[:2] or (node.tag not in _SAFE_TAGS[:3] and len(node.value) > 100):
            raise self.fail(
                node.start_mark.line + 1, f"{brief(node.value)} is not what its tag says"
            )
        try:
            return yaml.SafeLoader("").construct_object(node)
        except (ValueError, LookupError, OverflowError, yaml.YAMLError):
            line = node.start_mark.line + 1
            raise self.fail(line, f"'{brief(node.value)}' cannot be read") from None


def compose(text: str | bytes, source: str) -> yaml.Node:
    """The nodes of one document, after a pass over its events that refuses what has no place."""
    depth = items = 0
    try:
        for event in yaml.parse(text, Loader=_Loader):
            line = event.start_mark.line + 1 if event.start_mark else 1
            tag = getattr(event, "tag", None)
            if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
                raise RecipeError(f"{source}:{line}", "anchors and aliases are not allowed")
            if tag and tag not in _SAFE_TAGS:
                raise RecipeError(f"{source}:{line}", f"the tag {inert(tag)} is not allowed")
            items += 1
            if items > LIMIT_ITEMS:
                raise RecipeError(f"{source}:{line}", f"has more than {LIMIT_ITEMS:,} items")
            depth += isinstance(event, yaml.CollectionStartEvent)
            depth -= isinstance(event, yaml.CollectionEndEvent)
            if depth > LIMIT_DEPTH:
                raise RecipeError(f"{source}:{line}", f"nested deeper than {LIMIT_DEPTH} levels")
        node = yaml.compose(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark else 1
        what = error.problem or "is not valid YAML"
        if "nesting depth" in what:  # PyYAML from 6.0.4 on has a limit of its own, and reads ahead
            what = f"nested deeper than {LIMIT_DEPTH} levels"
        raise RecipeError(f"{source}:{line}", what) from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise RecipeError(
            f"{source}:1", f"is not valid YAML: {str(error).splitlines()[0]}"
        ) from None
    if node is None:
        raise RecipeError(f"{source}:1", "is empty", "Start with `uvmerge: 1`.")
    return node
