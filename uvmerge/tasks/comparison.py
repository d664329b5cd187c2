"""Compares checkpoints that were evaluated on the same items: which differences are findings.

Every score has an interval. Every checkpoint is tested against one, the fine-tuned model: on the
same items where they are known, on totals where they are not. Holm's correction is over all
comparisons.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from . import statistics
from .pairing import Resampling, aligned
from .scores import Evaluated, Metric, Score
from .statistics import Floats, Interval

MCNEMAR = "McNemar exact"
BY_HAND = "by hand"
BOOTSTRAP = "paired bootstrap"
POOLED_Z = "pooled z, unpaired"
ERRORS_Z = "z of standard errors, unpaired"
MEANINGS = {
    MCNEMAR: "McNemar's exact two-sided test on the same items; x : y are the items that are 1 for only"
    " this checkpoint, and for only the other one",
    BY_HAND: "the same with hands of cards in the place of items, because orders of one hand are not"
    " independent: percentiles of bootstrap draws over unordered hands, and McNemar's exact test with"
    " the sum of each hand's differences under either sign",
    BOOTSTRAP: "two-sided paired bootstrap on the same items, for a metric that is not 0 or 1",
    POOLED_Z: "two-sided pooled z test without correction, because only totals are known"
    " or no items are shared",
    ERRORS_Z: "two-sided z test from the standard errors of the evaluation, because only"
    " totals are known or no items are shared",
}


@dataclass(frozen=True)
class Test:
    """A checkpoint against another one, on one metric.

    Attributes:
        name: of the test, a key of `MEANINGS`.
        difference: score minus the other's, on the items they share, or of totals.
        interval: of the difference.
        only_here, only_there: items that are 1 for only this checkpoint, or for only the other one.
        items: how many items are paired; 0 for an unpaired test.
        p_by_hand: p where items are independent only between unordered hands.
        adjusted: p, by hand if there is one, after Holm's correction.
    """

    against: str
    name: str
    difference: float
    interval: Interval | None
    p: float
    only_here: int | None = None
    only_there: int | None = None
    items: int = 0
    p_by_hand: float | None = None
    adjusted: float = math.nan

    @property
    def honest_p(self) -> float:
        """The p that does not count orders of one hand as independent."""
        return self.p if self.p_by_hand is None else self.p_by_hand


@dataclass(frozen=True)
class Recovered:
    """Both readings of "recovered" with their intervals; None where a reading does not exist.

    Attributes:
        of_best: score / the base's.
        of_loss: (score − fine-tuned) / (base − fine-tuned).
    """

    of_best: float | None
    of_best_interval: Interval | None
    of_loss: float | None
    of_loss_interval: Interval | None


@dataclass(frozen=True)
class Row:
    """One checkpoint on one metric.

    Attributes:
        interval_name: how the interval was made.
        by_hand: the interval where items are independent only between unordered hands.
        caveat: why items of this metric were not paired, though there are samples.
    """

    checkpoint: str
    value: float | None
    count: int
    successes: int | None
    interval: Interval | None
    interval_name: str
    by_hand: Interval | None = None
    test: Test | None = None
    recovered: Recovered | None = None
    caveat: str = ""

    @property
    def honest_interval(self) -> Interval | None:
        """The interval that does not count orders of one hand as independent."""
        return self.interval if self.by_hand is None else self.by_hand


@dataclass(frozen=True)
class Table:
    """All checkpoints on one metric."""

    metric: Metric
    higher_is_better: bool | None
    rows: tuple[Row, ...]

    def row(self, checkpoint: str) -> Row | None:
        """The row of a checkpoint; None where it was not evaluated on the metric."""
        return next((row for row in self.rows if row.checkpoint == checkpoint), None)


def tables(
    evaluated: Sequence[Evaluated], against: str, base: str | None, finetuned: str | None
) -> tuple[Table, ...]:
    """A table for each metric that any checkpoint has.

    Args:
        against: the checkpoint that the others are tested against.
        base, finetuned: the checkpoints between which "recovered" is measured; None for neither.
    """
    metrics = dict.fromkeys(metric for each in evaluated for metric in each.scores)
    roles = (base, finetuned)
    found = [_table(m, {e.name: e.scores[m] for e in evaluated if m in e.scores}, against, roles)
             for m in metrics]  # fmt: skip
    return _corrected(found)


def _corrected(found: Sequence[Table]) -> tuple[Table, ...]:
    """The tables with Holm's correction over the tests of all of them."""
    tests = [row.test for table in found for row in table.rows if row.test is not None]
    adjusted = iter(statistics.holm([test.honest_p for test in tests]))

    def rows(table: Table) -> tuple[Row, ...]:
        return tuple(
            replace(row, test=replace(row.test, adjusted=next(adjusted))) if row.test else row
            for row in table.rows
        )

    return tuple(replace(table, rows=rows(table)) for table in found)


