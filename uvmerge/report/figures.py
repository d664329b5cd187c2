"""The report's figures for a paper: PNG and PDF, with matplotlib (the extra `plot`).

They show columns of the page, with its values, its scales and its hatching. Files are the same to
the byte for the same findings and the same matplotlib, whatever its user's own style is.
"""

from __future__ import annotations

import io
import math
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path
from statistics import quantiles
from typing import TYPE_CHECKING

from ..errors import UsageError
from ..measure.findings import Compared, Findings, by_place, with_measures
from ..output.manifest import write_whole
from .colours import LINES
from .column import Column, Place, mean
from .columns import shown_in
from .matrix_figure import matrix_figure
from .pairs import DISTANCES, scale_of as scale_of_distances
from .plots import STYLE, WIDTH, empty_figure, heat, name_ticks, plain
from .scales import scale_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from .heat import Scale

DPI = 200
MOST_MOVED = 3  # matrices that get a figure of their own


def require_matplotlib() -> None:
    """`UsageError` where it is missing, for asking before anything is measured."""
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        raise UsageError("--figures", "needs matplotlib", "pip install 'uvmerge[plot]'") from None


def save_figures(findings: Findings, folder: str | Path) -> list[Path]:
    """Write every figure to `folder`, which is made if need be; the paths, PNG and PDF of each.

    `maps`: heat maps of all matrices, layers × roles. `matrix-1` to `matrix-3`: the most moved
    ones. Of several checkpoints each has these, as `checkpoint-1-maps` and so on, with the colours
    of all maps on shared scales; `trajectory` and `distances` show them together.

    Raises:
        UsageError: where matplotlib is missing or `folder` is a file.
    """
    require_matplotlib()
    from matplotlib import style

    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except FileExistsError:
        raise UsageError("--figures", "is a file", "Name a folder.") from None
    paths = []
    with style.context(["default", STYLE]):
        for name, figure in _figures(findings):
            for suffix, metadata in (("png", {"Software": None}), ("pdf", {"CreationDate": None})):
                drawn = io.BytesIO()
                figure.savefig(drawn, format=suffix, dpi=DPI, metadata=metadata)
                paths.append(folder / f"{name}.{suffix}")
                write_whole(paths[-1], drawn.getvalue())
                figure.set_layout_engine("none")  # as laid out for the first file
    return paths


def _figures(findings: Findings) -> Iterator[tuple[str, Figure]]:
    """File names without suffix, and figures."""
    panels = _panels(findings)
    several = len(findings.compared) > 1
    for number, compared in enumerate(findings.compared, 1):
        prefix = f"checkpoint-{number}-" if several else ""
        title = f"{plain(compared.label)}\nagainst {plain(findings.base)}"
        if compared.entries:
            yield f"{prefix}maps", _maps(compared, panels, title)
        moved = [(entry, found) for entry, found in with_measures(compared.moved) if found.k]
        for place, (entry, found) in enumerate(moved[:MOST_MOVED], 1):
            yield f"{prefix}matrix-{place}", matrix_figure(entry, found, title)
    if several:
        yield "trajectory", _trajectory(findings)
    if findings.pairs:
        yield "distances", _distances(findings)


def _panels(findings: Findings) -> list[tuple[Column, Scale]]:
    """The heat maps of every checkpoint, with scales over all of them."""
    columns = shown_in(Place.FIGURE)
    cells = [
        entries
        for compared in findings.compared
        for entries in by_place(compared.entries)[2].values()
    ]
    return [(column, scale_of(column, columns, cells)) for column in columns]


def _maps(compared: Compared, panels: Sequence[tuple[Column, Scale]], title: str) -> Figure:
    """The heat maps of one checkpoint, one under the other; what is no finding is hatched."""
    roles, layers, cells = by_place(compared.entries)
    height = min(1.9, max(0.9, 0.35 + 0.12 * len(roles)))
    figure = empty_figure(min(WIDTH, 4.2 + 0.1 * len(layers)), height * len(panels) + 0.5, title)
    places = figure.subplots(len(panels), 1, sharex=True, squeeze=False)[:, 0]
    for axes, (column, scale) in zip(places, panels):
        rows: list[list[float | None]] = []
        hatched: list[list[bool]] = []
        for role in roles:
            of_role = [cells.get((role, layer), []) for layer in layers]
            means = [mean(column.values(entries)) for entries in of_role]
            rows.append([None if x is None else column.unit.drawn(x) for x in means])
            hatched.append([
                x is not None and column.are_no_finding(entries)
                for x, entries in zip(means, of_role)
            ])  # fmt: skip
        heat(axes, rows, scale, column.label, hatched)
        axes.set_title(_heading(column, scale), parse_math=False)
        name_ticks(axes.yaxis, roles, most=14)
    name_ticks(places[-1].xaxis, ["–" if layer is None else str(layer) for layer in layers])
    places[-1].set_xlabel("layer (–: outside of the layers)" if None in layers else "layer")
    return figure


