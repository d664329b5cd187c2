"""The attempts of a model at the hands that it is asked, kept in `attempts.jsonl`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import xxhash

from ..tasks.cards import Verdict, judge_answer
from ..tasks.hands import Hand, frozen
from .kept import Kept


@dataclass(frozen=True)
class Item:
    """One hand that is asked.

    Attributes:
        rule: `id` or `ood`.
        doc_id: its place among the hands of the rule.
    """

    rule: str
    doc_id: int

    @property
    def hand(self) -> Hand:
        """The cards."""
        return frozen(self.rule)[self.doc_id]

    def seed(self, seed: int, attempt: int) -> int:
        """The seed of one attempt, which depends on nothing but the attempt and the seed of the run."""
        text = f"{seed} {self.rule} {self.doc_id} {attempt}"
        return xxhash.xxh3_64_intdigest(text.encode()) & 0x7FFFFFFF


@dataclass(frozen=True)
class Attempt:
    """One answer to a hand.

    Attributes:
        attempt: 1 for the first.
        seed: what the answer was drawn with.
        answer: the text of the model.
    """

    item: Item
    attempt: int
    seed: int
    answer: str

    @property
    def verdict(self) -> Verdict:
        """What the judge says of the answer."""
        return judge_answer(self.answer, self.item.hand.values)

    def as_data(self) -> dict[str, Any]:
        """The line of the file, as JSON-able data."""
        verdict = self.verdict
        return {
            **asdict(self.item), "unordered": self.item.hand.unordered, "attempt": self.attempt,
            "seed": self.seed, "answer": self.answer, "success": int(verdict.ok),
            "reason": verdict.reason, "published": int(verdict.published),
        }  # fmt: skip


class Attempts(Kept):
    """The attempts so far at every hand, in memory and in a file if there is one.

    Attributes:
        of: the attempts at each item, the first one first.
    """

    name = "attempts.jsonl"

    def __init__(self, items: list[Item]) -> None:
        self.of: dict[Item, list[Attempt]] = {item: [] for item in items}

    def add(self, attempt: Attempt) -> None:
        """Keep one more attempt."""
        self.write(attempt.as_data())
        self.of[attempt.item].append(attempt)

    def pending(self, attempt: int) -> list[Item]:
        """The hands of which the attempt with this number is still to be made."""
        return [
            item
            for item, made in self.of.items()
            if len(made) == attempt - 1 and not (made and made[-1].verdict.ok)
        ]

    def lines(self) -> Iterator[dict[str, Any]]:
        """A line for each attempt, those at one hand after each other."""
        yield from (attempt.as_data() for made in self.of.values() for attempt in made)

    def take(self, line: Mapping[str, Any]) -> None:
        """Take the next attempt at a hand of this run."""
        item = Item(line.get("rule", ""), line.get("doc_id", -1))
        made = self.of.get(item)
        if made is not None and line["attempt"] == len(made) + 1:
            made.append(Attempt(item, line["attempt"], line["seed"], line["answer"]))
