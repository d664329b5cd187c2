"""The table of measures, with one row for each measure. Pure.

report.json, matrices.csv, the terminal, the page, the figures and the documentation are loops over
this table. A new measure is one row here and one function of an `Entry`, which gives None where
there is no value; by default a measure is shown everywhere. W_b is the base, W_f the fine-tuned
matrix, D = W_f − W_b.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from ..measure.findings import Entry
from ..measure.judgement import BAND_SD, LOOSE_CUT
from ..measure.measures import Change, Measures, Turn
from ..measure.null import ROUNDING
from .column import Column, Place, Scaling, never
from .format import COSINE, DEGREES, SHARE, percent

FILES, JSON, CSV, DETAILS, MOVED = Place.FILES, Place.JSON, Place.CSV, Place.DETAILS, Place.MOVED
DRAWN = Place.MAP | Place.FIGURE | Place.CURVE
IN_TERMINAL = Place.TERMINAL | Place.EVIDENCE


def shown_in(place: Place) -> list[Column]:
    """The columns that are shown in a place, in order."""
    return [column for column in COLUMNS if place in column.shown]


def column_of(key: str) -> Column:
    """The column with a key."""
    return next(each for each in COLUMNS if each.key == key)


# --- functions of an entry -----------------------------------------------------------------------


def of_measures(
    read: Callable[[Measures], Any], if_identical: float | None = None
) -> Callable[[Entry], Any]:
    """What `read` gives for a measured matrix, and `if_identical` for one equal to its base."""

    def value(entry: Entry) -> Any:
        if entry.measures is None:
            return if_identical if entry.state == "identical" else None
        return read(entry.measures)

    return value


def of_vectors(
    read: Callable[[Measures], Any], if_identical: float | None = None
) -> Callable[[Entry], Any]:
    """As `of_measures`, but None where k is 0, so that no vectors were compared."""
    return of_measures(lambda found: read(found) if found.k else None, if_identical)


def of_change(read: Callable[[Change, int], Any]) -> Callable[[Entry], Any]:
    """What `read` gives for the change and k; None where nothing changed or k is 0."""
    return of_vectors(lambda found: read(found.change, found.k) if found.change.relative else None)


def _is_chance(*parts: str) -> Callable[[Entry], bool]:
    """Whether all these shares of the change are inside the bands of chance."""
    within = of_change(lambda change, k: not any(change.side_of_band(part, k) for part in parts))
    return lambda entry: bool(within(entry))


def _rotation_over_diagonal(change: Change, k: int) -> float | None:
    return change.rotation / change.diagonal if change.diagonal and change.rotation else None


def _of_side(
    side: str, read: Callable[[Turn], Any], if_identical: float | None = None
) -> Callable[[Entry], Any]:
    """What `read` gives for the vectors of one side; None where k is 0."""
    return of_vectors(lambda found: read(getattr(found, side)), if_identical)


def _tells_nothing(side: str) -> Callable[[Entry], bool]:
    """Whether a matrix is unrelated, or the angles of this side are those of chance."""

    def is_void(entry: Entry) -> bool:
        found = entry.measures
        return found is not None and (found.is_chance or not getattr(found, side).is_informative)

    return is_void


# --- rows of one kind ----------------------------------------------------------------------------


def _fact(key: str, value: Callable[[Entry], Any], shown: Place = FILES) -> Column:
    """A column about the matrix itself, for the files alone."""
    return Column(key, value, shown=shown, is_always_there=True)


def _side(side: str) -> tuple[Column, ...]:
    """The columns of how the k leading singular vectors of one side turned."""
    of = partial(_of_side, side)

    def row(key: str, value: Callable[[Entry], Any], shown: Place, **more: Any) -> Column:
        return Column(
            f"{side}_{key}", value, path=f"{side}.{key}", side=side, shown=shown,
            is_void=_tells_nothing(side), **more,
        )  # fmt: skip

    return (
        row("angles", of_measures(lambda found: list(getattr(found, side).angles)), JSON),
        row(
            "mean", of(lambda turn: turn.mean, 0.0),
            FILES | IN_TERMINAL | DRAWN | MOVED | DETAILS | Place.CHANCE,
            name="mean angle", unit=DEGREES, short=f"angle {side}",
            chance=of(lambda turn: turn.chance.mean),
            scaling=Scaling("angle", ends_at_chance=True),
            meaning="Mean of the principal angles between the spans of the k leading left (right)"
            " vectors of both. Small angles come from sines, large ones from cosines (Björck and"
            " Golub 1973), so that an angle of 6e-6° can be told from 0.",
            by_chance="the law of independent subspaces (Wachter 1980), and a band; where 2k"
            " exceeds the dimension d, 2k − d of the angles are 0 whatever the matrices are",
            note="degrees, up to what independent subspaces show; hatched: no nearer than"
            " independent subspaces, or k is too large to tell",
        ),
        row(
            "largest", of(lambda turn: turn.largest), FILES | DETAILS,
            name="largest angle", unit=DEGREES, meaning="The largest principal angle.",
        ),
        row(
            "chordal", of(lambda turn: turn.chordal), FILES | MOVED | DETAILS,
            name="chordal distance", short=f"chordal {side}",
            chance=of(lambda turn: turn.chance.chordal),
            band=of(lambda turn: turn.chance.chordal_band),
            meaning="√(mean sin²θ) of the principal angles θ: 0 where the spans are one, 1 where"
            " they are orthogonal.",
            by_chance=f"√(1 − k/d) ± {BAND_SD:.0f} standard deviations",
        ),
        row(
            "tenths", of_vectors(lambda found: list(getattr(found, side).tenths)), JSON,
            name="turn by position in the spectrum", unit=DEGREES,
            meaning="For each tenth of the singular values, from the largest to the smallest, of all"
            " min(m, n): arcsin √(mean sin²θ), with θ the angle of a base vector with the span of the"
            " other matrix's vectors of that tenth. Of large matrices 24 vectors of each tenth of the"
            " base are taken. Null where a tenth has no vectors of its own.",
            by_chance="arcsin √(1 − s/d) for a tenth of s vectors in d dimensions",
        ),
        row("tenths_chance",
            of_vectors(lambda found: list(getattr(found, side).chance_of_tenths)), JSON),
        row("zeros_chance", of_measures(lambda found: getattr(found, side).chance.zeros), JSON),
        row("smallest_chance", of_measures(lambda found: getattr(found, side).chance.smallest),
            JSON),
        row("is_chance", of_measures(lambda found: getattr(found, side).is_chance), FILES),
        row(
            "alignment", of(lambda turn: turn.alignment), FILES | DETAILS,
            name="alignment", chance=of(lambda turn: turn.chance_alignment),
            meaning="Mean over base vectors of the largest |cosine| with a fine-tuned vector.",
            by_chance="its median for random vectors",
        ),
    )  # fmt: skip


def _share(part: str, key: str, **more: Any) -> Column:
    """The column of a share of ‖D‖², beside what random signs would show."""
    return Column(
        key, of_change(lambda change, k: getattr(change, part)), path=f"delta.{key}", unit=SHARE,
        chance=of_change(lambda change, k: change.expected(part, k)),
        band=of_change(lambda change, k: change.band(part, k)),
        is_chance=_is_chance(part), scaling=Scaling("share"), **more,
    )  # fmt: skip


def _gap(of: str, key: str) -> Column:
    """The column of the gap of a matrix behind its k-th singular value."""
    return Column(
        f"gap_{key}", of_measures(lambda found: getattr(found, f"{key}_gap")), path=f"gap.{key}",
        name=f"gap at the cut, {of}", short=f"gap {of}", shown=FILES | MOVED | DETAILS,
        meaning=f"(σ_k − σ_{{k+1}})/σ_k of the {of} matrix.",
    )  # fmt: skip


COLUMNS: tuple[Column, ...] = (
    _fact("name", lambda entry: entry.name),
    _fact("layer", lambda entry: entry.layer),
    _fact("module", lambda entry: entry.module),
    _fact("role", lambda entry: entry.role),
    _fact("shape", lambda entry: list(entry.shape), JSON),
    _fact("rows", lambda entry: entry.shape[0], CSV),
    _fact("columns", lambda entry: entry.shape[1], CSV),
    _fact("dtype", lambda entry: entry.dtype),
    _fact("state", lambda entry: entry.state),
    _fact("device", lambda entry: entry.device),
    Column(
        "relative_delta", lambda entry: entry.relative, name="relative change of the weights",
        unit=SHARE, short="change", axis="‖D‖ / ‖W_b‖", is_always_there=True,
        chance=lambda entry: ROUNDING.get(entry.dtype), chance_key="rounding_of_dtype",
        beside="rounding", is_void=never, is_chance=lambda entry: entry.is_rounding,
        scaling=Scaling("relative", marks_chance=False),
        shown=FILES | IN_TERMINAL | DRAWN | MOVED,
        meaning="‖D‖ / ‖W_b‖, Frobenius norms.",
        by_chance="√2 for independent matrices of one scale; rounding to the stored dtype makes "
        + ", ".join(f"{percent(ROUNDING[dtype], 2)} ({dtype})" for dtype in ("BF16", "F16", "F32")),
        note="‖W_f − W_b‖ / ‖W_b‖; hatched: no more than rounding to the dtype makes",
    ),
    _fact("is_rounding", lambda entry: entry.is_rounding, CSV),
    Column("k", of_measures(lambda found: found.k), shown=FILES),
    Column("is_chance", of_measures(lambda found: found.is_chance), shown=FILES),
    Column(
        "cosine", of_measures(lambda found: found.change.cosine), path="delta.cosine", unit=COSINE,
        name="cosine of the matrices", short="cosine", shown=FILES | DETAILS,
        meaning="⟨W_b, W_f⟩ / (‖W_b‖ ‖W_f‖).", by_chance="about 0 for independent matrices",
    ),
    *_side("left"),
    *_side("right"),
    Column("base_values", of_measures(lambda found: list(found.base_values)),
           path="values.base", shown=JSON),
    Column("finetuned_values", of_measures(lambda found: list(found.finetuned_values)),
           path="values.finetuned", shown=JSON),
    Column(
        "relative_change_rms", of_vectors(lambda found: found.value_change, 0.0),
        path="values.relative_change_rms", name="relative change of singular values",
        unit=SHARE, short="values", axis="root mean square",
        shown=FILES | Place.TERMINAL | Place.MAP | Place.CURVE | DETAILS,
        meaning="(S_f − S_b)/S_b of the k leading values, root mean square.",
        by_chance="stable values mean nothing by themselves: unrelated matrices of one scale show"
        " them too",
        note="root mean square over the leading k; stable values alone say nothing",
    ),
    _share(
        "inside", "in_block", name="share of the change in the leading block",
        heading="in the leading block", short="in block",
        shown=FILES | Place.TERMINAL | DRAWN | MOVED | DETAILS | Place.CHANCE,
        meaning="Share of ‖D‖² in C = U_b,kᵀ D V_b,k, the k × k block of the base's leading"
        " directions.",
        by_chance="what the same entries of D with random signs show, Σ D_ij² p_i q_j / ‖D‖² with"
        " the leverage scores p, q of U_b,k and V_b,k (k²/mn where all entries are of one size),"
        " and a band; rounding lies in it",
        note="share of the change's energy in the k × k block of leading directions; hatched: what"
        " chance would show",
    ),
    _share(
        "diagonal", "diag", name="share on its diagonal (diag)",
        heading="on its diagonal (diag)", short="diag",
        shown=FILES | Place.MAP | MOVED | DETAILS,
        meaning="Share of ‖D‖² on the diagonal of C, which changes singular values; among equal"
        " values, the symmetric part of C.",
        by_chance="1/k of what the block has",
        note="share of the change's energy that changes leading values; hatched: what chance would"
        " show",
    ),
    _share(
        "rotation", "rot", name="share off its diagonal (rot)",
        heading="off its diagonal (rot)", short="rot",
        shown=FILES | Place.MAP | MOVED | DETAILS,
        meaning="Share of ‖D‖² in the rest of C, which turns leading vectors among each other.",
        by_chance="1 − 1/k of what the block has",
        note="share of the change's energy that turns leading vectors among each other; hatched:"
        " what chance would show",
    ),
    Column(
        "outside", of_change(lambda change, k: change.outside), path="delta.outside", unit=SHARE,
        name="share outside of the block", shown=FILES,
        meaning="The rest of ‖D‖²: diag, rot and outside sum to 1.",
        by_chance="1 less what the block has",
    ),
    Column(
        "rot_over_diag", of_change(_rotation_over_diagonal), path="delta.rot_over_diag",
        name="turning against stretching", axis="rot / diag", shown=FILES | Place.FIGURE,
        chance=of_change(lambda change, k: k - 1 or None),
        is_chance=_is_chance("diagonal", "rotation"),
        meaning="rot over diag.", by_chance="k − 1",
    ),
    _gap("base", "base"),
    _gap("fine-tuned", "finetuned"),
    Column(
        "gap_over_change", of_measures(lambda found: found.gap_over_change),
        path="gap.over_change", name="gap at the cut, over the change", short="gap over change",
        axis="gap / σ₁(D)", is_chance=of_measures(lambda found: found.has_loose_cut),
        scaling=Scaling(threshold=(LOOSE_CUT, "as large as the change"), much_is_good=True),
        shown=FILES | Place.MAP | DETAILS,
        meaning="σ_k − σ_{k+1} of the base over σ₁(D).",
        by_chance=f"under {LOOSE_CUT:.0f} vectors may swap places over the cut, and the largest"
        " angles may come from where k falls",
        note="σ_k − σ_k+1 of the base over the change's largest singular value; hatched: under 1,"
        " the largest angles may come from where k falls",
    ),
    Column(
        "intruders", of_measures(lambda found: found.intruders), name="intruders",
        shown=FILES | MOVED | DETAILS,
        meaning="How many of the ten leading left vectors of W_f have no |cosine| of 0.5 with any"
        " left vector of W_b (arXiv 2410.21228).",
        by_chance="not looked for where the matrices are unrelated, or one is zero",
    ),
    Column("change_values", of_measures(lambda found: list(found.change.values)),
           path="delta.values", shown=JSON),
    Column(
        "stable_rank", of_measures(lambda found: found.change.stable_rank),
        path="delta.stable_rank", name="stable rank of the change", short="stable rank",
        shown=FILES | DETAILS,
        chance=of_measures(lambda found: found.change.chance.stable_rank),
        meaning="‖D‖² / σ₁(D)².", by_chance="mn / (√m + √n)² for independent entries",
    ),
    Column(
        "effective_rank", of_measures(lambda found: found.change.effective_rank),
        path="delta.effective_rank", name="effective rank of the change", short="effective rank",
        shown=FILES | DETAILS,
        meaning="exp of the entropy of σ(D) over their sum (Roy and Vetterli 2007).",
    ),
    Column(
        "leading_energy", of_measures(lambda found: found.change.leading_energy(found.k)),
        path="delta.leading_energy", name="share of the change in its own leading k",
        short="in its own leading k", unit=SHARE,
        shown=FILES | DETAILS,
        chance=of_measures(lambda found: found.change.chance.leading_energy(found.k)),
        meaning="Share of ‖D‖² in the k leading singular values of D.",
        by_chance="the Marchenko–Pastur law of independent entries",
    ),
    Column("block", of_measures(lambda found: [list(row) for row in found.change.picture]),
           path="delta.block", shown=JSON),
    Column("diag_values", of_vectors(lambda found: list(found.change.diagonal_entries)),
           path="delta.diag_values", shown=JSON),
    Column(
        "residual", of_vectors(lambda found: found.change.residual),
        path="values.residual", name="residual outside of the leading block", unit=SHARE,
        short="residual", shown=FILES | DETAILS,
        chance=of_vectors(lambda found: found.change.base_residual), chance_key="residual_base",
        beside="base",
        meaning="‖W_f − U_b U_bᵀ W_f V_b V_bᵀ‖ / ‖W_f‖ with the base's k leading vectors: what of"
        " the fine-tuned matrix its base's leading directions do not hold.",
        by_chance="not chance, but the same of the base",
    ),
    Column("methods", of_measures(lambda found: list(found.methods)), shown=FILES),
)  # fmt: skip
