"""What a comparison found, as plain data: from single matrices up to a verdict."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ..errors import counted
from ..text import brief, two_lines
from . import judgement
from .measures import Measures
from .null import ROUNDING


@dataclass(frozen=True)
class Entry:
    """One matrix of a fine-tuned checkpoint, against its base.

    Attributes:
        name: the fine-tuned tensor, with expert and rows where the tensor holds several matrices.
        layer: index of the layer, or None outside the layers.
        module: `attention`, `mlp`, …, as in `--modules`.
        role: the matrix within its layer, like `q_proj`; the same in every layer.
        shape: (m, n) = (out, in).
        dtype: how the fine-tuned checkpoint stores the matrix, as safetensors names it.
        state: `measured`; `identical`, where both hold the same values and nothing was decomposed;
            `nonfinite`, where one of them holds NaN or Inf.
        measures: of a measured matrix; else None.
        device: where it was measured.
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

    def __repr__(self) -> str:
        m, n = self.shape
        moved = f"{self.state}, moved {100 * self.relative:.3g} % of its norm"
        if self.measures is not None:
            moved += f", k = {self.measures.k}, {self.measures.turned}"
        return two_lines("Entry", f"{self.name} ({m} × {n}, {self.dtype})", moved)

    @property
    def relative(self) -> float:
        """‖W_f − W_b‖_F / ‖W_b‖_F; 0 for an identical matrix, NaN for a nonfinite one."""
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
        """Mean principal angle over both sides, in radians; 0 where nothing was measured."""
        if self.measures is None:
            return 0.0
        return (self.measures.left.mean + self.measures.right.mean) / 2


@dataclass(frozen=True)
class Other:
    """A tensor that is compared without being decomposed: a norm, a bias, an embedding.

    Attributes:
        name: of the tensor in the fine-tuned checkpoint.
        module: `norm`, `embeddings`, …, as in `--modules`.
        relative: ‖W_f − W_b‖_F / ‖W_b‖_F; None where this is no finite number, and where tensors of
            integers or quantised values differ.
    """

    name: str
    module: str
    relative: float | None


@dataclass(frozen=True)
class Overlap:
    """Share of the base's k likeliest next tokens that are among the k of another model.

    Attributes:
        share: mean over tokens.
        chance: share for k random tokens, k over the size of the vocabulary.
    """

    k: int
    share: float
    chance: float


@dataclass(frozen=True)
class Behaviour:
    """How a model answers compared with the base, on the user's prompts (`--kl`).

    Attributes:
        prompts, tokens: their numbers. The next-token distributions after every token are compared,
            also after the last one, where the answer would begin.
        kl: mean over tokens of KL(base ‖ fine-tuned) of the next-token distributions, in nats.
        kl_error: standard error of `kl` from the spread over prompts; None for a single prompt.
        base_entropy, entropy: mean entropy of the two distributions, in nats.
        overlap: mean share of the base's ten likeliest next tokens that are among the ten of the
            other model.
        agreement: share of tokens after which both models have the same likeliest next token.
        js: mean Jensen–Shannon divergence of the two distributions, in nats, at most log 2.
        base_margin, margin: mean of the likeliest token's probability less that of the second
            likeliest.
        overlap_curve: `overlap` for several numbers of likeliest tokens, ascending.
    """

    prompts: int
    tokens: int
    kl: float
    kl_error: float | None
    base_entropy: float
    entropy: float
    overlap: float
    agreement: float
    js: float | None = None
    base_margin: float | None = None
    margin: float | None = None
    overlap_curve: tuple[Overlap, ...] = ()


@dataclass(frozen=True)
class HiddenLayer:
    """The hidden states of one layer against the base's, one state of each prompt.

    A measure is None where it does not exist, as for a layer whose states are all equal.

    Attributes:
        layer: how many layers the states went through: 0 is the input of the first layer, and the
            last is what the output head reads.
        cka: linear CKA of both sets of states: 1 where a rotation and a scale make them equal.
        cka_chance: that of prompts paired at random; near 1 where prompts are few.
        cosine, cosine_chance: mean cosine of a prompt's states, and of prompts paired at random.
        shift: distance of the mean states over the base's root mean square distance from its mean.
        shift_chance: that where the two models are swapped in random prompts.
        mmd, mmd_chance: maximum mean discrepancy with a Gaussian kernel, and with models swapped.
    """

    layer: int
    cka: float | None
    cka_chance: float | None
    cosine: float | None
    cosine_chance: float | None
    shift: float | None
    shift_chance: float | None
    mmd: float | None
    mmd_chance: float | None


@dataclass(frozen=True)
class Hidden:
    """The hidden states of a prompt's last token against the base's (`--hidden`).

    Attributes:
        prompts: their number.
        layers: the measures of each layer, the input of the first layer before them.
    """

    prompts: int
    layers: tuple[HiddenLayer, ...]

    def __repr__(self) -> str:
        last = self.layers[-1]
        of_last = (
            f"in the last, cka {last.cka}, cosine {last.cosine}, shift {last.shift}, mmd {last.mmd}"
        )
        layers = counted(len(self.layers) - 1, "layer")
        return two_lines("Hidden", f"{counted(self.prompts, 'prompt')}, {layers}", of_last)


