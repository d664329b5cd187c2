"""The figures of the study that show something along a training run, in the report's style."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..errors import counted
from ..report.colours import LINES
from ..report.plots import GREY, WIDTH, empty_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Rows = Sequence[Mapping[str, Any]]


def trajectory(found: Mapping[str, Any]) -> Figure:
    """Accuracy, loss and turn along the fine-tuning, means and 95 % intervals; a row for each regime."""
    regimes = list(dict.fromkeys(row["regime"] for row in found["rows"]))
    figure = empty_figure(WIDTH, 2.0 * len(regimes) + 0.5)
    places = figure.subplots(len(regimes), 3, squeeze=False)
    panels = (
        (("in_domain", "in domain"), ("out_of_domain", "out of domain")),
        (("loss", "test loss in domain"), ("training_loss", "training loss"), ("kl", "KL to base")),
        (("head", "head turned"), ("bulk", "bulk turned"), ("tail", "tail turned"),
         ("values", "values changed")),
    )  # fmt: skip
    for line, regime in zip(places, regimes, strict=True):
        own = [row for row in found["rows"] if row["regime"] == regime]
        for axes, keys in zip(line, panels, strict=True):
            for colour, (key, label) in zip(LINES, keys):
                along(axes, [row for row in own if key in row], ("step", key), label, colour)
            axes.set_xscale("symlog", linthresh=3)
            steps = [row["step"] for row in own][::3]
            axes.set_xticks(steps, [str(step) for step in steps])
            axes.minorticks_off()
            axes.set_xlabel("steps")
        line[0].set_title(f"{regime}, {counted(own[0]['loss']['pairs'], 'pair')}")
        line[0].set_ylabel("accuracy")
        line[1].set_ylabel("nats")
        line[1].set_yscale("symlog", linthresh=1)
        line[2].set_ylabel("radians, or relative")
    for axes in places[-1]:
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.3), ncol=2)
    return figure


def along(axes: Axes, rows: Rows, keys: tuple[str, str], label: str, colour: str) -> None:
    """A line of means over `rows`, with their intervals.

    Args:
        keys: of what is on the x axis, and of the summary that is drawn.
    """
    x = [row[keys[0]] for row in rows]
    axes.plot(x, [row[keys[1]]["mean"] for row in rows], ".-", color=colour, label=label)
    for at, row in zip(x, rows, strict=True):
        ends = row[keys[1]]["interval_95"]
        if ends is not None:
            axes.plot([at, at], ends, color=colour, linewidth=0.6, alpha=0.5)


def paths(found: Mapping[str, Any], label: Callable[[str], str]) -> Figure:
    """The paths of RL in the plane of both accuracies, means over pairs; a panel for each regime.

    An open circle is the start of RL, a full one its end.
    """
    regimes = list(dict.fromkeys(row["regime"] for row in found["rows"]))
    figure = empty_figure(WIDTH, 3.2)
    places = figure.subplots(1, len(regimes), squeeze=False)[0]
    order = list(dict.fromkeys(row["start"] for row in found["rows"]))
    plain_starts = [start for start in order if "-" not in start]
    for axes, regime in zip(places, regimes, strict=True):
        own = [row for row in found["rows"] if row["regime"] == regime]
        for start in order:
            place = plain_starts.index(start.partition("-")[0])
            rows = [row for row in own if row["start"] == start]
            _path(axes, rows, label(start), LINES[place], "--" if "-" in start else "-")
        axes.set_title(f"{regime}, {counted(own[0]['loss']['pairs'], 'pair')}")
        axes.set_xlabel("accuracy in domain")
    places[0].set_ylabel("accuracy out of domain")
    handles = places[0].get_legend_handles_labels()[0]
    figure.legend(handles=handles, loc="outside lower center", ncol=3)
    return figure


def _path(axes: Axes, rows: Rows, label: str, colour: str, style: str) -> None:
    """A path of means, its start an open circle and its end a full one."""
    x, y = ([row[key]["mean"] for row in rows] for key in ("in_domain", "out_of_domain"))
    axes.plot(x, y, style, color=colour, label=label)
    axes.plot(x[:1], y[:1], "o", color=colour, markersize=4, fillstyle="none")
    axes.plot(x[-1:], y[-1:], "o", color=colour, markersize=4)


def bars(rows: Rows, labels: Mapping[str, str]) -> Figure:
    """Means and 95 % intervals of several numbers between −1 and 1, a colour for each regime."""
    figure = empty_figure(WIDTH, 0.28 * len(labels) + 0.9)
    axes = figure.subplots()
    for place, row in enumerate(rows):
        at = [i + 0.2 * (place - (len(rows) - 1) / 2) for i in range(len(labels))]
        axes.plot(
            [row[key]["mean"] for key in labels], at, "o", color=LINES[place], markersize=4,
            label=f"{row['regime']}, {counted(row[next(iter(labels))]['pairs'], 'pair')}",
        )  # fmt: skip
        for y, key in zip(at, labels, strict=True):
            ends = row[key]["interval_95"]
            if ends is not None:
                axes.plot(ends, [y, y], color=LINES[place], linewidth=1)
    axes.axvline(0, color=GREY, linewidth=0.5)
    axes.set_yticks(range(len(labels)), list(labels.values()), parse_math=False)
    axes.invert_yaxis()
    axes.set_xlim(-1.02, 1.02)
    figure.legend(loc="outside lower center", ncol=3)
    return figure
