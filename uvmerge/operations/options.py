"""Options of operations, and what an operation declares of itself.

The annotation of an option carries type, range and help text. One parser serves the command line,
recipes and Python calls, so that an option means the same and fails alike in all three.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, TypeVar, get_args, get_origin

from ..checkpoint.anatomy import MODULES
from ..checkpoint.selection import parse_globs, parse_layers, parse_modules, parse_names
from ..errors import UsageError
from ..spectral import Matrix
from ..text import brief, closest
from . import varying

Function = TypeVar("Function", bound=Callable[..., Any])

HOW_MUCH, WHERE, OUTPUT = "How much", "Where", "Output"
MACHINE, SAFETY, MESSAGES = "Machine", "Safety", "Messages"
GROUPS = (HOW_MUCH, WHERE, OUTPUT, MACHINE, SAFETY, MESSAGES)  # in the order of `--help`


def leaves_equal_inputs_alone(operation: Function) -> Function:
    """Declare that an operation returns equal inputs as they are: it is not called on such inputs.

    An operation without this declaration is always called.
    """
    operation.leaves_equal_inputs_alone = True  # type: ignore[attr-defined]
    return operation


def where_none_is_given(**values: Any) -> Callable[[Function], Function]:
    """Declare the option that decides where no option is given whose default is None.

    `@where_none_is_given(top=0.2)`: without `--top`, `--rank` and the like, `top` is 0.2.
    """

    def declare(operation: Function) -> Function:
        operation.fallback = values  # type: ignore[attr-defined]
        return operation

    return declare


@dataclass(frozen=True)
class Option:
    """What an annotation says about an option beyond its type.

    Attributes:
        help: one line of text for `--help`.
        low, high: inclusive bounds of a number; None for no bound.
        percent: whether `20%` may be written for 0.2.
        parse: reads a structured value (layers, names) instead of a plain type.
        accepts: what a Python call may pass where `parse` reads it, as a type in words.
        repeated: whether the command line takes the option several times, for a list of values.
        metavar: how `--help` shows the value.
        example: the option in use, for the example in the command's help.
        group: the heading under which `--help` and the documentation show the option.
        unset: what an option holds, in words, whose default is None.
        words: what the shell offers for a value that is a list of words.
        aliases: other words for the choices of a `Literal`.
        formerly: earlier names of the option, which recipes and manifests may still have.
    """

    help: str
    low: float | None = None
    high: float | None = None
    percent: bool = False
    parse: Callable[[object], Any] | None = None
    accepts: str = ""
    repeated: bool = False
    metavar: str | None = None
    example: str = ""
    group: str = HOW_MUCH
    unset: str = ""
    words: tuple[str, ...] = ()
    aliases: Mapping[str, str] = field(default_factory=dict, hash=False)
    formerly: tuple[str, ...] = ()


@dataclass(frozen=True)
class Parameter:
    """One keyword of an operation or a run, as the command line, recipes and Python see it.

    Attributes:
        name: name of the keyword in Python.
        type: `int`, `float`, `bool` or `str`; None where `option.parse` decides.
        choices: the words that a `Literal` allows; empty for any other type.
        default: the value where the keyword is not given.
        option: range, help text and parser.
        per_model: whether the option has a number for each model (see `PerModel`).
        varies: whether its value may differ between tensors (see `varying`).
    """

    name: str
    type: type | None
    choices: tuple[str, ...]
    default: Any
    option: Option
    per_model: bool = False
    varies: bool = False

    @property
    def annotation(self) -> str:
        """The type that a Python call may pass, as source text: `float | str | None`."""
        if self.choices:
            known = (*self.choices, *self.option.aliases)
            words = f"Literal[{', '.join(map(json.dumps, known))}]"
        elif self.type is None:
            words = self.option.accepts
        else:
            words = self.type.__name__ + varying.also_typed(self)
        return f"{words} | None" if self.default is None else words

    @property
    def key(self) -> str:
        """The key in a recipe, and the option on the command line without its dashes."""
        return self.name.rstrip("_").replace("_", "-")

    @property
    def shown_default(self) -> str:
        """What the option holds where it is not given, as `--help` shows it."""
        if self.option.unset:
            return self.option.unset
        return "" if self.default in (None, ()) else str(self.default)

    @property
    def names(self) -> tuple[str, ...]:
        """Every word by which a recipe or a Python call may name the option."""
        return tuple(dict.fromkeys((self.name, self.key, *self.option.formerly)))

    @classmethod
    def read(cls, name: str, annotation: Any, default: Any) -> Parameter:
        """The parameter that `Annotated[type, Option(…)]` declares.

        The type may also be `… | None` or `Literal[…]`.
        """
        if get_origin(annotation) is not Annotated:
            raise TypeError(
                f"option {name} lacks its help: annotate it with Annotated[type, Option(…)]"
            )
        inner, option = get_args(annotation)[:2]
        if inner is varying.PerModel:
            return cls(name, float, (), default, option, per_model=True)
        kinds = [a for a in (get_args(inner) or (inner,)) if a is not type(None)]
        if get_origin(inner) is Literal or isinstance(kinds[0], str):
            return cls(name, str, tuple(map(str, kinds)), default, option)
        nested = [c for k in kinds if get_origin(k) is Literal for c in get_args(k)]
        if nested:
            return cls(name, str, tuple(nested), default, option)
        return cls(name, None if option.parse else kinds[0], (), default, option)

    def parse(self, value: object) -> Any:
        """`value` in the parameter's type and range; `UsageError` names the option otherwise."""
        if value is None:
            return self.default
        if not self.varies:
            return self._plain(value)
        return varying.parse_value(value, self._plain, self._plain_text, self)

    def _plain(self, value: object) -> Any:
        if self.option.parse is not None:
            try:
                parsed = self.option.parse(value)
            except UsageError as error:
                raise UsageError(f"--{self.key}", error.what, error.do) from None
            if parsed == () and self.default is None:
                raise UsageError(f"--{self.key}", "names nothing", "Leave the option out for all.")
            return parsed
        if self.choices:
            return self._choice(value)
        if self.type is str and isinstance(value, str):
            return value
        if self.type is bool or isinstance(value, bool):
            if self.type is not bool or not isinstance(value, bool):
                raise self._wrong(
                    value, f"is not {'true or false' if self.type is bool else 'a number'}"
                )
            return value
        return self._number(value)

    def parse_text(self, text: str) -> Any:
        """The value of text from a command line: like `parse`, but digits are a number."""
        if not self.varies:
            return self._plain_text(text)
        return varying.parse_text(text, self._plain_text, self.per_model)

    def _plain_text(self, text: str) -> Any:
        if self.type is bool and text in ("true", "false"):
            return text == "true"
        if self.type in (int, float) and not text.endswith("%"):
            try:
                return self._plain(int(text) if self.type is int else float(text))
            except ValueError:
                several = "Only `uvmerge sweep` takes several values." if "," in text else ""
                raise self._wrong(text, "is not a number", several) from None
        return self._plain(text)

    def _choice(self, value: object) -> str:
        word = self.option.aliases.get(value, value) if isinstance(value, str) else value
        if word not in self.choices:
            hint = did_you_mean(str(value), (*self.choices, *self.option.aliases))
            raise self._wrong(value, f"is not one of {', '.join(self.choices)}", hint)
        return str(word)

    def _number(self, value: object) -> float | int:
        option = self.option
        if isinstance(value, str):
            match = re.fullmatch(r"\s*(\d+(?:\.\d*)?)\s*%\s*", value) if option.percent else None
            if match is None:
                raise self._wrong(value, "is text, not a number", self._as_number(value))
            number: float | int = float(match[1]) / 100
        elif isinstance(value, (int, float)):
            number = value
        else:
            raise self._wrong(value, "is not a number")
        if self.type is int and not isinstance(number, int):
            raise self._wrong(value, "is not a whole number")
        if isinstance(number, float) and not math.isfinite(number):
            raise self._wrong(value, "is not a finite number")
        if abs(number) > 2**62:
            raise self._wrong(value, "is far too large")
        if not (option.low is None or number >= option.low) or not (
            option.high is None or number <= option.high
        ):
            raise self._wrong(value, f"is outside {self.range}")
        return number if self.type is int else float(number)

    @staticmethod
    def _as_number(text: str) -> str:
        try:
            return f"Write it as {float(text)!r}." if math.isfinite(float(text)) else ""
        except ValueError:
            return ""

    @property
    def range(self) -> str:
        """`0 to 1`, `values of at least 0`, or an empty string."""
        low, high = self.option.low, self.option.high
        if low is not None and high is not None:
            return f"{low:g} to {high:g}"
        return f"values of at least {low:g}" if low is not None else ""

    def _wrong(self, value: object, what: str, do: str = "") -> UsageError:
        return UsageError(f"--{self.key}", f"'{brief(value, 80)}' {what}", do or self._hint)

    @property
    def _hint(self) -> str:
        """How a value of this type is written."""
        if self.option.percent:
            return "Write a share like 0.2 or 20%."
        like = {int: "a whole number like 3", float: "a number like 0.5", bool: "true or false"}
        return f"Write {like.get(self.type or str, 'text')}."


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """`Did you mean 'restore'?`, or the known words where none is close."""
    close = closest(word, known := sorted(known))
    return f"Did you mean {close!r}?" if close else f"Known: {', '.join(known)}."