@dataclass(frozen=True)
class Compared:
    """One checkpoint against the base.

    Attributes:
        label, commit: of the checkpoint; no commit where it is a local folder.
        entries: its matrices, in file order.
        others: the other tensors that it shares with the base.
        notes: what the user should know, such as names aligned and tensors without a counterpart.
        behaviour: how it answers; None without `--kl`.
        hidden: how its hidden states moved; None without `--hidden`.
        made_from: labels of the checkpoints from which uvmerge made it; empty where it did not.
    """

    label: str
    commit: str | None
    entries: tuple[Entry, ...]
    others: tuple[Other, ...] = ()
    notes: tuple[str, ...] = ()
    behaviour: Behaviour | None = None
    hidden: Hidden | None = None
    made_from: tuple[str, ...] = ()

    def __repr__(self) -> str:
        counts = counted(len(self.entries), "matrix"), counted(len(self.others), "other tensor")
        return two_lines("Compared", f"{self.label}: {self.verdict}", " and ".join(counts))

    @property
    def measured(self) -> list[Entry]:
        return [entry for entry in self.entries if entry.measures is not None]

    @property
    def unrelated_matrices(self) -> list[Entry]:
        """The measured matrices that have no more in common with the base's than chance gives."""
        return [entry for entry in self.measured if entry.is_unrelated]

    @property
    def related_matrices(self) -> list[Entry]:
        """The measured matrices that have more in common with the base's than chance gives."""
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
        """Whether at least one related matrix shows where it changed (`judgement.is_placed`)."""
        return any(
            judgement.is_placed(
                entry.is_rounding, found.change.inside, found.change.band("inside", found.k)
            )
            for entry, found in with_measures(self.related_matrices)
            if entry.relative > 0
        )

    @property
    def most_turned_first(self) -> list[Entry]:
        """The measured matrices by descending mean angle."""
        return sorted(self.measured, key=lambda entry: -entry.mean_angle)


@dataclass(frozen=True)
class Pair:
    """Two of the checkpoints against each other, over all matrices that both share with the base.

    Attributes:
        first, second: 0 is the base, 1 the first checkpoint.
        left, right: chordal distance of the leading left and right vectors, mean over matrices.
        distance: √ of Σ ‖W_i − W_j‖_F² / Σ ‖W_b‖_F².
    """

    first: int
    second: int
    left: float
    right: float
    distance: float

    def is_nearer_than(self, before: Pair) -> bool:
        """Whether both chordal distances are smaller than those of another pair."""
        left = judgement.came_nearer(before.left, self.left)
        return left and judgement.came_nearer(before.right, self.right)


@dataclass(frozen=True)
class Findings:
    """A base and the checkpoints compared with it.

    Attributes:
        base, base_commit: label and commit of the base.
        compared: one or several checkpoints, in the order given.
        pairs: each two of all checkpoints, the base included; empty for a single compared checkpoint.
        settings: what was asked for (`top`, `rank`, `energy`, filters) and how it was computed.
        versions: of uvmerge, torch and Python.
        seconds: spent in each phase, summed over threads; `total` is wall time.
    """

    base: str
    base_commit: str | None
    compared: tuple[Compared, ...]
    pairs: tuple[Pair, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    seconds: Mapping[str, float] = field(default_factory=dict)

    def __repr__(self) -> str:
        matrices = counted(sum(len(each.entries) for each in self.compared), "matrix")
        labels = brief(" → ".join(brief(label, 60) for label in self.labels), 240)
        about = f"{matrices} in .compared; print() gives the summary, .save(folder) the report"
        return two_lines(type(self).__name__, f"{labels}: {self.verdict}", about)

    @property
    def verdict(self) -> str:
        """`unrelated` if any checkpoint is, `identical` if all are, else `related`."""
        return judgement.verdict_of_all(compared.verdict for compared in self.compared)

    @property
    def labels(self) -> list[str]:
        """The labels of all checkpoints, the base first."""
        return [self.base, *(compared.label for compared in self.compared)]


def with_measures(entries: Iterable[Entry]) -> list[tuple[Entry, Measures]]:
    """The measured entries, each with its measures."""
    return [(entry, entry.measures) for entry in entries if entry.measures is not None]


def by_place(
    entries: Iterable[Entry],
) -> tuple[list[str], list[int | None], dict[tuple[str, int | None], list[Entry]]]:
    """Roles in order of appearance, layers ascending (None last), and the entries by (role, layer)."""
    cells: dict[tuple[str, int | None], list[Entry]] = {}
    for entry in entries:
        cells.setdefault((entry.role, entry.layer), []).append(entry)
    roles = list(dict.fromkeys(role for role, _ in cells))
    layers = sorted({layer for _, layer in cells}, key=lambda x: (x is None, x or 0))
    return roles, layers, cells
