"""What the figures mean: each measure in a line, with what chance gives, for people to read."""

from __future__ import annotations

from . import columns
from .column import Column

_BEFORE = (
    ("Base, fine-tuned, k", "W_b and W_f of shape m × n; D = W_f − W_b. The k leading singular"
     " triplets U, S, V of both are compared; k is smaller than asked for where a matrix has fewer"
     " values that are not 0."),
)  # fmt: skip
_AFTER = (
    ("Chart of principal angles", "All k of them. Independent spans follow the grey band."),
    ("Chart of the change's singular values", "The dashed line is a matrix of independent entries"
     " with the same energy (Marchenko–Pastur); what rises above it is structure."),
    ("Change in leading directions", "Mean squares of C, leading vectors at the top left, as"
     " multiples of what a change without structure shows."),
    ("No finding", "A figure within four standard deviations of what independent subspaces, or a"
     " change with random signs, would show; a change of the size of rounding; everything of a"
     " matrix that is unrelated to its base. Hatched in the heat maps."),
)  # fmt: skip


def meanings() -> list[tuple[str, str]]:
    """Names and texts for the page."""
    measures = [(_capital(one.name or one.key), _text(one)) for one, *_ in _explained()]
    return [*_BEFORE, *measures, *_AFTER]


def documentation() -> str:
    """The table of measures of docs/report.md, in Markdown."""
    rows = ["| measure | in `matrices.csv` | definition | by chance |", "|---|---|---|---|"]
    for group in _explained():
        keys = ", ".join(f"`{column.key}`" for column in group)
        texts = (group[0].name, keys, group[0].meaning, group[0].by_chance or "—")
        rows.append(f"| {' | '.join(text.replace('|', chr(92) + '|') for text in texts)} |")
    return "\n".join(rows)


def _explained() -> list[list[Column]]:
    """The columns that have a meaning, those of both sides together."""
    by_name: dict[str, list[Column]] = {}
    for column in columns.COLUMNS:
        if column.meaning:
            by_name.setdefault(column.name or column.key, []).append(column)
    return list(by_name.values())


def _text(column: Column) -> str:
    return (
        f"{column.meaning} By chance: {column.by_chance}." if column.by_chance else column.meaning
    )


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
