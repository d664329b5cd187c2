"""The report's figures for a paper: PNG and PDF, with matplotlib (the extra `plot`).

Names from checkpoints are untrusted: they are made inert and never read as mathematics. Files are the
same to the byte for the same findings and the same matplotlib, whatever its user's own style is.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import quantiles
from typing import TYPE_CHECKING, Any

from ..errors import UsageError
from ..measure.findings import Entry, Findings, Pair, by_place
from ..measure.measures import Measures, Turn
from ..output.manifest import write_whole
from ..text import brief

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH = 7.0  # inches: both columns of a page
DPI = 200
SMALLEST_ANGLE = 1e-5  # degrees; those that are smaller are rounding errors
MOST_MOVED = 3  # matrices that get a figure of their own
STYLE: dict[str, Any] = {
    "font.size": 8, "axes.titlesize": 8, "axes.titlelocation": "left", "axes.labelsize": 8,
    "xtick.labelsize": 7, "ytick.labelsize": 7, "legend.fontsize": 7, "legend.frameon": False,
    "axes.linewidth": 0.6, "lines.linewidth": 1.1, "axes.unicode_minus": True,
    "image.cmap": "cividis", "pdf.fonttype": 42,
}  # fmt: skip
# Okabe and Ito's colours, told apart by people who see red and green as one.
BLUE, ORANGE, GREEN, RED = "#0072B2", "#E69F00", "#009E73", "#D55E00"
GREY, PALE = "#666666", "#E6E6E6"
RELATIVE = "‖ΔW‖ / ‖W‖ (%)"


def require_matplotlib() -> None:
    """`UsageError` where it is missing, for asking before anything is measured."""
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        raise UsageError("--figures", "needs matplotlib", "pip install 'uvmerge[plot]'") from None


def save_figures(findings: Findings, folder: str | Path) -> list[Path]:
    """Write every figure to `folder`, which is made if need be; the paths, PNG and PDF of each.

    `maps`: heat maps of all matrices, layers × roles. `matrix-1` to `matrix-3`: the most moved ones.
    Of several checkpoints each has these, as `checkpoint-1-maps` and so on, with the colours of all
    maps on shared scales; `trajectory` and `distances` show them together.

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
        title = f"{_plain(compared.label)}\nagainst {_plain(findings.base)}"
        if compared.entries:
            yield f"{prefix}maps", _maps(compared.entries, panels, title)
        moved = [entry for entry in compared.moved if entry.measures and entry.measures.k]
        for place, entry in enumerate(moved[:MOST_MOVED], 1):
            yield f"{prefix}matrix-{place}", _matrix(entry, title)
    if several:
        yield "trajectory", _trajectory(findings)
    if findings.pairs:
        yield "distances", _distances(findings)


