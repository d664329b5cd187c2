"""The Python function of each operation, made from its signature: `uvmerge.restore(base, sft, out)`."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import cache
from typing import Any

from ..operations import Operation
from ..operations.options import FILTERS, Parameter
from ..output.places import Reference
from ..recipe.recipe import Recipe, RecipeStep
from .run import Result, run
from .settings import WATCH, RunSettings, parameters, shows


def operate(
    operation: Operation, base: Reference, finetuned: Reference, out: Reference, **options: Any
) -> Result:
    """Run one operation; `options` are its own, the filters, and the settings of a run."""
    known = (*(parameter.name for parameter in parameters(RunSettings)), *WATCH)
    settings = {name: options.pop(name) for name in known if name in options}
    step = RecipeStep.parse(operation.command, options)
    return run(Recipe((step,)), out, base=base, finetuned=finetuned, **settings)


def step_options(operation: Operation) -> list[Parameter]:
    """The options of an operation, and the filters that it does not own."""
    own = {parameter.name for parameter in operation.parameters}
    return [*operation.parameters, *(p for p in FILTERS if p.name not in own)]


@cache
def function_for(operation: Operation) -> Callable[..., Result]:
    """`operate` for one operation, with its name and its help."""

    def call(base: Reference, finetuned: Reference, out: Reference, **options: Any) -> Result:
        return operate(operation, base, finetuned, out, **options)

    call.__name__ = call.__qualname__ = operation.name
    call.__module__ = "uvmerge"
    call.__doc__ = inspect.getdoc(operation.function)
    return shows(RunSettings, step_options(operation))(call)
