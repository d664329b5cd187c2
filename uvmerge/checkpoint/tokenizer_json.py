"""The tokenizer of a union: `tokenizer.json` of one model with the tokens of others added to it. Pure.

Tokens that another tokenizer's model knows go into the vocabulary of the model, so that they decode as
they do there and the model can reach them; tokens that were added to the other tokenizer are added here.
Every added token gets an entry in the vocabulary too: the `tokenizers` library numbers added tokens
itself where the vocabulary does not say their ids.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

from ..errors import InputRefused, counted
from ..text import brief

Json = dict[str, Any]
# Settings of a model's vocabulary that decide what a token's string means.
_MEANING = ("type", "continuing_subword_prefix", "end_of_word_suffix", "byte_fallback")
_PLAIN = {
    "single_word": False,
    "lstrip": False,
    "rstrip": False,
    "normalized": False,
    "special": False,
}
_UNIGRAM_STEP = 10.0  # how far below the least likely piece an added token's entry lies


@dataclass(frozen=True)
class Tokenizer:
    """A parsed `tokenizer.json`, and the name of its model for messages."""

    label: str
    content: Json

    @property
    def added(self) -> dict[str, Json]:
        """The added tokens, by their text."""
        return {each["content"]: each for each in self.content.get("added_tokens") or ()}

    @property
    def kind(self) -> str:
        """The kind of its model: `BPE`, `WordPiece`, `Unigram` or `WordLevel`."""
        return str(self.content["model"].get("type"))


def extended(
    first: Tokenizer,
    others: Mapping[str, Tokenizer],
    ids: Mapping[str, int],
    came: Mapping[str, str],
) -> Json:
    """The content of `first` with the tokens that others bring.

    Args:
        others: by role.
        ids: the id of every token of the output.
        came: by token that `first` lacks, the role that it comes from, or an empty text where no model
            has it.

    Raises:
        InputRefused: another tokenizer brings tokens of its own vocabulary and is of another kind, or
            its tokens cannot be numbered.
    """
    content = deepcopy(first.content)
    content["added_tokens"] = list(content.get("added_tokens") or ())
    ordinary: dict[str, list[str]] = {}
    for token, role in came.items():
        if role and token not in others[role].added:
            ordinary.setdefault(role, []).append(token)
        else:
            like = others[role].added[token] if role else {"content": token, **_PLAIN}
            content["added_tokens"].append({**like, "id": ids[token]})
    for role, tokens in ordinary.items():
        _refuse_other_kind(first, others[role], tokens)
    wanted = [*first.added, *came]
    if first.kind == "Unigram":
        _append_pieces(first, content["model"], {r: others[r] for r in ordinary}, ids, wanted)
    else:
        vocabulary = content["model"]["vocab"]
        vocabulary.update({token: ids[token] for token in wanted if token not in vocabulary})
    if first.kind == "BPE":
        _append_merges(content["model"], [others[role] for role in ordinary], came)
    return content


def with_added(config: Json, content: Json) -> Json:
    """A `tokenizer_config.json` whose table of added tokens, where it has one, is that of `content`."""
    if not isinstance(config.get("added_tokens_decoder"), dict):
        return config
    table = {
        str(each["id"]): {key: value for key, value in each.items() if key != "id"}
        for each in content["added_tokens"]
    }
    return config | {"added_tokens_decoder": table | config["added_tokens_decoder"]}


def as_bytes(content: Json) -> bytes:
    """JSON as the `tokenizers` library writes it."""
    return (json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode()


def _refuse_other_kind(first: Tokenizer, other: Tokenizer, tokens: Sequence[str]) -> None:
    """Refuse tokens that would mean another text here: of another kind of model, or decoded otherwise."""
    ours, theirs = first.content["model"], other.content["model"]
    differs = next((key for key in _MEANING if ours.get(key) != theirs.get(key)), None)
    if differs is None and _decoders(first.content) == _decoders(other.content):
        return
    kinds = f"{first.kind} in {first.label}, {other.kind} in {other.label}"
    how = kinds if differs == "type" else f"{differs or 'decoder'} differs, {kinds}"
    raise InputRefused(
        "tokenizer",
        f"a union of tokenizers of two kinds ({how}) would give"
        f" {counted(len(tokens), 'token')} like {brief(repr(tokens[0]))} another text",
        "Choose one of them: --tokenizer base, or the name of a model.",
    )


def _decoders(content: Json) -> list[Any]:
    """The steps of the decoder; of byte-level ones the name alone, their settings change no text."""
    decoder = content.get("decoder")
    if decoder is None:
        return []
    steps = decoder.get("decoders") if decoder.get("type") == "Sequence" else [decoder]
    return ["ByteLevel" if step.get("type") == "ByteLevel" else step for step in steps]


def _append_merges(model: Json, others: Sequence[Tokenizer], came: Mapping[str, str]) -> None:
    """Append the merges of other models that make new tokens; those of the first model go before them."""
    merges = list(model.get("merges") or ())
    known = {tuple(pair) for pair in _pairs(merges)}
    new = []
    for other in others:
        for pair in _pairs(other.content["model"].get("merges") or ()):
            parts = (part in model["vocab"] for part in pair)
            if "".join(pair) in came and tuple(pair) not in known and all(parts):
                known.add(tuple(pair))
                new.append(pair)
    if new:
        model["merges"] = [*_pairs(merges), *new]


def _pairs(merges: Sequence[Any]) -> Iterator[list[str]]:
    """Merges as pairs; older files hold them as one text."""
    for merge in merges:
        yield merge.split(" ") if isinstance(merge, str) else list(merge)


def _append_pieces(
    first: Tokenizer,
    model: Json,
    others: Mapping[str, Tokenizer],
    ids: Mapping[str, int],
    wanted: Sequence[str],
) -> None:
    """Append pieces to a Unigram model, whose ids are their places in its list."""
    pieces = model["vocab"]
    known = {piece for piece, _ in pieces}
    scores = {p: s for other in others.values() for p, s in other.content["model"]["vocab"]}
    least = min((score for _, score in pieces), default=0.0) - _UNIGRAM_STEP
    for token in sorted((t for t in wanted if t not in known), key=ids.__getitem__):
        if ids[token] != len(pieces):
            raise InputRefused(
                first.label,
                f"its Unigram tokenizer has no token with the id {len(pieces):,} before"
                f" {brief(repr(token))}",
                "Choose one tokenizer: --tokenizer base, or the name of a model.",
            )
        pieces.append([token, scores.get(token, least)])
