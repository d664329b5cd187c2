"""What evaluations say of checkpoints, whoever wrote them: scores, items and the settings behind them."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np
import xxhash

from ..errors import counted
from .statistics import Floats, summed

NO_FILTER = "none"  # the harness's name for the filter that changes nothing
_DOC = 16  # bytes of the digest of an item's question, at the start of its key


class Metric(NamedTuple):
    """A metric of a task, of answers after one filter."""

    task: str
    name: str
    filter: str = NO_FILTER

    def __str__(self) -> str:
        shown = "" if self.filter == NO_FILTER else f" ({self.filter})"
        return f"{self.task}, {self.name}{shown}"


def item_key(doc_id: object, doc_hash: object, prompt_hash: object) -> bytes:
    """What identifies an item: number, question and prompt.

    The number alone tells exact duplicates apart; the hashes tell other questions and prompts.
    """
    doc = f"{doc_id}\0{doc_hash}".encode(errors="replace")
    prompt = str(prompt_hash).encode(errors="replace")
    return xxhash.xxh3_128_digest(doc) + xxhash.xxh3_64_digest(prompt)


@dataclass(frozen=True, eq=False)
class Items:
    """Which items a checkpoint was asked, each once.

    Attributes:
        keys: of each item, as `item_key` gives them.
        clusters: what each item shares with items that are not independent of it, such as the
            unordered hand of cards; None where every item is independent.
    """

    keys: Sequence[bytes]
    clusters: Sequence[str] | None = None

    def places(self) -> dict[bytes, int]:
        """The place of each item by its key."""
        return {key: place for place, key in enumerate(self.keys)}

    def other_prompts(self, other: Items) -> int:
        """How many questions both have, with another prompt each."""
        mine = {key[:_DOC]: key for key in self.keys}
        return sum(mine.get(key[:_DOC], key) != key for key in other.keys)


@dataclass(frozen=True, eq=False)
class Score:
    """One metric of one checkpoint on one task.

    Attributes:
        value: the score as the evaluation gives it, or as its items give it.
        count: how many items it is of; 0 where the evaluation does not say.
        error: the standard error that the evaluation gives.
        successes: of a metric whose items are 0 or 1.
        higher_is_better: None where the evaluation does not say.
        items: None where only totals are known.
        numerators, denominators: of each item; the metric is `scale` of Σ numerators / Σ denominators.
        scale: the name of a row of `SCALES`.
        caveat: why items of this metric cannot be compared, though there are samples.
    """

    value: float | None
    count: int
    error: float | None = None
    successes: int | None = None
    higher_is_better: bool | None = None
    items: Items | None = None
    numerators: Floats = field(default_factory=lambda: np.zeros(0))
    denominators: Floats | None = None
    scale: str = "mean"
    caveat: str = ""

    @property
    def is_binary(self) -> bool:
        """Whether every item is 0 or 1."""
        return self.successes is not None

    @property
    def is_paired(self) -> bool:
        """Whether the items are known."""
        return self.items is not None and len(self.items.keys) > 0


# How a mean over items becomes the metric: perplexities are means of log-likelihoods in samples.
SCALES = {
    "mean": lambda mean: mean,
    "perplexity": lambda mean: np.exp(-mean),
    "bits": lambda mean: -mean / math.log(2),
}


def score_of_items(
    items: Items,
    numerators: Floats,
    denominators: Floats | None = None,
    scale: str = "mean",
    higher_is_better: bool | None = None,
) -> Score:
    """The score that items give; an item that is repeated counts once, with the mean of its values."""
    if len(set(items.keys)) < len(items.keys):
        items, numerators, denominators = _once_each(items, numerators, denominators)
    below = float(len(numerators) if denominators is None else denominators.sum())
    with np.errstate(divide="ignore", invalid="ignore"):
        value = float(SCALES[scale](np.float64(numerators.sum()) / below))
    binary = scale == "mean" and denominators is None and bool(np.isin(numerators, (0, 1)).all())
    return Score(
        value if math.isfinite(value) else None, len(numerators),
        successes=int(numerators.sum()) if binary else None, higher_is_better=higher_is_better,
        items=items, numerators=numerators, denominators=denominators, scale=scale,
    )  # fmt: skip


def _once_each(
    items: Items, numerators: Floats, denominators: Floats | None
) -> tuple[Items, Floats, Floats | None]:
    first = {key: place for place, key in reversed(list(enumerate(items.keys)))}
    places = sorted(first.values())
    keys = [items.keys[place] for place in places]
    clusters = None if items.clusters is None else [items.clusters[place] for place in places]
    rank = {key: i for i, key in enumerate(keys)}
    groups = [rank[key] for key in items.keys]
    times = summed(np.ones(len(groups)), groups)
    below = None if denominators is None else summed(denominators, groups) / times
    return Items(keys, clusters), summed(numerators, groups) / times, below


@dataclass(frozen=True, eq=False)
class Evaluated:
    """What is known of one checkpoint.

    Attributes:
        name: as the user calls it.
        source: the files that were read.
        scores: by metric.
        settings: per task what has to be the same for a fair comparison, by name of the setting.
        groups: tasks by the group that the harness puts them in.
        notes: what the user should know.
    """

    name: str
    source: str
    scores: Mapping[Metric, Score]
    settings: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    groups: Mapping[str, Sequence[str]] = field(default_factory=dict)
    notes: Sequence[str] = ()

    def renamed(self, name: str) -> Evaluated:
        """The same under another name."""
        return replace(self, name=name)


def differences(first: Evaluated, other: Evaluated, without: Collection[str] = ()) -> list[str]:
    """What differs between two evaluations, apart from the models, as parts of a sentence.

    Args:
        without: tasks that are not looked at.
    """
    found = []
    for task in (task for task in first.settings if task not in without):
        ours, theirs = first.settings[task], other.settings.get(task, {})
        for setting in ours:
            if setting in theirs and ours[setting] != theirs[setting]:
                values = f"{_cut(ours[setting])} and {_cut(theirs[setting])}"
                found.append(f"{task}: {setting} {values}")
    seen = set(without)
    for metric, score in first.scores.items():
        partner = other.scores.get(metric)
        if partner is None or metric.task in seen:
            continue
        if score.items is not None and partner.items is not None:
            seen.add(metric.task)
            found += [f"{metric.task}: {each}" for each in _other_items(score.items, partner.items)]
    return found


def _other_items(one: Items, two: Items) -> Iterator[str]:
    """How the items of two evaluations differ."""
    if one.keys == two.keys:
        return
    if count := one.other_prompts(two):
        yield f"{counted(count, 'prompt')} to the same question"
    both = len(set(one.keys) & set(two.keys))
    if both < max(len(one.keys), len(two.keys)):
        yield f"{len(one.keys):,} and {len(two.keys):,} items, {both:,} in common"


def _cut(text: str) -> str:
    return text if len(text) <= 60 else f"{text[:28]}…{text[-28:]}"


def pooled_groups(one: Evaluated) -> Evaluated:
    """`one` with a score for each group whose tasks have items: that of all their items together."""
    scores = dict(one.scores)
    for group in one.groups:
        tasks = _leaves(group, one.groups)
        kinds = {(m.name, m.filter) for m in one.scores if m.task in tasks}
        for name, kept in sorted(kinds):
            parts = [one.scores.get(Metric(task, name, kept)) for task in tasks]
            known = [part for part in parts if part is not None and part.items is not None]
            if len(known) == len(tasks) and all(p.denominators is None for p in known):
                metric = Metric(group, name, kept)
                scores[metric] = _pooled(tasks, known, one.scores.get(metric))
    return replace(one, scores=scores)


def _leaves(group: str, groups: Mapping[str, Sequence[str]], depth: int = 8) -> list[str]:
    """The tasks of a group and of the groups in it."""
    if depth == 0 or not groups.get(group):
        return [group]
    found = [leaf for each in groups[group] for leaf in _leaves(each, groups, depth - 1)]
    return list(dict.fromkeys(found))


def _pooled(tasks: Sequence[str], parts: Sequence[Score], told: Score | None) -> Score:
    """The score of all items of several tasks; `told` is the harness's own, weighted as it likes."""
    keys: list[bytes] = []
    clusters: list[str] = []
    for task, part in zip(tasks, parts, strict=True):
        assert part.items is not None
        digest = hashlib.blake2b(task.encode(errors="replace"), digest_size=8).digest()
        keys += [digest + key for key in part.items.keys]
        clusters += part.items.clusters or [key.hex() for key in part.items.keys]
    grouped = any(part.items is not None and part.items.clusters for part in parts)
    numerators = np.concatenate([part.numerators for part in parts])
    better = parts[0].higher_is_better
    score = score_of_items(
        Items(keys, clusters if grouped else None), numerators, None, parts[0].scale, better
    )
    if told is None or agrees(told, score):
        return score
    caveat = "its tasks are not weighted by their items"
    return replace(told, caveat=caveat, higher_is_better=better)


def agrees(told: Score, items: Score) -> bool:
    """Whether a total is what the items give, or one of the two is not known."""
    if told.value is None or items.value is None:
        return True
    return abs(told.value - items.value) <= 1e-6 * max(1.0, abs(told.value))
