"""Findings as they are shown in a notebook and by `print`, beside the page's own fragment. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from ..measure.findings import Entry
from ..text import brief, table
from .column import Place
from .columns import shown_in
from .details import details, legends
from .format import safe
from .svg import CHART_STYLE

_STYLE = (
    CHART_STYLE
    + ".uvmerge .row{display:flex;flex-wrap:wrap;gap:14px 18px}.uvmerge figure{margin:0}"
    ".uvmerge figure{width:336px}.uvmerge figcaption{font-weight:600;font-size:13px}"
    ".uvmerge .ramp,.uvmerge .ends{display:none}.uvmerge .note{font-size:12px;color:#666}"
    ".uvmerge table{font-size:12px}"
)


def entry_summary(entry: Entry) -> str:
    """The numbers of one matrix, each beside what chance gives."""
    m, n = entry.shape
    head = f"{brief(entry.name)}: {m} × {n}, {entry.dtype}, {entry.state}"
    if entry.measures is None:
        return head
    rows = [
        (f"{column.name or column.key} {column.side}", column.unit.text(column.value(entry)),
         "" if column.chance(entry) is None else column.unit.text(column.chance(entry)))
        for column in shown_in(Place.DETAILS)
    ]  # fmt: skip
    return f"{head}, k = {entry.measures.k}\n" + table(
        ("measure", "value", "chance"), rows, right="value chance"
    )


def entry_figure(entry: Entry) -> str:
    """The figures of one matrix as on the page, for a notebook."""
    if entry.measures is None:
        return f"<p>{safe(entry_summary(entry), 400)}</p>"
    return framed(legends() + details(entry, "matrix", is_open=True), _STYLE)


def bars(caption: str, rows: Sequence[tuple[str, float]]) -> str:
    """Names and shares of 1, each share with a bar, for a notebook."""
    most = max((value for _, value in rows), default=0.0) or 1.0
    lines = "".join(
        f'<tr><td style="text-align:left">{safe(name)}</td><td>{100 * value:.3g} %</td>'
        f'<td style="width:240px"><div style="background:#0072B2;height:.8em;'
        f'width:{100 * max(value, 0.0) / most:.1f}%"></div></td></tr>'
        for name, value in rows
    )
    return framed(f"<p>{safe(caption, 400)}</p><table>{lines}</table>")


def framed(body: str, style: str = "") -> str:
    """A fragment of HTML on white, with its style sheet."""
    colours = "background:#fff;color:#1a1a1a;padding:12px;font-family:system-ui,sans-serif"
    sheet = f"<style>{style}</style>" if style else ""
    return f'<div class="uvmerge" style="{colours}">{sheet}{body}</div>'
