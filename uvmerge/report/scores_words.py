"""A comparison of evaluations in words: cells of its tables, and sentences. Pure."""

from __future__ import annotations

from ..errors import counted
from ..tasks.comparison import BY_HAND, MEANINGS, Row, Table, Test
from ..tasks.outcome import ComparedScores
from ..tasks.statistics import Interval
from .format import NONE, number, percent

FINDING = 0.05  # a difference is a finding where Holm's p is under this
SMALLEST_P = 1e-15
_MOST_NAMED = 5


def score(value: float | None) -> str:
    """A score with three decimals, or three digits where it is large."""
    if value is None:
        return NONE
    return f"{value:.3f}".replace("-", "−") if abs(value) < 100 else number(value)


def interval(ends: Interval | None) -> str:
    """`0.059–0.133`; `[−0.1, 0.2]` where an end is negative."""
    if ends is None:
        return NONE
    low, high = map(score, ends)
    return f"[{low}, {high}]" if ends[0] < 0 else f"{low}–{high}"


def tested(test: Test | None) -> str:
    """`McNemar exact 6 : 21, p = 0.0059`."""
    if test is None:
        return ""
    pairs = "" if test.only_here is None else f" {test.only_here} : {test.only_there}"
    by_hand = "" if test.p_by_hand is None else f", {BY_HAND} {_p(test.p_by_hand)}"
    return f"{test.name}{pairs}, {_p(test.p)}{by_hand}"


def _p(p: float) -> str:
    shown = p_value(p)
    return f"p {shown}" if shown.startswith("<") else f"p = {shown}"


def p_value(p: float) -> str:
    """A p value with two significant digits."""
    return number(p, 2) if p >= SMALLEST_P else f"< {number(SMALLEST_P)}"


def signed(value: float) -> str:
    """A difference with its sign."""
    return f"+{score(value)}" if value > 0 else score(value)


def title(table: Table) -> str:
    """The metric, how many items it is of where all rows agree, and which way is better."""
    counts = {row.count for row in table.rows}
    items = f"; {counted(counts.pop(), 'item')}" if len(counts) == 1 and counts != {0} else ""
    way = "; lower is better" if table.higher_is_better is False else ""
    return f"{table.metric}{items}{way}"


def cells(table: Table, against: str) -> tuple[list[str], list[list[str]]]:
    """The header and the rows of a table of scores."""
    one_count = len({row.count for row in table.rows}) == 1
    how = sorted({row.interval_name for row in table.rows if row.interval_name})
    header = ["checkpoint", "score", *([] if one_count else ["items"])]
    header += [f"95 % {how[0]}" if len(how) == 1 else "95 %"]
    header += [BY_HAND] if any(row.by_hand for row in table.rows) else []
    with_tests = any(row.test for row in table.rows)
    header += [f"− {against}", "95 % of it", "test", "Holm"] if with_tests else []
    found = []
    for row in table.rows:
        cells_of_row = [
            row.checkpoint,
            score(row.value),
            *([] if one_count else [f"{row.count:,}"]),
        ]
        name = "" if len(how) == 1 or not row.interval_name else f" ({row.interval_name})"
        cells_of_row.append(interval(row.interval) + name)
        cells_of_row += [interval(row.by_hand)] if BY_HAND in header else []
        found.append(cells_of_row + (_tested_cells(row) if with_tests else []))
    return header, found


def _tested_cells(row: Row) -> list[str]:
    """Difference, interval, test and Holm's p; empty where there is no test."""
    test = row.test
    if test is None:
        return [""] * 4
    paired = f" on {test.items:,}" if test.items and test.items != row.count else ""
    difference, ends = signed(test.difference), interval(test.interval)
    return [difference, ends, tested(test) + paired, p_value(test.adjusted)]


def recovered_cells(table: Table) -> tuple[list[str], list[list[str]]]:
    """The header and the rows of both readings of "recovered"; no rows where there is none."""
    rows = [
        [
            row.checkpoint,
            f"{score(back.of_best)} ({interval(back.of_best_interval)})",
            f"{score(back.of_loss)} ({interval(back.of_loss_interval)})",
        ]
        for row in table.rows
        if (back := row.recovered) is not None
    ]
    return ["checkpoint", "of base (95 %)", "of loss (95 %)"], rows


def sentences(found: ComparedScores) -> list[str]:
    """What holds, in sentences, the most important first."""
    tests = found.tests
    said = []
    if tests:
        holds = [each for each in tests if each[2].adjusted < FINDING]
        over = f"Holm's correction over all {len(tests):,}" if len(tests) > 1 else "a single test"
        verb = "is a finding" if len(holds) == 1 else "are findings"
        count = f"{len(holds):,}" if holds else "none"
        counts = f"Of {counted(len(tests), 'difference')} from {found.against}, {count} {verb}"
        if len(tests) == 1:
            counts = f"The one difference from {found.against} is {'a' if holds else 'no'} finding"
        which = "; ".join(
            f"{row.checkpoint} on {table.metric} ({signed(test.difference)})"
            for table, row, test in holds[:_MOST_NAMED]
        )
        more = f"; and {len(holds) - _MOST_NAMED:,} more" if len(holds) > _MOST_NAMED else ""
        said.append(
            f"{counts} at {percent(FINDING)} ({over})" + (f": {which}{more}." if holds else ".")
        )
    else:
        said.append(f"No difference from {found.against} could be tested.")
    if found.points():
        on = ", ".join(found.front())
        said.append(f"Not exceeded in both domains at once, by their scores alone: {on}.")
    said += [f"Compared though they differ (--force): {each}." for each in found.differences]
    return said


def meanings(found: ComparedScores) -> list[tuple[str, str]]:
    """What the names in the tables mean, of those that are there."""
    used = dict.fromkeys(test.name for _, _, test in found.tests)
    told = [(name, MEANINGS[name]) for name in used]
    hows = {row.interval_name for table in found.tables for row in table.rows}
    told += [(how, about) for how, about in _INTERVALS.items() if how in hows]
    if used:
        over = counted(len(found.tests), "comparison")
        told.append(("Holm", f"p after Holm's correction over {over}"))
    if any(row.recovered for table in found.tables for row in table.rows):
        told.append(("of base", f"recovered, first reading: score / {found.base}'s"))
        told.append(("of loss", "recovered, second reading: (score − fine-tuned) / (base −"
                     " fine-tuned); 0 is the fine-tuned model, 1 the base"))  # fmt: skip
    return told


_INTERVALS = {
    "Wilson": "the Wilson score interval of a proportion",
    "bootstrap": "percentiles of bootstrap draws over items",
    "standard error": "±1.96 standard errors that the evaluation gives",
}


def caveats(table: Table) -> list[str]:
    """Why rows of a table have no test on items."""
    return [f"{row.checkpoint}: {row.caveat}" for row in table.rows if row.caveat]