DEFAULT_TOP = 0.2  # the setting of arXiv 2508.16546


def top_option(default: float) -> Option:
    """The option `--top`, where `default` holds as long as no other option gives k."""
    return Option(
        "leading triplets to use, as a fraction of min(m, n), rounded half up", 0, 1,
        percent=True, metavar="p", example=f"--top {default:g}", unset=f"{default:g}",
    )  # fmt: skip


Top = Annotated[float | None, top_option(DEFAULT_TOP)]
Rank = Annotated[int | None, Option("leading triplets to use, as a count", 0, metavar="k")]
Energy = Annotated[
    float | None,
    Option("smallest k with this share of the squared values", 0, 1, percent=True, metavar="e"),
]
Alpha = Annotated[float, Option("strength of the edit: 1 is all of it, 0 none", 0, 1, metavar="a")]
Layers = Annotated[
    tuple[int, ...] | None,
    Option("only these decoder layers, counted from 0: 0-9,12", parse=parse_layers,
           accepts="str | Sequence[int]", metavar="LIST", group=WHERE, unset="all"),
]  # fmt: skip
Modules = Annotated[
    tuple[str, ...] | None,
    Option(f"only these modules: {', '.join(MODULES)}, all", parse=parse_modules,
           accepts="str | Sequence[str]", metavar="LIST", group=WHERE, words=(*MODULES, "all"),
           unset="attention,mlp,mixer of the layers; for edits of any tensor, all"),
]  # fmt: skip
Include = Annotated[
    tuple[str, ...],
    Option("only tensors whose whole name matches, like '*.q_proj.*'; may be repeated",
           parse=parse_globs, accepts="Sequence[str]", repeated=True, metavar="GLOB", group=WHERE),
]  # fmt: skip
Exclude = Annotated[
    tuple[str, ...],
    Option("leave out tensors whose whole name matches, like '*.q_proj.*'; may be repeated",
           parse=parse_globs, accepts="Sequence[str]", repeated=True, metavar="GLOB", group=WHERE),
]  # fmt: skip
Stack = Annotated[
    tuple[str, ...] | None,
    Option("only these stacks of layers, by name, its start, or kind (vision); counts layers in"
           " each", parse=parse_names, accepts="str | Sequence[str]", metavar="NAMES", group=WHERE,
           unset="those of the language"),
]  # fmt: skip
# The filters of a step. An operation may declare one of them as its own (`reset-layers --layers`).
FILTERS = (
    Parameter.read("layers", Layers, None),
    Parameter.read("modules", Modules, None),
    Parameter.read("include", Include, ()),
    Parameter.read("exclude", Exclude, ()),
    Parameter.read("stack", Stack, None),
)


def chosen_rank(
    matrix: Matrix,
    top: float | None,
    rank: int | None,
    energy: float | None = None,
    default: float = DEFAULT_TOP,
) -> int:
    """The rank k that `top`, `rank` or `energy` means for `matrix`; at most one of them is given.

    Args:
        top: k as a fraction of min(m, n).
        rank: k itself.
        energy: the share of the squared singular values that the leading k must hold.
        default: `top` where none of the three is given.
    """
    exclusive(top=top, rank=rank, energy=energy)
    if top is None and rank is None and energy is None:
        top = default
    return matrix.rank(top, rank, energy)


def exclusive(**given: object) -> None:
    """Refuse more than one of several options that say the same thing in different ways."""
    named = [f"--{name.replace('_', '-')}" for name, value in given.items() if value is not None]
    if len(named) > 1:
        raise UsageError(" and ".join(named), "cannot be given together", "Keep one of them.")
