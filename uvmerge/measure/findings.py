"""What a comparison of checkpoints found: plain data, from single matrices up to a verdict. Pure."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from .measures import Measures, Turn
from .null import ROUNDING

SCHEMA = 1  # of `report.json`; docs/report.md describes it


@dataclass(frozen=True)
class Entry:
    """One matrix of a fine-tuned checkpoint, against its base.

    Attributes:
        name: the fine-tuned tensor, with expert and rows where it holds several matrices.
        layer: index of its decoder layer, or None outside them.
        module: attention, mlp, …, as in `--modules`.
        role: what it is in its layer, like q_proj; the same in every layer.
        dtype: in which the fine-tuned checkpoint stores it.
        state: `measured`; `identical`: the same values, nothing decomposed; `nonfinite`: NaN or Inf.
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
        return self.measures is not None and self.relative <= 1.5 * ROUNDING.get(self.dtype, 0.0)


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
        prompts, tokens: how many; the distribution after every token is compared, the last included,
            where the answer would begin.
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
    def chance(self) -> list[Entry]:
        """Matrices that have no more in common with the base's than independent ones have."""
        return [e for e in self.measured if e.measures is not None and e.measures.is_chance]

    @property
    def verdict(self) -> str:
        """`unrelated` where most matrices look independent, `identical` where no tensor that was
        compared changed, else `related`."""
        if 2 * len(self.chance) > len(self.measured):
            return "unrelated"
        unmoved = all(entry.state == "identical" for entry in self.entries)
        same = all(other.relative == 0 for other in self.others)
        return "identical" if unmoved and same else "related"

    @property
    def moved(self) -> list[Entry]:
        """The measured matrices, those whose vectors turned most first."""
        return sorted(self.measured, key=lambda entry: -turned(entry))


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
        found = {compared.verdict for compared in self.compared}
        if "unrelated" in found:
            return "unrelated"
        return "identical" if found == {"identical"} else "related"

    @property
    def labels(self) -> list[str]:
        """Of all checkpoints, the base first."""
        return [self.base, *(compared.label for compared in self.compared)]


def turned(entry: Entry) -> float:
    """Mean angle of a matrix over both sides, in radians; 0 where nothing was measured."""
    if entry.measures is None:
        return 0.0
    return (entry.measures.left.mean + entry.measures.right.mean) / 2


def mean_of(entries: Iterable[Entry], value: Callable[[Measures], float]) -> float | None:
    """Mean of a figure over the measured matrices among `entries`; None without any."""
    found = [value(entry.measures) for entry in entries if entry.measures is not None]
    return sum(found) / len(found) if found else None


def median_of(entries: Iterable[Entry], value: Callable[[Measures], float]) -> float | None:
    """Median of a figure over the measured matrices among `entries`; None without any."""
    found = [value(entry.measures) for entry in entries if entry.measures is not None]
    return median(found) if found else None


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


def as_data(findings: Findings) -> dict[str, Any]:
    """The findings as JSON-able data, numbers to six digits; docs/report.md describes the schema."""
    return _rounded({
        "uvmerge_report": SCHEMA,
        "verdict": findings.verdict,
        "base": {"reference": findings.base, "commit": findings.base_commit},
        "settings": dict(findings.settings),
        "versions": dict(findings.versions),
        "seconds": dict(findings.seconds),
        "checkpoints": [_checkpoint(compared) for compared in findings.compared],
        "pairs": [dict(vars(pair)) for pair in findings.pairs],
    })  # fmt: skip


def _checkpoint(compared: Compared) -> dict[str, Any]:
    behaviour = compared.behaviour
    return {
        "reference": compared.label, "commit": compared.commit, "verdict": compared.verdict,
        "notes": list(compared.notes),
        "behaviour": None if behaviour is None else dict(vars(behaviour)),
        "matrices": [_entry(entry) for entry in compared.entries],
        "others": [dict(vars(other)) for other in compared.others],
    }  # fmt: skip


def _entry(entry: Entry) -> dict[str, Any]:
    data: dict[str, Any] = {
        "name": entry.name, "layer": entry.layer, "module": entry.module, "role": entry.role,
        "shape": list(entry.shape), "dtype": entry.dtype, "state": entry.state,
        "relative_delta": entry.relative, "rounding_of_dtype": ROUNDING.get(entry.dtype),
        "device": entry.device,
    }  # fmt: skip
    found = entry.measures
    if found is None:
        return data
    change, chance = found.change, found.change.chance
    return data | {
        "k": found.k, "is_chance": found.is_chance, "methods": list(found.methods),
        "left": _turn(found.left), "right": _turn(found.right),
        "values": {
            "base": list(found.base_values), "finetuned": list(found.finetuned_values),
            "relative_change_rms": found.value_change,
        },
        "gap": {"base": found.base_gap, "finetuned": found.finetuned_gap},
        "intruders": found.intruders,
        "delta": {
            "cosine": change.cosine, "values": list(change.values),
            "effective_rank": change.effective_rank,
            "stable_rank": change.stable_rank, "stable_rank_chance": chance.stable_rank,
            "leading_energy": change.leading_energy(found.k),
            "leading_energy_chance": chance.leading_energy(found.k),
            "diag": change.diagonal, "rot": change.rotation, "outside": change.outside,
            "in_block_chance": change.structureless,
            "in_block_chance_band": list(change.band("inside", found.k)),
            "block": [list(row) for row in change.picture],
        },
    }  # fmt: skip


def _turn(turn: Turn) -> dict[str, Any]:
    chance = turn.chance
    return {
        "angles": list(turn.angles), "mean": turn.mean, "largest": turn.largest,
        "chordal": turn.chordal, "chordal_chance": chance.chordal,
        "chordal_chance_band": list(chance.chordal_band),
        "zeros_chance": chance.zeros, "smallest_chance": chance.smallest,
        "is_chance": turn.is_chance,
        "alignment": turn.alignment, "alignment_chance": turn.chance_alignment,
    }  # fmt: skip


def _rounded(data: Any) -> Any:
    """`data` with floats to six digits, and None for what JSON has no number for."""
    if isinstance(data, float):
        return float(f"{data:.6g}") if math.isfinite(data) else None
    if isinstance(data, Mapping):
        return {key: _rounded(value) for key, value in data.items()}
    if isinstance(data, Sequence) and not isinstance(data, str):
        return [_rounded(value) for value in data]
    return data