def _table(
    metric: Metric,
    scores: Mapping[str, Score],
    against: str,
    roles: tuple[str | None, str | None],
) -> Table:
    resampling = Resampling(scores)
    better = next((s.higher_is_better for s in scores.values() if s.higher_is_better is not None),
                  None)  # fmt: skip
    rows = []
    for name, score in scores.items():
        interval, how = _interval(name, score, resampling)
        by_hand = None
        if score.items is not None and (clusters := score.items.clusters) is not None:
            draws = resampling.draws([name])[:, 0]
            by_hand = statistics.by_cluster(draws, clusters, score.successes)
        test = None
        if name != against and against in scores:
            test = _test(name, against, scores, resampling)
        recovered = None if better is False else _recovered(name, roles, scores, resampling)
        rows.append(
            Row(name, score.value, score.count, score.successes, interval, how, by_hand, test, recovered,
                score.caveat)
        )  # fmt: skip
    return Table(metric, better, tuple(rows))


def _interval(name: str, score: Score, resampling: Resampling) -> tuple[Interval | None, str]:
    """The 95 % interval of a score, and how it was made."""
    if score.successes is not None and score.count:
        return statistics.wilson(score.successes, score.count), "Wilson"
    if score.is_paired:
        found = statistics.percentiles(resampling.draws([name])[:, 0])
        return found, "bootstrap"
    if score.value is not None and score.error is not None:
        half = statistics.Z * score.error
        return (score.value - half, score.value + half), "standard error"
    return None, ""


def _test(
    name: str, against: str, scores: Mapping[str, Score], resampling: Resampling
) -> Test | None:
    ours, theirs = scores[name], scores[against]
    if ours.is_paired and theirs.is_paired and ours.scale == theirs.scale:
        both = aligned([ours, theirs])
        if both.count:
            draws = resampling.draws([name, against])
            if ours.is_binary and theirs.is_binary:
                return _paired_binary(against, both.values, both.clusters, draws)
            here, there = both.scores()
            difference, drawn = float(here - there), draws[:, 0] - draws[:, 1]
            if not math.isfinite(difference):
                return None
            p, interval = statistics.bootstrap_p(drawn, difference), statistics.percentiles(drawn)
            return Test(against, BOOTSTRAP, difference, interval, p, items=both.count)
    return _unpaired(against, ours, theirs)


def _paired_binary(
    against: str, values: Floats, clusters: Sequence[str] | None, draws: Floats
) -> Test:
    changes = values[:, 0] - values[:, 1]
    here, there = int((changes > 0).sum()), int((changes < 0).sum())
    by_hand = None
    if clusters is not None:
        sums = statistics.summed(changes, clusters).astype(int).tolist()
        by_hand = statistics.sign_flip(sums)
    return Test(
        against, MCNEMAR, float(changes.mean()),
        statistics.percentiles(draws[:, 0] - draws[:, 1]), statistics.mcnemar(here, there),
        here, there, len(values), by_hand,
    )  # fmt: skip


def _unpaired(against: str, ours: Score, theirs: Score) -> Test | None:
    """A test on totals; None where they do not say enough."""
    if ours.value is None or theirs.value is None:
        return None
    difference = ours.value - theirs.value
    errors = [_error(score) for score in (ours, theirs)]
    if errors[0] is None or errors[1] is None:
        return None
    spread = math.hypot(errors[0], errors[1])
    half = statistics.Z * spread
    interval = (difference - half, difference + half)
    if ours.successes is not None and theirs.successes is not None:
        p = statistics.pooled_z(ours.successes, ours.count, theirs.successes, theirs.count)
        return Test(against, POOLED_Z, difference, interval, p)
    p = statistics.normal_p(difference / spread) if spread else float(difference == 0)
    return Test(against, ERRORS_Z, difference, interval, p)


def _error(score: Score) -> float | None:
    """The standard error of a score."""
    if score.is_paired and score.scale == "mean" and score.denominators is None:
        clusters = score.items.clusters if score.items is not None else None
        found = statistics.cluster_standard_error(score.numerators, clusters)
        return None if math.isnan(found) else found
    if score.successes is not None and score.count:
        share = score.successes / score.count
        return math.sqrt(share * (1 - share) / score.count)
    return score.error


def _recovered(
    name: str,
    roles: tuple[str | None, str | None],
    scores: Mapping[str, Score],
    resampling: Resampling,
) -> Recovered | None:
    """What of the loss is won back; None where fine-tuning lost nothing, or the base is not known."""
    base, finetuned = roles
    if base not in scores or finetuned not in scores or base is None or finetuned is None:
        return None
    names = [name, finetuned, base]
    three = [scores[each] for each in names]
    if all(score.is_paired for score in three) and (shared := aligned(three)).count:
        found, draws = shared.scores(), resampling.draws(names)
    else:
        if any(score.value is None or score.successes is None for score in three):
            return None
        found = np.array([score.value for score in three], dtype=np.float64)
        seeds = {each: statistics.SEED + place for place, each in enumerate(dict.fromkeys(names))}
        draws = np.stack(
            [statistics.binomial_draws(float(share), score.count, seed=seeds[each])
             for each, share, score in zip(names, found, three)], axis=1,
        )  # fmt: skip
    if not found[2] > found[1] or not found[2] > 0:
        return None
    restored, lost, best = draws.T
    with np.errstate(divide="ignore", invalid="ignore"):
        of_best = np.where(best > 0, statistics.recovered_of_best(restored, best), np.nan)
        of_loss = np.where(best > lost, statistics.recovered_of_loss(restored, lost, best), np.nan)
    return Recovered(
        float(statistics.recovered_of_best(found[0], found[2])), statistics.percentiles(of_best),
        float(statistics.recovered_of_loss(*found)), statistics.percentiles(of_loss),
    )  # fmt: skip
