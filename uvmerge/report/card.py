"""`report.png`: the first screen of the page as one picture, with matplotlib where it is installed."""

from __future__ import annotations

import importlib.util
import io
import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ..measure.findings import Compared, Entry, Findings, by_place
from .column import Column, mean
from .first import four_figures, shown_matrices
from .lead import lead, typical
from .plots import STYLE, empty_figure, heat, name_ticks, plain
from .scales import scale_of
from .what_now import what_now

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DPI, WIDTH, HEIGHT = 150, 8.0, 5.0  # inches
DARK, LIGHT = "#123570", "#eceff1"


def picture_of(findings: Findings) -> bytes | None:
    """The picture as a PNG; None without matplotlib, and where nothing was compared."""
    if not findings.compared or importlib.util.find_spec("matplotlib") is None:
        return None
    from matplotlib import style

    with style.context(["default", STYLE]):
        drawn = io.BytesIO()
        _card(findings).savefig(drawn, format="png", dpi=DPI, metadata={"Software": None})
        return drawn.getvalue()


def _card(findings: Findings) -> Figure:
    figure = empty_figure(WIDTH, HEIGHT)
    figure.set_layout_engine("none")
    shown = findings.compared[-1]
    _text(figure, 0.96, lead(findings), 80, fontsize=11, fontweight="bold")
    entries = shown_matrices(shown)
    columns = four_figures() if entries else []
    for i, column in enumerate(columns):
        _figure_beside_chance(figure, 0.03 + 0.243 * i, column, entries)
    if shown.entries:
        _map(figure, shown)
    step = what_now(findings).sentence
    _text(figure, 0.085, f"What now: {step}", 125, fontsize=8)
    return figure


def _text(figure: Figure, top: float, text: str, columns: int, **style: Any) -> None:
    """Lines of text under `top`, which is a share of the height."""
    lines = textwrap.wrap(plain(text, 400), columns)
    figure.text(0.03, top, "\n".join(lines), va="top", parse_math=False, **style)


def _figure_beside_chance(
    figure: Figure, left: float, column: Column, entries: Sequence[Entry]
) -> None:
    """A value with its name, and its bar with a mark at what chance gives."""
    value, chance = typical(column, entries)
    name = f"{column.name}, {column.side}" if column.side else column.name
    figure.text(left, 0.765, "\n".join(textwrap.wrap(plain(name), 30)), fontsize=7.5, va="bottom",
                parse_math=False)  # fmt: skip
    shown = column.unit.text(value) if value is not None else "as chance"
    figure.text(left, 0.75, shown, fontsize=17, fontweight="bold", va="top")
    axes = figure.add_axes((left, 0.645, 0.2, 0.022))
    axes.set(xlim=(0, 1.15 * max(value or 0.0, chance or 0.0) or 1.0), ylim=(0, 1))
    axes.set_axis_off()
    axes.barh(0.5, axes.get_xlim()[1], 1, color=LIGHT)
    no_finding = column.are_no_finding(entries)
    axes.barh(0.5, value or 0.0, 1, color=DARK, hatch="//////" if no_finding else None,
              edgecolor="white", linewidth=0)  # fmt: skip
    if chance is not None:
        axes.axvline(chance, ymin=-0.3, ymax=1.3, color="black", linewidth=2, clip_on=False)
        beside = f"{column.beside} {column.unit.text(chance)}"
        figure.text(left, 0.63, beside, fontsize=7.5, va="top", color="#555555")


def _map(figure: Figure, compared: Compared) -> None:
    """The first measure by role and layer, as on the page."""
    column = four_figures()[0]
    roles, layers, cells = by_place(compared.entries)
    scale = scale_of(column, [column], list(cells.values()))
    rows: list[list[float | None]] = []
    hatched: list[list[bool]] = []
    for role in roles:
        places = [cells.get((role, layer), []) for layer in layers]
        means = [mean(column.values(entries)) for entries in places]
        rows.append([None if x is None else column.unit.drawn(x) for x in means])
        hatched.append([
            x is not None and column.are_no_finding(entries) for x, entries in zip(means, places)
        ])  # fmt: skip
    axes = figure.add_axes((0.16, 0.19, 0.82, 0.345))
    heat(axes, rows, scale, column.label, hatched)
    axes.set_title(
        f"{plain(column.title)} (dark is much; hatched: {column.beside})", parse_math=False
    )
    name_ticks(axes.yaxis, roles, most=16)
    name_ticks(axes.xaxis, ["–" if layer is None else str(layer) for layer in layers])
    axes.set_xlabel("layer")
