"""Intervals, tests and resampling, against exact enumeration, known figures and scipy."""

from __future__ import annotations

import itertools
import math
from fractions import Fraction
from statistics import NormalDist, stdev

import numpy as np
import pytest

from uvmerge.tasks import statistics


def test_the_published_totals_have_their_intervals_and_p() -> None:
    assert [round(end, 3) for end in statistics.wilson(21, 234)] == [0.059, 0.133]
    assert [round(end, 3) for end in statistics.wilson(36, 234)] == [0.113, 0.206]
    assert round(statistics.pooled_z(21, 234, 36, 234), 3) == 0.034
    assert round(statistics.pooled_z(40, 234, 46, 234), 2) == 0.47
    assert round(statistics.mcnemar(6, 21), 4) == 0.0059


def test_the_ends_of_wilson_are_those_where_the_score_test_turns() -> None:
    for right, total in ((0, 5), (1, 9), (7, 9), (9, 9)):
        for end in statistics.wilson(right, total):
            spread = math.sqrt(end * (1 - end) / total)
            at_limit = end in (0.0, 1.0)
            assert at_limit or abs(right / total - end) / spread == pytest.approx(statistics.Z)
    with pytest.raises(ValueError, match="4 of 3"):
        statistics.wilson(4, 3)


@pytest.mark.parametrize(("here", "there"), [(0, 0), (1, 0), (3, 5), (6, 6), (2, 9)])
def test_mcnemar_is_the_enumeration_of_every_coin(here: int, there: int) -> None:
    flips = itertools.product((1, -1), repeat=here + there)
    extreme = [abs(sum(flip)) >= abs(here - there) for flip in flips]
    exact = Fraction(sum(extreme), len(extreme))
    assert statistics.mcnemar(here, there) == pytest.approx(float(exact))


@pytest.mark.parametrize("sums", [[2, -1, 3], [1, 1, -4, 2, 0], [5], [3, -3], [2, 2, 2, -1, 6, 1]])
def test_sign_flips_are_the_enumeration_of_every_sign(sums: list[int]) -> None:
    signs = list(itertools.product((1, -1), repeat=len(sums)))
    totals = [abs(sum(s * v for s, v in zip(each, sums))) for each in signs]
    exact = sum(total >= abs(sum(sums)) for total in totals) / len(signs)
    assert statistics.sign_flip(sums) == pytest.approx(exact)


def test_holm_is_the_closed_test_of_bonferroni() -> None:
    for values in ([0.01, 0.04, 0.03], [0.5], [0.2, 0.2, 0.001, 0.9], [1.0, 0.02]):
        closed = []
        for i, _ in enumerate(values):
            sets = (
                subset
                for size in range(1, len(values) + 1)
                for subset in itertools.combinations(range(len(values)), size)
                if i in subset
            )
            closed.append(max(min(1.0, len(s) * min(values[j] for j in s)) for s in sets))
        assert statistics.holm(values) == pytest.approx(closed)
    assert statistics.holm([]) == []


def test_the_error_of_independent_items_is_that_of_a_mean() -> None:
    values = np.random.default_rng(1).normal(size=50)
    expected = stdev(values) / math.sqrt(50)
    assert statistics.cluster_standard_error(values) == pytest.approx(expected)
    assert math.isnan(statistics.cluster_standard_error(values, ["one"] * 50))


def test_items_that_repeat_in_a_cluster_count_once() -> None:
    values = np.random.default_rng(2).normal(size=40)
    copies, clusters = np.repeat(values, 15), [i for i in range(40) for _ in range(15)]
    expected = statistics.cluster_standard_error(values)
    assert statistics.cluster_standard_error(copies, clusters) == pytest.approx(expected)
    assert statistics.cluster_standard_error(copies) < expected / 3


