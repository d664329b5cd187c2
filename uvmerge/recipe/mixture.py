"""What `uvmerge moe` is asked to make: the experts of a mixture, and where its routers come from.

    base_model: org/base
    gate_mode: hidden              # hidden, hidden_avg, cheap_embed, random or uniform_random
    experts_per_token: 2
    experts:
      - source_model: org/math
        positive_prompts: ["solve for x", "prove that"]
        negative_prompts: ["write a poem"]
      - source_model: org/poems
        positive_prompts: ["write a poem"]

The keys are those that the field uses for such files.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from ..checkpoint.header import DTYPE_WORDS, DTYPES
from ..errors import RecipeError, counted
from ..operations.options import did_you_mean
from ..text import brief
from .file import read_recipe
from .reader import Field, Reader, compose

MODES = ("hidden", "hidden_last", "hidden_avg", "cheap_embed", "random", "uniform_random")
DRAWN = ("random", "uniform_random")  # modes that need no prompts
LAYOUTS = ("mixtral", "qwen2_moe", "qwen3_moe")
KEYS = (
    "base_model", "experts", "shared_experts", "gate_mode", "dtype", "experts_per_token",
    "architecture", "seed",
)  # fmt: skip
EXPERT_KEYS = ("source_model", "positive_prompts", "negative_prompts", "residual_scale")
MOST_EXPERTS = 1024


@dataclass(frozen=True)
class Expert:
    """One model that gives its feed-forward blocks.

    Attributes:
        model: reference of the model.
        positive, negative: prompts that the router should send to the expert, or keep away.
        scale: factor on the expert's output.
        line: where it stands in the file.
    """

    model: str
    positive: tuple[str, ...] = ()
    negative: tuple[str, ...] = ()
    scale: float = 1.0
    line: int = 0

    def as_data(self) -> dict[str, Any]:
        """The expert as the file has it."""
        data: dict[str, Any] = {"source_model": self.model}
        data |= {"positive_prompts": list(self.positive)} if self.positive else {}
        data |= {"negative_prompts": list(self.negative)} if self.negative else {}
        return data | ({"residual_scale": self.scale} if self.scale != 1 else {})


@dataclass(frozen=True)
class Mixture:
    """A mixture of experts that is to be made of dense models.

    Attributes:
        base: reference of the model that gives everything but the experts.
        experts: the experts among which the routers choose.
        shared: an expert that every token passes; None where there is none.
        mode: one of `MODES`.
        per_token: how many experts a token passes.
        layout: one of `LAYOUTS`; None where the base decides.
        dtype: dtype in which the output is stored; None keeps the dtype of the base.
        seed: of routers that are drawn.
        source: name of the file, for messages.
    """

    base: str
    experts: tuple[Expert, ...]
    shared: Expert | None = None
    mode: str = "hidden"
    per_token: int = 2
    layout: str | None = None
    dtype: str | None = None
    seed: int = 0
    source: str = "config"

    @classmethod
    def load(cls, path: str | Path) -> Mixture:
        """Read the file at `path`.

        Raises:
            RecipeError: names the line that cannot be read.
        """
        return cls.parse(*read_recipe(path, "uvmerge moe CONFIG OUT"))

    @classmethod
    def parse(cls, text: str | bytes, source: str = "config") -> Mixture:
        """Read the text of a file; `source` names it in messages."""
        reader = Reader(source)
        reader.example = "docs/merges.md, Mixture of experts, shows one that can be read."
        node = compose(text, source, KEYS)
        if found := reader.mapping(node).get("merge_method"):
            what = "a file with a merge_method is a merge of mergekit, no mixture"
            raise reader.fail(found.line, what, "`uvmerge run FILE OUT` runs it.")
        return _mixture(reader.mapping(node, KEYS), reader)

    def with_models(self, named: Callable[[str], str]) -> Mixture:
        """The same mixture, with other references to its models."""

        def renamed(expert: Expert) -> Expert:
            return replace(expert, model=named(expert.model))

        shared = self.shared and renamed(self.shared)
        experts = tuple(map(renamed, self.experts))
        return replace(self, base=named(self.base), experts=experts, shared=shared)

    @property
    def all(self) -> tuple[Expert, ...]:
        """The experts, a shared one last."""
        return (*self.experts, *((self.shared,) if self.shared else ()))

    def refused(self, what: str, do: str) -> RecipeError:
        """The error for a mixture that cannot be made, for the caller to raise."""
        return RecipeError(self.source, what, do)

    def as_data(self) -> dict[str, Any]:
        """The mixture as the file has it."""
        data = {
            "base_model": self.base, "gate_mode": self.mode, "dtype": self.dtype,
            "experts_per_token": self.per_token, "architecture": self.layout,
            "seed": self.seed if self.mode in DRAWN else None,
            "experts": [expert.as_data() for expert in self.experts],
            "shared_experts": [self.shared.as_data()] if self.shared else None,
        }  # fmt: skip
        return {key: value for key, value in data.items() if value is not None}


def _mixture(fields: dict[str, Field], reader: Reader) -> Mixture:
    for key in ("base_model", "experts"):
        if key not in fields:
            raise reader.fail(1, f"the key {key!r} is missing", "Name the base, and the experts.")
    line = fields["experts"].line
    experts = tuple(_experts(fields["experts"], reader))
    shared = tuple(_experts(fields["shared_experts"], reader)) if "shared_experts" in fields else ()
    if len(shared) > 1:
        at = fields["shared_experts"].line
        raise reader.fail(at, f"{len(shared)} shared experts, a layer has one", "Keep one.")
    found = Mixture(
        _text("base_model", fields["base_model"], reader),
        experts,
        shared[0] if shared else None,
        _word("gate_mode", fields, MODES, reader) or "hidden",
        _whole("experts_per_token", fields, reader, 1, 2),
        _word("architecture", fields, LAYOUTS, reader),
        _word("dtype", fields, (*DTYPES, *DTYPE_WORDS), reader),
        _whole("seed", fields, reader, 0, 0),
        reader.source,
    )
    if not 1 < len(experts) <= MOST_EXPERTS:
        what = f"{counted(len(experts), 'expert')}, not 2 to {MOST_EXPERTS:,}"
        raise reader.fail(line, what, "List them.")
    if found.per_token > len(experts):
        at = fields["experts_per_token"].line if "experts_per_token" in fields else line
        what = f"{found.per_token} experts for each token, of {len(experts)}"
        raise reader.fail(at, what, "Name more experts, or set experts_per_token.")
    _refuse_prompts(found, reader)
    return found


def _refuse_prompts(mixture: Mixture, reader: Reader) -> None:
    """Refuse prompts that cannot tell the experts apart."""
    if mixture.mode in DRAWN:
        return
    for expert in mixture.experts:
        if not expert.positive:
            do = "Add some, or set gate_mode: random."
            raise reader.fail(expert.line, "the expert has no positive_prompts", do)
        if sorted(expert.positive) == sorted(expert.negative):
            what = "the expert's positive and negative prompts are the same, and cancel out"
            raise reader.fail(expert.line, what, "Write negative_prompts that other experts take.")
    first = mixture.experts[0]
    if all((e.positive, e.negative) == (first.positive, first.negative) for e in mixture.experts):
        raise reader.fail(
            first.line,
            "all experts have the same prompts: every router would find them alike",
            "Write prompts that are typical of each expert, or set gate_mode: random.",
        )


def _experts(given: Field, reader: Reader) -> Iterator[Expert]:
    if not isinstance(given.value, yaml.SequenceNode):
        raise reader.fail(given.line, "experts must be a list", "Write `- source_model: …`.")
    for node in given.value.value:
        line = node.start_mark.line + 1
        fields = reader.mapping(node)
        for key, found in fields.items():
            if key == "noise_scale":
                do = "Leave it out; draw the routers with gate_mode: random."
                raise reader.fail(found.line, "noise_scale is not supported", do)
            if key not in EXPERT_KEYS:
                raise reader.fail(
                    found.line, f"unknown key '{brief(key)}'", did_you_mean(key, EXPERT_KEYS)
                )
        if "source_model" not in fields:
            raise reader.fail(line, "the expert names no source_model")
        yield Expert(
            _text("source_model", fields["source_model"], reader),
            _prompts("positive_prompts", fields, reader),
            _prompts("negative_prompts", fields, reader),
            _scale(fields, reader),
            line,
        )


def _text(key: str, given: Field, reader: Reader) -> str:
    value = reader.value(given.value)
    if not isinstance(value, str) or not value:
        raise reader.fail(given.line, f"{key} must be a model, not {brief(value)!r}")
    return value


def _prompts(key: str, fields: dict[str, Field], reader: Reader) -> tuple[str, ...]:
    if key not in fields:
        return ()
    value = reader.value(fields[key].value)
    if not isinstance(value, list) or not all(isinstance(each, str) and each for each in value):
        raise reader.fail(fields[key].line, f"{key} must be a list of texts")
    return tuple(value)


def _scale(fields: dict[str, Field], reader: Reader) -> float:
    if "residual_scale" not in fields:
        return 1.0
    value = reader.value(fields["residual_scale"].value)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not abs(value) < 1e6:
        raise reader.fail(fields["residual_scale"].line, f"{brief(value)!r} is no factor")
    return float(value)


def _word(key: str, fields: dict[str, Field], known: Sequence[str], reader: Reader) -> str | None:
    if key not in fields:
        return None
    value = reader.value(fields[key].value)
    if not isinstance(value, str) or value not in known:
        hint = did_you_mean(str(value), known)
        raise reader.fail(fields[key].line, f"{key} cannot be {brief(value)!r}", hint)
    return value


def _whole(key: str, fields: dict[str, Field], reader: Reader, low: int, default: int) -> int:
    if key not in fields:
        return default
    value = reader.value(fields[key].value)
    if type(value) is not int or not low <= value < 2**31:
        raise reader.fail(fields[key].line, f"{key} must be a whole number from {low} on")
    return value
