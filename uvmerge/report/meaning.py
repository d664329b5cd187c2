"""The definitions of all measures, with what chance gives, for the page and docs/report.md."""

from __future__ import annotations

import textwrap

from . import columns
from .column import Column, Place
from .data import beside_in_json, json_path

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
     " matrix that is unrelated to its base. Heat maps hatch cells without a finding."),
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


def json_keys() -> str:
    """The list in docs/report.md of what report.json holds of a matrix, in Markdown."""
    always, measured = [], dict[str, list[str]]()
    for column in columns.shown_in(Place.JSON):
        *objects, name = json_path(column).split(".")
        keys = [name, *(key for key, _ in beside_in_json(column, name))]
        if column.is_always_there:
            always += keys
        else:
            measured.setdefault(".".join(objects), []).extend(keys)
    groups = {"of every matrix": always, "where measured": measured.pop("", [])}
    groups |= {f"`{name}`, where measured": keys for name, keys in measured.items()}
    return "\n".join(_item(head, keys) for head, keys in groups.items())


def _item(head: str, keys: list[str]) -> str:
    """One entry of the list, as deep as it stands there."""
    text = f"- {head}: {', '.join(f'`{key}`' for key in keys)}"
    return textwrap.fill(
        text, 120, initial_indent=4 * " ", subsequent_indent=6 * " ",
        break_long_words=False, break_on_hyphens=False,
    )  # fmt: skip


def _explained() -> list[list[Column]]:
    """The columns that have a meaning; the two columns of both sides are one group."""
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
