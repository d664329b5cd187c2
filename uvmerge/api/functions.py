"""The Python function of each operation, such as `uvmerge.restore`, made from its signature."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

from ..operations import Operation
from ..operations.options import FILTERS, Parameter
from ..output.places import Reference
from ..recipe.recipe import Recipe
from ..recipe.step import RecipeStep
from .run import Result, run_one
from .settings import RunSettings, shows, split


def operate(
    operation: Operation, references: Mapping[str, Reference], out: Reference, **options: Any
) -> Result:
    """Run one operation.

    Args:
        references: the checkpoints by role, as `Operation.assign` gives them.
        options: options of the operation, filters, and settings of a run.
    """
    chosen, watch = split(RunSettings, options)
    step = RecipeStep.parse(operation.command, options)
    return run_one(Recipe((step,)), references, out, chosen, watch)


def step_options(operation: Operation) -> list[Parameter]:
    """The options of an operation, and the filters that are not options of the operation itself."""
    own = {parameter.name for parameter in operation.parameters}
    return [*operation.parameters, *(p for p in FILTERS if p.name not in own)]


@cache
def function_for(operation: Operation) -> Callable[..., Result]:
    """`operate` for one operation, with the name and the docstring of the operation."""

    names = [operand.name for operand in operation.operands] + ["out"]

    def call(*places: Reference, **options: Any) -> Result:
        named = {name: options.pop(name) for name in names if name in options}
        return operate(operation, *operation.assign(places, named), **options)

    call.__name__ = call.__qualname__ = operation.name
    call.__module__ = "uvmerge"
    call.__doc__ = inspect.getdoc(operation.function)
    return shows(RunSettings, step_options(operation), positional=_positional(operation))(call)


def _positional(operation: Operation) -> list[inspect.Parameter]:
    """The parameters of the checkpoints and of OUT.

    Where an operation takes several models, all of them are given by place, OUT last, or each by name.
    """
    kinds = inspect.Parameter
    if not operation.takes_several:
        names = [*(operand.name for operand in operation.operands), "out"]
        return [kinds(n, kinds.POSITIONAL_OR_KEYWORD, annotation="Reference") for n in names]
    return [
        kinds("places", kinds.VAR_POSITIONAL, annotation="Reference"),
        *(
            kinds(name, kinds.KEYWORD_ONLY, default=..., annotation=annotation)
            for name, annotation in by_name(operation, "Reference").items()
        ),
    ]


def by_name(operation: Operation, reference: str) -> dict[str, str]:
    """The types of the checkpoints and of OUT where they are given by name."""
    several = {o.name: f"Sequence[{reference}]" for o in operation.operands if o.several}
    return {o.name: reference for o in operation.operands} | several | {"out": reference}
