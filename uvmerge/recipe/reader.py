"""Untrusted YAML as nodes with their lines: no tags, nothing deep or large, no aliases of our own.

This module knows nothing of operations; `recipe.py` makes a recipe of the nodes.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from ..checkpoint.bounded import is_text
from ..errors import RecipeError
from ..operations.options import did_you_mean
from ..text import brief, inert

LIMIT_DEPTH, LIMIT_ITEMS = 32, 5_000
LIMIT_MERGED_ITEMS = 20_000  # of a document that may have aliases, which are written out
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

    example = EXAMPLE  # what to do where a message does not say it

    def __init__(self, source: str) -> None:
        self.source = source

    def place(self, line: int) -> str:
        """A line as messages name it."""
        return f"{self.source}:{line}"

    def fail(self, line: int, what: str, do: str = "") -> RecipeError:
        """The error for `what` at a line, for the caller to raise."""
        return RecipeError(self.place(line), what, do or self.example)

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


def compose(text: str | bytes, source: str, merged_by: Collection[str] = ()) -> yaml.Node:
    """The root node of the one YAML document in `text`.

    A first pass over its events refuses unusual tags, anchors and aliases, and a document that is too
    deep or too large.

    Args:
        merged_by: keys of the root; with one of them and without `uvmerge`, the document may have
            anchors and aliases, and counts as deep and as large as it is when they are written out.

    Raises:
        RecipeError: with the line, where the document is refused or is not valid YAML.
    """
    reader = Reader(source)
    try:
        _refuse_unusual(text, reader, merged_by)
        node = yaml.compose(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        raise _of_yaml(error, text, reader) from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        first = str(error).splitlines()[0]
        raise reader.fail(1, f"is not valid YAML: {first}", "Save it as text in UTF-8.") from None
    if node is None:
        raise reader.fail(1, "is empty", "Start with `uvmerge: 1`.")
    return node


def _refuse_unusual(text: str | bytes, reader: Reader, merged_by: Collection[str]) -> None:
    """The pass over the events of a document."""
    size = _Size(merged_by)
    anchored, wrong = 0, ""  # the first line with an anchor or an alias; what is wrong at `line`
    for event in yaml.parse(text, Loader=_Loader):
        line = event.start_mark.line + 1 if event.start_mark else 1
        tag = getattr(event, "tag", None)
        if tag and tag not in _SAFE_TAGS:
            raise reader.fail(line, f"the tag {inert(tag)} is not allowed", OUT_IN_FULL)
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
            anchored = anchored or line
        if wrong := size.add(event):
            break
    if anchored and not size.is_merged:
        raise reader.fail(anchored, "anchors and aliases are not allowed", OUT_IN_FULL)
    if wrong:
        raise reader.fail(line, wrong)


def anchored_lines(text: str | bytes) -> frozenset[int]:
    """The lines of a document that can be parsed, counted from 1, in which an anchor stands."""
    events = yaml.parse(text, Loader=_Loader)
    named = (e for e in events if getattr(e, "anchor", None) and not isinstance(e, yaml.AliasEvent))
    return frozenset(event.start_mark.line + 1 for event in named if event.start_mark)


class _Size:
    """Items and depth of a document, each alias counted as what it stands for.

    Args:
        merged_by: see `compose`.

    Attributes:
        keys: the keys of the root.
    """

    def __init__(self, merged_by: Collection[str]) -> None:
        self.keys: set[str] = set()
        self._merged_by = merged_by
        self._open: list[tuple[str | None, int, int]] = []  # anchor, items before, depth inside
        self._items = 0
        self._children = 0  # of the root
        self._known: dict[str, tuple[int, int]] = {}  # by anchor: items, depth

    def add(self, event: yaml.Event) -> str:
        """Count one event; returns what is wrong with the document, or an empty text."""
        if isinstance(event, yaml.CollectionEndEvent):
            anchor, before, depth = self._open.pop()
            self._close(anchor, self._items - before, depth + 1)
        elif isinstance(event, yaml.CollectionStartEvent):
            self._child(None)
            self._open.append((event.anchor, self._items, 0))
            self._items += 1
        elif isinstance(event, yaml.ScalarEvent):
            self._child(event.value)
            self._items += 1
            if event.anchor:
                self._known[event.anchor] = 1, 0
        elif isinstance(event, yaml.AliasEvent):
            self._child(None)
            if event.anchor in (name for name, *_ in self._open):
                return f"*{brief(event.anchor)} stands inside of what it names"
            items, depth = self._known.get(
                event.anchor or "", (1, 0)
            )  # the parser refuses unknown ones
            self._items += items
            self._deepen(depth)
        deepest = max((i + depth for i, (*_, depth) in enumerate(self._open, 1)), default=0)
        if deepest > LIMIT_DEPTH:
            return f"nested deeper than {LIMIT_DEPTH} levels"
        most = LIMIT_MERGED_ITEMS if self.is_merged else LIMIT_ITEMS
        return f"has more than {most:,} items" if self._items > most else ""

    @property
    def is_merged(self) -> bool:
        """Whether the document, as far as it was read, may have aliases."""
        return "uvmerge" not in self.keys and not self.keys.isdisjoint(self._merged_by)

    def _child(self, text: str | None) -> None:
        """Note what stands directly in the root: its keys are every other child."""
        if len(self._open) == 1:
            if text is not None and self._children % 2 == 0:
                self.keys.add(text)
            self._children += 1

    def _close(self, anchor: str | None, items: int, depth: int) -> None:
        self._deepen(depth)
        if anchor:
            self._known[anchor] = items, depth

    def _deepen(self, depth: int) -> None:
        """Let the innermost open collection be at least as deep as something in it."""
        if self._open:
            anchor, before, inside = self._open[-1]
            self._open[-1] = anchor, before, max(inside, depth)


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
    if "another document" in what:
        return reader.fail(
            line, "a second document begins here", "Write each to a file of its own."
        )
    if mark and _has_tab_before(text, mark.line, mark.column):
        return reader.fail(line, "a tab stands where YAML wants spaces", "Indent with spaces.")
    if error.context in _OPENED and error.context_mark:
        kind, opens, closes = _OPENED[error.context]
        what = f"the {kind} that begins here with {opens} is not closed"
        more = "" if closes == "the other quote" else ", or a comma between two values"
        opened = error.context_mark.line + 1
        return reader.fail(opened, f"{what} (read to line {line})", f"Add {closes}{more}.")
    return reader.fail(line, *_PLAINLY.get(what, (what,)))


# What YAML's parser in C, and the one in Python, say of two common mistakes → plain words, and what to do.
_NO_ITEM = (
    "a key stands between the items of a list, where `- ` is expected",
    "Indent it like the keys of the item above, or begin a new item with `- `.",
)
_NO_VALUE = (
    "a key stands where a value is read",
    "See the line above: a colon may be missing there, or the indentation differs.",
)
_PLAINLY = {
    "did not find expected '-' indicator": _NO_ITEM,
    "expected <block end>, but found '?'": _NO_ITEM,
    "mapping values are not allowed in this context": _NO_VALUE,
    "mapping values are not allowed here": _NO_VALUE,
}


def _has_tab_before(text: str | bytes, line: int, column: int) -> bool:
    """Whether a tab is part of what indents a line, or stands at this column of it."""
    whole = text.decode(errors="replace") if isinstance(text, bytes) else text
    (found,) = whole.splitlines()[line : line + 1] or [""]
    indent = found[: len(found) - len(found.lstrip())]
    return "\t" in indent or found[column : column + 1] == "\t"
