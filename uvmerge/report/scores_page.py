"""The page of a comparison of evaluations: one static file; all text from inputs is escaped. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from ..errors import counted
from ..tasks.comparison import Row
from ..tasks.outcome import ComparedScores
from .format import safe
from .pareto import Cross, pareto
from .scores_words import caveats, cells, meanings, recovered_cells, sentences, title
from .shell import whole_page
from .tables import table as html_table


def render(found: ComparedScores) -> str:
    """The whole page."""
    return whole_page(
        f"{counted(len(found.checkpoints), 'checkpoint')} compared", "".join(_sections(found))
    )


def fragment(found: ComparedScores) -> str:
    """The plot and the tables, for notebooks."""
    return (
        '<div style="background:#fff;color:#1a1a1a;padding:12px;font-family:system-ui,sans-serif">'
        f"{_headline(found)}{_plot(found)}{''.join(_tables(found))}</div>"
    )


def _sections(found: ComparedScores) -> Iterator[str]:
    names = safe(", ".join(found.checkpoints), 300)
    yield f'<header><p class="kicker">uvmerge compare</p><h1>{names}</h1></header>'
    yield f'<div class="top">{_headline(found)}{_facts(found)}</div>'
    if plot := _plot(found):
        yield f"<h2>In domain against out of domain</h2>{plot}"
    yield "<h2>Scores</h2>"
    yield from _tables(found)
    rows = "".join(f"<dt>{safe(k)}</dt><dd>{safe(v, 600)}.</dd>" for k, v in meanings(found))
    yield f'<h2>What these figures mean</h2><dl class="meaning">{rows}</dl>'


def _headline(found: ComparedScores) -> str:
    items = "".join(f"<li>{safe(sentence, 2000)}</li>" for sentence in sentences(found))
    return f'<ul class="headline">{items}</ul>'


def _facts(found: ComparedScores) -> str:
    facts = list(zip(found.checkpoints, found.sources, strict=True))
    facts += [("tested against", found.against), ("base", found.base or "")]
    facts += [("line", ", ".join(found.line)), *(("note", note) for note in found.notes)]
    rows = "".join(f"<dt>{safe(k, 40)}</dt><dd>{safe(v, 600)}</dd>" for k, v in facts if v)
    return f'<dl class="facts">{rows}</dl>'


def _tables(found: ComparedScores) -> Iterator[str]:
    for table in found.tables:
        yield f"<h3>{safe(title(table))}</h3>"
        yield _html(*cells(table, found.against))
        header, rows = recovered_cells(table)
        if rows:
            yield f'<p class="note">What of the loss is recovered:</p>{_html(header, rows)}'
        yield "".join(f'<p class="note">{safe(line, 400)}</p>' for line in caveats(table))


def _html(header: list[str], rows: list[list[str]]) -> str:
    return html_table([safe(name) for name in header], [[safe(c) for c in row] for row in rows])


def _plot(found: ComparedScores) -> str:
    """The Pareto plot; empty where the domains are not known."""
    points = found.points()
    if not points:
        return ""
    crosses = {name: _cross(*rows) for name, rows in points.items()}
    ends = (found.base, *found.line, found.finetuned) if found.line else ()
    line = [name for name in ends if name is not None]
    labels = f"in domain: {found.in_domain}", f"out of domain: {found.out_of_domain}"
    return f"<figure>{pareto(crosses, line, found.front(), labels)}</figure>"


def _cross(inside: Row, outside: Row) -> Cross:
    x, y = inside.value or 0.0, outside.value or 0.0
    return Cross(x, y, inside.honest_interval or (x, x), outside.honest_interval or (y, y))
