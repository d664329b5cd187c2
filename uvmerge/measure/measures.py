"""What is measured of one matrix against its base: plain numbers, each beside what chance gives.

`compare.py` computes them. Nothing here imports torch.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise

from ..errors import counted
from ..text import two_lines
from . import judgement
from .null import RandomMatrix, RandomSubspaces, best_cosine, edges_of, share_band


def _degrees(angle: float) -> str:
    return f"{math.degrees(angle):.3g}°"


@dataclass(frozen=True)
class Turn:
    """How the leading k singular vectors of one side turned.

    Attributes:
        d: dimension of the space they lie in: m for left, n for right vectors.
        angles: k principal angles between the two spans, ascending, in radians.
        alignment: mean over base vectors of the largest |cosine| with a fine-tuned vector; vectors
            of equal singular values count as the subspace that they span.
        tenths: of each tenth of the spectrum, from the largest values to the smallest, the angle
            arcsin √(mean sin²θ) in radians of the base's vectors with the span of the other
            matrix's; None where it cannot be told. Empty where r < 10 or k is 0.
        r: number of singular values.
    """

    d: int
    angles: tuple[float, ...]
    alignment: float
    tenths: tuple[float | None, ...] = ()
    r: int = 0

    def __repr__(self) -> str:
        about = f"mean {_degrees(self.mean)}, largest {_degrees(self.largest)}"
        about += f", by chance {_degrees(self.chance.mean)}" if self.angles else ""
        return two_lines(
            "Turn", f"{counted(len(self.angles), 'angle')} in {self.d:,} dimensions", about
        )

    @cached_property
    def mean(self) -> float:
        """Mean angle in radians."""
        return sum(self.angles) / len(self.angles) if self.angles else 0.0

    @property
    def largest(self) -> float:
        return self.angles[-1] if self.angles else 0.0

    @cached_property
    def chordal(self) -> float:
        """√ of the mean of sin²θ: 0 where the spans are the same, 1 where they are orthogonal."""
        squares = [math.sin(angle) ** 2 for angle in self.angles]
        return math.sqrt(sum(squares) / len(squares)) if squares else 0.0

    @property
    def chance(self) -> RandomSubspaces:
        """Two independent subspaces of the same dimensions."""
        return RandomSubspaces(self.d, len(self.angles))

    @property
    def chance_of_tenths(self) -> tuple[float, ...]:
        """The angle of each tenth for independent matrices, in radians."""
        edges = edges_of(self.r) if self.tenths else []
        sizes = [end - begin for begin, end in pairwise(edges)]
        return tuple(math.asin(RandomSubspaces(self.d, size).chordal) for size in sizes)

    @property
    def chance_alignment(self) -> float:
        """The expected alignment of independent vectors."""
        return best_cosine(self.d, len(self.angles))

    @property
    def is_chance(self) -> bool:
        """Whether the spans are no nearer to each other than independent ones are."""
        chance = self.chance
        nearest = chance.chordal_band[0]
        return chance.can_be_distinguished and judgement.spans_are_chance(self.chordal, nearest)

    @property
    def is_informative(self) -> bool:
        """Whether the angles differ from those of independent subspaces, and so mean something."""
        return self.chance.can_be_distinguished and not self.is_chance


@dataclass(frozen=True)
class Change:
    """The difference D = W_f − W_b of two matrices (m, n) with r = min(m, n).

    Attributes:
        shape: (m, n).
        relative: ‖D‖_F / ‖W_b‖_F; infinite where the base is zero and D is not.
        cosine: ⟨W_b, W_f⟩ / (‖W_b‖_F ‖W_f‖_F); NaN where one of the two matrices is zero, or too
            small beside the other.
        values: the r singular values of D, descending, with an error of about 1e-7 σ_1²/σ_i, or
            1e-16 σ_1²/σ_i where products are in float64. Values that cannot be told from rounding
            errors, under 1e-3 σ_1 or 1e-6 σ_1, are 0.
        diagonal: share of ‖D‖_F² on the diagonal of C = U_b,kᵀ D V_b,k (k, k), which changes
            singular values.
        rotation: share of ‖D‖_F² in the rest of C, which turns leading vectors among each other.
        structureless: share of ‖D‖_F² expected in C if the entries of D kept their sizes and had
            random signs, Σ_ij D_ij² p_i q_j / ‖D‖_F², with the leverage scores p, q of U_b,k and
            V_b,k. It is k²/mn for entries of one size, and more where the largest rows and columns
            of D are those with the largest leverage scores.
        picture: mean squares of C in up to 24 × 24 cells, leading vectors first, over the mean
            square of D; a change without structure would give 1 everywhere.
        diagonal_entries: |C_ii| of the k leading directions, in the unit of the weights; among equal
            singular values, the root mean square of the symmetric part of C.
        residual, base_residual: ‖W − U_b,k U_b,kᵀ W V_b,k V_b,kᵀ‖_F / ‖W‖_F of the fine-tuned matrix
            and of the base: what lies outside of the base's leading block. None where W is zero.
    """

    shape: tuple[int, int]
    relative: float
    cosine: float
    values: tuple[float, ...]
    diagonal: float
    rotation: float
    structureless: float
    picture: tuple[tuple[float, ...], ...]
    diagonal_entries: tuple[float, ...] = ()
    residual: float | None = None
    base_residual: float | None = None

    def __repr__(self) -> str:
        m, n = self.shape
        shares = f"diagonal {self.diagonal:.3g}, rotation {self.rotation:.3g} of its energy"
        return two_lines("Change", f"{m} × {n}, relative {self.relative:.3g}", shares)

    @property
    def inside(self) -> float:
        """Share of ‖D‖_F² in the leading k × k block C."""
        return self.diagonal + self.rotation

    @property
    def outside(self) -> float:
        """Share of ‖D‖_F² outside C."""
        return max(0.0, 1.0 - self.inside)

    def expected(self, part: str, k: int) -> float:
        """The expected share of a change without structure.

        Args:
            part: `inside` for all of C, `diagonal`, or `rotation` for the rest of C.
        """
        return self.structureless * _entries(part, k) / k**2 if k else 0.0

    def band(self, part: str, k: int) -> tuple[float, float]:
        """Lower and upper limit of a share that random signs and rounding explain."""
        return share_band(self.expected(part, k), _entries(part, k))

    def side_of_band(self, part: str, k: int) -> int:
        """Whether a share is under (−1), within (0) or over (1) its `band`."""
        return judgement.side_of_band(getattr(self, part), self.band(part, k))

    @property
    def norm(self) -> float:
        """‖D‖_F, from its singular values."""
        return math.hypot(*self.values)

    @cached_property
    def _energies(self) -> tuple[float, ...]:
        """Squares of the singular values over σ_1²; all 0 for no change."""
        largest = self.values[0] if self.values else 0.0
        return tuple((value / largest) ** 2 if largest else 0.0 for value in self.values)

    @property
    def stable_rank(self) -> float:
        """‖D‖_F² / ‖D‖₂²; 0 for no change."""
        return sum(self._energies)

    @property
    def effective_rank(self) -> float:
        """Exponential of the entropy of the singular values over their sum (Roy and Vetterli 2007)."""
        total = sum(self.values)
        shares = [value / total for value in self.values if value] if total else []
        return math.exp(-sum(share * math.log(share) for share in shares)) if shares else 0.0

    def leading_energy(self, k: int) -> float:
        """Share of ‖D‖_F² in the k leading singular values of D itself."""
        return sum(self._energies[:k]) / self.stable_rank if self.stable_rank else 0.0

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
        k: number of leading triplets compared: no more than either matrix has singular values over
            1e-6 of its largest, because vectors of smaller ones are arbitrary.
        base_values, finetuned_values: the k leading singular values, descending.
        left, right: how the leading left and right singular vectors turned.
        base_gap, finetuned_gap: (σ_k − σ_{k+1})/σ_k; None at k = 0 and k = r.
        change: the difference W_f − W_b.
        intruders: how many of the leading ten left vectors of W_f have a |cosine| under 0.5 with
            every left vector of W_b (arXiv 2410.21228); None where the two matrices are unrelated
            (`is_chance`) or one of them is zero, which makes the question void.
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

    def __repr__(self) -> str:
        change = f"relative change {self.change.relative:.3g}, of values {self.value_change:.3g}"
        return two_lines("Measures", f"k = {self.k}, {change}", self.turned)

    @property
    def turned(self) -> str:
        """The mean angles of both sides beside those of chance, in words."""
        sides = [(name, getattr(self, name)) for name in ("left", "right")]
        return ", ".join(
            f"turned {name} {_degrees(turn.mean)} (chance {_degrees(turn.chance.mean)})"
            for name, turn in sides
        )

    def times(self, size: float) -> Measures:
        """The measures of both matrices times `size`."""
        return replace(
            self,
            base_values=tuple(value * size for value in self.base_values),
            finetuned_values=tuple(value * size for value in self.finetuned_values),
            change=replace(
                self.change,
                values=tuple(value * size for value in self.change.values),
                diagonal_entries=tuple(x * size for x in self.change.diagonal_entries),
            ),
        )

    @property
    def value_changes(self) -> tuple[float, ...]:
        """Relative change (S_f − S_b)/S_b of each of the k singular values."""
        return tuple((f - b) / b for b, f in zip(self.base_values, self.finetuned_values))

    @property
    def value_change(self) -> float:
        """Root mean square of `value_changes`."""
        squares = [change * change for change in self.value_changes]
        return math.sqrt(sum(squares) / len(squares)) if squares else 0.0

    @property
    def informative_angle(self) -> float | None:
        """Mean angle in radians over the sides that are informative; None where neither is."""
        means = [turn.mean for turn in (self.left, self.right) if turn.is_informative]
        return sum(means) / len(means) if means else None

    @property
    def gap_over_change(self) -> float | None:
        """σ_k − σ_{k+1} of the base over the largest singular value of the change; None where nothing
        is cut off, or nothing changed."""
        if self.base_gap is None or not self.k or not self.change.values[0]:
            return None
        return self.base_gap * self.base_values[-1] / self.change.values[0]

    @property
    def has_loose_cut(self) -> bool:
        """Whether the change may have swapped vectors across the cut."""
        gap = self.gap_over_change
        return gap is not None and judgement.is_loose(gap)

    @property
    def is_chance(self) -> bool:
        """Whether the two matrices have no more in common than independent ones."""
        by_vectors = self.left.is_chance and self.right.is_chance
        return judgement.are_unrelated(self.change.cosine, by_vectors)
