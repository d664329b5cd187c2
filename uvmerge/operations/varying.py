"""Option values that differ between tensors: gradients over the depth, and lists of filters.

    scale: {gradient: [0.2, 0.8]}                          # --scale 0.2..0.8
    scale: [{filter: self_attn, value: 0.3}, {value: 0.5}]

A gradient is piecewise linear over the layers. A filter is a part of a tensor's name; the first one
that fits decides. Operations never see such a value: they get the one that holds for their tensor.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias

from ..checkpoint.anatomy import Place
from ..errors import UsageError, counted
from ..text import brief

EVERYTHING = "*"  # the filter that fits every tensor
_HOW = "Write {gradient: [0.2, 0.8]}, or a list of {filter: self_attn, value: 0.3}."

One: TypeAlias = Callable[[object], Any]  # reads one plain value, and refuses what it cannot be
OneText: TypeAlias = Callable[[str], Any]

if TYPE_CHECKING:
    from .options import Parameter

    PerModel: TypeAlias = Any
else:

    class PerModel:
        """The type of an option with a number for each model.

        The operation receives a tuple of floats, as long as its `*models`; the default, and what is
        given, may be one number for all of them.
        """


@dataclass(frozen=True)
class Rule:
    """Values for the tensors whose name holds `filter`.

    Attributes:
        values: one value for all layers, or those of a gradient, from the first layer to the last.
        filter: a part of the name; `*` for every name.
        where: file and line of the rule, for messages.
    """

    values: tuple[Any, ...]
    filter: str = EVERYTHING
    where: str = field(default="", compare=False)

    def fits(self, name: str) -> bool:
        """Whether the rule is for the tensor `name`."""
        return self.filter == EVERYTHING or self.filter in name

    def at(self, place: Place) -> Any:
        """The value for a tensor at `place`.

        The position is layer/(depth − 1); a tensor outside of all layers has the first value, and the
        only layer of a stack the last one. Values that are no numbers are picked, never mixed.
        """
        values, last = self.values, len(self.values) - 1
        if place.layer is None or last == 0:
            return values[0]
        position = place.layer / (place.depth - 1) if place.depth > 1 else 1.0
        low = min(math.floor(position * last), last)
        share = position * last - low
        if share == 0 or isinstance(values[low], (bool, str)):
            return values[low]
        mixed = (1 - share) * values[low] + share * values[low + 1]
        whole = all(isinstance(value, int) for value in values)
        return math.floor(mixed + 0.5) if whole else mixed


@dataclass(frozen=True)
class Varying:
    """A value that each tensor gets from the first rule that fits its name."""

    rules: tuple[Rule, ...]
    everywhere: ClassVar[bool] = False  # whether layers count in every stack, those left alone too

    def __str__(self) -> str:
        """The value in a line: `0.2..0.8`, or each filter with its value."""
        parts = ("..".join(map(in_a_line, rule.values)) for rule in self.rules)
        if self.is_gradient:
            return next(parts)
        return ", ".join(f"{rule.filter} {part}" for rule, part in zip(self.rules, parts))

    @property
    def is_gradient(self) -> bool:
        """Whether one rule holds for every tensor."""
        return len(self.rules) == 1 and self.rules[0].filter == EVERYTHING

    def at(self, name: str, place: Place) -> Any:
        """The value for the tensor `name` at `place`; None where no rule fits.

        Of an option with a number for each model, a subclass may return a tuple of them.
        """
        return next((rule.at(place) for rule in self.rules if rule.fits(name)), None)

    def as_data(self) -> Any:
        """The value as a recipe has it."""
        if self.is_gradient:
            return {"gradient": list(self.rules[0].values)}
        return [
            {
                "filter": rule.filter,
                "value": rule.values[0]
                if len(rule.values) == 1
                else {"gradient": list(rule.values)},
            }
            for rule in self.rules
        ]


def also_typed(option: Parameter) -> str:
    """What a Python call may pass beside a plain value, as source text: ` | Mapping[str, Any]`."""
    share = " | str" if option.option.percent else ""
    if not option.varies or option.type is bool:
        return share
    several = " | tuple[Any, ...]" if option.per_model else ""
    return f"{share} | Mapping[str, Any] | list[Any]{several}"


def parse_value(value: Any, one: One, text: OneText, option: Parameter) -> Any:
    """The value of an option that may differ between tensors: plain, `Varying`, or a tuple of either.

    Args:
        one: reads a plain value.
        text: reads the text of one.

    Raises:
        UsageError: a value is refused by `one`, or a gradient or a list of filters is malformed.
    """
    try:
        if isinstance(value, str) and option.per_model and "/" in value:
            return parse_text(value, text, per_model=True)
        is_list = isinstance(value, (list, tuple)) and len(value) > 0
        if is_list and option.per_model and not _are_rules(value):
            return tuple(_of_one_model(each, one, text) for each in value)
        return _of_one_model(value, one, text)
    except UsageError as error:
        raise UsageError(f"--{option.key}", error.what, error.do) from None


def _of_one_model(value: object, one: One, text: OneText) -> Any:
    if isinstance(value, str) and ".." in value:
        return parse_text(value, text)
    if isinstance(value, Varying):
        rules = (replace(rule, values=tuple(map(one, rule.values))) for rule in value.rules)
        return Varying(tuple(rules))
    if isinstance(value, Mapping):
        return Varying((Rule(_gradient(value, one)),))
    if not isinstance(value, (list, tuple)):
        return one(value)
    if not _are_rules(value):
        raise UsageError("", f"'{brief(list(value), 80)}' is not a number", _HOW)
    return Varying(tuple(_rule(each, one) for each in value))


def _are_rules(value: Any) -> bool:
    """Whether a list is one of filters, rather than of a value for each model."""
    return bool(value) and all(isinstance(each, Mapping) and "value" in each for each in value)


def parse_text(text: str, one: OneText, per_model: bool = False) -> Any:
    """The value of text: like `0.5`, a gradient like `0.2..0.8`, or one for each model: `0.7/0.3`.

    Args:
        one: reads a plain value.
        per_model: whether a `/` separates the values of several models.
    """
    if per_model and "/" in text:
        return tuple(parse_text(part.strip(), one) for part in text.split("/"))
    if ".." not in text:
        return one(text)
    return Varying((Rule(tuple(one(part.strip()) for part in text.split(".."))),))


def as_data(value: Any) -> Any:
    """The value of an option as a recipe has it; the inverse of `parse_value`."""
    if isinstance(value, Varying):
        return value.as_data()
    return [as_data(each) for each in value] if isinstance(value, tuple) else value


def in_a_line(value: Any, per_model: bool = False) -> str:
    """The value of an option in a line, as the command line takes it where it can."""
    if isinstance(value, (tuple, list)):
        return ("/" if per_model else ",").join(map(in_a_line, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


def arguments(
    parameters: Sequence[Parameter],
    options: Mapping[str, Any],
    name: str,
    place: Place,
    models: int,
) -> dict[str, Any]:
    """Every option that has a value, as an operation takes it for one tensor, by Python name.

    Args:
        parameters: the options of the operation.
        options: what was given of them.
        name: of the tensor, for filters; where no filter fits, an option has its default.
        place: where the tensor stands, for gradients.
        models: number of checkpoints among `*models`.
    """
    found = {}
    for parameter in parameters:
        value = options.get(parameter.name, parameter.default)
        several = value if parameter.per_model and isinstance(value, tuple) else (value,)
        resolved = [each.at(name, place) if isinstance(each, Varying) else each for each in several]
        resolved = [parameter.default if each is None else each for each in resolved]
        if parameter.per_model and len(resolved) == 1 and isinstance(resolved[0], tuple):
            found[parameter.name] = resolved[0]
        elif parameter.per_model:
            found[parameter.name] = tuple(resolved * models if len(resolved) == 1 else resolved)
        elif resolved != [None]:
            found[parameter.name] = resolved[0]
    return found


def varying(options: Mapping[str, Any]) -> dict[str, list[Varying]]:
    """The values among `options` that differ between tensors, by option."""
    found = {}
    for name, value in options.items():
        several = value if isinstance(value, tuple) else (value,)
        if those := [each for each in several if isinstance(each, Varying)]:
            found[name] = those
    return found


def refuse_other_counts(
    command: str, parameters: Sequence[Parameter], options: Mapping[str, Any], models: int
) -> None:
    """Refuse lists that have another length than the models.

    Raises:
        UsageError: names both counts.
    """
    for parameter in parameters:
        value = options.get(parameter.name)
        if parameter.per_model and isinstance(value, tuple) and len(value) not in (1, models):
            raise UsageError(
                f"{command}: --{parameter.key}",
                f"has {counted(len(value), 'value')} for {counted(models, 'model')}",
                "Write one number for all models, or one for each, in their order.",
            )


def _rule(data: Mapping[str, Any], one: One) -> Rule:
    if unknown := data.keys() - {"filter", "value"}:
        raise UsageError("filter", f"{brief(min(unknown))!r} is no part of a filter", _HOW)
    name, value = data.get("filter", EVERYTHING), data["value"]
    if not isinstance(name, str) or not name:
        raise UsageError("filter", f"{brief(name)!r} is not a part of a name", _HOW)
    values = _gradient(value, one) if isinstance(value, Mapping) else (one(value),)
    return Rule(values, name)


def _gradient(data: Mapping[str, Any], one: One) -> tuple[Any, ...]:
    values = data.get("gradient")
    if data.keys() != {"gradient"} or not isinstance(values, Sequence) or isinstance(values, str):
        raise UsageError("gradient", f"'{brief(dict(data), 80)}' is no gradient", _HOW)
    if not values:
        raise UsageError("gradient", "has no values", _HOW)
    return tuple(map(one, values))
