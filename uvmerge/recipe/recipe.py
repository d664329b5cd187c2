"""Recipes: an ordered list of operations as YAML, and the same thing as Python calls.

    uvmerge: 1
    base: org/base@revision        # or a folder
    finetuned: path/to/sft
    steps:
      - restore: {top: 0.2, layers: 0-9}
      - reset-layers: {frac: 0.1}

A recipe comes from strangers. It is data: no aliases, no tags, no paths to write to, no
interpolation of anything; unknown keys and values out of range are refused with their line.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from .. import operations
from ..checkpoint.header import DTYPES
from ..checkpoint.selection import Selection
from ..errors import RecipeError, UsageError
from ..operations import Operation
from ..operations.options import FILTERS, did_you_mean
from ..text import brief, inert

FORMAT_VERSION = 1
LIMIT_BYTES, LIMIT_DEPTH = 256 * 1024, 32
TEXT_KEYS = ("name", "description", "base", "finetuned", "dtype")
KEYS = ("uvmerge", *TEXT_KEYS, "steps")
LIMIT_ITEMS = 5_000
_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # the C parser is ten times as fast
_SAFE_TAGS = tuple(
    f"tag:yaml.org,2002:{t}" for t in ("map", "seq", "str", "int", "float", "bool", "null")
)


@dataclass(frozen=True)
class RecipeStep:
    """One operation with its options, on a selection of tensors."""

    operation: Operation
    options: Mapping[str, Any]
    selection: Selection

    @classmethod
    def parse(cls, name: str, settings: Mapping[str, object]) -> RecipeStep:
        """From an operation's name and its options and filters together."""
        operation = operations.get(name)
        own = {word for p in operation.parameters for word in (p.name, p.key)}
        given = {k: v for k, v in settings.items() if v is not None and v != ()}
        filters = {
            p.name: p.parse(given.pop(p.name))
            for p in FILTERS if p.name in given and p.name not in own
        }  # fmt: skip
        unknown = [key for key in given if key not in own]
        if unknown:
            known = {p.key for p in (*operation.parameters, *FILTERS)}
            raise UsageError(
                f"{operation.command}: {brief(unknown[0])}", "is not an option",
                did_you_mean(unknown[0], known),
            )  # fmt: skip
        return cls(operation, operation.parse(given), Selection(**filters))

    def as_data(self) -> dict[str, Any]:
        """What a recipe file would say, in the order in which the operation lists its options."""
        data = {
            p.key: _plain(self.options[p.name])
            for p in self.operation.parameters if p.name in self.options
        }  # fmt: skip
        for parameter in FILTERS:
            value = getattr(self.selection, parameter.name)
            if value is not None and value != ():
                data[parameter.key] = _plain(value)
        return {self.operation.command: data}


@dataclass(frozen=True)
class Recipe:
    """A surgery: two references, steps, and the dtype to store.

    Attributes:
        base, finetuned: model references, or None where the caller must give them.
        steps: applied in this order, chained per tensor.
        dtype: `float32`, `float16`, `bfloat16`, or None to keep each tensor's own.
        name, description: for people.
    """

    steps: tuple[RecipeStep, ...]
    base: str | None = None
    finetuned: str | None = None
    dtype: str | None = None
    name: str | None = None
    description: str | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        if self.dtype not in (None, *DTYPES):
            raise UsageError(
                "dtype", f"{self.dtype!r} is unknown", did_you_mean(str(self.dtype), DTYPES)
            )

    @classmethod
    def load(cls, path: str | Path) -> Recipe:
        """Read a recipe file; `RecipeError` names the line."""
        path = Path(path)
        if not path.is_file():
            what = "is a folder" if path.is_dir() else "there is no such recipe file"
            raise RecipeError(path, what, "Write `uvmerge run RECIPE OUT`.")
        with path.open("rb") as file:
            raw = file.read(LIMIT_BYTES + 1)
        if len(raw) > LIMIT_BYTES:
            raise RecipeError(path.name, f"is larger than {LIMIT_BYTES // 1024} KiB")
        return cls.parse(raw, path.name)

    @classmethod
    def parse(cls, text: str | bytes, source: str = "recipe") -> Recipe:
        """Read the text of a recipe."""
        fields = _Reader(source).mapping(_compose(text, source), KEYS)
        return _build(fields, source)

    @classmethod
    def from_data(cls, data: Mapping[str, Any]) -> Recipe:
        """From what a recipe file holds, as Python data; the inverse of `as_data`."""
        return cls.parse(yaml.safe_dump(dict(data), sort_keys=False))

    def as_data(self) -> dict[str, Any]:
        """The recipe as plain data, in the order of a recipe file."""
        data: dict[str, Any] = {"uvmerge": FORMAT_VERSION}
        for key in TEXT_KEYS:
            if getattr(self, key) is not None:
                data[key] = getattr(self, key)
        return data | {"steps": [step.as_data() for step in self.steps]}


