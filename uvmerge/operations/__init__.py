"""The operations: every module in this folder with a function of its own name is one.

The signature is the schema. Positional parameters are operands, the checkpoints on the command
line: `base`, `finetuned`, or `*models` for as many as are named. An operand annotated `Matrix`
receives one weight matrix at a time, one annotated `Operand` every tensor, in pieces, and one annotated
`Whole` every tensor, as a whole. `finetuned` is the tensor to edit; in a chain, the result of the
earlier steps. Keyword-only parameters are options, except `place`, which tells where the tensor stands,
and `draw`, its random numbers, which hang on the option `seed`. Nothing here imports torch.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any, TypeVar

from ..checkpoint.roles import BASE, FINETUNED, by_role, name_of
from ..errors import UsageError, counted
from ..spectral import Matrix, Whole
from ..text import closest
from .inputs import Input, read_inputs
from .merging_options import DIFFERENCES, MEANS
from .options import Option, Parameter, did_you_mean

# Modules in this folder that are no operation.
HELPERS = ("inputs", "merging_options", "options", "varying")
DOCSTRING_PARTS = ("Formula:", "Exact:", "Cost:", "Source:")
GIVEN = ("place", "draw")  # keywords of an operation that are no options

T = TypeVar("T")


@dataclass(frozen=True)
class Operation:
    """One operation and what its signature says about it.

    Attributes:
        name: name of the function and of its file.
        function: the function itself.
        operands: its positional parameters, in order.
        parameters: its options.
        wants_place: whether the function has a keyword `place`.
        wants_draw: whether the function has a keyword `draw`.
        leaves_equal_inputs_alone: whether the function declares that it returns equal inputs as
            they are.
        fallback: what an option is where no option is given whose default is None.
    """

    name: str
    function: Callable[..., Any]
    operands: tuple[Input, ...]
    parameters: tuple[Parameter, ...]
    wants_place: bool
    wants_draw: bool
    leaves_equal_inputs_alone: bool
    fallback: Mapping[str, Any] = field(default_factory=dict, hash=False)

    def __repr__(self) -> str:
        return f"<Operation {self.command}>"

    @property
    def matrices_only(self) -> bool:
        """Whether the operation works on weight matrices, not on tensors of any shape."""
        return any(operand.kind is Matrix for operand in self.operands)

    @property
    def wants_whole(self) -> bool:
        """Whether the operation needs all of a tensor at once, of whatever shape."""
        return any(operand.kind is Whole for operand in self.operands)

    @property
    def takes_several(self) -> bool:
        """Whether the operation takes any number of checkpoints: a sub-command of `merge`."""
        return any(operand.several for operand in self.operands)

    @property
    def group(self) -> str:
        """The heading under which `merge --help` has the operation."""
        has_base = any(operand.name == BASE for operand in self.operands)
        return getattr(self.function, "group", DIFFERENCES if has_base else MEANS)

    @property
    def edits(self) -> bool:
        """Whether the operation edits a fine-tuned tensor, rather than making one of its inputs."""
        return any(operand.name == FINETUNED and not operand.several for operand in self.operands)

    @property
    def command(self) -> str:
        """The operation's name on the command line and in recipes: `reset-layers`."""
        return self.name.replace("_", "-")

    @property
    def summary(self) -> str:
        """The first sentence of the function's docstring."""
        return (inspect.getdoc(self.function) or "").partition("\n\n")[0].replace("\n", " ")

    @property
    def example(self) -> str:
        """An option in use, such as `--top 0.2`; empty where the operation has none."""
        return next((p.option.example for p in self.parameters if p.option.example), "")

    @property
    def usage(self) -> str:
        """The usage line: `uvmerge restore BASE FINETUNED OUT`."""
        group = ["merge"] if self.takes_several else []
        words = [*group, self.command, *(operand.metavar for operand in self.operands), "OUT"]
        return f"uvmerge {' '.join(words)}"

    def roles_among(self, roles: Collection[str]) -> list[str]:
        """The roles of a run that the operands take, in the order of the operands."""
        return [
            role
            for operand in self.operands
            for role in roles
            if name_of(role) == operand.name and (role != operand.name) == operand.several
        ]

    def assign(
        self, places: Sequence[T], named: Mapping[str, Any] | None = None
    ) -> tuple[dict[str, T], T]:
        """(checkpoints by role, OUT).

        Args:
            places: checkpoints and OUT in the order of the command line.
            named: checkpoints and `out` given by name.

        Raises:
            UsageError: there are too few or too many checkpoints; the message has the usage line.
        """
        given, rest = dict(named or {}), list(places)
        if "out" not in given and rest:
            given["out"] = rest.pop()
        assigned: dict[str, Any] = {}
        for operand in self.operands:
            if operand.several:
                assigned[operand.name] = [*given.pop(operand.name, ()), *rest]
                rest = []
            elif operand.name in given:
                assigned[operand.name] = given.pop(operand.name)
            elif rest:
                assigned[operand.name] = rest.pop(0)
        found: dict[str, T] = by_role(assigned)
        if rest or given.keys() != {"out"} or not all(each.fits(found) for each in self.operands):
            count = counted(len(found) + len(rest) + len(given) - ("out" in given), "checkpoint")
            raise UsageError(self.command, f"cannot work on {count}", f"Usage: {self.usage}")
        return found, given["out"]

    def parse(self, options: Mapping[str, object]) -> dict[str, Any]:
        """Options by Python name, parsed and checked, without those that equal their default.

        Args:
            options: values by Python name or by recipe key.

        Raises:
            UsageError: an option is unknown, given twice, or out of range.
        """
        known = {name: p for p in self.parameters for name in p.names}
        parsed: dict[str, Any] = {}
        seen: set[str] = set()
        for key, value in options.items():
            if key not in known:
                words = [p.key for p in self.parameters]
                hint = option_hint(self.command, key, words)
                raise UsageError(f"{self.command}: {key}", "is not an option", hint)
            parameter = known[key]
            if parameter.name in seen:
                where = f"{self.command}: {parameter.key}"
                raise UsageError(where, "is given twice, in two spellings", "Keep one of them.")
            seen.add(parameter.name)
            result = parameter.parse(value)
            if result != parameter.default:
                parsed[parameter.name] = result
        return parsed

    def effective(self, options: Mapping[str, Any]) -> dict[str, Any]:
        """Every option that has a value, defaults included, by Python name.

        Args:
            options: parsed options, as `parse` returns them.
        """
        values = {p.name: options.get(p.name, p.default) for p in self.parameters}
        if all(values[p.name] is None for p in self.parameters if p.default is None):
            values |= self.fallback
        return {name: value for name, value in values.items() if value not in (None, ())}


