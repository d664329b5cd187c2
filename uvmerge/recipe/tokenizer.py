"""The key `tokenizer` of a recipe: read from YAML, written as data, and its models named by role.

tokenizer: union               # or base, or a model
tokenizer:
  source: union
  pad-to-multiple-of: 64
  tokens:
    "<|im_start|>": {model: org/chat, force: true}
    "<|extra|>": {model: org/chat, token: "<s>"}     # the row of another token, by text or id
    "<|new|>": {model: null}                         # zeros
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import yaml

from ..checkpoint.roles import BASE as BASE_ROLE, mirrored
from ..errors import RecipeError, UsageError
from ..text import brief, closest
from .reader import Field, Reader
from .tokenizer_rule import BASE, UNION, TokenizerRule, TokenRow

KEYS, ROW_KEYS = ("source", "pad-to-multiple-of", "tokens"), ("model", "token", "force")
MOST_MULTIPLE = 1 << 20


def read_rule(given: Field, reader: Reader) -> TokenizerRule:
    """The rule in the value of the key `tokenizer`."""
    if not isinstance(given.value, yaml.MappingNode):
        return TokenizerRule(_text("tokenizer", given, reader), where=reader.place(given.line))
    fields = reader.mapping(given.value, KEYS)
    line = fields["source"].line if "source" in fields else given.line
    rule = TokenizerRule(where=reader.place(line))
    if "source" in fields:
        rule = replace(rule, source=_text("source", fields["source"], reader))
    if "pad-to-multiple-of" in fields:
        pad = fields["pad-to-multiple-of"]
        rule = replace(rule, pad_to_multiple_of=_multiple(reader.value(pad.value), pad, reader))
    if "tokens" in fields:
        tokens = reader.mapping(fields["tokens"].value)
        rule = replace(rule, tokens={token: _row(f, reader) for token, f in tokens.items()})
    return rule


def _text(key: str, given: Field, reader: Reader) -> str:
    value = reader.value(given.value)
    if not isinstance(value, str) or not value:
        raise reader.fail(given.line, f"{key} must be base, union or a model, not {brief(value)!r}")
    return value


def _multiple(value: object, given: Field, reader: Reader) -> int:
    try:
        return checked_multiple(value)
    except UsageError as error:
        raise reader.fail(given.line, error.what) from None


def checked_multiple(value: object) -> int:
    """A number of rows to fill up to; a `UsageError` says that a value is none."""
    if type(value) is not int or not 1 <= value <= MOST_MULTIPLE:
        what = f"{brief(value)!r} is no whole number from 1 to {MOST_MULTIPLE:,}"
        raise UsageError("pad-to-multiple-of", what, "Write it like 64.")
    return value


def _row(given: Field, reader: Reader) -> TokenRow | None:
    if not isinstance(given.value, yaml.MappingNode):
        if reader.value(given.value) is None:
            return None
        raise reader.fail(given.line, "a token has a row like {model: org/chat, force: true}")
    fields = reader.mapping(given.value, ROW_KEYS)
    values = {key: reader.value(field.value) for key, field in fields.items()}
    model, token, force = values.get("model"), values.get("token"), values.get("force", False)
    fits = isinstance(force, bool) and (model is None or isinstance(model, str))
    if not fits or isinstance(token, bool) or not isinstance(token, (str, int, type(None))):
        raise reader.fail(given.line, "a token has a row like {model: org/chat, force: true}")
    if token is not None and model is None:
        raise reader.fail(given.line, "names a token of no model")
    return TokenRow(model, token, force, reader.place(given.line))


def rule_as_data(rule: TokenizerRule) -> Any:
    """The rule as a recipe file has it; the inverse of `read_rule`."""
    if not rule.tokens and rule.pad_to_multiple_of is None:
        return rule.source
    data: dict[str, Any] = {"source": rule.source}
    if rule.pad_to_multiple_of is not None:
        data["pad-to-multiple-of"] = rule.pad_to_multiple_of
    if rule.tokens:
        data["tokens"] = {token: _row_as_data(row) for token, row in rule.tokens.items()}
    return data


def _row_as_data(row: TokenRow | None) -> Any:
    if row is None:
        return None
    more = {"token": row.token} if row.token is not None else {}
    return {"model": row.model, **more, **({"force": True} if row.force else {})}


def refused(where: str, what: str, do: str) -> UsageError:
    """The error for a rule that cannot be followed, which may stand in a file."""
    return (
        RecipeError(where, f"tokenizer: {what}", do) if where else UsageError("tokenizer", what, do)
    )


def with_roles(
    rule: TokenizerRule, references: Mapping[str, Any], role_of: Callable[[str], str | None]
) -> TokenizerRule:
    """The rule with the roles of its models in place of their references.

    Args:
        references: by role, the models of the run.
        role_of: the role of a reference; None where the run has no such model.

    Raises:
        UsageError: it names a model that the run does not have.
    """

    def role(name: str) -> str:
        if name == BASE:
            return BASE_ROLE if BASE_ROLE in references else mirrored(references)
        found = name if name in references else role_of(name)
        if found is None:
            raise refused(rule.places[name], f"{brief(name)!r} is no model of this run", how(name))
        return found

    def how(name: str) -> str:
        words = list(dict.fromkeys([UNION, BASE, *map(str, references.values()), *references]))
        if close := closest(name, words):
            return f"Did you mean {close!r}?"
        return f"Choose {', '.join([UNION, BASE, *references])}, or a model as the run names it."

    source = rule.source if rule.source == UNION else role(rule.source)
    tokens = {
        token: row and replace(row, model=row.model and role(row.model))
        for token, row in rule.tokens.items()
    }
    return replace(rule, source=source, tokens=tokens)
