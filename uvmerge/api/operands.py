"""The inputs of a recipe, and what is put together of them before a plan reads it.

The recipe alone decides how, and of a mixture the rows of its routers: whoever has them and the inputs gets
the same checkpoints, on any machine.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import NamedTuple

from ..checkpoint.folder import Checkpoint
from ..output.places import Reference
from ..plan.arranged import arranged
from ..recipe.recipe import Recipe
from . import vocabularies
from .mixing import MIRRORED, Mixed
from .opening import opened_for
from .settings import SweepSettings


class Operands(NamedTuple):
    """The checkpoints of a run.

    Attributes:
        inputs: by role, those that were opened, with the vocabulary of the output.
        checkpoints: by role, those that the plan reads: the inputs, or what a recipe of mergekit puts
            together of their layers, or the mixture of experts.
    """

    inputs: dict[str, Checkpoint]
    checkpoints: dict[str, Checkpoint]


@contextmanager
def operands_of(
    recipe: Recipe,
    references: Mapping[str, Reference],
    settings: SweepSettings,
    mixed: Mixed | None = None,
) -> Iterator[Operands]:
    """The checkpoints of a recipe that was planned before, its models named by role.

    Args:
        mixed: the mixture of experts that the recipe writes; None where it writes something else.

    Raises:
        InputRefused: an input cannot be had, or does not fit the others.
    """
    with opened_for(recipe, references, settings) as found:
        inputs = vocabularies.aligned(found, recipe, force=settings.force)
        if mixed is not None:
            yield Operands(inputs, {MIRRORED: mixed.checkpoint(inputs)})
        else:
            yield Operands(inputs, arranged(recipe, inputs)[1])
