"""mergekit's YAML: read with its own meaning, refused where it means nothing.

What a file says is `Merge`; `recipe.py` makes a step of it. The schema is that of mergekit 0.1.5, which
ignores unknown keys and filters that match nothing: here they are errors with their line.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

import yaml

from .. import operations
from ..checkpoint.roles import BASE, by_role
from ..errors import UsageError, counted
from ..operations import Operation
from ..operations.options import did_you_mean
from ..text import brief
from . import mergekit_words as words
from .mergekit_layout import DEFAULT, Layout, Module, Settings
from .mergekit_options import lines_of, options_of
from .mergekit_sources import SourceReader, renamed
from .mergekit_tokens import rule_data, tokenizer_rule
from .mergekit_values import MergingReader
from .mergekit_words import NEEDED, Method
from .tokenizer_rule import TokenizerRule


@dataclass(frozen=True)
class Merge:
    """What a file of mergekit asks for.

    Attributes:
        source: the file's name in messages.
        operation: what merges the tensors.
        options: its options, as a recipe step has them.
        layout: which models make which part of the output.
        dtype: of the output, or None where the file does not say.
        tokenizer: whose tokens the output has; None for those of the base, or of the first model.
        chat_template: `auto`, a name, or the template itself; None to keep the one there is.
        name: what the file calls itself.
        notes: what the user should know, as sentences.
        content: the file as plain data.
        lines: where each option stands; under "" the method.
    """

    source: str = field(compare=False)
    operation: Operation
    options: Mapping[str, Any]
    layout: Layout
    dtype: str | None
    tokenizer: TokenizerRule | None
    chat_template: str | None
    name: str | None
    notes: tuple[str, ...] = field(compare=False)
    content: Mapping[str, Any]
    lines: Mapping[str, str] = field(compare=False)

    def as_data(self, dtype: str | None, tokenizer: TokenizerRule | None) -> dict[str, Any]:
        """The file as plain data.

        Args:
            dtype: of the output, which the caller may have changed.
            tokenizer: a rule that replaces the file's; None to keep that.
        """
        data = dict(self.content)
        if dtype != self.dtype:
            data["out_dtype"] = dtype
        if tokenizer is not None:
            data.pop("tokenizer_source", None)
            data["tokenizer"] = rule_data(tokenizer)
        return {key: data[key] for key in words.TOP if key in data}

    def refuse_other_models(self, roles: Collection[str]) -> None:
        """Refuse more or fewer models than the file has, which says what is done with each.

        Raises:
            UsageError: the roles are not those of the file's models.
        """
        own = by_role(self.layout.references())
        if own.keys() != set(roles):
            takes, gets = (
                f"{'a' if BASE in each else 'no'} base and"
                f" {counted(sum(role != BASE for role in each), 'model')}"
                for each in (own, roles)
            )
            what = f"takes {takes}, and gets {gets}"
            do = f"Name them in this order: {', '.join(map(brief, own.values()))}."
            raise UsageError(self.source, what, do)

    @staticmethod
    def named(data: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
        """A file as plain data, in which references to models are replaced by `names`."""
        return {key: renamed(key, value, names) for key, value in data.items()}


def distinct(references: Mapping[str, Any]) -> dict[str, str]:
    """References by role as texts, a number behind each that is the name of two models."""
    found: dict[str, str] = {}
    for role, reference in references.items():
        text, number = str(reference), 2
        while text in found.values():
            text, number = f"{reference} ({number})", number + 1
        found[role] = text
    return found


def is_mergekit(node: yaml.Node) -> bool:
    """Whether the root of a document has keys of mergekit, and none of uvmerge's own."""
    pairs = node.value if isinstance(node, yaml.MappingNode) else []
    keys = {str(key.value) for key, _ in pairs}
    return "uvmerge" not in keys and not keys.isdisjoint(words.MARKS)


def merge_of(node: yaml.Node, source: str, anchored: Collection[int]) -> Merge:
    """What the root node of a file of mergekit says.

    Args:
        source: the file's name in messages.
        anchored: lines of the file in which an anchor stands.

    Raises:
        RecipeError: with the line, where the file is refused.
    """
    return _Parser(node, MergingReader(source, anchored)).merge()


