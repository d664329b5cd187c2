"""What a comparison of evaluations found, and in domain against out of domain."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from ..errors import UsageError
from .comparison import Row, Table, Test
from .scores import Metric

# What the names of a task in domain and its partner out of domain end in.
_ENDS = (("in_domain", "out_of_domain"), ("_id", "_ood"), ("_id_large", "_ood_large"))


@dataclass(frozen=True)
class ComparedScores:
    """The findings of a comparison.

    Attributes:
        checkpoints: their names, in the order given.
        sources: where each was read from, in the same order.
        against: the checkpoint that the others are tested against.
        base, finetuned: None where no checkpoint has this role.
        line: checkpoints that are interpolations, in order.
        tables: one for each metric.
        in_domain, out_of_domain: the metrics of the plot; None where they are not known.
        differences: what differs between the evaluations apart from the models.
        notes: what the user should know.
    """

    checkpoints: tuple[str, ...]
    sources: tuple[str, ...]
    against: str
    base: str | None
    finetuned: str | None
    line: tuple[str, ...]
    tables: tuple[Table, ...]
    in_domain: Metric | None
    out_of_domain: Metric | None
    differences: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def tests(self) -> list[tuple[Table, Row, Test]]:
        """Every test, with its table and row."""
        return [(table, row, row.test) for table in self.tables for row in table.rows if row.test]

    def table(self, metric: Metric | None) -> Table | None:
        """The table of a metric."""
        return next((table for table in self.tables if table.metric == metric), None)

    def points(self) -> dict[str, tuple[Row, Row]]:
        """The rows in domain and out of domain of each checkpoint that has a score in both."""
        inside, outside = self.table(self.in_domain), self.table(self.out_of_domain)
        if inside is None or outside is None:
            return {}
        rows = {name: (inside.row(name), outside.row(name)) for name in self.checkpoints}
        return {
            name: (one, other)
            for name, (one, other) in rows.items()
            if one and other and one.value is not None and other.value is not None
        }

    def front(self) -> list[str]:
        """The checkpoints that no other one equals or exceeds in both domains, better in one."""
        signs = [
            -1 if table is not None and table.higher_is_better is False else 1
            for table in (self.table(self.in_domain), self.table(self.out_of_domain))
        ]
        places = {
            name: tuple(sign * (row.value or 0.0) for sign, row in zip(signs, rows))
            for name, rows in self.points().items()
        }
        return [
            name
            for name, place in places.items()
            if not any(
                other != place and all(o >= p for o, p in zip(other, place))
                for other in places.values()
            )
        ]


def domains(
    tables: Sequence[Table], in_domain: str | None, out_of_domain: str | None
) -> tuple[Metric | None, Metric | None]:
    """The metrics in domain and out of domain: those named, or those of tasks named so.

    Raises:
        UsageError: there is no such task or metric, or only one of the two is named.
    """
    metrics = [table.metric for table in tables]
    if in_domain is None and out_of_domain is None:
        return _by_names(metrics)
    if in_domain is None or out_of_domain is None:
        missing = "--in-domain" if in_domain is None else "--out-of-domain"
        raise UsageError(missing, "is not given", "The plot needs a task for each axis.")
    inside, outside = (
        _named("--in-domain", in_domain, metrics),
        _named("--out-of-domain", out_of_domain, metrics),
    )
    return inside, outside


def _named(option: str, text: str, metrics: Sequence[Metric]) -> Metric:
    for metric in metrics:
        if text in (metric.task, f"{metric.task}.{metric.name}",
                    f"{metric.task}.{metric.name}.{metric.filter}"):  # fmt: skip
            return metric
    names = ", ".join(dict.fromkeys(f"{metric.task}.{metric.name}" for metric in metrics[:8]))
    raise UsageError(option, f"there is no task or metric {text!r}", f"There are: {names}.")


def _by_names(metrics: Sequence[Metric]) -> tuple[Metric | None, Metric | None]:
    for end, partner in _ENDS:
        for metric in metrics:
            if metric.task.endswith(end) and not metric.task.endswith(partner):
                task = metric.task.removesuffix(end) + partner
                other = Metric(task, metric.name, metric.filter)
                if other in metrics:
                    return metric, other
    return None, None


def line_by_names(names: Sequence[str]) -> tuple[str, ...]:
    """The checkpoints named like `interpolate-0.3`, by their number, after a demo's name or not."""
    scales = {}
    for name in names:
        if found := re.fullmatch(r"(?:.*/)?interpolate-(\d+(?:\.\d+)?)", name):
            scales[name] = float(found[1])
    return tuple(sorted(scales, key=scales.__getitem__))
