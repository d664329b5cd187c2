"""`report.html`: one static, self-contained page; all text from inputs is escaped. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from statistics import median

from ..errors import counted
from ..measure.findings import Compared, Findings
from .answers import answers
from .column import Column
from .columns import column_of
from .first import first_screen, whole
from .format import number, percent, safe
from .heat import SHARED
from .layers import folded_layers
from .maps import explained_maps, heat_maps, small_maps
from .meaning import meanings
from .shell import whole_page
from .spectrum import tenths_figures
from .tables import STAR_NOTE, of_matrices, table
from .trajectory import trajectory
from .words import headline

MOST_LISTED = 10


def render(findings: Findings) -> str:
    """The whole page."""
    title = safe(" → ".join(findings.labels[:1] + findings.labels[-1:]), 300)
    return whole_page(title, f"{SHARED}{''.join(_sections(findings))}")


def figure(findings: Findings) -> str:
    """Headline and heat maps of the last checkpoint, as a fragment for notebooks."""
    maps = heat_maps(findings.compared[-1], {}) if findings.compared else ""
    return (
        '<div style="background:#fff;color:#1a1a1a;padding:12px;font-family:system-ui,sans-serif">'
        f"<style>{_FRAGMENT_STYLE}</style>{SHARED}{_headline(findings)}"
        f'<div class="uvmerge">{maps}</div></div>'
    )


_FRAGMENT_STYLE = (
    ".uvmerge .small{display:grid;gap:18px;margin-top:18px;"
    "grid-template-columns:repeat(auto-fill,minmax(min(100%,230px),1fr))}.uvmerge svg{max-width:100%}"
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
    if not findings.compared:
        yield f"{first_screen(findings, {})}{_prose(findings)}"
        return
    last = findings.compared[-1]
    several = len(findings.compared) > 1
    earlier = [
        {entry.name: entry.measures for entry in compared.measured if entry.measures is not None}
        for compared in findings.compared[:-1]
    ]
    folded = folded_layers(last, earlier)
    yield first_screen(findings, folded.links)
    yield _prose(findings)
    if any(compared.behaviour for compared in findings.compared):
        yield f"<h2>Behaviour on the given prompts</h2>{_behaviours(findings)}"
    yield answers(findings)
    if several:
        yield f"<h2>Over the checkpoints</h2>{trajectory(findings)}"
    which = f" of the last checkpoint, {safe(last.label)}" if several else ""
    if tenths := tenths_figures(findings):
        yield f"<h2>Where in the spectrum</h2>{tenths}"
    if last.entries:
        yield f'<h2>Layers and roles{which}</h2><p class="note">{_MAPS_NOTE}</p>'
        yield f"{small_maps(last, folded.links)}{explained_maps()}"
    if last.measured:
        most = of_matrices(last.most_turned_first[:MOST_LISTED], folded.links)
        yield f'<h2>Most moved matrices{which}</h2>{most}<p class="note">By mean angle of both'
        yield f" sides. {STAR_NOTE}</p>"
        yield f'<h2 class="every">Every matrix{which}</h2>{folded.html}'
    yield _rest(last)
    yield f'<details class="prose"><summary>What these figures mean</summary>{_meaning()}</details>'


_MAPS_NOTE = (
    "Experts of one role and layer are averaged. Figures of one kind share a scale. Hatched cells"
    " are no finding: no more than chance or rounding gives, or all of an unrelated matrix. A cell"
    " leads to its matrix below."
)


def _prose(findings: Findings) -> str:
    """All findings in sentences, and what was compared how, folded; notes are to be seen."""
    notes = list(dict.fromkeys(note for each in findings.compared for note in each.notes))
    shown = "".join(f"<li>{safe(note, 600)}</li>" for note in notes)
    sentences = headline(findings)
    return (
        (f'<ul class="notes">{shown}</ul>' if notes else "")
        + '<details class="prose"><summary>All findings in words'
        f" <span>({counted(len(sentences), 'sentence')})</span></summary>{_headline(findings)}"
        '</details><details class="prose"><summary>What was compared, and how</summary>'
        f"{_facts(findings)}</details>"
    )


def _headline(findings: Findings) -> str:
    items = "".join(f"<li>{whole(sentence)}</li>" for sentence in headline(findings))
    return f'<ul class="headline {findings.verdict}">{items}</ul>'


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
    return table(header, rows) + note


_BESIDE_BEHAVIOUR = ("relative_delta", "left_mean", "right_mean")


def _median(column: Column, compared: Compared) -> str:
    """The median over the related matrices, without values that are void."""
    values = column.telling_values(compared.related_matrices)
    return column.unit.text(median(values) if values else None)


def _rest(compared: Compared) -> str:
    """Tensors that were subtracted, not decomposed, and tensors that could not be compared."""
    parts = []
    changed = sorted((o for o in compared.others if o.relative), key=lambda o: -(o.relative or 0.0))
    if changed:
        rows = [(safe(o.name), safe(o.module), percent(o.relative)) for o in changed[:MOST_LISTED]]
        parts.append("<h3>Other tensors that changed most</h3>")
        parts.append(table(("tensor", "module", "relative change"), rows, "plain"))
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
