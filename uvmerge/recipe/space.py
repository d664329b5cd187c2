"""A space of settings: a recipe in which a value may be a range or a choice.

    uvmerge: 1
    steps:
      - project: {top: {from: 0.1, to: 0.9}, side: {any: [two, left, right]}}
      - interpolate: {scale: {from: 0, to: 1.2}, layers: 0-1}
      - interpolate: {scale: {from: 0, to: 1.2}, layers: 2-3}

A range has both ends, and may have a `step` or be `log: true`. One step with filters for each layer
or module makes the settings of each of them free. Everything else is as in a recipe, and refused with
the same messages and lines.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml

from .. import operations
from ..errors import UsageError
from ..operations.options import FILTERS, Parameter
from ..text import brief
from .file import as_text, read_recipe
from .reader import Field, Reader, compose
from .recipe import Recipe
from .step import step_of_fields

RANGE, CHOICE = ("from", "to", "step", "log"), ("any",)
DIGITS = 4  # significant ones of a number that is drawn from a range
_HOW = "Write {from: 0, to: 1} or {any: [left, right]}."


@dataclass(frozen=True)
class Range:
    """A value between two ends, both included.

    Attributes:
        name: of the value among those of the space.
        step: None for every number between the ends.
        log: whether equal ratios are drawn equally often, in place of equal differences.
    """

    name: str
    low: float
    high: float
    step: float | None = None
    log: bool = False
    whole: bool = False

    @property
    def count(self) -> float:
        """How many values there are; infinite without a step."""
        if self.step is None:
            return math.inf
        return round((self.high - self.low) / self.step) + 1

    def tidy(self, value: float) -> float | int:
        """A drawn value as a recipe has it: few digits, and never outside of the range."""
        if self.whole:
            return round(value)
        return min(self.high, max(self.low, float(f"{value:.{DIGITS}g}")))


@dataclass(frozen=True)
class Choice:
    """A value among several.

    Attributes:
        words: each value as JSON, which tells 1 from true and from '1'.
    """

    name: str
    words: tuple[str, ...]

    @property
    def count(self) -> float:
        """How many values there are."""
        return len(self.words)


Dimension = Range | Choice


@dataclass(frozen=True)
class Space:
    """Recipes that differ in some of their values.

    Attributes:
        dimensions: what is free, in the order of the file.
        template: the recipe with the first value of each dimension.
        places: by dimension, the number of its step and the key in it.
    """

    dimensions: tuple[Dimension, ...]
    template: Recipe = field(repr=False)
    places: Mapping[str, tuple[int, str]] = field(repr=False)

    @classmethod
    def load(cls, path: str | Path) -> Space:
        """Read the file at `path`; `RecipeError` names the line that cannot be read."""
        return cls.parse(*read_recipe(path, "uvmerge search SPACE.yaml BASE FINETUNED OUTDIR"))

    @classmethod
    def parse(cls, text: str | bytes, source: str = "space") -> Space:
        """Read the text of a space; `source` names it in messages.

        Raises:
            RecipeError: with the line: a step or option is unknown, a value of a range or choice is
                none that the option takes, a range is empty, or nothing is free.
        """
        return _Parser(compose(text, source), Reader(source)).space()

    @classmethod
    def from_data(cls, data: Mapping[str, Any]) -> Space:
        """The space in `data`, the content of its file."""
        return cls.parse(as_text(data))

    @property
    def count(self) -> float:
        """How many settings there are; infinite where a range has no step."""
        return math.prod(dimension.count for dimension in self.dimensions)

    def settings(self, values: Mapping[str, float | str]) -> dict[str, Any]:
        """What is free, with the values as a recipe has them.

        Args:
            values: by name, the number of a range, or the word of a choice.
        """
        return {
            d.name: d.tidy(float(values[d.name]))
            if isinstance(d, Range)
            else json.loads(str(values[d.name]))
            for d in self.dimensions
        }

    def recipe(self, values: Mapping[str, float | str]) -> Recipe:
        """The recipe of one setting; `values` as for `settings`."""
        steps = [dict(step) for step in self.template.as_data()["steps"]]
        for name, value in self.settings(values).items():
            number, key = self.places[name]
            ((command, settings),) = steps[number].items()
            steps[number] = {command: {**settings, key: value}}
        return replace(Recipe.from_data({"uvmerge": 1, "steps": steps}), **_texts(self.template))

    def as_data(self) -> dict[str, Any]:
        """What identifies the space, as JSON-able data."""
        free = {
            d.name: {"any": list(d.words)} if isinstance(d, Choice)
            else {"from": d.low, "to": d.high, "step": d.step, "log": d.log}
            for d in self.dimensions
        }  # fmt: skip
        fixed = Recipe(self.template.steps, {}, **_texts(self.template)).as_data()
        return {"template": fixed, "free": free}


def _texts(template: Recipe) -> dict[str, Any]:
    return {"dtype": template.dtype, "layer_map": template.layer_map}


class _Parser:
    """Makes a space of nodes: each range and choice is replaced by one of its values at a time, and
    the rest is read as a recipe."""

    def __init__(self, node: yaml.Node, reader: Reader) -> None:
        self.node, self.reader = node, reader
        self.found: list[tuple[Dimension, int, str]] = []

    def space(self) -> Space:
        """The space, every value of which was read as a part of a recipe."""
        for slot in list(self._slots()):
            self._take(slot)
        template = Recipe.of_nodes(self.node, self.reader)
        if not self.found:
            what = "nothing is free in it: no value is a range or a choice"
            raise self.reader.fail(1, what, _HOW)
        places = {dimension.name: (number, key) for dimension, number, key in self.found}
        return Space(tuple(dimension for dimension, _, _ in self.found), template, places)

    def _slots(self) -> Iterator[_Slot]:
        """Every value of a step that is free."""
        if not isinstance(self.node, yaml.MappingNode):
            return
        steps = next((v for k, v in self.node.value if k.value == "steps"), None)
        items = steps.value if isinstance(steps, yaml.SequenceNode) else []
        commands = [i.value[0][0].value for i in items if _is_step(i)]
        for number, item in enumerate(items):
            if not _is_step(item):
                continue
            (command, body), *_ = item.value
            for place, (key, value) in enumerate(body.value):
                if _is_free(value):
                    first = "" if commands.count(command.value) == 1 else f"{number + 1}."
                    option = str(key.value).replace("_", "-")
                    name = f"{first}{str(command.value).replace('_', '-')}.{option}"
                    line = key.start_mark.line + 1
                    yield _Slot(name, body, place, number, str(command.value), option, line)

    def _take(self, slot: _Slot) -> None:
        """Add the dimension of a slot, and put the first of its values there."""
        key, value = slot.body.value[slot.place]
        known = CHOICE if any(k.value == "any" for k, _ in value.value) else RANGE
        fields = self.reader.mapping(value, known)
        is_choice = known is CHOICE
        dimension = self._choice(slot, fields) if is_choice else self._range(slot, fields)
        nodes = (
            fields["any"].value.value
            if is_choice
            else [fields[end].value for end in ("to", "from")]
        )
        for node in reversed(nodes):  # the first of a choice, and the low end of a range, stay
            slot.body.value[slot.place] = (key, node)
            self._refuse_wrong(slot)
        parameter = _parameter(slot)
        assert parameter is not None  # an unknown option was refused
        self.found.append((dimension, slot.number, parameter.key))

    def _refuse_wrong(self, slot: _Slot) -> None:
        """Read the step of the slot, with the values that are there so far."""
        fields = self.reader.mapping(slot.body)
        settled = {k: f for k, f in fields.items() if not _is_free(f.value)}
        step_of_fields(slot.command, settled, slot.line, self.reader)

    def _choice(self, slot: _Slot, fields: Mapping[str, Field]) -> Choice:
        node = fields["any"].value
        values = self.reader.value(node)
        if not isinstance(values, list):
            raise self.reader.fail(slot.line, f"{slot.name}: any is no list", _HOW)
        words = tuple(json.dumps(value) for value in values)
        if len(set(words)) < len(words):
            raise self.reader.fail(slot.line, f"{slot.name}: a value stands there twice")
        if len(words) < 2:
            what = f"{slot.name}: a choice of {len(words)} leaves nothing free"
            raise self.reader.fail(slot.line, what, "Name two values or more, or write the value.")
        return Choice(slot.name, words)

    def _range(self, slot: _Slot, fields: Mapping[str, Field]) -> Range:
        for end in ("from", "to"):
            if end not in fields:
                what = f"{slot.name}: is neither a range nor a choice: {end} is missing"
                raise self.reader.fail(slot.line, what, _HOW)
        parameter = _parameter(slot)
        if parameter is not None and parameter.type not in (int, float):
            what = f"{slot.name}: takes no numbers, so it can have no range"
            raise self.reader.fail(slot.line, what, "Write {any: [ , ]}.")
        low, high = (self._number(slot, fields, end, parameter) for end in ("from", "to"))
        if low >= high:
            what = f"{slot.name}: the range from {low:g} to {high:g} is empty"
            raise self.reader.fail(slot.line, what, "Write the smaller number at from.")
        log = self.reader.value(fields["log"].value) if "log" in fields else False
        if log not in (True, False) or (log and low <= 0):
            what = f"{slot.name}: log is true or false, and true needs a range above 0"
            raise self.reader.fail(slot.line, what)
        whole = parameter is not None and parameter.type is int
        step = self._number(slot, fields, "step", None) if "step" in fields else None
        step = float(step) if step is not None else 1.0 if whole and not log else None
        if step is not None:
            if not 0 < step <= high - low or log or (whole and step % 1):
                what = f"{slot.name}: the step {step:g} does not fit the range"
                raise self.reader.fail(slot.line, what, "Write a smaller one, and no log beside.")
            high = round(low + math.floor((high - low) / step * (1 + 1e-12)) * step, 12)
        return Range(slot.name, low, high, step, log, whole)

    def _number(
        self, slot: _Slot, fields: Mapping[str, Field], key: str, parameter: Parameter | None
    ) -> float:
        value = self.reader.value(fields[key].value)
        try:
            if parameter is not None:
                value = parameter.parse(value)
            elif isinstance(value, bool) or not math.isfinite(value):
                raise TypeError
            return value
        except UsageError as error:
            raise self.reader.fail(
                fields[key].line, f"{slot.name}: {error.what}", error.do
            ) from None
        except TypeError:
            what = f"{slot.name}: {key} '{brief(value)}' is not a number"
            raise self.reader.fail(fields[key].line, what) from None


@dataclass(frozen=True)
class _Slot:
    """Where a value of a step is free: the mapping of the step's options, and the place in it."""

    name: str
    body: yaml.MappingNode
    place: int
    number: int
    command: str
    option: str
    line: int


def _is_free(value: yaml.Node) -> bool:
    """Whether a value is a range or a choice: a mapping, but no gradient over the layers."""
    keys = [str(k.value) for k, _ in value.value] if isinstance(value, yaml.MappingNode) else []
    return isinstance(value, yaml.MappingNode) and keys != ["gradient"]


def _is_step(item: yaml.Node) -> bool:
    """Whether a node is one operation with options."""
    return (
        isinstance(item, yaml.MappingNode)
        and len(item.value) == 1
        and isinstance(item.value[0][0], yaml.ScalarNode)
        and isinstance(item.value[0][1], yaml.MappingNode)
    )


def _parameter(slot: _Slot) -> Parameter | None:
    """The option of a slot; None where there is no such operation or option."""
    try:
        operation = operations.get(slot.command)
    except UsageError:
        return None
    rows = (*operation.parameters, *FILTERS)
    return next((p for p in rows if slot.option in (p.key, *p.names)), None)
