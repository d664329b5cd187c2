"""What is measured of one matrix against its base: plain numbers, each beside what chance gives.

`compare.py` computes them. Nothing here imports torch.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

from . import judgement
from .null import RandomMatrix, RandomSubspaces, best_cosine, share_band


@dataclass(frozen=True)
class Turn:
    """How the leading k singular vectors of one side turned.

    Attributes:
        d: dimension of the space they lie in: m for left, n for right vectors.
        angles: k principal angles between the two spans, ascending, in radians.
        alignment: mean over fine-tuned vectors of their largest |cosine| with a base vector;
            vectors of equal singular values count as the subspace that they span.
    """

    d: int
    angles: tuple[float, ...]
    alignment: float

    @cached_property
    def mean(self) -> float:
        """Mean angle in radians."""
        return sum(self.angles) / len(self.angles) if self.angles else 0.0

    @property
    def largest(self) -> float:
        return self.angles[-1] if self.angles else 0.0

    @cached_property
    def chordal(self) -> float:
        """√ of the mean of sin²θ: 0 where the spans are one, 1 where they are orthogonal."""
        squares = [math.sin(angle) ** 2 for angle in self.angles]
        return math.sqrt(sum(squares) / len(squares)) if squares else 0.0

    @property
    def chance(self) -> RandomSubspaces:
        """Two independent subspaces of the same dimensions."""
        return RandomSubspaces(self.d, len(self.angles))

    @property
    def chance_alignment(self) -> float:
        """The alignment of independent vectors."""
        return best_cosine(self.d, len(self.angles))

    @property
    def is_chance(self) -> bool:
        """Whether the spans are no nearer to each other than independent ones are."""
        chance = self.chance
        nearest = chance.chordal_band[0]
        return chance.says_something and judgement.spans_are_chance(self.chordal, nearest)

    @property
    def is_telling(self) -> bool:
        """Whether the angles can be told from what dimensions or chance make of them."""
        return self.chance.says_something and not self.is_chance


@dataclass(frozen=True)
class Change:
    """The difference D = W_f − W_b of two matrices (m, n) with r = min(m, n).

    Attributes:
        relative: ‖D‖_F / ‖W_b‖_F; infinite where the base is zero and D is not.
        cosine: ⟨W_b, W_f⟩ / (‖W_b‖_F ‖W_f‖_F); NaN where one of them is zero, or next
            to it beside the other.
        values: its r singular values, descending, to about 1e-7 σ_1²/σ_i; those too small to be
            told from rounding are 0.
        diagonal: share of ‖D‖_F² on the diagonal of C = U_b,kᵀ D V_b,k, which changes singular
            values.
        rotation: share in the rest of C, which turns leading vectors among each other.
        structureless: share of ‖D‖_F² that C would hold if the entries of D had random signs and
            the sizes they have, Σ_ij D_ij² p_i q_j with the leverage scores p, q of U_b,k and
            V_b,k: k²/mn where all are of one size, more where large rows and columns are where U
            and V are.
        picture: mean squares of C in up to 24 × 24 cells, leading vectors first, in units of the
            mean square of D: 1 is what a change without structure would show.
    """

    shape: tuple[int, int]
    relative: float
    cosine: float
    values: tuple[float, ...]
    diagonal: float
    rotation: float
    structureless: float
    picture: tuple[tuple[float, ...], ...]

    @property
    def inside(self) -> float:
        """Share of ‖D‖_F² in the leading k × k block C."""
        return self.diagonal + self.rotation

    @property
    def outside(self) -> float:
        """The rest of it."""
        return max(0.0, 1.0 - self.inside)

    def expected(self, part: str, k: int) -> float:
        """The share without structure, of `inside` (all of C), its `diagonal` or the `rotation`."""
        return self.structureless * _entries(part, k) / k**2 if k else 0.0

    def band(self, part: str, k: int) -> tuple[float, float]:
        """Shares that random signs and rounding explain, about `expected`."""
        return share_band(self.expected(part, k), _entries(part, k))

    def side_of_band(self, part: str, k: int) -> int:
        """Whether a share is under (−1), within (0) or over (1) that band."""
        return judgement.side_of_band(getattr(self, part), self.band(part, k))

    @property
    def energy(self) -> float:
        """‖D‖_F², from its singular values."""
        return sum(value * value for value in self.values)

    @property
    def stable_rank(self) -> float:
        """‖D‖_F² / ‖D‖₂²; 0 for no change."""
        return self.energy / self.values[0] ** 2 if self.energy else 0.0

    @property
    def effective_rank(self) -> float:
        """exp of the entropy of the singular values over their sum (Roy and Vetterli 2007)."""
        total = sum(self.values)
        shares = [value / total for value in self.values if value] if total else []
        return math.exp(-sum(share * math.log(share) for share in shares)) if shares else 0.0

    def leading_energy(self, k: int) -> float:
        """Share of ‖D‖_F² in D's own k leading singular values."""
        return sum(v * v for v in self.values[:k]) / self.energy if self.energy else 0.0

    @property
    def chance(self) -> RandomMatrix:
        """A change of the same shape without structure."""
        return RandomMatrix(*self.shape)