def _figure(width: float, height: float, title: str = "") -> Figure:
    """An empty figure in inches that no window system and no other figure knows of."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    if title:
        figure.suptitle(title, fontsize=8, parse_math=False)
    return figure


@dataclass(frozen=True)
class _Panel:
    """One heat map, and the scale that it shares with those of other checkpoints.

    Attributes:
        value: of a matrix; NaN where it has none.
        limits: of the colours.
        chance: smallest and largest value of matrices that have nothing to do with their base (for
            the leading block: of changes without structure), where that is a comparison.
    """

    title: str
    unit: str
    value: Callable[[Entry], float]
    limits: tuple[float, float]
    chance: tuple[float, float] | None = None

    @property
    def heading(self) -> str:
        if self.chance is None:
            return self.title
        low, high = (f"{limit:.3g}" for limit in self.chance)
        return f"{self.title} (chance: {low if low == high else f'{low} to {high}'})"


def _panels(findings: Findings) -> list[_Panel]:
    """The heat maps of every checkpoint, with limits over all of them."""
    entries = [entry for compared in findings.compared for entry in compared.entries]

    measured = [entry.measures for entry in entries if entry.measures and entry.measures.k]

    def limits(*values: Callable[[Entry], float], from_zero: bool = True) -> tuple[float, float]:
        found = [x for value in values for x in map(value, entries) if math.isfinite(x)]
        low, high = (0.0 if from_zero else min(found, default=0.0)), max(found, default=1.0)
        return (low, high) if low < high else (low, low + 1)

    def chance(value: Callable[[Measures], float]) -> tuple[float, float] | None:
        found = [value(measures) for measures in measured]
        return (min(found), max(found)) if found else None

    angles, ratios = limits(_left, _right), limits(_rotation_by_diagonal, from_zero=False)
    return [
        _Panel("Change of weights", RELATIVE, _relative, limits(_relative)),
        _Panel("Left singular vectors", "mean angle (°)", _left, angles,
               chance(lambda found: math.degrees(found.left.chance.mean))),
        _Panel("Right singular vectors", "mean angle (°)", _right, angles,
               chance(lambda found: math.degrees(found.right.chance.mean))),
        _Panel("Energy in the leading block", "share (%)", _inside, limits(_inside),
               chance(lambda found: 100 * found.change.structureless)),
        _Panel("Turning against stretching there", "log₂ (rot / diag)", _rotation_by_diagonal,
               ratios, chance(lambda found: math.log2(max(found.k - 1, 1)))),
    ]  # fmt: skip


def _relative(entry: Entry) -> float:
    return 100 * entry.relative


def _left(entry: Entry) -> float:
    return _degrees(entry, entry.measures.left if entry.measures else None)


def _right(entry: Entry) -> float:
    return _degrees(entry, entry.measures.right if entry.measures else None)


def _degrees(entry: Entry, turn: Turn | None) -> float:
    if turn is None:
        return 0.0 if entry.state == "identical" else math.nan
    return math.degrees(turn.mean) if turn.angles else math.nan


def _inside(entry: Entry) -> float:
    """In percent; NaN for a matrix that did not change."""
    found = entry.measures
    return 100 * found.change.inside if found and found.change.energy else math.nan


def _rotation_by_diagonal(entry: Entry) -> float:
    change = entry.measures.change if entry.measures else None
    if change is None or not change.diagonal or not change.rotation:
        return math.nan
    return math.log2(change.rotation / change.diagonal)


def _maps(entries: Sequence[Entry], panels: Sequence[_Panel], title: str) -> Figure:
    """The heat maps of one checkpoint, one under the other."""
    roles, layers, cells = by_place(entries)
    height = min(1.9, 0.35 + 0.12 * len(roles))
    figure = _figure(min(WIDTH, 4.2 + 0.1 * len(layers)), height * len(panels) + 0.5, title)
    column = figure.subplots(len(panels), 1, sharex=True)
    for axes, panel in zip(column, panels):
        rows = [
            [_mean(cells.get((role, layer), ()), panel.value) for layer in layers] for role in roles
        ]
        _heat(axes, rows, panel.unit, panel.limits)
        axes.set_title(panel.heading)
        _name_ticks(axes.yaxis, roles, most=14)
    _name_ticks(column[-1].xaxis, ["–" if layer is None else str(layer) for layer in layers])
    column[-1].set_xlabel("layer (–: outside of the layers)" if None in layers else "layer")
    return figure


def _mean(entries: Sequence[Entry], value: Callable[[Entry], float]) -> float:
    """Over the entries that have one; NaN without any."""
    found = [x for x in map(value, entries) if math.isfinite(x)]
    return sum(found) / len(found) if found else math.nan


def _heat(
    axes: Axes,
    rows: Sequence[Sequence[float]],
    unit: str,
    limits: tuple[float, float],
    *,
    colours: str = "cividis",
    edges: Sequence[float] | None = None,
    extend: str = "neither",
) -> None:
    """A heat map of `rows`, the first on top, with its colour bar at its side; NaN is grey."""
    x, y = ([i - 0.5 for i in range(n + 1)] for n in (len(rows[0]), len(rows)))
    if edges is not None:
        x = y = list(edges)
    mesh = axes.pcolormesh(
        x, y, rows, cmap=colours, vmin=limits[0], vmax=limits[1], edgecolors="face", linewidth=0.2
    )
    axes.set_facecolor(PALE)
    axes.invert_yaxis()
    axes.tick_params(length=0)
    bar = axes.figure.colorbar(mesh, ax=axes, label=unit, pad=0.02, aspect=12, extend=extend)
    bar.ax.locator_params(nbins=5)


def _name_ticks(axis: Any, names: Sequence[str], most: int = 32) -> None:
    """A tick for each name, or every so many where they would not fit."""
    places = range(0, len(names), -(-len(names) // most))
    axis.set_ticks(places, [_plain(names[i], 24) for i in places], parse_math=False)


def _matrix(entry: Entry, title: str) -> Figure:
    """Spectra, angles, the change's own spectrum, and where the change lies."""
    found = entry.measures
    assert found is not None
    name = f"{_plain(entry.name, 90)}, {entry.shape[0]} × {entry.shape[1]}, k = {found.k}"
    figure = _figure(WIDTH, 5.6, f"{name}\n{title}")
    ((spectra, angles), (delta, block)) = figure.subplots(2, 2)
    _spectra(spectra, found)
    _angles(angles, found)
    _delta(delta, found)
    _block(block, found)
    return figure


