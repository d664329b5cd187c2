"""Align the vocabularies of the checkpoints of a run, by a rule or not at all."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import xxhash

from ..checkpoint.bounded import CONFIG_BYTES, parse_json
from ..checkpoint.composed import Beside, ComposedCheckpoint
from ..checkpoint.folder import Checkpoint
from ..checkpoint.merged import TOKENIZER_FILES
from ..checkpoint.revocabulary import head_to_add, realigned, rows_of
from ..checkpoint.roles import BASE, mirrored, spelled
from ..checkpoint.token_ids import renumbered, resized, untied
from ..checkpoint.tokenizer_json import as_bytes, extended, with_added
from ..checkpoint.vocabulary import Known, Named, Origin, origins, united
from ..errors import InputRefused, UsageError, counted
from ..models import vocabularies as reading
from ..models.vocabularies import FILE, Vocabulary
from ..output.places import Reference
from ..output.sidefiles import LARGEST_BYTES
from ..recipe.recipe import Recipe
from ..recipe.tokenizer import refused, with_roles
from ..recipe.tokenizer_rule import UNION, TokenizerRule
from ..text import brief, expanded
from .settings import SweepSettings
from .vocabularies_apart import refuse_other_vocabularies

CONFIG, GENERATION, TOKENIZER_CONFIG = (
    "config.json",
    "generation_config.json",
    "tokenizer_config.json",
)
_OLDER = (
    "vocab",
    "merges.txt",
    "added_tokens.json",
    ".model",
    ".tiktoken",
)  # of one tokenizer's files


def rule_of(
    recipe: Recipe, settings: SweepSettings, references: Mapping[str, Reference]
) -> TokenizerRule | None:
    """The rule for the vocabulary of a run: of the settings, else of the recipe, its models by role.

    Raises:
        UsageError: it names a model that the run does not have.
    """
    rule = recipe.tokenizer
    if settings.tokenizer is not None:
        rule = replace(rule or TokenizerRule(), source=settings.tokenizer, where="")
    if settings.pad_to_multiple_of is not None:
        if rule is None:
            what = "needs --tokenizer: the embeddings are as they are without it"
            raise UsageError("--pad-to-multiple-of", what, "Add --tokenizer base.")
        rule = replace(rule, pad_to_multiple_of=settings.pad_to_multiple_of)
    if rule is None:
        return None
    roles = {_plain(reference): role for role, reference in reversed([*references.items()])}
    return with_roles(rule, references, lambda name: roles.get(_plain(name)))


def _plain(reference: Reference) -> str:
    """A reference in one spelling: of a folder its real path."""
    path = expanded(str(reference))
    return str(path.resolve()) if path.is_dir() else str(reference)


def aligned(
    checkpoints: Mapping[str, Checkpoint], recipe: Recipe, *, force: bool
) -> dict[str, Checkpoint]:
    """The checkpoints with the vocabulary of the output, side files of the mirrored one included.

    A merge without a rule takes models of one vocabulary; the experts of a mixture may have any. Where the mirrored checkpoint uses its
    embeddings as its head and another model does not, the output gets a head.

    Args:
        recipe: its rule says whose tokens the output has, models named by role.
        force: go on although tokens of a merge without a rule are numbered differently.

    Raises:
        InputRefused: vocabularies differ and there is no rule; a checkpoint has no tokenizer or no
            embeddings, or tokenizers cannot be united.
        UsageError: the rule names a token that a model does not have.
    """
    merges = recipe.mixture is None and any(s.operation.takes_several for s in recipe.steps)
    own = mirrored(checkpoints)
    if recipe.tokenizer is not None:
        head = head_to_add(own, checkpoints) if merges else ""
        return _Alignment.of(checkpoints, recipe.tokenizer, head).checkpoints()
    found = dict(checkpoints)
    if merges:
        found[own].notes.extend(refuse_other_vocabularies(checkpoints, force))
        if head := head_to_add(own, checkpoints):
            found[own] = _with_head(own, checkpoints, head)
    return found


def _with_head(role: str, checkpoints: Mapping[str, Checkpoint], head: str) -> ComposedCheckpoint:
    """A checkpoint with a head of its own, equal to its embeddings."""
    checkpoint, rows = checkpoints[role], rows_of(checkpoints[role])
    sides = {CONFIG: as_bytes(untied(checkpoint.config))} if checkpoint.config else {}
    beside = Beside(untied(checkpoint.config), {"head": head}, sides, [_head_note(role, head)])
    as_they_are = [((role, row),) for row in range(rows)]
    return realigned(role, checkpoints, as_they_are, rows, beside, head)


def _head_note(role: str, head: str) -> str:
    return f"{spelled(role)} ties its head, another model does not: the output has {head}"


@dataclass(frozen=True)
class _Alignment:
    """The vocabulary of an output.

    Attributes:
        read: the vocabularies, by role.
        source: the role whose tokenizer the output has.
        ids: id by token of the output.
        came: by token that the source lacks, the role that brings it; empty where none does.
        origins: by role, what each row is made of.
        rows: rows of the output's embeddings.
        head: name of a head that the mirrored checkpoint gets; or an empty text.
    """

    inputs: Mapping[str, Checkpoint]
    read: Mapping[str, Vocabulary]
    source: str
    ids: Mapping[str, int]
    came: Mapping[str, str]
    origins: Mapping[str, Sequence[Origin]]
    rows: int
    head: str

    @classmethod
    def of(
        cls, checkpoints: Mapping[str, Checkpoint], rule: TokenizerRule, head: str
    ) -> _Alignment:
        """The alignment that a rule describes."""
        first = BASE if BASE in checkpoints else mirrored(checkpoints)
        source = first if rule.source == UNION else rule.source
        read = _read(checkpoints)
        order = [source, *(role for role in checkpoints if role != source)]
        tokens = {role: read[role].tokens for role in order}
        ids, came = united(tokens if rule.source == UNION else {source: tokens[source]})
        for token in (each for each in rule.tokens if each not in ids):
            ids[token] = max(ids.values(), default=-1) + 1
            came[token] = next((role for role in order if token in tokens[role]), "")
        known = {
            role: Known(read[role].tokens, _rows(role, checkpoint))
            for role, checkpoint in checkpoints.items()
        }
        base = BASE if BASE in checkpoints else None
        made_of = origins(ids, known, dict(_named(rule, known)), base)
        rows = len(made_of[source])
        rows += -rows % (rule.pad_to_multiple_of or 1)
        return cls(checkpoints, read, source, ids, came, made_of, rows, head)

    def checkpoints(self) -> dict[str, Checkpoint]:
        """The aligned checkpoints; one that has all of it already is as it was."""
        own = mirrored(self.inputs)
        found: dict[str, Checkpoint] = {}
        for role, checkpoint in self.inputs.items():
            found[role] = checkpoint
            sides = self._sides(role) if role == own else {}
            if sides or not self._is_aligned(role):
                found[role] = self._realigned(role, sides)
        return found

    def _is_aligned(self, role: str) -> bool:
        """Whether the embeddings of a checkpoint are those of the output already."""
        in_place = all(origin == ((role, row),) for row, origin in enumerate(self.origins[role]))
        return in_place and self.rows == len(self.origins[role]) == rows_of(self.inputs[role])

    def _realigned(self, role: str, sides: Mapping[str, bytes | None]) -> ComposedCheckpoint:
        checkpoint, rows = self.inputs[role], self.origins[role]
        config = dict(checkpoint.config)
        if CONFIG in sides:
            config = parse_json(sides[CONFIG] or b"{}", CONFIG, "it")
        else:
            config = resized(config, rows_of(checkpoint), self.rows)
        digest = xxhash.xxh3_128_hexdigest(repr((self.ids, rows, self.rows)).encode())
        about = {"vocabulary": {"tokens": len(self.ids), "rows": self.rows, "xxh3_128": digest}}
        beside = Beside(config, about, sides, [*self._notes(role)])
        head = self.head if role == mirrored(self.inputs) else ""
        return realigned(role, self.inputs, rows, self.rows, beside, head)

    def _notes(self, role: str) -> Iterator[str]:
        """What the plan says of a checkpoint."""
        others = sum(
            all(each != role for each, _ in origin) or len(origin) != 1
            for origin in self.origins[role]
        )
        whose = spelled(self.source)
        yield (
            f"vocabulary: {counted(len(self.ids), 'token')} in {self.rows:,} rows, tokenizer of"
            f" {whose}" + (f" and {len(self.came):,} more" if self.came else "")
        )
        if others:
            yield f"{spelled(role)} lacks {others:,} of them, whose rows are filled"
        if self.head and role == mirrored(self.inputs):
            yield _head_note(role, self.head)

    def _sides(self, role: str) -> dict[str, bytes | None]:
        """The side files of the mirrored checkpoint that change; None where one is left out."""
        own, source = self.inputs[role], self.inputs[self.source]
        found: dict[str, bytes | None] = {}
        if role != self.source:
            names = [name for name in source.side_names() if TOKENIZER_FILES.fullmatch(name)]
            found = dict.fromkeys(n for n in own.side_names() if TOKENIZER_FILES.fullmatch(n))
            found |= {
                name: source.side_bytes(name)
                for name in names
                if source.side_size(name) <= LARGEST_BYTES
            }
        if self.came:
            found |= self._extended(source)
        for name in (CONFIG, GENERATION):
            if name in own.side_names():
                before = own.side_bytes(name)
                content = parse_json(before, name, "it")
                after = self._config(content, role, name)
                if after != content:
                    found[name] = as_bytes(after)
        return found

    def _extended(self, source: Checkpoint) -> dict[str, bytes | None]:
        """The files of a tokenizer with the tokens of others; older formats of it are left out."""
        first = self.read[self.source].tokenizer
        others = {role: each.tokenizer for role, each in self.read.items()}
        content = extended(first, others, self.ids, self.came)
        older = [
            name for name in source.side_names()
            if TOKENIZER_FILES.fullmatch(name) and (name.startswith(_OLDER[:3]) or name.endswith(_OLDER[3:]))
        ]  # fmt: skip
        found: dict[str, bytes | None] = {**dict.fromkeys(older), FILE: as_bytes(content)}
        if TOKENIZER_CONFIG in source.side_names():
            raw = source.side_bytes(TOKENIZER_CONFIG)
            config = parse_json(raw, TOKENIZER_CONFIG, "it")
            changed = with_added(config, content)
            if changed != config:
                found[TOKENIZER_CONFIG] = as_bytes(changed)
        return found

    def _config(self, content: dict[str, Any], role: str, name: str) -> dict[str, Any]:
        """A config of the mirrored checkpoint for the tokens of the output."""
        content = resized(content, rows_of(self.inputs[role]), self.rows)
        if self.head and name == CONFIG:
            content = untied(content)
        if role == self.source:
            return content
        source = self.inputs[self.source]
        theirs = {}
        if name in source.side_names():
            theirs = parse_json(source.side_start(name, CONFIG_BYTES), name, "it")
        ids = {
            before: self.ids[token]
            for token, before in self.read[role].tokens.items()
            if token in self.ids
        }
        return renumbered(content, theirs, ids)


def _read(checkpoints: Mapping[str, Checkpoint]) -> dict[str, Vocabulary]:
    """The vocabularies by role; equal files are read once."""
    known: dict[bytes, Vocabulary] = {}
    found: dict[str, Vocabulary] = {}
    for role, checkpoint in checkpoints.items():
        raw = b""
        if FILE in checkpoint.side_names() and checkpoint.side_size(FILE) <= LARGEST_BYTES:
            raw = checkpoint.side_bytes(FILE)
        if raw and raw in known:
            found[role] = known[raw]
            continue
        found[role] = known[raw] = reading.vocabulary_of(checkpoint)
    return found


def _rows(role: str, checkpoint: Checkpoint) -> int:
    rows = rows_of(checkpoint)
    if not rows:
        what = "has no embeddings of tokens that can be aligned"
        raise InputRefused(f"{role} ({checkpoint.label})", what, "Leave out --tokenizer.")
    return rows


def _named(rule: TokenizerRule, known: Mapping[str, Known]) -> Iterator[tuple[str, Named]]:
    """The rows that a rule names, by token."""
    for token, row in rule.tokens.items():
        if row is None:
            continue
        if row.model is None:
            yield token, Named((), row.force)
            continue
        like = token if row.token is None else row.token
        there = known[row.model]
        at = there.row(like) if isinstance(like, str) else like
        if at is None or not 0 <= at < there.rows:
            what = f"{row.model} has no token {brief(repr(like))}, whose row {brief(repr(token))} is to get"
            raise refused(row.where, what, "Name another model or token.")
        yield token, Named(((row.model, at),), row.force)