@dataclass(frozen=True)
class _Field:
    value: yaml.Node
    line: int


class _Reader:
    """Plain values out of YAML nodes, with the line of whatever is wrong."""

    def __init__(self, source: str) -> None:
        self.source = source

    def fail(self, line: int, what: str, do: str = "") -> RecipeError:
        return RecipeError(f"{self.source}:{line}", what, do)

    def mapping(self, node: yaml.Node, known: Sequence[str] | None = None) -> dict[str, _Field]:
        line = node.start_mark.line + 1
        if not isinstance(node, yaml.MappingNode):
            raise self.fail(line, "expected keys and values here", "Write `key: value`.")
        fields: dict[str, _Field] = {}
        for key_node, value in node.value:
            key, line = str(getattr(key_node, "value", "")), key_node.start_mark.line + 1
            if not isinstance(key_node, yaml.ScalarNode):
                raise self.fail(line, "a key must be a word")
            if key in fields:
                raise self.fail(line, f"the key '{brief(key)}' stands here twice")
            if known is not None and key not in known:
                raise self.fail(line, f"unknown key '{brief(key)}'", did_you_mean(key, known))
            fields[key] = _Field(value, line)
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


def _build(fields: Mapping[str, _Field], source: str) -> Recipe:
    reader = _Reader(source)
    for key in ("uvmerge", "steps"):
        if key not in fields:
            raise reader.fail(1, f"the key {key!r} is missing", "Start with `uvmerge: 1`.")
    version = reader.value(fields["uvmerge"].value)
    if type(version) is not int or version != FORMAT_VERSION:
        raise reader.fail(
            fields["uvmerge"].line,
            f"recipe format {version!r}, this uvmerge reads {FORMAT_VERSION}",
        )
    texts: dict[str, str] = {}
    for key in TEXT_KEYS:
        if key in fields:
            value = reader.value(fields[key].value)
            if not isinstance(value, str):
                raise reader.fail(fields[key].line, f"{key} must be text, not {value!r}")
            texts[key] = value
    try:
        return Recipe(tuple(_steps(fields["steps"], reader)), **texts)
    except RecipeError:
        raise
    except UsageError as error:
        raise reader.fail(fields.get("dtype", fields["steps"]).line, error.what, error.do) from None


def _steps(steps: _Field, reader: _Reader) -> Iterator[RecipeStep]:
    if not isinstance(steps.value, yaml.SequenceNode) or not steps.value.value:
        raise reader.fail(steps.line, "steps must be a list with at least one step")
    for item in steps.value.value:
        line = item.start_mark.line + 1
        if isinstance(item, yaml.ScalarNode):
            settings, name = {}, str(item.value)
        else:
            step = reader.mapping(item)
            if len(step) != 1:
                raise reader.fail(line, "a step is one operation", "Write `- restore: {top: 0.2}`.")
            ((name, body),) = step.items()
            empty = isinstance(body.value, yaml.ScalarNode) and reader.value(body.value) is None
            settings = {} if empty else reader.mapping(body.value)
        given = {}
        for key, setting in settings.items():
            given[key] = reader.value(setting.value)
            if given[key] is None:
                raise reader.fail(setting.line, f"{brief(key)} has no value",
                    'A value with a comma needs quotes: layers: "0-9,12".')  # fmt: skip
        lines = {key: setting.line for key, setting in settings.items()}
        try:
            yield RecipeStep.parse(name, given)
        except UsageError as error:
            option = error.where.rsplit(" ", 1)[-1].removeprefix("--")
            where = lines.get(option, lines.get(option.replace("-", "_"), line))
            raise reader.fail(where, f"{error.where}: {error.what}", error.do) from None


def _compose(text: str | bytes, source: str) -> yaml.Node:
    """The node tree of one document, after a pass over its events that refuses what has no place."""
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


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
