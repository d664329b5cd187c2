"""The attempts of a model at the hands that it is asked, kept in a file from which a run is resumed.

`attempts.jsonl` holds what was asked of which model, and then a line for each answer, written as soon as
it is there. Each line ends with a hash of its own; a line that was cut off by a kill, or changed, counts
as absent.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import xxhash

from ..errors import InputRefused, listed
from ..output.journal import line_of, lines_of, parse_line
from ..output.lock import lock_of, locked
from ..output.tree import Tree
from ..tasks.cards import Verdict, judge_answer
from ..tasks.hands import Hand, frozen

ATTEMPTS, SAMPLES, RESULTS = "attempts.jsonl", "samples.jsonl", "results.json"


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


class Attempts:
    """The attempts so far at every hand, in memory and in a file if there is one.

    Attributes:
        of: the attempts at each item, the first one first.
    """

    def __init__(self, items: list[Item]) -> None:
        self.of: dict[Item, list[Attempt]] = {item: [] for item in items}
        self._descriptor: int | None = None

    def add(self, attempt: Attempt) -> None:
        """Keep one more attempt."""
        if self._descriptor is not None:
            data = memoryview(line_of(attempt.as_data()).encode())
            while data:
                data = data[os.write(self._descriptor, data) :]
        self.of[attempt.item].append(attempt)

    def pending(self, attempt: int) -> list[Item]:
        """The hands of which the attempt with this number is still to be made."""
        return [
            item
            for item, made in self.of.items()
            if len(made) == attempt - 1 and not (made and made[-1].verdict.ok)
        ]

    @contextmanager
    def kept_in(self, out: Path, head: Mapping[str, Any]) -> Iterator[Tree]:
        """Inside the block, every attempt is also written into OUT; earlier ones are taken from there.

        Args:
            head: what the run asks, and of which model.

        Raises:
            InputRefused: OUT holds other files, or the attempts of another run.
            Locked: another run is writing there.
        """
        out.mkdir(parents=True, exist_ok=True)
        with locked(lock_of(out)), Tree.at(out) as root:
            _refuse_others(root)
            self._take(root, dict(head))
            made = [attempt.as_data() for each in self.of.values() for attempt in each]
            text = "".join(map(line_of, [dict(head), *made]))
            root.write_whole(ATTEMPTS, text.encode())
            with root.created(ATTEMPTS, os.O_WRONLY | os.O_APPEND) as self._descriptor:
                try:
                    yield root
                finally:
                    self._descriptor = None

    def _take(self, root: Tree, head: dict[str, Any]) -> None:
        """Take the attempts of an earlier run of the same head."""
        if root.status(ATTEMPTS) is None:
            return
        with root.reading(ATTEMPTS) as file:
            before, *entries = [parse_line(line) for line in lines_of(file)] or [{}]
        if before != json.loads(json.dumps(head)):
            other = [key for key in head if before.get(key) != head[key]]
            raise InputRefused(
                root.path,
                f"holds the attempts of another run (other {', '.join(other)})",
                "Name another --out, or delete the folder.",
            )
        for entry in entries:
            item = Item(entry.get("rule", ""), entry.get("doc_id", -1))
            made = self.of.get(item)
            if made is not None and entry["attempt"] == len(made) + 1:
                made.append(Attempt(item, entry["attempt"], entry["seed"], entry["answer"]))


def _refuse_others(root: Tree) -> None:
    """Refuse a folder with anything that is not of an evaluation."""
    known = (ATTEMPTS, SAMPLES, RESULTS)
    if others := sorted(set(root.names()) - {*known, *(f"{name}.new" for name in known)}):
        what = f"holds more than an evaluation ({listed(others, 'other', 3)})"
        raise InputRefused(root.path, what, "Name another --out.")
