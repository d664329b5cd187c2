"""Values in mergekit's YAML: merge keys, numbers as people write them, gradients and lists of filters."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from typing import Any

import yaml

from ..errors import RecipeError, UsageError
from ..operations.options import did_you_mean
from ..operations.varying import EVERYTHING, Rule
from ..text import brief
from . import mergekit_words as words
from .reader import Field, Reader

_MERGE = "tag:yaml.org,2002:merge"
_TRUE = ("true", "yes", "on", "t", "y", "1")
_FALSE = ("false", "no", "off", "f", "n", "0")
_KINDS = {float: "a number like 0.5", int: "a whole number", bool: "true or false"}


class MergingReader(Reader):
    """A reader of documents with merge keys (`<<`), in which own keys win.

    Args:
        anchored: lines of the document in which an anchor stands.
    """

    example = "docs/mergekit.md says what can be read."

    def __init__(self, source: str, anchored: Collection[int] = ()) -> None:
        super().__init__(source)
        self._anchored = anchored

    def holds_anchor(self, given: Field) -> bool:
        """Whether an anchor stands in the value of a field."""
        last = given.value.end_mark.line + 1
        return any(given.line <= line <= last for line in self._anchored)

    def mapping(self, node: yaml.Node, known: Any = None) -> dict[str, Field]:
        """The fields of a mapping; those that `<<` brings come last."""
        return super().mapping(self._flat(node), known)

    def known(self, node: yaml.Node, known: tuple[str, ...], place: str) -> dict[str, Field]:
        """The fields of a mapping that have a value; its keys are all known at this place."""
        fields = self.mapping(node)
        for key, found in fields.items():
            if key not in known:
                hint = words.misplaced(key, place) or did_you_mean(key, known)
                raise self.fail(found.line, f"unknown key '{brief(key)}'", hint)
        return self.without_empty(fields)

    def without_empty(self, fields: Mapping[str, Field]) -> dict[str, Field]:
        """The fields whose value is not null, which counts as if the key were not there."""
        return {key: found for key, found in fields.items() if not self._is_empty(found.value)}

    def _is_empty(self, node: yaml.Node) -> bool:
        return isinstance(node, yaml.ScalarNode) and self.value(node) is None

    def items(self, given: Field, what: str) -> list[yaml.Node]:
        """The items of a list, which must not be empty."""
        if not isinstance(given.value, yaml.SequenceNode) or not given.value.value:
            raise self.fail(given.line, f"{what} must be a list with at least one item")
        found: list[yaml.Node] = given.value.value
        return found

    def text(self, given: Field, what: str) -> str:
        """The text of a field."""
        value = self.value(given.value)
        if not isinstance(value, str) or not value:
            raise self.fail(given.line, f"{what} must be text, not '{brief(value)}'")
        return value

    def plain(self, node: yaml.Node) -> Any:
        """The content of a node as plain data, aliases and merge keys written out."""
        if isinstance(node, yaml.SequenceNode):
            return [self.plain(child) for child in node.value]
        if isinstance(node, yaml.MappingNode):
            fields = self.mapping(node)
            return {key: self.plain(found.value) for key, found in fields.items()}
        return self.value(node)

    def _flat(self, node: yaml.Node) -> yaml.Node:
        """A mapping without merge keys."""
        if not isinstance(node, yaml.MappingNode):
            return node
        own = [pair for pair in node.value if pair[0].tag != _MERGE]
        names = {str(key.value) for key, _ in own}
        for key, value in node.value:
            if key.tag != _MERGE:
                continue
            several = value.value if isinstance(value, yaml.SequenceNode) else [value]
            for each in several:
                if not isinstance(each, yaml.MappingNode):
                    line = key.start_mark.line + 1
                    raise self.fail(line, "<< stands for keys and values alone")
                added = [p for p in self._flat(each).value if str(p[0].value) not in names]
                own += added
                names |= {str(k.value) for k, _ in added}
        return yaml.MappingNode(node.tag, own, node.start_mark, node.end_mark)


def coerced(value: object, kind: type) -> Any:
    """A scalar as a parameter of this kind takes it: `"0.5"`, `1e-5` and true are numbers.

    Raises:
        ValueError: it cannot be one.
    """
    if kind is bool:
        return _as_bool(value)
    if isinstance(value, str):
        value = float(value.replace("_", "x"))  # digits in groups are Python's alone
    if not isinstance(value, (int, float)) or not math.isfinite(value):
        raise ValueError
    if kind is int:
        if value != int(value):
            raise ValueError
        return int(value)
    return float(value)


def _as_bool(value: object) -> bool:
    if isinstance(value, (bool, int, float)) and value in (0, 1):
        return bool(value)
    word = str(value).lower()
    if isinstance(value, str) and word in (*_TRUE, *_FALSE):
        return word in _TRUE
    raise ValueError


def rules_of(given: Field, kind: type, name: str, reader: MergingReader) -> tuple[Rule, ...]:
    """The rules that a setting holds: one for a scalar or a gradient, else one for each condition."""
    node = given.value
    if isinstance(node, yaml.MappingNode):
        return (_condition(node, kind, name, reader),)
    if not isinstance(node, yaml.SequenceNode):
        return (Rule((_scalar(node, kind, name, reader),), where=_where(node, reader)),)
    if not node.value:
        raise reader.fail(given.line, f"{name} has no values", "Write a number, or leave it out.")
    conditions = [isinstance(each, yaml.MappingNode) for each in node.value]
    if all(conditions):
        rules = tuple(_condition(each, kind, name, reader) for each in node.value)
        _refuse_hidden(rules, name)
        return rules
    if any(conditions):
        raise reader.fail(
            given.line, f"{name} mixes numbers and filters in one list",
            "Write `{value: …}` without a filter for the tensors that no filter fits.",
        )  # fmt: skip
    return (Rule(_gradient(node, kind, name, reader), where=_where(node, reader)),)


def _refuse_hidden(rules: tuple[Rule, ...], name: str) -> None:
    """Refuse conditions that nothing could reach, because one before them fits all that they fit."""
    for number, rule in enumerate(rules):
        for before in rules[:number]:
            if before.filter != EVERYTHING and before.filter not in rule.filter:
                continue
            fits = "every tensor: put it last" if before.filter == EVERYTHING else (
                f"all names with '{brief(rule.filter)}': put it behind this one"
            )  # fmt: skip
            what = f"{name}: nothing reaches this condition"
            raise RecipeError(rule.where, what, f"An earlier one ({before.where}) fits {fits}.")


def _condition(node: yaml.Node, kind: type, name: str, reader: MergingReader) -> Rule:
    fields = reader.known(node, words.CONDITION, "condition")
    if "value" not in fields:
        raise reader.fail(node.start_mark.line + 1, f"a condition of {name} has no value")
    value, line = fields["value"], fields["value"].line
    text = EVERYTHING
    if "filter" in fields:
        text = reader.text(fields["filter"], "filter")
    if isinstance(value.value, yaml.SequenceNode):
        if not value.value.value:
            raise reader.fail(line, f"{name} has no values", "Write a number.")
        values = _gradient(value.value, kind, name, reader)
    else:
        values = (_scalar(value.value, kind, name, reader),)
    return Rule(values, text, f"{reader.source}:{node.start_mark.line + 1}")


def _gradient(node: yaml.Node, kind: type, name: str, reader: MergingReader) -> tuple[Any, ...]:
    return tuple(_scalar(each, kind, name, reader) for each in node.value)


def _scalar(node: yaml.Node, kind: type, name: str, reader: MergingReader) -> Any:
    value = reader.value(node)
    try:
        return coerced(value, kind)
    except (ValueError, OverflowError):
        what = f"{name} is '{brief(value)}', which is not {_KINDS[kind]}"
        raise reader.fail(node.start_mark.line + 1, what, f"Write {_KINDS[kind]}.") from None


def _where(node: yaml.Node, reader: Reader) -> str:
    return f"{reader.source}:{node.start_mark.line + 1}"


def checked(rules: tuple[Rule, ...], name: str, check: Callable[[object], object]) -> None:
    """Call `check` with each value of a parameter; its refusal gets the line and the parameter's name."""
    for rule in rules:
        for value in rule.values:
            try:
                check(value)
            except UsageError as error:
                do = "Write a number in that range."
                raise RecipeError(rule.where, f"{name}: {error.what}", do) from None
