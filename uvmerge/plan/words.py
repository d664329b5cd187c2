"""A plan in words: the setting, the way from the inputs to OUT, and what changes. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ..checkpoint.roles import FINETUNED, by_name
from ..errors import counted
from ..operations.options import FILTERS
from ..operations.varying import Varying, in_a_line
from ..recipe.recipe import Recipe
from ..recipe.step import RecipeStep
from ..text import as_ranges
from .steps import Plan


def summary(plan: Plan) -> str:
    """`28 matrices edited, 0 tensors reset to base, 11 tensors copied`."""
    count = plan.counts()
    if plan.recipe.mixture is not None:
        experts = counted(len(plan.recipe.mixture["experts"]), "expert")
        return f"{experts} put together, {counted(count['copied'], 'tensor')} copied"
    return (
        f"{counted(count['edited'], plan.edited_kind)} edited, {counted(count['reset'], 'tensor')}"
        f" reset to {plan.reset_to}, {counted(count['copied'], 'tensor')} copied"
    )


def setting(recipe: Recipe) -> str:
    """`restore top 0.2`: each step with the options that were given, or that decide by default."""
    said = "; then ".join(map(_step, recipe.steps))
    return f"{said}; stored as {recipe.dtype}" if recipe.dtype else said


def way(references: Mapping[str, str | Path], out: str | Path) -> str:
    """`base org/base → finetuned sft → out repaired`.

    Args:
        references: the checkpoints by role, as they were named.
    """
    named = by_name(references)
    inputs = [f"{name} {_value(reference)}" for name, reference in named.items()]
    return f"{(' → ' if FINETUNED in named else ', ').join(inputs)} → out {out}"


def changed_layers(plan: Plan) -> str:
    """`layers 0-27 of 28 (attention, mlp)`, by stack where several change."""
    layers: dict[str, dict[int, int]] = {}  # by stack: each changed layer, and the depth
    outside: set[str] = set()
    modules: dict[str, None] = {}
    for step in plan.changes:
        place = step.place
        modules.setdefault(place.module)
        if place.layer is None:
            outside.add(step.tensor)
        else:
            layers.setdefault(place.stack or "", {})[place.layer] = place.depth
    parts = [_layers(found, f" in {stack}" if len(layers) > 1 else "")
             for stack, found in layers.items()]  # fmt: skip
    if outside:
        parts.append(f"{counted(len(outside), 'tensor')} outside the layers")
    return f"{', '.join(parts)} ({', '.join(modules)})" if parts else "no tensor changes"


def _layers(found: Mapping[int, int], where: str) -> str:
    depth = max(found.values())
    return f"layer{'s' if len(found) > 1 else ''} {as_ranges(found)} of {depth}{where}"


def _step(step: RecipeStep) -> str:
    """`restore top 0.2, layers 0-9`."""
    operation, options = step.operation, dict(step.options)
    said = {p.name: options[p.name] for p in operation.parameters if p.name in options}
    effective = operation.effective(options)
    said |= {name: effective[name] for name in operation.fallback if name in effective}
    said = said or effective
    keys = {p.name: p.key for p in operation.parameters}
    words = [*((keys[name], value) for name, value in said.items()), *_filters(step)]
    return f"{operation.command} {', '.join(_option(*each) for each in words)}".rstrip()


def _filters(step: RecipeStep) -> Iterator[tuple[str, Any]]:
    for parameter in FILTERS:
        value = getattr(step.selection, parameter.name)
        if value is not None and value != ():
            yield parameter.key, value


def _option(key: str, value: Any) -> str:
    if isinstance(value, bool):
        return key if value else f"no {key}"
    return f"{key} {_value(value)}"


def _value(value: Any) -> str:
    if isinstance(value, tuple) and any(isinstance(each, (float, Varying)) for each in value):
        return in_a_line(value, per_model=True)
    if isinstance(value, (list, tuple)):
        whole = value and all(type(each) is int for each in value)
        return as_ranges(value) if whole else ", ".join(map(_value, value))
    return f"{value:g}" if isinstance(value, float) else str(value)