@cache
def operations() -> dict[str, Operation]:
    """Every operation by its command name, sorted."""
    found = {}
    for module in pkgutil.iter_modules(__path__):
        if module.name in HELPERS:
            continue
        file = f"operations/{module.name}.py"
        try:
            loaded = vars(importlib.import_module(f"{__name__}.{module.name}"))
            if module.name in loaded:
                operation = read_operation(loaded[module.name])
                found[operation.command] = operation
        except Exception as error:
            raise UsageError(
                file,
                f"cannot be read: {type(error).__name__}: {error}",
                'README, "Adding an operation", shows one that can.',
            ) from error
        if module.name not in loaded:
            raise UsageError(
                file, f"defines no function {module.name}", "Give the function the file's name."
            )
    return dict(sorted(found.items()))


def operand_names() -> list[str]:
    """Every name under which an operation takes checkpoints: a key of recipes."""
    names = (taken.name for operation in operations().values() for taken in operation.operands)
    return list(dict.fromkeys(names))


def get(name: str) -> Operation:
    """The operation called `name`, with dashes or underscores; else `UsageError`, with a hint."""
    command = name.replace("_", "-")
    if command not in operations():
        hint = merge_hint(command) or did_you_mean(command, operations())
        raise UsageError(name, "is not an operation", hint)
    return operations()[command]


