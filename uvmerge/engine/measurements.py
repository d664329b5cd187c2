"""What a comparison measures, as tasks that anyone can do, and what comes back of them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from ..checkpoint.folder import Tensor
from ..checkpoint.roles import BASE
from ..measure.compare import Distances
from ..measure.findings import Entry, Other, Pair
from ..measure.leading import INTRUDERS
from ..plan.pairing import Match, Pairing, effort, working_set
from ..spectral.rank import leading_count

Key: TypeAlias = tuple[int, int]  # of a task: 0 and the number of a match, or checkpoint and tensor


def role(number: int) -> str:
    """The role of the checkpoint `number` (1, 2, …) among the readers' checkpoints; 0 is the base."""
    return str(number) if number else BASE


@dataclass(frozen=True)
class Rank:
    """How many leading triplets are compared; one of three is given.

    Attributes:
        top: a fraction of min(m, n).
        rank: a count.
        energy: a share of ‖W_b‖_F², which the leading triplets of the base hold.
    """

    top: float | None = None
    rank: int | None = None
    energy: float | None = None

    def at_most(self, r: int) -> int:
        """How many triplets of a matrix with r singular values are needed at most: k, known without
        decomposing it, or ten, which are searched for intruders."""
        if self.energy is not None:
            return r
        return max(leading_count(r, top=self.top, rank=self.rank), min(INTRUDERS, r))


@dataclass
class Measured:
    """One match after measuring.

    Attributes:
        entries: per checkpoint, its matrix against the base's; None where it has no such matrix.
        distances: distances of each two matrices; empty unless all checkpoints have a finite one.
        base_norm: ‖W_b‖_F, where there are distances.
    """

    entries: list[Entry | None] = field(default_factory=list)
    distances: list[Distances] = field(default_factory=list)
    base_norm: float = 0.0


@dataclass(frozen=True)
class Decompose:
    """A match to be measured."""

    number: int
    match: Match
    k: int

    @property
    def key(self) -> Key:
        return 0, self.number

    @property
    def place(self) -> tuple[bool, int, int]:
        return True, 0, self.number

    @property
    def name(self) -> str:
        return self.match.base.label

    @property
    def work(self) -> float:
        return effort(self.match, self.k)

    @property
    def memory_bytes(self) -> int:
        return working_set(self.match, self.k)

    @property
    def size_bytes(self) -> int:
        return 4 * math.prod(self.match.shape)


@dataclass(frozen=True)
class Subtract:
    """A tensor that is not decomposed, whose relative change is wanted."""

    checkpoint: int
    number: int
    base: Tensor
    other: Tensor
    module: str
    memory_bytes: int = 0

    @property
    def key(self) -> Key:
        return self.checkpoint, self.number

    @property
    def place(self) -> tuple[bool, int, int]:
        return False, self.checkpoint, self.number

    @property
    def name(self) -> str:
        return self.other.name

    @property
    def work(self) -> float:
        return self.other.size_bytes * 1e-5

    @property
    def size_bytes(self) -> int:
        return self.other.size_bytes


def tasks(pairing: Pairing, rank: Rank) -> tuple[list[Subtract], list[Decompose]]:
    """Every task of a comparison: those that only read, and those that compute."""
    subtract = [
        Subtract(number, i, *rest)
        for number, partners in enumerate(pairing.partners, 1)
        for i, rest in enumerate(partners.rest)
    ]
    decompose = [
        Decompose(i, match, rank.at_most(min(match.shape)))
        for i, match in enumerate(pairing.matches)
    ]
    return subtract, decompose


def in_order(
    found: Mapping[Key, Measured | Other], count: int
) -> tuple[list[Measured], list[list[Other]]]:
    """What was measured of each match, and the other tensors of each of `count` checkpoints.

    Args:
        found: by key of the task; in any order.
    """
    ordered = [(key, found[key]) for key in sorted(found)]
    measured = [each for _, each in ordered if isinstance(each, Measured)]
    others = [
        [each for key, each in ordered if isinstance(each, Other) and key[0] == checkpoint]
        for checkpoint in range(1, 1 + count)
    ]
    return measured, others


def pairs_of(measured: Sequence[Measured], count: int) -> list[Pair]:
    """Distances of each two of `count` checkpoints, the base included.

    They are taken over the matrices that all checkpoints have. Of two checkpoints there are none.
    """
    shared = [match for match in measured if match.distances]
    if not shared or count < 3:
        return []
    base_norm = math.hypot(*(match.base_norm for match in shared))
    pairs = []
    for several in zip(*(match.distances for match in shared), strict=True):
        distance = math.hypot(*(pair.norm for pair in several))
        pairs.append(
            Pair(
                several[0].first,
                several[0].second,
                sum(pair.left for pair in several) / len(several),
                sum(pair.right for pair in several) / len(several),
                distance / base_norm if base_norm else 0.0,
            )
        )
    return pairs
