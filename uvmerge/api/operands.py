"""The inputs of a recipe, and what is put together of them before a plan reads it.

The recipe alone decides how: whoever has it and the inputs, on any machine, gets the same checkpoints.
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
from .opening import opened_for
from .settings import SweepSettings


class Operands(NamedTuple):
    """The checkpoints of a run.

    Attributes:
        inputs: by role, those that were opened, with the vocabulary of the output.
        checkpoints: by role, those that the plan reads: the inputs, or what a recipe of mergekit puts
            together of their layers.
    """

    inputs: dict[str, Checkpoint]
    checkpoints: dict[str, Checkpoint]


@contextmanager
def operands_of(
    recipe: Recipe, references: Mapping[str, Reference], settings: SweepSettings
) -> Iterator[Operands]:
    """The checkpoints of a recipe that was planned before, its models named by role.

    Raises:
        InputRefused: an input cannot be had, or does not fit the others.
    """
    with opened_for(recipe, references, settings) as found:
        inputs = vocabularies.aligned(found, recipe, force=settings.force)
        yield Operands(inputs, arranged(recipe, inputs)[1])
