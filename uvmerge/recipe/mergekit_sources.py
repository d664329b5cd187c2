"""Models, slices and modules of mergekit's YAML, read into the data of `mergekit_layout`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import yaml

from ..errors import RecipeError
from ..operations.options import did_you_mean
from ..text import brief
from . import mergekit_words as words
from .mergekit_layout import Module, Settings, Slice, Source
from .mergekit_values import MergingReader, coerced, rules_of
from .reader import Field

_PARTS = ("model", "lora", "override_architecture")
_PATH = ("path", "revision")
_REFERENCES = ("model", "base_model", "tokenizer_source", "source")  # keys whose value may be one


class SourceReader:
    """Reads what a file says of its models.

    Args:
        method: name of the method, which decides the parameters that count.
        notes: is given a sentence for each parameter that the method does not have.
    """

    def __init__(self, reader: MergingReader, method: str, notes: list[str]) -> None:
        self.reader, self.method, self.notes = reader, method, notes
        self.words = words.METHODS[method].words

    def modules(self, given: Field, base: str | None) -> tuple[Module, ...]:
        """The modules of a file, each with slices or with models."""
        found = []
        for name, each in self.reader.mapping(given.value).items():
            fields = self.reader.known(each.value, words.MODULE, "module")
            there = [key for key in ("slices", "models") if key in fields]
            if len(there) != 1:
                what = f"the module {brief(name)} has {'both' if there else 'neither'} slices and models"
                raise self.reader.fail(each.line, what, "Keep one of them.")
            slices = self.slices_of(there[0], fields[there[0]], base)
            settings = self._settings_in(fields, f"the module {name}")
            found.append(Module(name, slices, settings, self._where(each)))
        if not found:
            raise self.reader.fail(given.line, "modules names none")
        return tuple(found)

    def slices_of(self, kind: str, given: Field, base: str | None) -> tuple[Slice, ...]:
        """The slices under `slices:`, or the one that `models:` stands for."""
        items = self.reader.items(given, kind)
        if kind == "slices":
            return tuple(self._slice(item, base) for item in items)
        sources = [self._source(item, words.SOURCE) for item in items]
        self._refuse_twice(sources)
        if base is not None and base not in (source.model for source in sources):
            sources.append(Source(base, where=self._where(given)))
        return (Slice(tuple(sources), base, {}, self._where(given)),)

    def settings(self, given: Field, of: str, per_model: bool = True) -> Settings:
        """The values under `parameters:`.

        Args:
            of: whose they are, for messages.
            per_model: whether they may be for everything; else they are those of one model.
        """
        found = {}
        for name, each in self.reader.mapping(given.value).items():
            about = self.words.get(name)
            if about is None:
                self._unused(name, each)
            elif not per_model and not about.per_model and about.option:
                raise self.reader.fail(
                    each.line, f"{name} of {of} is never read: {self.method} has one {name} for all",
                    "Write it under `parameters:` of the file or of the slice.",
                )  # fmt: skip
            else:
                found[name] = rules_of(each, about.kind, name, self.reader)
        return found

    def reference(self, given: Field, what: str) -> str:
        """A reference to a model, in one text: `path@revision+adapter`."""
        if not isinstance(given.value, yaml.MappingNode):
            return self.reader.text(given, what)
        fields = self.reader.known(given.value, _PARTS, "reference")
        if "override_architecture" in fields:
            line = fields["override_architecture"].line
            what = "override_architecture is not supported"
            raise self.reader.fail(line, what, "Change `architectures` in the model's config.json.")
        if "model" not in fields:
            raise self.reader.fail(given.line, "a reference has no model", "Write `model: path`.")
        parts = [self._path(fields[key]) for key in ("model", "lora") if key in fields]
        return "+".join(parts)

    def _path(self, given: Field) -> str:
        if not isinstance(given.value, yaml.MappingNode):
            return self.reader.text(given, "path")
        fields = self.reader.known(given.value, _PATH, "path")
        texts = [self.reader.text(fields[key], key) for key in _PATH if key in fields]
        return "@".join(texts)

    def _slice(self, node: yaml.Node, base: str | None) -> Slice:
        fields = self.reader.known(node, words.SLICE, "slice")
        line = node.start_mark.line + 1
        if "sources" not in fields:
            raise self.reader.fail(line, "a slice has no sources", "Write `- sources: [...]`.")
        if "residual_weight" in fields:
            self.notes.append(
                f"line {fields['residual_weight'].line}: residual_weight has no effect"
            )
        items = self.reader.items(fields["sources"], "sources")
        sources = [self._source(item, words.SLICE_SOURCE) for item in items]
        self._refuse_twice(sources)
        counts = [s.layers[1] - s.layers[0] for s in sources if s.layers]
        if len(set(counts)) > 1:
            told = ", ".join(f"{s.layers[0]} to {s.layers[1]}" for s in sources if s.layers)
            what = f"the sources of a slice have different numbers of layers ({told})"
            raise RecipeError(sources[-1].where, what, "Give every layer_range the same length.")
        if "base_model" in fields:
            base = self.reference(fields["base_model"], "base_model")
        settings = self._settings_in(fields, "the slice")
        return Slice(tuple(sources), base, settings, f"{self.reader.source}:{line}")

    def _source(self, node: yaml.Node, known: tuple[str, ...]) -> Source:
        line = node.start_mark.line + 1
        if not isinstance(node, yaml.MappingNode):
            raise self.reader.fail(line, "expected a model here", "Write `- model: path`.")
        fields = self.reader.known(node, known, "source")
        if "model" not in fields:
            raise self.reader.fail(line, "a source has no model", "Write `- model: path`.")
        model = self.reference(fields["model"], "model")
        layers = None
        if "layer_range" in known:
            if "layer_range" not in fields:
                what = f"{brief(model)} has no layer_range"
                raise self.reader.fail(line, what, "Write `layer_range: [0, 16]`.")
            layers = self._range(fields["layer_range"])
        settings: Settings = {}
        if "parameters" in fields:
            settings = self.settings(fields["parameters"], brief(model), per_model=False)
        return Source(model, layers, settings, f"{self.reader.source}:{line}")

    def _range(self, given: Field) -> tuple[int, int]:
        values = self.reader.value(given.value)
        how = "Write the first layer and the one behind the last, like `layer_range: [0, 16]`."
        try:
            if any(isinstance(each, bool) for each in values):
                raise ValueError
            first, last = (coerced(each, int) for each in values)
        except (ValueError, TypeError):
            what = f"layer_range '{brief(values)}' is not two whole numbers"
            raise self.reader.fail(given.line, what, how) from None
        if first < 0 or last <= first:
            kind = (
                "is reversed"
                if last < first
                else "holds no layer"
                if last == first
                else "is negative"
            )
            raise self.reader.fail(given.line, f"layer_range [{first}, {last}] {kind}", how)
        if last - first > 10_000:
            raise self.reader.fail(
                given.line, f"layer_range [{first}, {last}] is far too long", how
            )
        return first, last

    def _settings_in(self, fields: Mapping[str, Field], of: str) -> Settings:
        return self.settings(fields["parameters"], of) if "parameters" in fields else {}

    def _unused(self, name: str, given: Field) -> None:
        """Note a parameter that other methods have; refuse one that none has."""
        if name in words.KNOWN_WORDS:
            self.notes.append(
                f"line {given.line}: {self.method} has no parameter '{name}', which is not used"
            )
            return
        hint = words.misplaced(name, "parameters") or did_you_mean(name, [*self.words])
        if not self.words:
            hint = f"{self.method} has no parameters."
        raise self.reader.fail(given.line, f"unknown parameter '{brief(name)}'", hint)

    def _refuse_twice(self, sources: list[Source]) -> None:
        seen: dict[str, Source] = {}
        for source in sources:
            if source.model in seen:
                raise RecipeError(
                    source.where, f"{brief(source.model)} stands here twice",
                    "Give it one weight; layers are repeated by further slices.",
                )  # fmt: skip
            seen[source.model] = source

    def _where(self, given: Field) -> str:
        return f"{self.reader.source}:{given.line}"


def renamed(key: str, value: Any, names: Mapping[str, str]) -> Any:
    """Plain data of a file in which references to models are replaced.

    Args:
        key: the key that has the value.
        names: by reference, what stands in its place.
    """
    if key in _REFERENCES and (text := _as_text(value)) is not None:
        return names.get(text, value)
    if isinstance(value, Mapping):
        return {name: renamed(name, each, names) for name, each in value.items()}
    return [renamed("", each, names) for each in value] if isinstance(value, list) else value


def _as_text(value: Any) -> str | None:
    """A reference in one text; None where the data is none."""
    if isinstance(value, str) or not isinstance(value, Mapping) or "kind" in value:
        return value if isinstance(value, str) else None
    parts = [value[key] for key in ("model", "lora") if key in value]
    paths = [
        part if isinstance(part, str) else "@".join(str(part[key]) for key in _PATH if key in part)
        for part in parts
    ]
    return "+".join(paths) if paths else None
