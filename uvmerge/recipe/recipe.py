"""Recipes: an ordered list of operations, as YAML and as Python data.

    uvmerge: 1
    base: org/base@revision        # or a folder
    finetuned: path/to/sft
    steps:
      - restore: {top: 0.2, layers: 0-9}
      - reset-layers: {frac: 0.1}

A key for a checkpoint is the name of the operations' parameter that takes it. Where a parameter
takes several checkpoints (`*models`), the key has a list: `models: [a, b, c]`.

A recipe is untrusted data: no aliases, no tags, no paths to write to, no
interpolation of anything; unknown keys and values out of range are refused with their line.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from .. import operations
from ..checkpoint.header import DTYPE_WORDS, DTYPES
from ..checkpoint.roles import FINETUNED, by_role, name_of
from ..checkpoint.selection import Selection, parse_layer_map
from ..errors import RecipeError, UsageError, counted
from ..operations.options import did_you_mean
from ..operations.varying import as_data, refuse_other_counts
from ..text import brief, two_lines
from .file import as_text, read_recipe
from .mergekit import Merge, distinct, is_mergekit, merge_of
from .mergekit_words import MARKS
from .reader import Field, Reader, anchored_lines, compose
from .step import RecipeStep, step_of_fields
from .tokenizer import read_rule, rule_as_data, with_roles
from .tokenizer_rule import TokenizerRule

FORMAT_VERSION = 1
TEXT_KEYS = ("name", "description", "dtype", "layer-map")


@dataclass(frozen=True)
class Recipe:
    """What a run is asked to do: checkpoints, steps, and the dtype to store.

    Attributes:
        steps: the steps, applied to each tensor in this order.
        references: references to models, by the parameter that takes them (`base`, `finetuned`, …);
            a tuple where the parameter takes several. The caller must give those that are missing.
        dtype: `float32`, `float16`, `bfloat16`, or None to keep the dtype of each tensor.
        layer_map: where depths differ, which base layer each fine-tuned layer is, written
            FINETUNED:BASE (`0-2:0-2,3-5:5-7`).
        tokenizer: the tokens of the output, where they are not those of the mirrored checkpoint.
        mixture: what `uvmerge moe` was asked for, where the checkpoint is a mixture of experts that it
            puts together; only it makes such recipes.
        name, description: for people.
        merge: what a file of mergekit says, of which the recipe was made; else None.
    """

    steps: tuple[RecipeStep, ...]
    references: Mapping[str, str | tuple[str, ...]] = field(default_factory=dict)
    dtype: str | None = None
    layer_map: str | None = None
    tokenizer: TokenizerRule | None = None
    mixture: Mapping[str, Any] | None = None
    name: str | None = None
    description: str | None = field(default=None, compare=False)
    merge: Merge | None = None

    def __repr__(self) -> str:
        inputs = (f"{name} {reference}" for name, reference in self.references.items())
        return two_lines(
            "Recipe", str(self), f"on {', '.join(inputs) or 'checkpoints to be named'}"
        )

    def __str__(self) -> str:
        return ", then ".join(map(str, self.steps))

    def __post_init__(self) -> None:
        if self.dtype in DTYPE_WORDS:
            object.__setattr__(self, "dtype", DTYPE_WORDS[self.dtype])
        if self.dtype not in (None, *DTYPES):
            raise UsageError(
                "dtype",
                f"{self.dtype!r} is unknown",
                did_you_mean(str(self.dtype), (*DTYPES, *DTYPE_WORDS)),
            )
        if self.layer_map is not None:
            parse_layer_map(self.layer_map)

    @classmethod
    def load(cls, path: str | Path) -> Recipe:
        """Read the recipe file at `path`; `RecipeError` names the line that cannot be read."""
        return cls.parse(*read_recipe(path, "uvmerge run RECIPE OUT"))

    @classmethod
    def parse(cls, text: str | bytes, source: str = "recipe") -> Recipe:
        """Read the text of a recipe; `source` names it in messages."""
        node = compose(text, source, MARKS)
        if is_mergekit(node):
            return cls.of_merge(merge_of(node, source, anchored_lines(text)))
        return cls.of_nodes(node, Reader(source))

    @classmethod
    def of_merge(cls, merge: Merge) -> Recipe:
        """The recipe that a file of mergekit is: one step, on all tensors."""
        step = RecipeStep(merge.operation, merge.options, Selection(), merge.lines)
        references = merge.layout.references()
        rule = merge.tokenizer
        if rule is not None:
            roles = by_role(references)
            names = {reference: role for role, reference in roles.items()}
            rule = with_roles(rule, roles, names.get)
        return cls((step,), references, merge.dtype, tokenizer=rule, name=merge.name, merge=merge)

    @classmethod
    def of_nodes(cls, node: yaml.Node, reader: Reader) -> Recipe:
        """The recipe in the root node of a YAML document."""
        keys = ("uvmerge", *TEXT_KEYS, *operations.operand_names(), "tokenizer", "steps")
        _refuse_mixture(node, reader)
        return _build(reader.mapping(node, keys), reader)

    @classmethod
    def from_data(cls, data: Mapping[str, Any]) -> Recipe:
        """The recipe in `data`, the content of a recipe file; the inverse of `as_data`."""
        return cls.parse(as_text(data))

    def as_data(self) -> dict[str, Any]:
        """The recipe as plain data, in the order of a recipe file; one of mergekit as it was."""
        if self.merge is not None:
            return self.merge.as_data(self.dtype, self._other_tokenizer())
        names = (name for name in operations.operand_names() if name in self.references)
        data = {
            "uvmerge": FORMAT_VERSION, "name": self.name, "description": self.description,
            **{name: as_data(self.references[name]) for name in names},
            "dtype": self.dtype, "layer-map": self.layer_map,
            "tokenizer": self.tokenizer and rule_as_data(self.tokenizer),
            "mixture": self.mixture,
            "steps": [step.as_data() for step in self.steps],
        }  # fmt: skip
        return {key: value for key, value in data.items() if value is not None}

    @property
    def asked(self) -> Any:
        """What is done, without the names of the models: the steps, as data."""
        if self.merge is None:
            return self.as_data()["steps"]
        roles = {
            reference: role for role, reference in by_role(self.merge.layout.references()).items()
        }
        return self.merge.named(self.as_data(), roles)

    def with_references(self, named: Mapping[str, Any]) -> dict[str, Any]:
        """The recipe as data with other references for its models.

        Args:
            named: the references by parameter, as `by_name` gives them.
        """
        if self.merge is None:
            return {**self.as_data(), **named}
        before = by_role(self.merge.layout.references())
        now = distinct(by_role(named))
        names = {reference: now.get(role, reference) for role, reference in before.items()}
        return self.merge.named(self.as_data(), names)

    def _other_tokenizer(self) -> TokenizerRule | None:
        """The rule for the tokens, where it is not that of the file of mergekit."""
        own = self.of_merge(self.merge).tokenizer if self.merge else None
        return self.tokenizer if self.tokenizer != own else None

    def inputs(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """References by role, in the order in which the steps take them.

        Args:
            given: references by parameter, which replace the recipe's own; None and empty values
                are ignored.

        Raises:
            UsageError: a step lacks a checkpoint, or no step takes one that is named.
        """
        named = {**self.references, **{k: v for k, v in given.items() if v not in (None, (), [])}}
        found = by_role(named)
        if self.merge is not None:
            self.merge.refuse_other_models(found)
        self.refuse_other_roles(found)
        taken = (role for step in self.steps for role in step.operation.roles_among(found))
        return {role: found[role] for role in taken}

    def refuse_other_roles(self, roles: Collection[str]) -> None:
        """Refuse roles that do not fit the checkpoints that the steps take.

        A step that edits the fine-tuned tensor needs no fine-tuned checkpoint where an earlier step
        makes the tensor.

        Raises:
            UsageError: a step lacks a checkpoint, or no step takes one of `roles`.
        """
        is_made = False
        for operation in (step.operation for step in self.steps):
            names = {name_of(role) for role in operation.roles_among(roles)}
            names |= {FINETUNED} if is_made else set()
            for operand in operation.operands:
                if operand.name not in names:
                    values = "[…, …]" if operand.several else "…"
                    raise UsageError(
                        "recipe",
                        f"names no {operand.name}, which {operation.command} takes",
                        f"Usage: {operation.usage}. In a recipe `{operand.name}: {values}`, or"
                        f" --{operand.name} on the command line.",
                    )
                fits = self.merge is not None or operand.fits(roles)  # there, each slice is checked
                if operand.several and not fits:
                    raise UsageError(
                        operation.command,
                        f"cannot work on {counted(len(operation.roles_among(roles)), 'checkpoint')}",
                        f"Usage: {operation.usage}",
                    )
            is_made = is_made or not operation.edits
        for step in self.steps:
            operation, taken = step.operation, step.operation.roles_among(roles)
            models = len(taken) - sum(not operand.several for operand in operation.operands)
            try:
                refuse_other_counts(operation.command, operation.parameters, step.options, models)
            except UsageError as error:
                raise step.located(error) from None
        all_taken = {role for step in self.steps for role in step.operation.roles_among(roles)}
        if idle := [role for role in roles if role not in all_taken]:
            usage = "; ".join(dict.fromkeys(step.operation.usage for step in self.steps))
            raise UsageError(
                "recipe", f"names {', '.join(idle)}, which no step takes", f"Usage: {usage}."
            )


def _refuse_mixture(node: yaml.Node, reader: Reader) -> None:
    """Refuse the recipe in the manifest of a mixture of experts."""
    for key, _ in node.value if isinstance(node, yaml.MappingNode) else ():
        if key.value == "mixture":
            what = "is the recipe of a mixture of experts, which `uvmerge moe` makes"
            do = "Write what stands under `mixture` to a file: `uvmerge moe FILE OUT`."
            raise reader.fail(key.start_mark.line + 1, what, do)


def _build(fields: Mapping[str, Field], reader: Reader) -> Recipe:
    for key in ("uvmerge", "steps"):
        if key not in fields:
            raise reader.fail(1, f"the key {key!r} is missing", "Start with `uvmerge: 1`.")
    version = reader.value(fields["uvmerge"].value)
    if type(version) is not int or version != FORMAT_VERSION:
        raise reader.fail(
            fields["uvmerge"].line,
            f"recipe format {version!r}, this uvmerge reads {FORMAT_VERSION}",
        )
    texts: dict[str, Any] = {
        key.replace("-", "_"): _text(key, fields[key], reader) for key in TEXT_KEYS if key in fields
    }
    names = [name for name in operations.operand_names() if name in fields]
    references = {name: _reference(name, fields[name], reader) for name in names}
    rule = read_rule(fields["tokenizer"], reader) if "tokenizer" in fields else None
    try:
        steps = tuple(_steps(fields["steps"], reader))
        return Recipe(steps, references, tokenizer=rule, **texts)
    except RecipeError:
        raise
    except UsageError as error:
        raise reader.fail(fields.get("dtype", fields["steps"]).line, error.what, error.do) from None


def _text(key: str, given: Field, reader: Reader) -> str:
    value = reader.value(given.value)
    if not isinstance(value, str):
        raise reader.fail(given.line, f"{key} must be text, not {value!r}")
    return value


def _reference(name: str, given: Field, reader: Reader) -> str | tuple[str, ...]:
    """One reference to a model, or a list of several as a tuple."""
    if not isinstance(given.value, yaml.SequenceNode):
        return _text(name, given, reader)
    values = reader.value(given.value)
    if not values or not all(isinstance(value, str) for value in values):
        raise reader.fail(given.line, f"{name} must be a list of texts, not {brief(values)}")
    return tuple(values)


def _steps(steps: Field, reader: Reader) -> Iterator[RecipeStep]:
    if not isinstance(steps.value, yaml.SequenceNode) or not steps.value.value:
        raise reader.fail(steps.line, "steps must be a list with at least one step")
    for item in steps.value.value:
        line = item.start_mark.line + 1
        if isinstance(item, yaml.ScalarNode):
            yield step_of_fields(str(item.value), {}, line, reader)
            continue
        step = reader.mapping(item)
        if len(step) != 1:
            raise reader.fail(line, "a step is one operation", "Write `- restore: {top: 0.2}`.")
        ((name, body),) = step.items()
        empty = isinstance(body.value, yaml.ScalarNode) and reader.value(body.value) is None
        settings = {} if empty else reader.mapping(body.value)
        yield step_of_fields(name, settings, line, reader)
