"""The figures of the study, in the style of the report's figures for a paper."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..errors import counted
from ..report.colours import LINES
from ..report.plots import GREY, WIDTH, empty_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# What the name of a training begins with, or a kind of row -> label, colour and marker of its family.
_FAMILIES = {
    "sft": ("SFT, and lower rates", LINES[6], "o"),
    "rate": ("SFT, and lower rates", LINES[6], "o"),
    "stop": ("early stopping", LINES[5], "v"),
    "rpsft": ("RPSFT", LINES[1], "D"),
    "l2": ("L2 to the start", LINES[2], "s"),
    "kl": ("KL, DFT, IW-SFT", LINES[4], "^"),
    "dft": ("KL, DFT, IW-SFT", LINES[4], "^"),
    "iw": ("KL, DFT, IW-SFT", LINES[4], "^"),
    "osf": ("OSF", LINES[3], "P"),
    "": ("edits after SFT", GREY, "x"),
    "control": ("controls", LINES[1], "D"),
    "part": ("edits of parts of the model", LINES[2], "+"),
}
_AXES = (("loss", "loss in domain"), ("in_domain", "accuracy in domain"))


def against_line(summary: Mapping[str, Any]) -> Figure:
    """Out of domain over loss and over accuracy in domain, means over pairs; a row for each regime.

    The line joins the means of the interpolations. Bars are 95 % intervals of the means.
    """
    regimes = list(dict.fromkeys(row["regime"] for row in summary["rows"]))
    figure = empty_figure(WIDTH, 2.7 * len(regimes) + 0.5)
    places = figure.subplots(len(regimes), 2, squeeze=False, sharey="row")
    for line, regime in zip(places, regimes, strict=True):
        own = [row for row in summary["rows"] if row["regime"] == regime]
        for axes, (level, label) in zip(line, _AXES, strict=True):
            _panel(axes, own, level)
            axes.set_xlabel(label)
            axes.set_title(f"{regime}, {counted(own[0]['loss']['pairs'], 'pair')}")
        line[0].set_ylabel("accuracy out of domain")
        _loss_axis(line[0])
    handles = {h.get_label(): h for axes in places.flat for h in axes.lines if _has_label(h)}
    figure.legend(handles=list(handles.values()), loc="outside lower center", ncol=4)
    return figure


def _loss_axis(axes: Axes) -> None:
    """Make the x axis logarithmic with plain numbers, the smaller ones at the right."""
    axes.set_xscale("log")
    axes.invert_xaxis()  # better is right, in both panels
    high, low = axes.get_xlim()
    steps = (1, 2, 3, 5) if high / low > 5 else range(1, 10)
    ticks = [step * unit for unit in (0.001, 0.01, 0.1, 1.0, 10.0) for step in steps]
    shown = [tick for tick in ticks if low < tick < high]
    axes.set_xticks(shown, [f"{tick:g}" for tick in shown])
    axes.minorticks_off()


def _has_label(line: Any) -> bool:
    return not line.get_label().startswith("_")


def _panel(axes: Axes, rows: Sequence[Mapping[str, Any]], level: str) -> None:
    along = [row for row in rows if row["kind"] == "line"]
    axes.plot(
        [row[level]["mean"] for row in along], [row["out_of_domain"]["mean"] for row in along],
        color=LINES[0], marker=".", label="interpolation after SFT",
    )  # fmt: skip
    for row in rows:
        if row["kind"] == "line":
            continue
        label, colour, marker = _family(row)
        x, y = row[level]["mean"], row["out_of_domain"]["mean"]
        axes.plot([x], [y], marker, color=colour, markersize=4, label=label, alpha=0.85)
        ends = row["out_of_domain"]["interval_95"]
        if ends is not None:
            axes.plot([x, x], ends, color=colour, linewidth=0.6, alpha=0.5)


def _family(row: Mapping[str, Any]) -> tuple[str, str, str]:
    if row["kind"] == "training":
        return _FAMILIES[row["name"].partition("-")[0]]
    return _FAMILIES[row["kind"] if row["kind"] in _FAMILIES else ""]


def margins(summary: Mapping[str, Any]) -> Figure:
    """Of each pair, how far above the line the setting lies that was chosen on the other half, and the
    one that was chosen on the other pairs; a panel for each regime."""
    regimes = list(dict.fromkeys(row["regime"] for row in summary["rows"]))
    figure = empty_figure(WIDTH, 2.7)
    panels = figure.subplots(1, len(regimes), squeeze=False, sharey=True)[0]
    groups = (("rows", "chosen on the other half", LINES[0], "o"),
              ("carried", "chosen on the other pairs", LINES[1], "D"))  # fmt: skip
    for axes, regime in zip(panels, regimes, strict=True):
        for key, label, colour, marker in groups:
            own = [row for row in summary[key] if row["regime"] == regime]
            seeds, heights = [row["seed"] for row in own], [row["margin"] for row in own]
            axes.plot(seeds, heights, marker, color=colour, markersize=4, label=label)
        axes.axhline(0, color=GREY, linewidth=0.6)
        axes.set_xlabel("pair")
        axes.set_title(regime)
        axes.set_xticks(sorted({row["seed"] for row in summary["rows"]}))
    panels[0].set_ylabel("above the line, out of domain")
    figure.legend(handles=panels[0].lines[:2], loc="outside lower center", ncol=2)
    return figure
