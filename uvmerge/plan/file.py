"""A plan as data for a file, and back: dataclasses are lists of their fields, in order.

What is read is checked against the types of the fields; `InputRefused` names what does not fit. Files
of plans are read by `api.plan_file`.
"""

from __future__ import annotations

import types
import typing
from base64 import b64decode, b64encode
from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass, replace
from functools import cache
from operator import attrgetter
from typing import Any

from ..errors import UvmergeError
from ..recipe.recipe import Recipe
from .emission import Emission
from .layout import OutputFile
from .steps import Plan, Step

_PLAIN = frozenset({str, int, float, bool, type(None)})


class Misfit(Exception):
    """Data that no plan was written as; the text says what does not fit."""


def packed(plan: Plan) -> dict[str, Any]:
    """The plan as data that `json.dumps` writes with `default=packed_value`."""
    return {
        "digest": plan.digest,
        "recipe": plan.recipe.as_data(),
        "layer_map": plan.recipe.layer_map,
        "inputs": plan.inputs,
        "files": plan.files,
        "steps": plan.steps,
        "index": plan.index,
        "notes": plan.notes,
        "emission": plan.emission,
    }


def packed_value(value: Any) -> Any:
    """What stands in JSON for a value that JSON has not: bytes, or a dataclass."""
    if isinstance(value, bytes):
        return b64encode(value).decode("ascii")
    kind: type = value.__class__
    return _parts(kind)(value)


def unpacked(data: Any) -> Plan:
    """The plan in data that `packed` made.

    Raises:
        Misfit: it is other data, or was changed.
    """
    read = mapping(data)
    try:
        asked = mapping(read.get("recipe"))
        mixture = asked.pop("mixture", None)  # which a recipe file cannot have
        recipe = replace(
            Recipe.from_data(asked),
            mixture=None if mixture is None else mapping(mixture),
            layer_map=read_as(str | None, read.get("layer_map")),  # nor a file of mergekit this
        )
    except UvmergeError as error:
        raise Misfit(f"its recipe: {error.what}") from error
    index = read.get("index")
    plan = Plan(
        recipe,
        mapping(read.get("inputs")),
        read_as(tuple[OutputFile, ...], read.get("files")),
        read_as(tuple[Step, ...], read.get("steps")),
        None if index is None else mapping(index),
        read_as(tuple[str, ...], read.get("notes")),
        read_as(Emission | None, read.get("emission")),
    )
    if plan.digest != read.get("digest"):
        raise Misfit("its digest is that of another plan")
    return plan


def mapping(data: Any) -> dict[str, Any]:
    """The data, which has to be a JSON object."""
    if not isinstance(data, dict):
        raise Misfit(f"{type(data).__name__} where an object was to be")
    return data


def read_as(kind: Any, data: Any) -> Any:
    """The data as a value of a type."""
    return _reader(kind)(data)


@cache
def _parts(kind: type) -> Callable[[Any], tuple[Any, ...]]:
    """What gives the values of a dataclass of two fields or more."""
    return attrgetter(*_names(kind))


@cache
def _names(kind: type) -> tuple[str, ...]:
    return tuple(each.name for each in fields(kind)) if is_dataclass(kind) else ()


@cache
def _reader(kind: Any) -> Callable[[Any], Any]:
    """What reads a value of a type: a plain one, a tuple, `… | None`, or a dataclass of these."""
    if kind is bytes:
        return _bytes
    if kind in _PLAIN:
        return lambda value: _plain(kind, value)
    arguments = typing.get_args(kind)
    if typing.get_origin(kind) in (types.UnionType, typing.Union):
        (inner,) = (each for each in arguments if each is not type(None))
        read = _reader(inner)
        return lambda value: None if value is None else read(value)
    if typing.get_origin(kind) is Mapping:
        return lambda value: {key: _option(each) for key, each in mapping(value).items()}
    if typing.get_origin(kind) is tuple:
        if arguments[1:] == (...,):
            read = _reader(arguments[0])
            return lambda value: tuple(map(read, _list(value)))
        return _tuple_reader(tuple, arguments)
    hints: Mapping[str, Any] = typing.get_type_hints(kind)
    return _tuple_reader(lambda parts: kind(*parts), tuple(hints[n] for n in _names(kind)))


def _tuple_reader(make: Callable[[Any], Any], kinds: tuple[Any, ...]) -> Callable[[Any], Any]:
    readers = [_reader(kind) for kind in kinds]

    def read(value: Any) -> Any:
        if len(_list(value)) != len(readers):
            raise Misfit(f"{len(value)} values where {len(readers)} were to be")
        return make([reader(each) for reader, each in zip(readers, value)])

    return read


def _option(value: Any) -> Any:
    """The value of an option: a list is a tuple again."""
    return tuple(map(_option, value)) if isinstance(value, list) else value


def _plain(kind: type, value: Any) -> Any:
    if type(value) is not kind:
        raise Misfit(f"{type(value).__name__} where {kind.__name__} was to be")
    return value


def _list(value: Any) -> list[Any]:
    return list(_plain(list, value))


def _bytes(value: Any) -> bytes:
    try:
        return b64decode(_plain(str, value), validate=True)
    except ValueError as error:
        raise Misfit("bytes that are not in base 64") from error


def read_as_list(data: Any) -> list[Any]:
    """The data, which has to be a JSON list."""
    return _list(data)
