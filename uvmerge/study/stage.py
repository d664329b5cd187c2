"""What a stage of the study is, and the list of all of them.

A stage is one file of `stages/` that defines `STAGE`. It measures pairs through `Pair.once`, and makes
of all that was measured a summary, a section of the page and a figure. Nothing else has to be edited
for a new one.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from .lab import Pair
    from .sizes import Sizes


@dataclass(frozen=True)
class Measured:
    """What a stage measured on one pair.

    Attributes:
        regime: of the pair.
        seed: of the pair.
        values: by the keys that the stage gave to `Pair.once`.
    """

    regime: str
    seed: int
    values: Mapping[str, Any]


@dataclass(frozen=True)
class Stage:
    """A stage of the study.

    Attributes:
        name: as `--only` takes it; that of its file, and of its figure.
        order: its place on the page.
        title: of its section.
        regimes: of the pairs that it is measured on.
        measure: measures one pair; every training run and every test is a `Pair.once`.
        summarise: rows and claims, JSON-able, from what was measured; pure.
        section: the text of its section, in Markdown, from the summary; pure.
        draw: its figure, from the summary.
        rows: flat rows of the summary for the CSV file.
        sized: the sizes of what it trains and asks, in a sentence or two; pure.
    """

    name: str
    order: int
    title: str
    regimes: tuple[str, ...]
    measure: Callable[[Pair], None]
    summarise: Callable[[Sequence[Measured]], dict[str, Any]]
    section: Callable[[Mapping[str, Any]], str]
    draw: Callable[[Mapping[str, Any]], Figure]
    rows: Callable[[Mapping[str, Any]], list[dict[str, Any]]]
    sized: Callable[[Sizes], str] = lambda sizes: ""


def stage_names() -> list[str]:
    """The names of the stages, which are those of their files; none of them is imported."""
    from . import stages as folder

    return [module.name for module in pkgutil.iter_modules(folder.__path__)]


@cache
def stages() -> dict[str, Stage]:
    """The stages by name, in the order of the page."""
    modules = [f"{__package__}.stages.{name}" for name in stage_names()]
    found = [importlib.import_module(module).STAGE for module in modules]
    return {stage.name: stage for stage in sorted(found, key=lambda stage: stage.order)}
