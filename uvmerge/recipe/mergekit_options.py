"""The options of an operation, of the parameters that a file of mergekit sets in any of its levels."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ..errors import RecipeError
from ..operations import Operation
from ..operations.varying import EVERYTHING, Rule
from ..text import brief
from . import mergekit_words as words
from .levels import Levels
from .mergekit_layout import Layout, Settings
from .mergekit_values import checked
from .mergekit_words import REQUIRED, Word


def options_of(layout: Layout, name: str, operation: Operation, notes: list[str]) -> dict[str, Any]:
    """The options of an operation by name: a value that is the same everywhere as it is.

    Args:
        name: of the method.
        notes: is given a sentence for each value that is not used.

    Raises:
        RecipeError: a value is out of range or missing, or the operation does not have it.
    """
    return _Options(layout, name, notes).of(operation)


class _Options:
    def __init__(self, layout: Layout, name: str, notes: list[str]) -> None:
        self.layout, self.name, self.notes = layout, name, notes
        self.method = words.METHODS[name]

    def of(self, operation: Operation) -> dict[str, Any]:
        """The options of the operation, without those that have their default."""
        layout, method = self.layout, self.method
        known = {each.name: each for each in operation.parameters}
        found = {key: value for key, value in method.fixed.items() if key in known}
        if "deltas" in known and any(part.base for part in layout.slices):
            found["deltas"] = True
        if "vectors" in known:
            found["vectors"] = self._vectors()
        for word, about in method.words.items():
            rules = tuple(r for each in levels_of(layout) for r in each.get(word, ()))
            parameter = known.get(about.option)
            if parameter is None:
                self._refuse_without_option(rules, word, about)
            elif about.option != "vectors":
                checked(rules, word, parameter.parse)
                self._refuse_missing(word, about)
                if_zero = self._if_zero() if word == "weight" else ""
                levels = Levels(rules, word, about, layout, parameter.per_model, if_zero)
                is_plain = not rules and about.default is not REQUIRED
                found[parameter.name] = about.default if is_plain else _simplest(levels)
        return {key: value for key, value in found.items() if value != known[key].default}

    def _if_zero(self) -> str:
        """What to do where the weights sum to 0; empty where nothing is divided by that sum."""
        if not self.method.divides:
            return ""
        known = ("normalize", "normalize_weights")
        word = next((each for each in known if each in self.method.words), None)
        if word is None:
            return "Change a weight."
        rules = [rule for each in levels_of(self.layout) for rule in each.get(word, ())]
        values = [value for rule in rules for value in rule.values]
        divides = all(values) if values else self.method.words[word].default
        return f"Change a weight, or set `{word}: false`." if divides else ""

    def _vectors(self) -> str:
        """What counts as one vector for nuslerp, by the peer's two switches."""
        switches = {"nuslerp_flatten": True, "nuslerp_row_wise": False}
        for word in switches:
            for settings in levels_of(self.layout):
                for rule in settings.get(word, ()):
                    is_global = settings is self.layout.settings and rule.filter == EVERYTHING
                    if not is_global or len(rule.values) > 1:
                        do = f"Write `{word}: true` or false under `parameters:` of the file."
                        raise RecipeError(
                            rule.where, f"{word} must be one value for everything", do
                        )
                    switches[word] = rule.values[0]
        if switches["nuslerp_flatten"]:
            return "whole"
        return "columns" if switches["nuslerp_row_wise"] else "rows"

    def _refuse_missing(self, word: str, about: Word) -> None:
        """Refuse a parameter that must have a value and has none in any level; note an idle one."""
        for module in self.layout.modules:
            above = word in self.layout.settings or word in module.settings
            for part in module.slices:
                base = next((s for s in part.sources if s.model == part.base), None)
                idle = about.per_model and not about.of_base
                if idle and base is not None and word in base.settings:
                    line = base.settings[word][0].where.rpartition(":")[2]
                    self.notes.append(f"line {line}: {word} of the base is not used")
                if about.default is not REQUIRED or above or word in part.settings:
                    continue
                do = f"Add `{word}: …` under `parameters:`, there or for all of them."
                if not about.per_model:
                    raise RecipeError(part.where, f"{word} has no value", do)
                for each in self.layout.models_of(part):
                    if word not in each.settings and (each is not base or about.of_base):
                        raise RecipeError(
                            each.where, f"{word} has no value for {brief(each.model)}", do
                        )

    def _refuse_without_option(self, rules: tuple[Rule, ...], word: str, about: Word) -> None:
        """Refuse a value that would have an effect, of a parameter that the operation has not."""
        for rule in rules if about.option else ():
            if any(value != about.default for value in rule.values):
                what = f"{word} other than {about.default} is not supported for {self.name}"
                raise RecipeError(rule.where, what, f"Leave {word} out.")


def lines_of(layout: Layout, name: str) -> dict[str, str]:
    """By option, as messages spell it, where a method's parameter has its first value."""
    found: dict[str, str] = {}
    for word, about in words.METHODS[name].words.items():
        rules = [rule for each in levels_of(layout) for rule in each.get(word, ())]
        if rules:
            found.setdefault(about.option.replace("_", "-"), rules[0].where)
    return found


def levels_of(layout: Layout) -> Iterator[Settings]:
    """The settings of every level, from that of everything down to the sources."""
    yield layout.settings
    for module in layout.modules:
        yield module.settings
        for part in module.slices:
            yield part.settings
            for source in part.sources:
                yield source.settings


def _simplest(levels: Levels) -> Any:
    """The plain value where one holds for everything, else the levels."""
    rules = levels.rules
    is_one = levels.word in levels.layout.settings and len(rules) == 1
    is_plain = is_one and len(rules[0].values) == 1 and rules[0].filter == EVERYTHING
    return rules[0].values[0] if is_plain and not levels.if_zero else levels
