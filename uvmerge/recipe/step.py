"""A step of a recipe: an operation with its options, on a selection of tensors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import yaml

from .. import operations
from ..checkpoint.anatomy import Place
from ..checkpoint.selection import Selection
from ..errors import RecipeError, UsageError
from ..operations import Operation
from ..operations.options import FILTERS, Parameter
from ..operations.varying import Varying, arguments, as_data, in_a_line, varying
from ..text import brief
from .reader import Field, Reader


@dataclass(frozen=True)
class RecipeStep:
    """One operation with its options, on a selection of tensors.

    Attributes:
        lines: of a step in a file, where each option stands (`file:line`), and under "" the step.
    """

    operation: Operation
    options: Mapping[str, Any]
    selection: Selection
    lines: Mapping[str, str] = field(default_factory=dict, compare=False)

    def __repr__(self) -> str:
        return f"<RecipeStep {brief(self, 400)}>"

    def __str__(self) -> str:
        given = [(p, self.options[p.name]) for p in self._given_parameters]
        given += [(p, getattr(self.selection, p.name)) for p in self._given_filters]
        told = (f"{p.key} {in_a_line(value, p.per_model)}" for p, value in given)
        return f"{self.operation.command} {', '.join(told)}".rstrip()

    @property
    def _given_parameters(self) -> list[Parameter]:
        return [p for p in self.operation.parameters if p.name in self.options]

    @property
    def _given_filters(self) -> list[Parameter]:
        return [p for p in FILTERS if getattr(self.selection, p.name) not in (None, ())]

    @classmethod
    def parse(cls, name: str, settings: Mapping[str, object]) -> RecipeStep:
        """A step from the name of an operation, and its options and filters together.

        Raises:
            UsageError: the operation or an option is unknown, or a value is out of range.
        """
        operation = operations.get(name)
        own = {word for p in operation.parameters for word in p.names}
        given = {k: v for k, v in settings.items() if v is not None and v != ()}
        filters = {
            p.name: p.parse(given.pop(p.name))
            for p in FILTERS
            if p.name in given and p.name not in own
        }
        unknown = [key for key in given if key not in own]
        if unknown:
            known = sorted({p.key for p in (*operation.parameters, *FILTERS)})
            raise UsageError(
                f"{operation.command}: {brief(unknown[0])}",
                "is not an option",
                operations.option_hint(operation.command, unknown[0], known),
            )
        return cls(operation, operation.parse(given), Selection(**filters))

    def arguments(self, name: str, place: Place, inputs: int) -> dict[str, Any]:
        """The options as the operation takes them for the tensor `name` at `place`.

        Args:
            inputs: number of checkpoints that the operation gets.
        """
        operation = self.operation
        models = inputs - sum(not operand.several for operand in operation.operands)
        values = (each for several in varying(self.options).values() for each in several)
        seen = place if any(v.everywhere for v in values) else self.selection.seen(place)
        found = arguments(operation.parameters, self.options, name, seen, models)
        if not any(p.name in found for p in operation.parameters if p.default is None):
            found |= operation.fallback
        return found

    def located(self, error: UsageError) -> UsageError:
        """A refusal of the operation with the line of a file, where the step stands in one."""
        if not self.lines or isinstance(error, RecipeError):
            return error
        where = self.lines.get(_option_in(error), self.lines[""])
        command = self.operation.command
        told = error.where.removeprefix(command).strip(": ")
        parts = (command, told, error.what)
        return RecipeError(where, ": ".join(filter(None, parts)), error.do)

    @property
    def depends_on_names(self) -> bool:
        """Whether an option differs between tensors of one place."""
        found = varying(self.options).values()
        return any(not each.is_gradient for several in found for each in several)

    def given(self, place: Place, draw: Any) -> dict[str, Any]:
        """What the operation gets beside its options: where the tensor stands, and random numbers."""
        operation = self.operation
        found = {"place": self.selection.seen(place)} if operation.wants_place else {}
        return found | ({"draw": draw} if operation.wants_draw else {})

    def as_data(self) -> dict[str, Any]:
        """The step as a recipe file has it, options in the order of the operation's signature."""
        own = {p.key: as_data(self.options[p.name]) for p in self._given_parameters}
        filters = {p.key: as_data(getattr(self.selection, p.name)) for p in self._given_filters}
        return {self.operation.command: own | filters}


def step_of_fields(
    name: str, settings: Mapping[str, Field], line: int, reader: Reader
) -> RecipeStep:
    """The step of an operation and its options, of which each has its own line."""
    own = operations.operations().get(name.replace("_", "-"))
    vary = {word for p in own.parameters if p.varies for word in p.names} if own else set()
    given = {}
    for key, setting in settings.items():
        read = reader.data if key in vary else reader.value
        given[key] = read(setting.value)
        if given[key] is None:
            raise reader.fail(
                setting.line,
                f"{brief(key)} has no value",
                'A value with a comma needs quotes: layers: "0-9,12".',
            )
    lines = {key.replace("_", "-"): setting.line for key, setting in settings.items()}
    try:
        step = RecipeStep.parse(name, given)
    except UsageError as error:
        where = lines.get(_option_in(error).replace("_", "-"), line)
        raise reader.fail(where, f"{error.where}: {error.what}", error.do) from None
    nodes = {
        p.name: settings[word].value
        for p in step.operation.parameters
        for word in p.names
        if word in settings
    }
    options = {k: _with_lines(v, nodes[k], reader) for k, v in step.options.items()}
    places = {key: f"{reader.source}:{at}" for key, at in {"": line, **lines}.items()}
    return replace(step, options=options, lines=places)


def _option_in(error: UsageError) -> str:
    """The option that a refusal is about, without dashes in front."""
    return error.where.rsplit(" ", 1)[-1].removeprefix("--")


def _with_lines(value: Any, node: yaml.Node, reader: Reader) -> Any:
    """The value of an option, whose filters know their file and line."""
    if isinstance(value, tuple) and len(node.value) == len(value):
        return tuple(_with_lines(one, child, reader) for one, child in zip(value, node.value))
    if not isinstance(value, Varying):
        return value
    several = node.value if isinstance(node, yaml.SequenceNode) else []
    lines = several if len(several) == len(value.rules) else [node]
    rules = [
        replace(rule, where=f"{reader.source}:{at.start_mark.line + 1}")
        for rule, at in zip(value.rules, lines)
    ]
    return Varying(tuple(rules))
