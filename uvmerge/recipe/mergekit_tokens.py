"""The tokenizer in mergekit's YAML: `tokenizer` with its tokens, or `tokenizer_source`."""

from __future__ import annotations

from typing import Any

import yaml

from ..text import brief
from . import mergekit_words as words
from .mergekit_values import MergingReader, coerced
from .reader import Field
from .tokenizer_rule import UNION, TokenizerRule, TokenRow

_KINDS = ("zero", "model_token")
_EMBEDDING = ("kind", "model", "token", "token_id")


def tokenizer_rule(
    given: Field | None, plain: Field | None, reader: MergingReader
) -> TokenizerRule | None:
    """The rule of a file.

    Args:
        given: the field `tokenizer`.
        plain: the field `tokenizer_source`.
    """
    if plain is not None:
        return TokenizerRule(reader.text(plain, "tokenizer_source"), where=reader.place(plain.line))
    if given is None:
        return None
    fields = reader.known(given.value, words.TOKENIZER, "tokenizer")
    source = reader.text(fields["source"], "source") if "source" in fields else UNION
    tokens = _tokens(fields["tokens"], reader) if "tokens" in fields else {}
    multiple = None
    if "pad_to_multiple_of" in fields:
        multiple = _whole(fields["pad_to_multiple_of"], "pad_to_multiple_of", reader)
        if multiple < 1:
            line = fields["pad_to_multiple_of"].line
            raise reader.fail(line, f"pad_to_multiple_of is {multiple}", "Write 64, say.")
    line = fields["source"].line if "source" in fields else given.line
    return TokenizerRule(source, tokens, multiple, reader.place(line))


def _tokens(given: Field, reader: MergingReader) -> dict[str, TokenRow | None]:
    return {name: _row(field, reader) for name, field in reader.mapping(given.value).items()}


def _row(given: Field, reader: MergingReader) -> TokenRow | None:
    """Where the row of a token comes from; None where the file does not say."""
    if isinstance(given.value, yaml.ScalarNode) and reader.value(given.value) is None:
        return None
    fields = reader.known(given.value, words.TOKEN, "token")
    force = False
    if "force" in fields:
        force = _switch(fields["force"], reader)
    if "source" not in fields:
        if force:
            raise reader.fail(fields["force"].line, "force needs a source", "Add `source: …`.")
        return None
    source = fields["source"]
    if not isinstance(source.value, yaml.MappingNode):
        return TokenRow(reader.text(source, "source"), None, force, reader.place(source.line))
    return _embedding(source, force, reader)


def _embedding(source: Field, force: bool, reader: MergingReader) -> TokenRow:
    fields = reader.known(source.value, _EMBEDDING, "token")
    kind = reader.text(fields["kind"], "kind") if "kind" in fields else ""
    if kind not in _KINDS:
        raise reader.fail(source.line, f"kind is '{brief(kind)}', not one of {', '.join(_KINDS)}")
    if kind == "zero":
        return TokenRow(None, None, force)
    there = [key for key in ("token", "token_id") if key in fields]
    if "model" not in fields or len(there) != 1:
        do = "Write model, and either token or token_id."
        raise reader.fail(source.line, "kind model_token names no row", do)
    token: str | int = (
        _whole(fields["token_id"], "token_id", reader) if there == ["token_id"]
        else reader.text(fields["token"], "token")
    )  # fmt: skip
    model = fields["model"]
    return TokenRow(reader.text(model, "model"), token, force, reader.place(model.line))


def _whole(given: Field, what: str, reader: MergingReader) -> int:
    value = reader.value(given.value)
    try:
        found: int = coerced(value, int)
    except (ValueError, TypeError, OverflowError):
        raise reader.fail(given.line, f"{what} is '{brief(value)}', not a whole number") from None
    return found


def _switch(given: Field, reader: MergingReader) -> bool:
    value = reader.value(given.value)
    try:
        return bool(coerced(value, bool))
    except ValueError:
        raise reader.fail(given.line, f"force is '{brief(value)}', not true or false") from None


def rule_data(rule: TokenizerRule) -> dict[str, Any]:
    """A rule as the value of `tokenizer`; the inverse of `tokenizer_rule`."""
    data: dict[str, Any] = {"source": rule.source}
    if rule.tokens:
        data["tokens"] = {token: row and _row_data(row) for token, row in rule.tokens.items()}
    if rule.pad_to_multiple_of is not None:
        data["pad_to_multiple_of"] = rule.pad_to_multiple_of
    return data


def _row_data(row: TokenRow) -> dict[str, Any]:
    source: Any = row.model
    if row.model is None:
        source = {"kind": "zero"}
    elif row.token is not None:
        key = "token_id" if isinstance(row.token, int) else "token"
        source = {"kind": "model_token", "model": row.model, key: row.token}
    return {"source": source, **({"force": True} if row.force else {})}
