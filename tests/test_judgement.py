"""What counts as chance, as rounding and as a finding: one rule each, on plain numbers."""

from __future__ import annotations

import math

import pytest

from uvmerge.measure import judgement
from uvmerge.measure.null import RandomSubspaces, share_band


@pytest.mark.parametrize(
    ("cosine", "by_vectors", "unrelated"),
    [(0.1, False, True), (-0.1, False, True), (0.5, False, False), (0.5, True, True),
     (-0.5, True, True), (0.95, True, False), (math.nan, True, False), (math.nan, False, False)],
)  # fmt: skip
def test_matrices_are_unrelated_by_their_cosine_or_by_it_and_their_vectors(
    cosine: float, by_vectors: bool, unrelated: bool
) -> None:
    assert judgement.are_unrelated(cosine, by_vectors) is unrelated


def test_spans_that_fill_their_space_tell_nothing() -> None:
    for k, told in ((0, False), (8, True), (60, True), (64, False)):
        assert judgement.can_be_distinguished(k, RandomSubspaces(64, k).chordal_band[0]) is told


def test_a_change_of_up_to_one_and_a_half_times_rounding_may_be_rounding() -> None:
    assert judgement.is_rounding(1.4e-3, 1e-3) and not judgement.is_rounding(1.6e-3, 1e-3)
    assert not judgement.is_rounding(math.nan, 1e-3)


def test_a_share_lies_under_within_or_over_its_band() -> None:
    band = share_band(0.1, 400)
    assert [judgement.side_of_band(share, band) for share in (0.0, 0.1, 0.9)] == [-1, 0, 1]
    assert judgement.side_of_band(band[0], band) == judgement.side_of_band(band[1], band) == 0


def test_a_change_is_placed_by_its_size_or_by_its_structure() -> None:
    assert judgement.is_placed(False, 0.1, (0.0, 0.2))
    assert judgement.is_placed(True, 0.3, (0.0, 0.2))
    assert not judgement.is_placed(True, 0.1, (0.0, 0.2))


@pytest.mark.parametrize(
    ("unrelated", "measured", "unchanged", "verdict"),
    [(3, 5, False, "unrelated"), (2, 4, False, "related"), (0, 0, True, "identical"),
     (0, 3, False, "related")],
)  # fmt: skip
def test_a_checkpoint_is_unrelated_where_most_of_its_matrices_are(
    unrelated: int, measured: int, unchanged: bool, verdict: str
) -> None:
    assert judgement.verdict(unrelated, measured, unchanged) == verdict


def test_one_unrelated_checkpoint_makes_all_unrelated_and_one_changed_none_identical() -> None:
    assert judgement.verdict_of_all(["identical", "unrelated", "related"]) == "unrelated"
    assert judgement.verdict_of_all(["identical", "related"]) == "related"
    assert judgement.verdict_of_all(["identical", "identical"]) == "identical"


@pytest.mark.parametrize(
    ("layers", "of", "few"),
    [(1, 4, True), (2, 4, True), (3, 4, False), (1, 3, False), (0, 8, False)],
)
def test_few_layers_are_at_most_half_of_four_or_more(layers: int, of: int, few: bool) -> None:
    assert judgement.are_few(layers, of) is few
