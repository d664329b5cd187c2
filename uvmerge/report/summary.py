"""What a comparison found, on one screen of a terminal."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Sequence

from ..measure.findings import Compared, Entry, Findings, with_measures
from ..measure.measures import Measures
from ..text import brief, inert, table
from .words import headline

WIDTH = 100
_MOST_ROWS, _MOST_MOVED, _MOST_LABELS, _MOST_BARS = 8, 3, 10, 60
_BARS = "▁▂▃▄▅▆▇█"


def summary(findings: Findings) -> str:
    """The findings in about 30 lines of 100 columns; names in them are inert."""
    verdict, *rest = headline(findings, beside_table=True)
    lines = _wrapped(verdict)
    shown = findings.compared[-1]
    if _shown(shown):
        lines += ["", *_table(findings, shown).splitlines()]
    if findings.verdict != "unrelated":
        lines += _moved(shown)
    if findings.pairs and len(findings.labels) <= _MOST_LABELS:
        lines += ["", *_between(findings).splitlines()]
    lines += ["", *(line for sentence in rest for line in _wrapped(sentence))]
    return "\n".join(lines)


def _wrapped(sentence: str) -> list[str]:
    return textwrap.wrap(inert(sentence), WIDTH, subsequent_indent="  ", break_long_words=False)


def _table(findings: Findings, compared: Compared) -> str:
    """Means per role (or module, where there are many roles), beside what chance gives."""
    groups: dict[str, list[Entry]] = {}
    shown = _shown(compared)
    by_module = len({entry.role for entry in shown}) > _MOST_ROWS
    for entry in shown:
        groups.setdefault(entry.module if by_module else entry.role, []).append(entry)
    rows = [_row(name, entries) for name, entries in groups.items()]
    if len(rows) > 1:
        rows.append(_row("all", shown))
    head = ("mean of", "n", "delta", "left", "right", "chance", "values", "in-block", "expected")
    title = f"{compared.label}: " if len(findings.compared) > 1 else ""
    legend = (
        f"{inert(title)}relative delta; mean angle of the leading left and right vectors (rad);"
        " change of values; share of the delta in the leading block"
    )
    return "\n".join([*textwrap.wrap(legend, WIDTH), table(head, rows, right=" ".join(head[1:]))])


def _shown(compared: Compared) -> list[Entry]:
    """The matrices to show: all of an unrelated pair, else those that can be told from chance."""
    if compared.verdict == "unrelated":
        return compared.measured
    return compared.related_matrices


def _row(name: str, entries: Sequence[Entry]) -> tuple[str, ...]:
    turning = [e for e in entries if e.measures is not None and e.measures.k]
    telling = [e for e in turning if e.measures is not None and not e.measures.is_chance]

    def mean(among: Sequence[Entry], value: Callable[[Measures], float], form: str = ".3g") -> str:
        found = [value(measures) for _, measures in with_measures(among)]
        return f"{sum(found) / len(found):{form}}" if found else "-"

    return (
        brief(name, 40), f"{len(entries):,}",
        mean(entries, lambda m: m.change.relative),
        mean(turning, lambda m: m.left.mean), mean(turning, lambda m: m.right.mean),
        mean(turning, _chance_angle),
        mean(telling, lambda m: m.value_change, ".2%"),
        mean(telling, lambda m: m.change.inside), mean(telling, lambda m: m.change.structureless),
    )  # fmt: skip


def _chance_angle(measures: Measures) -> float:
    """Mean angle that independent subspaces show, over both sides."""
    return (measures.left.chance.mean + measures.right.chance.mean) / 2


def _moved(compared: Compared) -> list[str]:
    shown = [e for e, found in with_measures(compared.related_matrices) if found.k]
    moved = sorted(shown, key=lambda entry: -entry.mean_angle)[:_MOST_MOVED]
    if not moved or not compared.says_where:
        return []
    named = [f"{brief(entry.name, 60)} ({entry.mean_angle:.3g} rad)" for entry in moved]
    lines = _wrapped(f"most turned: {', '.join(named)}")
    layers = sorted({e.layer for e in shown if e.layer is not None})
    if len(layers) > 1:
        every = -(-len(layers) // _MOST_BARS)  # layers under one bar
        spans = [layers[i : i + every] for i in range(0, len(layers), every)]
        of = [[e for e in shown if e.layer in span] for span in spans]
        means = [sum(entry.mean_angle for entry in entries) / len(entries) for entries in of]
        top = max(means) or 1.0
        bars = "".join(_BARS[round(mean / top * (len(_BARS) - 1))] for mean in means)
        lines.append(f"by layer {layers[0]} to {layers[-1]}: {bars}  (0 to {top:.3g} rad)")
    return lines


def _between(findings: Findings) -> str:
    """Chordal distances (mean of both sides) of each two checkpoints."""
    labels = [brief(label, 24) for label in findings.labels]
    cells = {(p.first, p.second): f"{(p.left + p.right) / 2:.3g}" for p in findings.pairs}
    rows = [
        (f"{i} {label}", *(cells.get((i, j), cells.get((j, i), "-")) for j in range(len(labels))))
        for i, label in enumerate(labels)
    ]
    head = ("chordal distance", *map(str, range(len(labels))))
    return table(head, rows, right=" ".join(head[1:]))