def _entries(part: str, k: int) -> int:
    """How many entries of C (k, k) the part has."""
    return {"inside": k * k, "diagonal": k, "rotation": k * k - k}[part]


@dataclass(frozen=True)
class Measures:
    """One matrix (m, n) against its base, at rank k.

    Attributes:
        k: leading triplets compared; fewer than asked for where a matrix has not as many values
            that differ from zero.
        base_values, finetuned_values: the k leading singular values, descending.
        left, right: of the singular vectors.
        base_gap, finetuned_gap: (σ_k − σ_{k+1})/σ_k; None at k = r.
        change: W_f − W_b.
        intruders: how many of the leading ten left vectors of W_f have no |cosine| of 0.5 with any
            left vector of W_b (arXiv 2410.21228); None where the two are no nearer to each
            other than independent ones (`is_chance`), which makes the question void.
        methods: the rungs of the precision ladder that were used.
    """

    k: int
    base_values: tuple[float, ...]
    finetuned_values: tuple[float, ...]
    left: Turn
    right: Turn
    base_gap: float | None
    finetuned_gap: float | None
    change: Change
    intruders: int | None
    methods: tuple[str, ...]

    @property
    def value_changes(self) -> tuple[float, ...]:
        """(S_f − S_b)/S_b for each of the k."""
        return tuple((f - b) / b for b, f in zip(self.base_values, self.finetuned_values))

    @property
    def value_change(self) -> float:
        """√ of the mean square of them."""
        squares = [change * change for change in self.value_changes]
        return math.sqrt(sum(squares) / len(squares)) if squares else 0.0

    @property
    def telling_angle(self) -> float | None:
        """Mean angle in radians over the sides that say something; None where neither does."""
        means = [turn.mean for turn in (self.left, self.right) if turn.is_telling]
        return sum(means) / len(means) if means else None

    @property
    def gap_over_change(self) -> float | None:
        """(σ_k − σ_{k+1}) of the base over the largest singular value of the change; None where
        there is no cut or no change."""
        if self.base_gap is None or not self.k or not self.change.values[0]:
            return None
        return self.base_gap * self.base_values[-1] / self.change.values[0]

    @property
    def has_loose_cut(self) -> bool:
        """Whether the change may have swapped vectors over the cut."""
        gap = self.gap_over_change
        return gap is not None and judgement.is_loose(gap)

    @property
    def is_chance(self) -> bool:
        """Whether the two matrices have no more in common than independent ones."""
        by_vectors = self.left.is_chance and self.right.is_chance
        return judgement.are_unrelated(self.change.cosine, by_vectors)
