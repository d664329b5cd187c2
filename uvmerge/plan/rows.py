"""What a plan changes, as the rows of a table, and the options of each edit that differ. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from ..checkpoint.stacks import one_name
from ..operations.varying import as_data, in_a_line, varying
from ..recipe.recipe import Recipe

if TYPE_CHECKING:
    from .steps import Block, Plan

HEAD = ("tensor", "action", "shape", "k", "count")
MOST_VALUES = 8  # of an option, in one cell


def change_rows(plan: Plan) -> tuple[tuple[str, ...], list[tuple[object, ...]]]:
    """The head and the rows of a table of what will be changed: one for each name in all layers.

    Where options differ between tensors, the last column has their values in the order of the layers.
    """
    groups: dict[tuple[str, ...], list[dict[str, str]]] = {}
    for step in plan.changes:
        layer = step.place.layer
        name = step.tensor if layer is None else one_name(step.tensor, layer)
        for block in step.blocks or (None,):
            shape = " × ".join(map(str, block.view.shape if block else step.elements))
            ranks = ", ".join(_rank_text(plan.recipe, block)) if block else ""
            key = (name, "edit" if block else "reset", shape, ranks)
            groups.setdefault(key, []).append(_spelled(plan.recipe, block) if block else {})
    rows: list[tuple[object, ...]] = [(*key, len(found)) for key, found in groups.items()]
    if not any(options for found in groups.values() for options in found):
        return HEAD, rows
    cells = [_values(found) for found in groups.values()]
    return (*HEAD, "options"), [(*row, cell) for row, cell in zip(rows, cells)]


def resolved_options(recipe: Recipe, block: Block) -> dict[str, Any]:
    """`options` of the record of a block: of each step those that differ between tensors, as they are
    here; empty where no option of the block's steps does."""
    found = [
        {p.key: as_data(options[p.name]) for p in recipe.steps[index].operation.parameters
         if p.name in options and p.name in varying(recipe.steps[index].options)}
        for index, options in zip(block.chain, block.options, strict=True)
    ]  # fmt: skip
    return {"options": found} if any(found) else {}


def _spelled(recipe: Recipe, block: Block) -> dict[str, str]:
    """The values of the options that differ, by option."""
    steps = resolved_options(recipe, block).get("options", [])
    return {key: in_a_line(value, per_model=True) for step in steps for key, value in step.items()}


def _values(found: list[dict[str, str]]) -> str:
    """`scale 0.2 0.5 0.8`: the values of each option, each once, or the first and the last."""
    parts = []
    for key in dict.fromkeys(key for options in found for key in options):
        values = list(dict.fromkeys(options[key] for options in found if key in options))
        shown = values if len(values) <= MOST_VALUES else [values[0], "…", values[-1]]
        parts.append(f"{key} {' '.join(shown)}")
    return ", ".join(parts)


def _rank_text(recipe: Recipe, block: Block) -> Iterator[str]:
    """k of each step in a chain; `energy` where values will decide, `-` where there is no k."""
    for index, k in zip(block.chain, block.ranks, strict=True):
        by_energy = "energy" in recipe.steps[index].options
        yield str(k) if k is not None else "energy" if by_energy else "-"