def test_the_bootstrap_agrees_with_the_cluster_robust_error() -> None:
    random = np.random.default_rng(3)
    sizes = random.integers(1, 25, size=187)
    clusters = np.repeat(np.arange(187), sizes)
    chance = np.repeat(random.uniform(size=187), sizes)
    values = (random.uniform(size=len(clusters)) < chance).astype(float)
    draws = statistics.resampled(values[:, None], np.ones((len(values), 1)), clusters)[:, 0]
    error = statistics.cluster_standard_error(values, clusters)
    assert draws.std() == pytest.approx(error, rel=0.06)
    low, high = statistics.percentiles(draws) or (0, 0)
    assert high - low == pytest.approx(2 * statistics.Z * error, rel=0.08)
    alone = statistics.resampled(values[:, None], np.ones((len(values), 1)))[:, 0]
    assert alone.std() < 0.6 * draws.std()


def test_the_bootstrap_of_three_items_is_the_enumeration_of_their_draws() -> None:
    values = np.array([[0.0, 1.0], [2.0, 1.0], [7.0, 3.0]])
    every = [values[list(places)].mean(axis=0) for places in itertools.product(range(3), repeat=3)]
    draws = statistics.resampled(values, np.ones((3, 1)))
    assert draws.mean(axis=0) == pytest.approx(np.mean(every, axis=0), rel=0.02)
    assert np.cov(draws.T) == pytest.approx(np.cov(np.array(every).T, bias=True), rel=0.06)
    assert (statistics.resampled(values, np.ones((3, 1))) == draws).all()  # from the seed alone


def test_the_bootstrap_p_holds_its_level() -> None:
    random, found = np.random.default_rng(4), []
    for _ in range(300):
        differences = random.normal(size=(60, 1))
        draws = statistics.resampled(differences, np.ones((60, 1)), draws=400)[:, 0]
        found.append(statistics.bootstrap_p(draws, float(differences.mean())))
    assert 0.02 <= np.mean(np.array(found) < 0.05) <= 0.1
    assert statistics.bootstrap_p(np.zeros(99), 0.0) == 1.0
    assert (
        statistics.bootstrap_p(np.full(99, np.nan), 0.5) == 1.0
    )  # what is not known is no finding


def test_percentiles_do_not_exist_where_many_draws_do_not() -> None:
    draws = np.linspace(0, 1, 1001)
    assert statistics.percentiles(draws) == pytest.approx((0.025, 0.975))
    draws[:100] = np.nan
    assert statistics.percentiles(draws) is None


def test_where_no_item_differs_clusters_are_wilsons_items() -> None:
    clusters = [i // 3 for i in range(60)]
    for value in (0.0, 1.0):
        draws = statistics.resampled(np.full((60, 1), value), np.ones((60, 1)), clusters)[:, 0]
        assert statistics.percentiles(draws) == (value, value)  # which would claim certainty
        found = statistics.by_cluster(draws, clusters, int(60 * value))
        assert found == statistics.wilson(int(20 * value), 20)
    draws = np.linspace(0, 1, 1001)
    assert statistics.by_cluster(draws, clusters, 30) == statistics.percentiles(draws)
    assert statistics.by_cluster(draws, clusters, None) == statistics.percentiles(draws)


def test_against_scipy() -> None:
    from scipy import stats

    for right, total in ((0, 7), (21, 234), (36, 234), (900, 1000)):
        ends = stats.binomtest(right, total).proportion_ci(method="wilson")
        assert statistics.wilson(right, total) == pytest.approx((ends.low, ends.high))
    for here, there in ((6, 21), (40, 46), (0, 3), (1200, 1311)):
        exact = stats.binomtest(here, here + there).pvalue
        assert statistics.mcnemar(here, there) == pytest.approx(exact, rel=1e-9)
    table = [[21, 36], [213, 198]]
    pooled = stats.chi2_contingency(table, correction=False).pvalue
    assert statistics.pooled_z(21, 234, 36, 234) == pytest.approx(pooled)
    assert statistics.normal_p(1.3) == pytest.approx(2 * stats.norm.sf(1.3))


def test_the_p_of_a_normal_variable_is_both_its_tails() -> None:
    for z in (0.0, 0.5, -1.96, 4.0):
        assert statistics.normal_p(z) == pytest.approx(2 * NormalDist().cdf(-abs(z)))
    assert statistics.pooled_z(0, 5, 0, 9) == 1.0