# What other tools call their ways to make one model of several.
_MERGES = re.compile(
    "merge|slerp|ties|dare(-ties|-linear)?|linear|average|mean|soup|model-soup|model-stock|karcher"
    "|(nu|multi)slerp|task-arithmetic|della(-linear)?|breadcrumbs(-ties)?|nearswap|arcee-fusion|sce"
    "|passthrough|fisher|regmean|ram|tsv(-m)?|iso-c|iso-cts|knots|subspace-boosting|svc"
)


def merge_hint(word: str) -> str:
    """What there is instead of the way of merging models that `word` names; else an empty string."""
    if not _MERGES.fullmatch(word.lower().replace("_", "-")):
        return ""
    ways = {each.command: each for each in operations().values() if each.takes_several}
    if way := ways.get(word.lower().replace("_", "-")):
        return f"It makes one checkpoint of several: `{way.usage}`."
    several = list(ways)
    there = f"`uvmerge merge` has {', '.join(several)}. " if several else ""
    return (
        f"{there}Of a base and a fine-tuned checkpoint there are interpolate (the straight line"
        " between them), lines (a share that grows with depth) and truncate (the leading part of the"
        " difference)."
    )


def option_hint(command: str, word: str, known: Iterable[str], dashes: str = "") -> str:
    """What to do about an option that a command does not have.

    Args:
        known: the options that it has.
        dashes: what precedes an option where it is written.
    """
    key, own = word.replace("_", "-"), operations().get(command)
    for parameter in own.parameters if own else ():
        if key in parameter.option.formerly:
            return f"It is called `{dashes}{parameter.key}` now."
    others = [
        each.command for each in operations().values() if any(key == p.key for p in each.parameters)
    ]
    if others and key not in known:
        takes = f"; {command} takes `{own.example}`" if own and own.example else ""
        return f"`{dashes}{key}` is an option of {', '.join(others)}{takes}."
    if dashes and (close := closest(key, known)):
        return f"Did you mean '{dashes}{close}'?"
    return f"`uvmerge {command} --help` lists the options." if dashes else did_you_mean(key, known)


def read_operation(function: Callable[..., Any]) -> Operation:
    """What the signature of `function` declares."""
    # `typing.get_type_hints` of Python 3.10 hides an `Annotated` behind `Optional` where the default
    # is None.
    signature = inspect.signature(function, eval_str=True)
    options = [
        _option(name, parameter)
        for name, parameter in signature.parameters.items()
        if parameter.kind is parameter.KEYWORD_ONLY and name not in GIVEN
    ]
    operands = tuple(read_inputs(function, signature))
    if not operands:
        raise TypeError("takes no checkpoint: its positional parameters are the operands")
    if "draw" in signature.parameters and "seed" not in signature.parameters:
        raise TypeError("draws random numbers without an option seed")
    return Operation(
        function.__name__,
        function,
        operands,
        tuple(options),
        "place" in signature.parameters,
        "draw" in signature.parameters,
        getattr(function, "leaves_equal_inputs_alone", False),
        getattr(function, "fallback", {}),
    )


def _option(name: str, parameter: inspect.Parameter) -> Parameter:
    """An option, which may differ between tensors where it is a number or a switch."""
    found = Parameter.read(name, parameter.annotation, parameter.default)
    varies = found.type in (int, float, bool) and name != "seed"
    return replace(found, varies=varies)


__all__ = [
    "DOCSTRING_PARTS",
    "Input",
    "Operation",
    "Option",
    "Parameter",
    "get",
    "merge_hint",
    "operand_names",
    "operations",
    "option_hint",
    "read_operation",
]
