"""Drawing with matplotlib for the figures of a paper, in the colours of the page.

Names from checkpoints are untrusted: they lose control characters and are never read as formulas.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from ..text import brief
from .format import number
from .heat import Scale

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH = 7.0  # inches: both columns of a page
STYLE: dict[str, Any] = {
    "font.size": 8, "axes.titlesize": 8, "axes.titlelocation": "left", "axes.labelsize": 8,
    "xtick.labelsize": 7, "ytick.labelsize": 7, "legend.fontsize": 7, "legend.frameon": False,
    "axes.linewidth": 0.6, "lines.linewidth": 1.1, "axes.unicode_minus": True,
    "pdf.fonttype": 42, "hatch.linewidth": 0.5,
}  # fmt: skip
GREY, PALE = "#666666", "#E6E6E6"
HATCH = "//////"  # of cells without a finding


def empty_figure(width: float, height: float, title: str = "") -> Figure:
    """A figure, sized in inches, without a window and apart from pyplot's state."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    if title:
        figure.suptitle(title, fontsize=8, parse_math=False)
    return figure


def png(draw: Callable[[], Figure], dots_per_inch: int = 200) -> bytes:
    """A figure as PNG, whatever style the user has set.

    For the same numbers and the same matplotlib it has the same bytes.

    Args:
        draw: makes the figure.
    """
    from matplotlib import style

    content = io.BytesIO()
    with style.context(["default", STYLE]):
        draw().savefig(content, format="png", dpi=dots_per_inch, metadata={"Software": None})
    return content.getvalue()


def heat(
    axes: Axes,
    rows: Sequence[Sequence[float | None]],
    scale: Scale,
    label: str,
    hatched: Sequence[Sequence[bool]] = (),
    edges: Sequence[float] | None = None,
) -> None:
    """A heat map of `rows`, the first on top, with its colour bar at its side.

    Args:
        rows: drawn values; a cell without one is grey.
        hatched: of each cell, whether it is no finding.
        edges: of the cells on both axes, where they are not one wide.
    """
    from matplotlib.colors import LinearSegmentedColormap

    x, y = ([i - 0.5 for i in range(n + 1)] for n in (len(rows[0]), len(rows)))
    if edges is not None:
        x = y = list(edges)
    colours = LinearSegmentedColormap.from_list("uvmerge", scale.ramp)
    values = [[math.nan if value is None else value for value in row] for row in rows]
    mesh = axes.pcolormesh(
        x, y, values, cmap=colours, norm=_norm(scale), edgecolors="face", linewidth=0.2
    )
    _hatch(axes, rows, scale, hatched)
    axes.set_facecolor(PALE)
    axes.invert_yaxis()
    axes.tick_params(length=0)
    bar = axes.figure.colorbar(mesh, ax=axes, label=label, pad=0.02, aspect=12)
    _bar_ticks(bar, scale)


def _norm(scale: Scale) -> Any:
    """The map from drawn values to colours; values beyond the ends have the colours of the ends."""
    from matplotlib.colors import LogNorm, Normalize

    ends = scale.axis.low, max(scale.axis.high, scale.axis.low + 1e-300)
    return (LogNorm if scale.axis.log else Normalize)(*ends, clip=True)


def _bar_ticks(bar: Any, scale: Scale) -> None:
    """The same ticks as on the page, and a line where the page has a mark."""
    ticks = scale.axis.ticks(5)
    bar.set_ticks(ticks, labels=[number(tick) for tick in ticks])
    bar.minorticks_off()
    for at, _ in scale.marks:
        bar.ax.axhline(at, color="black", linewidth=1.5)


def _hatch(
    axes: Axes,
    rows: Sequence[Sequence[float | None]],
    scale: Scale,
    hatched: Sequence[Sequence[bool]],
) -> None:
    """Hatch the cells without a finding, dark on light cells and light on dark cells."""
    from matplotlib.patches import Rectangle

    for i, row in enumerate(hatched):
        for j, value in enumerate(rows[i]):
            if row[j] and value is not None:
                axes.add_patch(Rectangle(
                    (j - 0.5, i - 0.5), 1, 1, fill=False, linewidth=0, hatch=HATCH,
                    edgecolor=scale.colour(value)[1],
                ))  # fmt: skip


def name_ticks(axis: Any, names: Sequence[str], most: int = 32) -> None:
    """Set a tick for each name, or for every n-th name so that at most `most` are shown."""
    places = range(0, len(names), -(-len(names) // most))
    axis.set_ticks(places, [plain(names[i], 24) for i in places], parse_math=False)


def line(axes: Axes, values: Sequence[float], **style: Any) -> Any:
    """A line of values over the ranks 1, 2, …"""
    axes.locator_params(axis="x", integer=True, min_n_ticks=1)
    axes.set_xlim(0.5, len(values) + 0.5)
    marker = "." if len(values) < 10 else ""
    return axes.plot(range(1, len(values) + 1), values, marker=marker, **style)[0]


def logarithmic(axes: Axes) -> None:
    """Make the y axis logarithmic, with plain numbers."""
    from matplotlib.ticker import LogFormatter

    class Plain(LogFormatter):  # type: ignore[misc]
        def __call__(self, x: float, pos: int | None = None) -> str:
            return f"{x:g}" if super().__call__(x, pos) else ""

    axes.set_yscale("log", nonpositive="mask")
    axes.yaxis.set_major_formatter(Plain())
    axes.yaxis.set_minor_formatter(Plain())


def legend_below(axes: Axes, *handles: Any) -> None:
    """Put the legend under the axes, where it covers nothing."""
    shown = handles or axes.get_legend_handles_labels()[0]
    axes.legend(
        handles=shown, loc="upper center", bbox_to_anchor=(0.5, -0.2), columnspacing=1.2,
        ncol=2 if len(shown) == 4 else 3,
    )  # fmt: skip


def plain(text: str, most: int = 60) -> str:
    """`text` in characters that the font has, at most `most` of them."""
    return "".join(
        c if ord(c) < 0x250 or c in "…–" else c.encode("ascii", "backslashreplace").decode()
        for c in brief(text, most)
    )
