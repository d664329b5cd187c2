"""What a comparison found: plain data, from single matrices up to a verdict. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from . import judgement
from .measures import Measures
from .null import ROUNDING


@dataclass(frozen=True)
class Entry:
    """One matrix of a fine-tuned checkpoint, against its base.

    Attributes:
        name: the fine-tuned tensor, with expert and rows where it holds several matrices.
        layer: index of its decoder layer, or None outside them.
        module: attention, mlp, …, as in `--modules`.
        role: what it is in its layer, like q_proj; the same in every layer.
        dtype: in which the fine-tuned checkpoint stores it.
        state: `measured`; `identical`: the same values, nothing decomposed; `nonfinite`: it holds
            NaN or Inf.
        measures: of a measured matrix.
        device: where it was computed.
    """

    name: str
    layer: int | None
    module: str
    role: str
    shape: tuple[int, int]
    dtype: str
    state: str
    measures: Measures | None = None
    device: str = "cpu"

    @property
    def relative(self) -> float:
        """‖W_f − W_b‖_F / ‖W_b‖_F; 0 for an identical matrix, NaN where there are NaN."""
        if self.measures is None:
            return 0.0 if self.state == "identical" else math.nan
        return self.measures.change.relative

    @property
    def is_rounding(self) -> bool:
        """Whether the change is no larger than storing any matrix in this dtype makes one."""
        rounding = ROUNDING.get(self.dtype, 0.0)
        return self.measures is not None and judgement.is_rounding(self.relative, rounding)

    @property
    def is_unrelated(self) -> bool:
        """Whether it was measured and has no more in common with its base than chance gives."""
        return self.measures is not None and self.measures.is_chance

    @property
    def mean_angle(self) -> float:
        """Over both sides, in radians; 0 where nothing was measured."""
        if self.measures is None:
            return 0.0
        return (self.measures.left.mean + self.measures.right.mean) / 2


@dataclass(frozen=True)
class Other:
    """A tensor that is compared without being decomposed: a norm, a bias, an embedding.

    Attributes:
        relative: ‖W_f − W_b‖_F / ‖W_b‖_F; None where the two cannot be subtracted.
    """

    name: str
    module: str
    relative: float | None


@dataclass(frozen=True)
class Behaviour:
    """How a model answers compared with the base, on the user's prompts (`--kl`).

    Attributes:
        prompts, tokens: how many; the distribution after every token is compared, the last
            included, where the answer would begin.
        kl: mean over tokens of KL(base ‖ fine-tuned) of the next-token distribution, in nats.
        kl_error: its standard error, from the spread over prompts.
        base_entropy, entropy: mean entropy of the two distributions, in nats.
        overlap: mean share of the base's ten likeliest tokens that are among the other's ten.
        agreement: share of tokens where both find the same one likeliest.
    """

    prompts: int
    tokens: int
    kl: float
    kl_error: float | None
    base_entropy: float
    entropy: float
    overlap: float
    agreement: float


@dataclass(frozen=True)
class Compared:
    """One checkpoint against the base.

    Attributes:
        label, commit: of the checkpoint.
        entries: its matrices, in file order.
        others: the other tensors that it shares with the base.
        notes: what the user should know: names aligned, tensors without a partner.
        behaviour: with `--kl`.
    """

    label: str
    commit: str | None
    entries: tuple[Entry, ...]
    others: tuple[Other, ...] = ()
    notes: tuple[str, ...] = ()
    behaviour: Behaviour | None = None

    @property
    def measured(self) -> list[Entry]:
        return [entry for entry in self.entries if entry.measures is not None]

    @property
    def unrelated_matrices(self) -> list[Entry]:
        """The measured ones that have no more in common with the base's than chance gives."""
        return [entry for entry in self.measured if entry.is_unrelated]

    @property
    def related_matrices(self) -> list[Entry]:
        """The measured ones that have more in common with the base's than chance gives."""
        return [entry for entry in self.measured if not entry.is_unrelated]

    @property
    def verdict(self) -> str:
        """`unrelated` where most matrices look independent, `identical` where no tensor that was
        compared changed, else `related`."""
        unmoved = all(entry.state == "identical" for entry in self.entries)
        same = all(other.relative == 0 for other in self.others)
        unrelated, measured = len(self.unrelated_matrices), len(self.measured)
        return judgement.verdict(unrelated, measured, unmoved and same)

    @property
    def says_where(self) -> bool:
        """Whether it can be said where the checkpoint changed, of one related matrix at least."""
        return any(
            judgement.is_placed(
                entry.is_rounding, found.change.inside, found.change.band("inside", found.k)
            )
            for entry, found in with_measures(self.related_matrices)
            if entry.relative > 0
        )

    @property
    def moved(self) -> list[Entry]:
        """The measured matrices, those whose vectors turned most first."""
        return sorted(self.measured, key=lambda entry: -entry.mean_angle)


@dataclass(frozen=True)
class Pair:
    """Two of the checkpoints against each other, over all matrices that both share with the base.

    Attributes:
        first, second: 0 is the base, 1 the first checkpoint.
        left, right: chordal distance of the leading spans, mean over matrices.
        distance: √ of Σ ‖W_i − W_j‖_F² / Σ ‖W_b‖_F².
    """

    first: int
    second: int
    left: float
    right: float
    distance: float

    def is_nearer_than(self, before: Pair) -> bool:
        """Whether the leading vectors of both sides are nearer to each other than before."""
        left = judgement.came_nearer(before.left, self.left)
        return left and judgement.came_nearer(before.right, self.right)


@dataclass(frozen=True)
class Findings:
    """A base and the checkpoints compared with it.

    Attributes:
        base, base_commit: label and commit of the base.
        compared: one or several checkpoints, in the order given.
        pairs: each two of all checkpoints, the base included, where there are several.
        settings: what was asked for (`top`, `rank`, `energy`, filters) and how it was computed.
        versions: of uvmerge, torch and Python.
        seconds: by phase, summed over threads, and `total` by the clock.
    """

    base: str
    base_commit: str | None
    compared: tuple[Compared, ...]
    pairs: tuple[Pair, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    seconds: Mapping[str, float] = field(default_factory=dict)

    @property
    def verdict(self) -> str:
        """`unrelated` if any checkpoint is, `identical` if all are, else `related`."""
        return judgement.verdict_of_all(compared.verdict for compared in self.compared)

    @property
    def labels(self) -> list[str]:
        """Of all checkpoints, the base first."""
        return [self.base, *(compared.label for compared in self.compared)]


def with_measures(entries: Iterable[Entry]) -> list[tuple[Entry, Measures]]:
    """The measured ones among the entries, each beside what was measured of it."""
    return [(entry, entry.measures) for entry in entries if entry.measures is not None]


def by_place(
    entries: Iterable[Entry],
) -> tuple[list[str], list[int | None], dict[tuple[str, int | None], list[Entry]]]:
    """Roles in order of appearance, layers ascending (None last), and the entries of each pair."""
    cells: dict[tuple[str, int | None], list[Entry]] = {}
    for entry in entries:
        cells.setdefault((entry.role, entry.layer), []).append(entry)
    roles = list(dict.fromkeys(role for role, _ in cells))
    layers = sorted({layer for _, layer in cells}, key=lambda x: (x is None, x or 0))
    return roles, layers, cells
