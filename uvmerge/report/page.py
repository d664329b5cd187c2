"""`report.html`: one static, self-contained page; all text from inputs is escaped. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from statistics import median

from ..errors import counted
from ..measure.findings import Compared, Entry, Findings
from ..measure.measures import Measures
from .column import Column, Place
from .columns import column_of, shown_in
from .details import details, legends
from .format import NONE, number, percent, safe
from .heat import SHARED
from .maps import heat_maps
from .meaning import meanings
from .shell import html_table, whole_page
from .trajectory import trajectory
from .words import headline

DETAILS_BYTES = 1_500_000  # of the details of all matrices, so that a page stays under 2 MB
MOST_LISTED = 10


def render(findings: Findings) -> str:
    """The whole page."""
    title = safe(" → ".join(findings.labels[:1] + findings.labels[-1:]), 300)
    return whole_page(title, SHARED + "".join(_sections(findings)))


def figure(findings: Findings) -> str:
    """Headline and heat maps of the last checkpoint, as a fragment for notebooks."""
    maps = heat_maps(findings.compared[-1], {}) if findings.compared else ""
    return (
        '<div style="background:#fff;color:#1a1a1a;padding:12px;font-family:system-ui,sans-serif">'
        f"<style>{_FRAGMENT_STYLE}</style>{SHARED}{_headline(findings)}"
        f'<div class="uvmerge">{maps}</div></div>'
    )


_FRAGMENT_STYLE = (
    ".uvmerge .maps{display:grid;gap:18px;"
    "grid-template-columns:repeat(auto-fill,minmax(370px,1fr))}"
    ".uvmerge figure{margin:0}.uvmerge figcaption{font-weight:600;font-size:13px}"
    ".uvmerge .note{display:block;color:#666;font-size:12px;font-weight:400}"
)


def _sections(findings: Findings) -> Iterable[str]:
    base = safe(findings.base, 300)
    if len(findings.compared) == 1:
        title = f"{safe(findings.compared[0].label, 300)} <small>against</small> {base}"
    else:
        title = f"{counted(len(findings.compared), 'checkpoint')} <small>against</small> {base}"
    yield f'<header><p class="kicker">uvmerge diff</p><h1>{title}</h1></header>'
    yield f'<div class="top">{_headline(findings)}{_facts(findings)}</div>'
    if any(compared.behaviour for compared in findings.compared):
        yield f"<h2>Behaviour on the given prompts</h2>{_behaviours(findings)}"
    several = len(findings.compared) > 1
    if several:
        yield f"<h2>Over the checkpoints</h2>{trajectory(findings)}"
    if not findings.compared:
        return
    last = findings.compared[-1]
    which = f" of the last checkpoint, {safe(last.label)}" if several else ""
    earlier = [
        {entry.name: entry.measures for entry in compared.measured if entry.measures is not None}
        for compared in findings.compared[:-1]
    ]
    folded, links = _folded(last, earlier)
    if last.entries:
        yield f'<h2>Layers and roles{which}</h2><p class="note">{_MAPS_NOTE}</p>'
        yield heat_maps(last, links)
    if last.measured:
        yield f"<h2>Most moved matrices{which}</h2>{_most_moved(last, links)}"
        yield f'<h2 class="every">Every matrix{which}</h2>{folded}'
    yield _rest(last)
    yield f"<h2>What these figures mean</h2>{_meaning()}"


_MAPS_NOTE = (
    "Experts of one role and layer are averaged. Figures of one kind share a scale. Hatched cells"
    " are no finding: no more than chance or rounding gives, or all of an unrelated matrix. A cell"
    " leads to its matrix below."
)


def _headline(findings: Findings) -> str:
    items = "".join(f"<li>{_whole(sentence)}</li>" for sentence in headline(findings))
    return f'<ul class="headline {findings.verdict}">{items}</ul>'


def _whole(sentence: str) -> str:
    """An escaped sentence with no line break between a number and its unit."""
    return re.sub(r"(?<=\d) (?=%|nats|±)", "&nbsp;", safe(sentence, 2000))


def _facts(findings: Findings) -> str:
    """The list of labels, commits, settings, versions, times and notes."""
    facts: list[tuple[str, object]] = [("base", _reference(findings.base, findings.base_commit))]
    for i, compared in enumerate(findings.compared, 1):
        name = "fine-tuned" if len(findings.compared) == 1 else f"checkpoint {i}"
        facts.append((name, _reference(compared.label, compared.commit)))
    settings = {k: v for k, v in findings.settings.items() if v is not None}
    facts += [("settings", _listed(settings)), ("versions", _listed(findings.versions))]
    times = {phase: f"{number(seconds)} s" for phase, seconds in findings.seconds.items()}
    facts.append(("time", _listed(times)))
    for compared in findings.compared:
        facts += [("note", note) for note in compared.notes]
    rows = "".join(f"<dt>{safe(k)}</dt><dd>{safe(v, 600)}</dd>" for k, v in facts if v)
    return f'<dl class="facts">{rows}</dl>'


def _reference(label: str, commit: str | None) -> str:
    return f"{label} at {commit}" if commit else label


def _listed(items: Mapping[str, object]) -> str:
    return ", ".join(f"{key} {value}" for key, value in items.items())


def _behaviours(findings: Findings) -> str:
    header = ("checkpoint", "prompts", "tokens", "KL from base, nats", "entropy of base", "entropy",
              "top-ten overlap", "same likeliest",
              *(column_of(key).head for key in _BESIDE_BEHAVIOUR))  # fmt: skip
    rows = []
    for compared in findings.compared:
        found = compared.behaviour
        if found is None:
            continue
        error = "" if found.kl_error is None else f" ± {number(found.kl_error)}"
        rows.append((
            safe(compared.label), f"{found.prompts:,}", f"{found.tokens:,}",
            f"{number(found.kl)}{error}", number(found.base_entropy), number(found.entropy),
            percent(found.overlap), percent(found.agreement),
            *(_median(column_of(key), compared) for key in _BESIDE_BEHAVIOUR),
        ))  # fmt: skip
    note = '<p class="note">Relative change and mean angles are medians over matrices.</p>'
    return html_table(header, rows) + note


_BESIDE_BEHAVIOUR = ("relative_delta", "left_mean", "right_mean")


def _median(column: Column, compared: Compared) -> str:
    """The median over the related matrices, without values that are void."""
    values = column.telling_values(compared.related_matrices)
    return column.unit.text(median(values) if values else None)


def _folded(
    compared: Compared, earlier: Sequence[Mapping[str, Measures]]
) -> tuple[str, dict[str, str]]:
    """The details of the matrices that moved most, as many as fit, and anchors by name."""
    parts: list[str] = []
    links: dict[str, str] = {}
    total = 0
    moved = compared.most_turned_first
    for i, entry in enumerate(moved):
        before = [found[entry.name] for found in earlier if entry.name in found]
        made = details(entry, f"m{i}", before, is_open=i == 0)
        total += len(made.encode())
        if total > DETAILS_BYTES:
            parts.append(
                f'<p class="note">{counted(len(moved) - i, "matrix")} that turned less'
                " are in matrices.csv and report.json only.</p>"
            )
            break
        parts.append(made)
        links[entry.name] = f"m{i}"
    return legends() + "".join(parts), links


def _most_moved(compared: Compared, links: Mapping[str, str]) -> str:
    columns = shown_in(Place.MOVED)
    header = ["matrix", "shape", "k", *map(_head, columns)]
    rows = [_moved_row(entry, columns, links) for entry in compared.most_turned_first[:MOST_LISTED]]
    return html_table(header, rows) + (
        '<p class="note">By mean angle of both sides. * no finding: no more than chance or rounding'
        " gives, or of a matrix that is unrelated to its base.</p>"
    )


def _head(column: Column) -> str:
    return safe(column.head) + (" (chance)" if Place.CHANCE in column.shown else "")


def _moved_row(entry: Entry, columns: Sequence[Column], links: Mapping[str, str]) -> list[str]:
    name = safe(entry.name).replace(".", ".<wbr>")
    if entry.name in links:
        name = f'<a href="#{links[entry.name]}">{name}</a>'
    k = entry.measures.k if entry.measures is not None else 0
    shape = f"{entry.shape[0]} × {entry.shape[1]}"
    return [name, shape, str(k), *(_moved_cell(column, entry) for column in columns)]


def _moved_cell(column: Column, entry: Entry) -> str:
    value = column.value(entry)
    if value is None:
        return NONE
    chance = column.chance(entry) if Place.CHANCE in column.shown else None
    beside = "" if chance is None else f" ({column.unit.text(chance)})"
    star = "*" if column.is_no_finding(entry) else ""
    return f"{column.unit.text(value)}{beside}{star}"


def _rest(compared: Compared) -> str:
    """Tensors that were subtracted, not decomposed, and tensors that could not be compared."""
    parts = []
    changed = sorted((o for o in compared.others if o.relative), key=lambda o: -(o.relative or 0.0))
    if changed:
        rows = [(safe(o.name), safe(o.module), percent(o.relative)) for o in changed[:MOST_LISTED]]
        parts.append("<h3>Other tensors that changed most</h3>")
        parts.append(html_table(("tensor", "module", "relative change"), rows, "plain"))
    broken = [e.name for e in compared.entries if e.state == "nonfinite"]
    broken += [other.name for other in compared.others if other.relative is None]
    if broken:
        names = ", ".join(map(safe, broken[:MOST_LISTED]))
        more = f" and {len(broken) - MOST_LISTED} more" if len(broken) > MOST_LISTED else ""
        parts.append(f"<h3>Could not be compared</h3><p>{names}{more}</p>")
    return f"<h2>Other tensors</h2>{''.join(parts)}" if parts else ""


def _meaning() -> str:
    rows = "".join(f"<dt>{safe(name)}</dt><dd>{safe(text, 1000)}</dd>" for name, text in meanings())
    return f'<dl class="meaning">{rows}</dl>'
