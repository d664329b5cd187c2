"""The operations, found by looking: every module here with a function of its own name is one.

The signature is the schema. Positional parameters annotated `Matrix` receive one weight matrix at a
time, parameters annotated `Operand` every tensor; they are the checkpoints on the command line.
Keyword-only parameters are options, except `place`, which tells where the tensor stands.
Nothing here imports torch.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from ..errors import UsageError
from ..spectral import Matrix
from .options import Option, Parameter, did_you_mean

DOCSTRING_PARTS = ("Formula:", "Exact:", "Cost:", "Source:")


@dataclass(frozen=True)
class Operation:
    """One operation and what its signature says about it.

    Attributes:
        parameters: its options.
        wants_place: whether it is told where a tensor stands in the model.
        leaves_equal_inputs_alone: whether it declares that equal inputs come back as they are.
    """

    name: str
    function: Callable[..., Any]
    parameters: tuple[Parameter, ...]
    matrices_only: bool
    wants_place: bool
    leaves_equal_inputs_alone: bool

    @property
    def command(self) -> str:
        """Its name on the command line and in recipes: `reset-layers`."""
        return self.name.replace("_", "-")

    @property
    def summary(self) -> str:
        """The first sentence of its docstring."""
        return (inspect.getdoc(self.function) or "").partition("\n\n")[0].replace("\n", " ")

    def parse(self, options: Mapping[str, object]) -> dict[str, Any]:
        """Options by Python name, checked, without those left at their default."""
        known = {p.name: p for p in self.parameters} | {p.key: p for p in self.parameters}
        parsed: dict[str, Any] = {}
        seen: set[str] = set()
        for key, value in options.items():
            if key not in known:
                words = {p.key for p in self.parameters}
                raise UsageError(
                    f"{self.command}: {key}", "is not an option", did_you_mean(key, words)
                )
            parameter = known[key]
            if parameter.name in seen:
                raise UsageError(
                    f"{self.command}: {parameter.key}", "is given twice, in two spellings"
                )
            seen.add(parameter.name)
            result = parameter.parse(value)
            if result != parameter.default:
                parsed[parameter.name] = result
        return parsed


@cache
def operations() -> dict[str, Operation]:
    """Every operation by its command name, sorted."""
    found = {}
    for module in pkgutil.iter_modules(__path__):
        if module.name == "options":
            continue
        file = f"operations/{module.name}.py"
        try:
            loaded = importlib.import_module(f"{__name__}.{module.name}")
            operation = read_operation(vars(loaded)[module.name])
        except KeyError:
            raise UsageError(
                file, f"defines no function {module.name}", "Give the function the file's name."
            ) from None
        except Exception as error:
            raise UsageError(
                file, f"cannot be read: {type(error).__name__}: {error}",
                "README, \"Adding an operation\", shows one that can.",
            ) from error  # fmt: skip
        found[operation.command] = operation
    return dict(sorted(found.items()))


def get(name: str) -> Operation:
    """The operation called `name`, with dashes or underscores; `UsageError` suggests a near one."""
    command = name.replace("_", "-")
    if command not in operations():
        raise UsageError(name, "is not an operation", did_you_mean(command, operations()))
    return operations()[command]


def read_operation(function: Callable[..., Any]) -> Operation:
    """What the signature of `function` declares."""
    signature = inspect.signature(function)
    hints = typing.get_type_hints(function, include_extras=True)
    options, operands = [], []
    for name, parameter in signature.parameters.items():
        if parameter.kind is not inspect.Parameter.KEYWORD_ONLY:
            operands.append(hints[name])
        elif name != "place":
            options.append(Parameter.read(name, hints[name], parameter.default))
    return Operation(
        function.__name__,
        function,
        tuple(options),
        Matrix in operands,
        "place" in signature.parameters,
        getattr(function, "leaves_equal_inputs_alone", False),
    )


__all__ = [
    "DOCSTRING_PARTS",
    "Operation",
    "Option",
    "Parameter",
    "get",
    "operations",
    "read_operation",
]
