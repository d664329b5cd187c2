"""The figure of one matrix: spectra, angles, the spectrum of the change, and its block C."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from ..measure.findings import Entry
from ..measure.measures import Measures
from .colours import LINES
from .format import DEGREES
from .plots import (
    GREY,
    WIDTH,
    empty_figure,
    heat,
    legend_below,
    line,
    logarithmic,
    plain,
)  # fmt: skip
from .scales import BLOCK, angle_axis

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BLUE, ORANGE, GREEN, *_ = LINES


def matrix_figure(entry: Entry, found: Measures, title: str) -> Figure:
    """Four drawings of a measured matrix with k > 0."""
    name = f"{plain(entry.name, 90)}, {entry.shape[0]} × {entry.shape[1]}, k = {found.k}"
    figure = empty_figure(WIDTH, 5.6, f"{name}\n{title}")
    ((spectra, angles), (delta, block)) = figure.subplots(2, 2)
    _spectra(spectra, found)
    _angles(angles, found)
    _delta(delta, found)
    _block(block, found)
    return figure


def _spectra(axes: Axes, found: Measures) -> None:
    base = line(axes, found.base_values, color=GREY, linewidth=2.5, label="base")
    other = line(axes, found.finetuned_values, color=BLUE, label="fine-tuned")
    axes.set(title="Singular values", xlabel="rank", ylabel="singular value")
    logarithmic(axes)
    twin = axes.twinx()
    percent = [100 * change for change in found.value_changes]
    change = line(twin, percent, color=ORANGE, linewidth=0.8, label="relative change")
    twin.axhline(0, color=ORANGE, linewidth=0.4, linestyle=":")
    most = 1.1 * max(map(abs, percent)) or 1.0
    twin.set_ylim(-most, most)
    twin.set_ylabel("relative change (%)", color=ORANGE)
    twin.tick_params(axis="y", colors=ORANGE)
    legend_below(axes, base, other, change)


def _angles(axes: Axes, found: Measures) -> None:
    """The angles of both sides, and the band of the angles of independent subspaces."""
    left, right = found.left, found.right
    y = angle_axis([*left.angles, *right.angles])
    bands = [(left, "left, unrelated", BLUE), (right, "right, unrelated", ORANGE)]
    for turn, name, colour in bands if left.d != right.d else [(left, "unrelated", GREY)]:
        low, high = ([max(y.low, DEGREES.drawn(a)) for a in edge] for edge in turn.chance.band())
        axes.fill_between(range(1, found.k + 1), low, high, color=colour, alpha=0.2, linewidth=0)
        expected = [DEGREES.drawn(angle) for angle in turn.chance.angles()]
        line(axes, expected, color=colour, linewidth=0.8, linestyle="--", label=name)
    for turn, name, colour in ((left, "left", BLUE), (right, "right", ORANGE)):
        line(axes, [DEGREES.drawn(angle) for angle in turn.angles], color=colour, label=name)
    axes.set(title="Principal angles of the leading spans", xlabel="rank", ylabel=y.label)
    if y.log:
        logarithmic(axes)
        axes.set_ylim(y.low, 1.3 * y.high)
    else:
        axes.set(ylim=(y.low, y.high + 2), yticks=range(0, 91, 15))
    legend_below(axes)


def _delta(axes: Axes, found: Measures) -> None:
    """The spectra of the change and of a random matrix with the same energy."""
    change = found.change
    expected = change.chance.values()
    unit = change.norm / math.hypot(*expected)
    random = [unit * value for value in expected]
    line(axes, random, color=GREY, linewidth=0.8, linestyle="--", label="without structure")
    line(axes, change.values, color=GREEN, label="fine-tuned − base")
    axes.set(title="Singular values of the change", xlabel="rank", ylabel="singular value")
    if change.norm:
        logarithmic(axes)
    legend_below(axes)


def _block(axes: Axes, found: Measures) -> None:
    """Mean squares of C over those of a change without structure; a ratio of 1 is white."""
    picture = found.change.picture
    edges = [found.k * i / len(picture) for i in range(len(picture) + 1)]
    heat(axes, picture, BLOCK, "energy / chance", edges=edges)
    axes.locator_params(integer=True)
    axes.set(title="The change between leading vectors", aspect="equal")
    axes.set(xlabel="right vector of the base (rank)", ylabel="left vector of the base (rank)")