def _line(axes: Axes, values: Sequence[float], **style: Any) -> Any:
    """A line over the ranks from 1 on."""
    axes.locator_params(axis="x", integer=True, min_n_ticks=1)
    axes.set_xlim(0.5, len(values) + 0.5)
    marker = "." if len(values) < 10 else ""
    return axes.plot(range(1, len(values) + 1), values, marker=marker, **style)[0]


def _logarithmic(axes: Axes) -> None:
    """A logarithmic y axis with plain numbers."""
    from matplotlib.ticker import LogFormatter

    class Plain(LogFormatter):  # type: ignore[misc]
        def __call__(self, x: float, pos: int | None = None) -> str:
            return f"{x:g}" if super().__call__(x, pos) else ""

    axes.set_yscale("log", nonpositive="mask")
    axes.yaxis.set_major_formatter(Plain())
    axes.yaxis.set_minor_formatter(Plain())


def _legend(axes: Axes, *handles: Any) -> None:
    """Under the axes, where it covers nothing."""
    shown = handles or axes.get_legend_handles_labels()[0]
    axes.legend(
        handles=shown, loc="upper center", bbox_to_anchor=(0.5, -0.2), columnspacing=1.2,
        ncol=2 if len(shown) == 4 else 3,
    )  # fmt: skip


def _spectra(axes: Axes, found: Measures) -> None:
    base = _line(axes, found.base_values, color=GREY, linewidth=2.5, label="base")
    other = _line(axes, found.finetuned_values, color=BLUE, label="fine-tuned")
    axes.set(title="Singular values", xlabel="rank", ylabel="singular value")
    _logarithmic(axes)
    twin = axes.twinx()
    percent = [100 * change for change in found.value_changes]
    change = _line(twin, percent, color=RED, linewidth=0.8, label="relative change")
    twin.axhline(0, color=RED, linewidth=0.4, linestyle=":")
    most = 1.1 * max(map(abs, percent)) or 1.0
    twin.set_ylim(-most, most)
    twin.set_ylabel("relative change (%)", color=RED)
    twin.tick_params(axis="y", colors=RED)
    _legend(axes, base, other, change)


def _angles(axes: Axes, found: Measures) -> None:
    """Both sides, and the band that independent subspaces of their dimensions lie in."""
    left, right = found.left, found.right
    angles = sorted(math.degrees(angle) for angle in (*left.angles, *right.angles) if angle > 0)
    is_small = bool(angles) and SMALLEST_ANGLE < angles[-1] < 15
    floor = max(angles[0] / 2, SMALLEST_ANGLE) if is_small else 0.0
    bands = [(left, "left, unrelated", BLUE), (right, "right, unrelated", ORANGE)]
    for turn, name, colour in bands if left.d != right.d else [(left, "unrelated", GREY)]:
        low, high = ([max(floor, math.degrees(a)) for a in edge] for edge in turn.chance.band())
        axes.fill_between(range(1, found.k + 1), low, high, color=colour, alpha=0.2, linewidth=0)
        expected = [math.degrees(angle) for angle in turn.chance.angles()]
        _line(axes, expected, color=colour, linewidth=0.8, linestyle="--", label=name)
    for turn, name, colour in ((left, "left", BLUE), (right, "right", ORANGE)):
        _line(axes, [math.degrees(angle) for angle in turn.angles], color=colour, label=name)
    axes.set(title="Principal angles of the leading spans", xlabel="rank", ylabel="angle (°)")
    if is_small:
        _logarithmic(axes)
        axes.set_ylim(floor, 120)
    else:
        axes.set(ylim=(0, 92), yticks=range(0, 91, 15))
    _legend(axes)


def _delta(axes: Axes, found: Measures) -> None:
    """The change's spectrum, and that of a random matrix of the same energy."""
    change = found.change
    expected = change.chance.values()
    unit = math.sqrt(change.energy / sum(value * value for value in expected))
    random = [unit * value for value in expected]
    _line(axes, random, color=GREY, linewidth=0.8, linestyle="--", label="without structure")
    _line(axes, change.values, color=GREEN, label="fine-tuned − base")
    axes.set(title="Singular values of the change", xlabel="rank", ylabel="singular value")
    if change.energy:
        _logarithmic(axes)
    _legend(axes)


def _block(axes: Axes, found: Measures) -> None:
    """log₂ of the cells' mean squares, 0 where the change is as chance would have it."""
    picture = found.change.picture
    rows = [[math.log2(cell) if cell > 0 else math.nan for cell in row] for row in picture]
    most = max([4.0, *(x for row in rows for x in row if math.isfinite(x))])
    edges = [found.k * i / len(picture) for i in range(len(picture) + 1)]
    unit = "log₂ (energy / chance)"
    _heat(axes, rows, unit, (-most, most), colours="PuOr_r", edges=edges, extend="min")
    axes.locator_params(integer=True)
    axes.set(title="The change between leading vectors", aspect="equal",
             xlabel="right vector of the base (rank)", ylabel="left vector of the base (rank)")  # fmt: skip