class _Parser:
    def __init__(self, node: yaml.Node, reader: MergingReader) -> None:
        self.node, self.reader = node, reader
        self.fields = self.reader.without_empty(self.reader.mapping(node))
        self.notes: list[str] = []

    def merge(self) -> Merge:
        self._refuse_other_tools()
        name = self._method_name()
        method, operation = words.METHODS[name], self._operation(name)
        self._refuse_unknown_keys()
        reader = SourceReader(self.reader, name, self.notes)
        layout = self._layout(reader, method, operation)
        self._refuse_misfits(layout, method, name)
        content = self.reader.plain(self.node)
        return Merge(
            self.reader.source, operation, options_of(layout, name, operation, self.notes), layout,
            self._dtype(), self._tokenizer(), self._chat_template(), self._text("name"),
            tuple(self.notes), {key: content[key] for key in content if key in words.TOP},
            {"": self.reader.place(self.fields["merge_method"].line), **lines_of(layout, name)},
        )  # fmt: skip

    def _refuse_other_tools(self) -> None:
        for key, what in words.OTHER_TOOLS.items():
            if key in self.fields:
                raise self.reader.fail(self.fields[key].line, what, "`uvmerge --help` lists both.")

    def _method_name(self) -> str:
        if "merge_method" not in self.fields:
            hint = next(
                (k for k in self.fields if did_you_mean(k, ["merge_method"])[:3] == "Did"), ""
            )
            line = self.fields[hint].line if hint else 1
            raise self.reader.fail(
                line, "the key 'merge_method' is missing", f"Known: {', '.join(words.METHODS)}."
            )
        given = self.fields["merge_method"]
        name = self.reader.text(given, "merge_method").replace("-", "_")
        if name in words.METHODS:
            return name
        hint = words.OTHER_METHODS.get(name) or did_you_mean(name.lower(), words.METHODS)
        what = "is not supported" if name in words.OTHER_METHODS else "is unknown"
        raise self.reader.fail(given.line, f"the merge_method '{brief(name)}' {what}", hint)

    def _operation(self, name: str) -> Operation:
        try:
            return operations.get(name)
        except UsageError as error:
            line = self.fields["merge_method"].line
            raise self.reader.fail(line, f"{error.where} {error.what}", error.do) from None

    def _refuse_unknown_keys(self) -> None:
        for key, found in self.fields.items():
            if key == "name":
                self.notes.append(f"line {found.line}: name is only for people")
            elif key not in words.TOP:
                if not self.reader.holds_anchor(found):
                    hint = words.misplaced(key, "top") or did_you_mean(key, words.TOP)
                    raise self.reader.fail(found.line, f"unknown key '{brief(key)}'", hint)
                self.notes.append(f"line {found.line}: '{brief(key)}' only holds an anchor")

    def _layout(self, reader: SourceReader, method: Method, operation: Operation) -> Layout:
        there = [key for key in words.LAYOUTS if key in self.fields]
        if len(there) != 1:
            first, *others = there or [""]
            line = self.fields[others[0]].line if others else self.fields["merge_method"].line
            what = (
                f"has both {first} and {others[0]}" if others
                else "names no models: one of models, slices and modules must be there"
            )  # fmt: skip
            raise self.reader.fail(line, what, "Keep one: `models:` a list of `- model: …`.")
        base = None
        if "base_model" in self.fields:
            base = reader.reference(self.fields["base_model"], "base_model")
        takes_base = any(operand.name == "base" for operand in operation.operands)
        if there == ["modules"]:
            modules = reader.modules(self.fields["modules"], base)
        else:
            line = self.fields[there[0]].line
            slices = reader.slices_of(there[0], self.fields[there[0]], base)
            modules = (Module(DEFAULT, slices, {}, f"{self.reader.source}:{line}"),)
        settings: Settings = {}
        if "parameters" in self.fields:
            settings = reader.settings(self.fields["parameters"], "the file")
        uses_base = takes_base and (base is not None or method.base == NEEDED)
        return Layout(uses_base, modules, settings)

    def _refuse_misfits(self, layout: Layout, method: Method, name: str) -> None:
        """Refuse slices with too few or too many models, or without the base that they need."""
        for part in layout.slices:
            count = len(part.sources)
            named = [source.model for source in part.sources]
            if method.base == NEEDED and part.base is None:
                what = f"{name} needs a base_model, and none is named"
                raise self._at(part.where, what, "Add `base_model: …` at the top.")
            if method.base == NEEDED and part.base not in named:
                what = f"the base_model {brief(part.base)} is no source of this slice"
                raise self._at(part.where, what, "Add it to the sources, with its layer_range.")
            most = method.most
            if count < method.least or (most is not None and count > most):
                few = most is None or count < method.least
                wanted = "" if most == method.least else "at least " if few else "at most "
                wanted += counted(method.least if few else most or 0, "model")
                what = f"{name} takes {wanted}, the base counted, and gets {count}: {', '.join(map(brief, named))}"
                do = "Name more models" if few else "Leave models out"
                raise self._at(part.where, what, f"{do}, or choose another merge_method.")
        if method.base == NEEDED and not any(map(layout.models_of, layout.slices)):
            what = f"{name} merges models into the base_model, and none is named beside it"
            raise self._at(next(iter(layout.slices)).where, what, "Add `- model: …`.")

    def _at(self, where: str, what: str, do: str) -> Exception:
        return self.reader.fail(int(where.rpartition(":")[2]), what, do)

    def _dtype(self) -> str | None:
        """The dtype of the output: `out_dtype`, else `dtype`."""
        found: str | None = None
        for key in ("dtype", "out_dtype"):
            if key not in self.fields:
                continue
            given = self.fields[key]
            found = self.reader.text(given, key).removeprefix("torch.")
            if found not in words.DTYPE_NAMES:
                raise self.reader.fail(
                    given.line, f"{key} '{brief(found)}' is unknown",
                    did_you_mean(found, words.DTYPE_NAMES),
                )  # fmt: skip
        if found == "float64":
            line = self.fields["out_dtype" if "out_dtype" in self.fields else "dtype"].line
            raise self.reader.fail(
                line, "an output in float64 is not supported",
                "Add `out_dtype: float32`; everything is computed in float32 or float64 anyway.",
            )  # fmt: skip
        return found

    def _tokenizer(self) -> TokenizerRule | None:
        given, plain = self.fields.get("tokenizer"), self.fields.get("tokenizer_source")
        if given and plain:
            what = "has both tokenizer and tokenizer_source"
            raise self.reader.fail(max(given.line, plain.line), what, "Keep `tokenizer:`.")
        return tokenizer_rule(given, plain, self.reader)

    def _chat_template(self) -> str | None:
        """`auto`, a name, or a template."""
        found = self._text("chat_template")
        if found is not None and "{" not in found and found not in words.TEMPLATES:
            raise self.reader.fail(
                self.fields["chat_template"].line,
                f"the chat_template '{brief(found)}' is neither known nor a template",
                f"Known: {', '.join(words.TEMPLATES)}; or write the template itself.",
            )
        return found

    def _text(self, key: str) -> str | None:
        """The text of a key at the top; None where it is not given."""
        return self.reader.text(self.fields[key], key) if key in self.fields else None
