"""Parameters of mergekit's YAML, resolved: for each tensor of the output and each of its sources a value.

The levels are, from the first that counts to the last: source, slice, module, everything. A level whose
filters all miss is passed over. A parameter with a value for each model is matched against the name of
the tensor in that model, any other one against its name in the output. The position in a gradient is
that of the layer in its slice; a slice of one layer has the last value, a tensor outside of all layers
the first one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, ClassVar

from ..checkpoint.anatomy import Place
from ..errors import RecipeError
from ..operations.merging_options import cancel
from ..operations.varying import Rule, Varying
from .mergekit_layout import Layout, Settings
from .mergekit_words import REQUIRED, Word


@dataclass(frozen=True)
class Levels(Varying):
    """The values of one parameter.

    Attributes:
        rules: all rules of all levels.
        word: its name in the YAML.
        about: what the parameter is.
        layout: the models and their settings.
        is_tuple: whether a value for each model is wanted, rather than one number.
        if_zero: what to do where the values of the models sum to 0, which they may not; empty where
            they may.
    """

    word: str
    about: Word
    layout: Layout = field(repr=False, hash=False)
    is_tuple: bool = False
    if_zero: str = ""
    everywhere: ClassVar[bool] = True

    @property
    def is_gradient(self) -> bool:
        """No: which level counts depends on the tensor."""
        return False

    def __str__(self) -> str:
        told = dict.fromkeys(str(Varying((rule,))) for rule in self.rules)
        return ", ".join(told) if told else str(self.about.default)

    def at(self, name: str, place: Place) -> Any:
        """The value for the tensor `name` of the output at `place`; of each model, as a tuple.

        Raises:
            RecipeError: no level has a value, and the parameter has no default; or the values sum to
                0 where they may not.
        """
        span = self.layout.span_of(name, place)
        part, position = span.part, span.position(place)
        above = (part.settings, span.module.settings, self.layout.settings)
        if not self.about.per_model:
            return self._value(name, position, above, part.where)
        sources = self.layout.models_of(part)
        counted = [s for s in sources if self.about.of_base or s.model != part.base]
        values = {
            source.model: self._value(
                span.name_in(source, name, place), position, (source.settings, *above), source.where
            )
            for source in counted
        }
        if values and self.if_zero and cancel(list(values.values())):
            what = f"the weights of {name} sum to 0, by which the method divides"
            raise RecipeError(part.where, what, self.if_zero)
        found = [values.get(source.model, 1.0) for source in sources]  # that of a base is not used
        return tuple(found) if self.is_tuple else found[0]

    def as_data(self) -> Any:
        """The values as plain data, for a plan."""
        return str(self)

    def _value(self, name: str, position: float, levels: tuple[Settings, ...], where: str) -> Any:
        for settings in levels:
            for rule in settings.get(self.word, ()):
                if rule.fits(name):
                    return interpolated(rule, position)
        if self.about.default is REQUIRED:
            raise RecipeError(
                where, f"{self.word} has no value for {name}",
                f"Add `{self.word}` under `parameters:`, or a condition without a filter.",
            )  # fmt: skip
        return self.about.default


def interpolated(rule: Rule, position: float) -> Any:
    """The value of a rule at a position from 0 to 1; switches are picked, numbers are mixed."""
    values, last = rule.values, len(rule.values) - 1
    scaled = position * last
    low = min(math.floor(scaled), last)
    if isinstance(values[low], bool) or low == last:
        return values[low]
    mixed = (1 - (scaled - low)) * values[low] + (scaled - low) * values[low + 1]
    return math.floor(mixed + 0.5) if isinstance(values[low], int) else mixed