def _heading(column: Column, scale: Scale) -> str:
    """The title of a heat map, with what is marked on its scale."""
    marks = "".join(f" ({words})" for _, words in scale.marks)
    return plain(column.title, 90) + marks


def _trajectory(findings: Findings) -> Figure:
    """Means and middle halves over matrices, checkpoint by checkpoint, as on the page."""
    by_group = groupby(shown_in(Place.CURVE), lambda column: column.group)
    curves = [list(columns) for _, columns in by_group]
    answers = any(compared.behaviour for compared in findings.compared)
    count = len(curves) + answers
    figure = empty_figure(WIDTH, 2.1 * -(-count // 2))
    grid = list(figure.subplots(-(-count // 2), 2, squeeze=False).flat)
    for axes in grid[count:]:
        axes.remove()
    for axes, columns in zip(grid, curves):
        _curves(axes, findings, columns)
    if answers:
        _answers(grid[count - 1], findings)
    for axes in grid[:count]:
        name_ticks(axes.xaxis, [str(i + 1) for i in range(len(findings.compared))])
        axes.set_xlabel("checkpoint")
    _list_names(figure, findings)
    return figure


def _curves(axes: Axes, findings: Findings, columns: Sequence[Column]) -> None:
    """The measures of one group, those of both sides in one drawing."""
    lowest = 0.0
    for column, colour in zip(columns, LINES):
        means, low, high = _means_and_quarters(findings, column)
        places = range(len(means))
        axes.fill_between(places, low, high, color=colour, alpha=0.2, linewidth=0)
        axes.plot(places, means, color=colour, marker="o", markersize=3, label=column.side or None)
        lowest = min([lowest, *filter(math.isfinite, low)])
    title = columns[0].title.replace(f", {columns[0].side} ", ", ")  # of both sides
    axes.set_title(plain(title, 60), parse_math=False)
    axes.set_ylabel(columns[0].label, parse_math=False)
    axes.set_ylim(bottom=lowest)
    if len(columns) > 1:
        axes.legend(loc="upper left")


def _means_and_quarters(findings: Findings, column: Column) -> tuple[list[float], ...]:
    """Of each checkpoint the mean of the values that say something, and their quartiles."""
    found = []
    for compared in findings.compared:
        values = [column.unit.drawn(x) for x in column.telling_values(compared.entries)]
        finite = list(filter(math.isfinite, values)) or [math.nan]
        low, _, high = quantiles(finite * 2 if len(finite) == 1 else finite, method="inclusive")
        found.append((sum(finite) / len(finite), low, high))
    means, lows, highs = map(list, zip(*found))
    return means, lows, highs


def _answers(axes: Axes, findings: Findings) -> None:
    """KL from the base, with its standard error."""
    found = [compared.behaviour for compared in findings.compared]
    kl = [behaviour.kl if behaviour else math.nan for behaviour in found]
    errors = [(behaviour and behaviour.kl_error) or 0.0 for behaviour in found]
    axes.errorbar(
        range(len(kl)), kl, yerr=errors, color=LINES[0], marker="o", markersize=3, capsize=2
    )
    axes.set(title="Answers on the prompts", ylabel="KL from the base (nats)")
    axes.set_ylim(bottom=0)


def _distances(findings: Findings) -> Figure:
    """Every two of the checkpoints, the base included."""
    count = len(findings.labels)
    figure = empty_figure(WIDTH, 2.0)
    for axes, distance in zip(figure.subplots(1, len(DISTANCES)), DISTANCES):
        scale = scale_of_distances(distance, findings)
        rows: list[list[float | None]] = [[0.0] * count for _ in range(count)]
        for pair in findings.pairs:
            found = distance.value(pair)
            rows[pair.first][pair.second] = rows[pair.second][pair.first] = found
        heat(axes, rows, scale, distance.axis)
        marks = "".join(f"\n({words})" for _, words in scale.marks)
        axes.set(title=f"{distance.title}{marks}", aspect="equal")
        for axis in (axes.xaxis, axes.yaxis):
            name_ticks(axis, ["base", *(str(i) for i in range(1, count))], most=12)
    _list_names(figure, findings)
    return figure


def _list_names(figure: Figure, findings: Findings, most: int = 12) -> None:
    """Which checkpoint is which number, under everything else; the figure grows by the list."""
    names = ["base", *map(str, range(1, len(findings.labels)))]
    lines = [f"{name}: {plain(label)}" for name, label in zip(names, findings.labels)]
    if len(lines) > most:
        lines[most - 1 :] = [f"… {len(lines) - most + 1} more"]
    width, height = figure.get_size_inches()
    figure.set_size_inches(width, height + 0.12 * len(lines))
    figure.supxlabel("\n".join(lines), x=0.02, ha="left", fontsize=7, parse_math=False)
