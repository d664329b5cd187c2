"""What a comparison found, on one screen of a terminal."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Sequence

from ..findings import Compared, Entry, Findings, mean_of, turned
from ..spectral.measures import Measures
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
    if shown.measured:
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
    by_module = len({entry.role for entry in compared.measured}) > _MOST_ROWS
    for entry in compared.measured:
        groups.setdefault(entry.module if by_module else entry.role, []).append(entry)
    rows = [_row(name, entries) for name, entries in groups.items()]
    if len(rows) > 1:
        rows.append(_row("all", compared.measured))
    head = ("mean of", "n", "delta", "left", "right", "chance", "values", "in-block", "expected")
    title = f"{compared.label}: " if len(findings.compared) > 1 else ""
    legend = (
        f"{inert(title)}relative delta; mean angle of the leading left and right vectors (rad);"
        " change of values; share of the delta in the leading block"
    )
    return "\n".join([*textwrap.wrap(legend, WIDTH), table(head, rows, right=" ".join(head[1:]))])


def _row(name: str, entries: Sequence[Entry]) -> tuple[str, ...]:
    def mean(value: Callable[[Measures], float]) -> float:
        return mean_of(entries, value) or 0.0

    return (
        brief(name, 40), f"{len(entries):,}",
        f"{mean(lambda m: m.change.relative):.3g}",
        f"{mean(lambda m: m.left.mean):.3g}", f"{mean(lambda m: m.right.mean):.3g}",
        f"{mean(lambda m: _chance_angle(m)):.3g}",
        f"{mean(lambda m: m.value_change):.2%}",
        f"{mean(lambda m: m.change.inside):.3g}",
        f"{mean(lambda m: m.change.structureless):.3g}",
    )  # fmt: skip


def _chance_angle(measures: Measures) -> float:
    """Mean angle that independent subspaces show, over both sides."""
    angles = [*measures.left.chance.angles(), *measures.right.chance.angles()]
    return sum(angles) / len(angles) if angles else 0.0


def _moved(compared: Compared) -> list[str]:
    moved = compared.moved[:_MOST_MOVED]
    if not moved:
        return []
    named = [f"{brief(entry.name, 60)} ({turned(entry):.3g} rad)" for entry in moved]
    lines = _wrapped(f"most turned: {', '.join(named)}")
    layers = sorted({e.layer for e in compared.measured if e.layer is not None})
    if len(layers) > 1:
        every = -(-len(layers) // _MOST_BARS)  # layers under one bar
        spans = [layers[i : i + every] for i in range(0, len(layers), every)]
        of = [[e for e in compared.measured if e.layer in span] for span in spans]
        means = [sum(map(turned, entries)) / len(entries) for entries in of]
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