def _trajectory(findings: Findings) -> Figure:
    """Medians and middle halves over matrices, checkpoint by checkpoint."""
    curves = [
        ("Change of weights", RELATIVE, [("", _relative, GREEN)]),
        ("Singular vectors", "mean angle (°)", [("left", _left, BLUE), ("right", _right, ORANGE)]),
        ("Energy of the change in the leading block", "share (%)", [("", _inside, RED)]),
    ]
    figure = _figure(WIDTH, 4.2)
    *places, last = figure.subplots(2, 2).flat
    for axes, (title, unit, lines) in zip(places, curves):
        for name, value, colour in lines:
            _curve(axes, findings, value, name, colour)
        axes.set(title=title, ylabel=unit)
        if len(lines) > 1:
            axes.legend(loc="upper left")
    if any(compared.behaviour for compared in findings.compared):
        _answers(last, findings)
        places.append(last)
    else:
        last.remove()
    for axes in places:
        axes.set_ylim(bottom=0)
        _name_ticks(axes.xaxis, [str(i + 1) for i in range(len(findings.compared))])
        axes.set_xlabel("checkpoint")
    _list_names(figure, findings)
    return figure


def _curve(
    axes: Axes, findings: Findings, value: Callable[[Entry], float], name: str, colour: str
) -> None:
    """The median over the matrices of each checkpoint, and the half of them around it."""
    quarters = []
    for compared in findings.compared:
        found = [x for x in map(value, compared.entries) if math.isfinite(x)] or [math.nan]
        quarters.append(quantiles(found * 2 if len(found) == 1 else found, method="inclusive"))
    low, middle, high = zip(*quarters)
    places = range(len(quarters))
    axes.fill_between(places, low, high, color=colour, alpha=0.2, linewidth=0)
    axes.plot(places, middle, color=colour, marker="o", markersize=3, label=name)


def _answers(axes: Axes, findings: Findings) -> None:
    """KL from the base, with its standard error."""
    found = [compared.behaviour for compared in findings.compared]
    kl = [behaviour.kl if behaviour else math.nan for behaviour in found]
    errors = [(behaviour and behaviour.kl_error) or 0.0 for behaviour in found]
    axes.errorbar(range(len(kl)), kl, yerr=errors, color=BLUE, marker="o", markersize=3, capsize=2)
    axes.set(title="Answers on the prompts", ylabel="KL from the base (nats)")


def _distances(findings: Findings) -> Figure:
    """Every two of the checkpoints, the base included."""
    count = len(findings.labels)
    maps: list[tuple[str, str, Callable[[Pair], float]]] = [
        ("Left singular vectors", "chordal distance", lambda pair: pair.left),
        ("Right singular vectors", "chordal distance", lambda pair: pair.right),
        ("Weights", "‖W₁ − W₂‖ / ‖W of the base‖", lambda pair: pair.distance),
    ]
    most = [max(value(pair) for pair in findings.pairs) for *_, value in maps]
    most[:2] = [max(most[:2])] * 2
    figure = _figure(WIDTH, 1.8)
    for axes, (title, unit, value), limit in zip(figure.subplots(1, 3), maps, most):
        rows = [[0.0] * count for _ in range(count)]
        for pair in findings.pairs:
            rows[pair.first][pair.second] = rows[pair.second][pair.first] = value(pair)
        _heat(axes, rows, unit, (0.0, limit or 1.0))
        axes.set(title=title, aspect="equal")
        for axis in (axes.xaxis, axes.yaxis):
            _name_ticks(axis, ["base", *(str(i) for i in range(1, count))], most=12)
    _list_names(figure, findings)
    return figure


def _list_names(figure: Figure, findings: Findings, most: int = 12) -> None:
    """Which checkpoint is which number, under everything else; the figure grows by the list."""
    names = ["base", *map(str, range(1, len(findings.labels)))]
    lines = [f"{name}: {_plain(label)}" for name, label in zip(names, findings.labels)]
    if len(lines) > most:
        lines[most - 1 :] = [f"… {len(lines) - most + 1} more"]
    width, height = figure.get_size_inches()
    figure.set_size_inches(width, height + 0.12 * len(lines))
    figure.supxlabel("\n".join(lines), x=0.02, ha="left", fontsize=7, parse_math=False)


def _plain(text: str, most: int = 60) -> str:
    """`text` in characters that the font has, cut."""
    return "".join(
        c if ord(c) < 0x250 or c in "…–" else c.encode("ascii", "backslashreplace").decode()
        for c in brief(text, most)
    )
