"""How models answer and what their hidden states are, on the user's prompts: a section and a sentence. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ..errors import counted
from ..measure.findings import Compared, Findings, Hidden, HiddenLayer
from ..text import brief
from .format import NONE, number, percent, safe
from .svg import Axis, Line, chart

MOST_LINES = 6  # checkpoints in one chart, the last ones


@dataclass(frozen=True)
class StateMeasure:
    """A measure of hidden states.

    Attributes:
        key: the name of the value in `HiddenLayer`; with `_chance`, that of what chance gives.
        title: the name for people.
        meaning: the definition, for the page.
        high: the upper end of its axis; None where it has no end.
    """

    key: str
    title: str
    meaning: str
    high: float | None = None

    def value(self, layer: HiddenLayer) -> float | None:
        """The value of a layer."""
        found: float | None = getattr(layer, self.key)
        return found

    def chance(self, layer: HiddenLayer) -> float | None:
        """What chance gives in a layer."""
        found: float | None = getattr(layer, f"{self.key}_chance")
        return found


STATE_MEASURES = (
    StateMeasure("cka", "Linear CKA", "1 where a rotation and a scale make both sets of states equal"
                 " (arXiv 1905.00414); chance: prompts paired at random", 1.0),
    StateMeasure("cosine", "Cosine of the states", "mean over prompts; chance: prompts paired at random",
                 1.0),
    StateMeasure("shift", "Shift of the centroid", "distance of the mean states over the base's spread;"
                 " chance: models swapped in random prompts"),
    StateMeasure("mmd", "Maximum mean discrepancy", "with a Gaussian kernel as wide as the median distance"
                 " of the base's states; chance: models swapped in random prompts"),
)  # fmt: skip


def state_sentences(findings: Findings) -> list[str]:
    """The hidden states of the last checkpoint that was run, in its last layer."""
    ran = [(compared, compared.hidden) for compared in findings.compared if compared.hidden]
    if not ran:
        return []
    compared, found = ran[-1]
    last = found.layers[-1]
    of = f" of {brief(compared.label)}" if len(ran) > 1 else ""
    parts = [
        f"{name} {number(value)} ({how}: {number(chance)})"
        for name, value, chance, how in (
            ("linear CKA", last.cka, last.cka_chance, "prompts paired at random"),
            ("cosine", last.cosine, last.cosine_chance, "paired at random"),
            ("centroid shift", last.shift, last.shift_chance, "models swapped at random"),
            ("MMD", last.mmd, last.mmd_chance, "swapped at random"),
        )
        if value is not None
    ]
    if not parts:
        return []
    return [
        f"On {counted(found.prompts, 'prompt')} the hidden states of the last token{of} that the"
        f" output head reads, against the base's: {', '.join(parts)}."
    ]


def answers(findings: Findings) -> str:
    """Charts of hidden states over the layers, and of the overlap of the likeliest tokens."""
    states = [(compared, compared.hidden) for compared in findings.compared if compared.hidden]
    parts = []
    if states:
        prompts = counted(states[-1][1].prompts, "prompt")
        parts.append(
            f"<h2>Hidden states of the last token, on {prompts}</h2>"
            f'<p class="note">{_STATES_NOTE}</p>'
            f'<div class="maps">{"".join(_over_layers(m, states) for m in STATE_MEASURES)}</div>'
        )
    curves = [compared for compared in findings.compared if _curve(compared)]
    if curves:
        parts.append(f"<h3>Likeliest tokens</h3>{_divergences(curves)}")
        parts.append(f'<div class="maps">{_overlaps(curves)}</div>')
    return "".join(parts)


_STATES_NOTE = (
    "Layer 0 is the input of the first layer; the last is what the output head reads. One state of each"
    " prompt counts, that of its last token. With few prompts CKA is near 1 for any two models: read it"
    " beside its chance."
)


def _figure(title: str, body: str, note: str) -> str:
    note = f'<span class="note">{safe(note, 400)}</span>'
    return f"<figure><figcaption>{safe(title)}{note}</figcaption>{body}</figure>"


def _over_layers(measure: StateMeasure, states: Sequence[tuple[Compared, Hidden]]) -> str:
    """A line for each checkpoint, and one for what chance gives for the last."""
    shown = states[-MOST_LINES:]
    lines = [
        _line(found.layers, measure.value, compared.label if len(shown) > 1 else "value", style)
        for style, (compared, found) in enumerate(shown)
    ]
    lines.append(_line(shown[-1][1].layers, measure.chance, "chance", len(shown)))
    lines = [line for line in lines if line.points]
    if not lines:
        return ""
    drawn = [value for line in lines for _, value in line.points]
    low, high = min(0.0, *drawn), measure.high or 1.06 * max(drawn) or 1.0
    count = len(shown[-1][1].layers) - 1
    x = Axis(0.0, max(count, 1), "layer", whole=True)
    body = chart(measure.title, x, Axis(low, high, measure.title), lines)
    return _figure(measure.title, body, measure.meaning)


def _line(
    layers: Sequence[HiddenLayer],
    read: Callable[[HiddenLayer], float | None],
    label: str,
    style: int,
) -> Line:
    points = [(float(layer.layer), value) for layer in layers if (value := read(layer)) is not None]
    return Line(points, brief(label, 24), style, dots=True)


def _curve(compared: Compared) -> list[tuple[int, float, float]]:
    """(k, share, chance) of the overlap curve; empty where the model was not run."""
    found = compared.behaviour
    return [] if found is None else [(o.k, o.share, o.chance) for o in found.overlap_curve]


def _overlaps(curves: Sequence[Compared]) -> str:
    shown = curves[-MOST_LINES:]
    lines = [
        Line([(float(k), 100 * share) for k, share, _ in _curve(compared)],
             brief(compared.label, 24) if len(shown) > 1 else "value", style, dots=True)
        for style, compared in enumerate(shown)
    ]  # fmt: skip
    last = _curve(shown[-1])
    lines.append(Line([(float(k), 100 * chance) for k, _, chance in last], "chance", len(shown)))
    x = Axis(1.0, float(last[-1][0]), "k likeliest tokens", log=True)
    title = "Overlap of the likeliest tokens"
    body = chart(title, x, Axis(0.0, 100.0, "shared, %"), lines)
    note = (
        "share of the base's k likeliest next tokens among the model's k; chance: k random tokens"
    )
    return _figure(title, body, note)


def _divergences(curves: Sequence[Compared]) -> str:
    """A table of the Jensen–Shannon divergence and the margins."""
    head = "".join(
        f"<th>{name}</th>"
        for name in ("checkpoint", "JS from base, nats", "margin of base", "margin")
    )
    rows = "".join(
        f"<tr><td>{safe(compared.label)}</td><td>{number(found.js)}</td>"
        f"<td>{_percent(found.base_margin)}</td><td>{_percent(found.margin)}</td></tr>"
        for compared in curves
        if (found := compared.behaviour) is not None
    )
    note = (
        "JS: Jensen–Shannon divergence, at most log 2 = 0.693. Margin: probability of the likeliest token"
        " less that of the second likeliest."
    )
    table = f'<table class="wide"><tr>{head}</tr>{rows}</table>'
    return f'<div class="scroll">{table}</div><p class="note">{note}</p>'


def _percent(share: float | None) -> str:
    return NONE if share is None else percent(share).replace(" %", "&nbsp;%")
