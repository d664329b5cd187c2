"""Draw benchmarks/results/restore.json: wall time, memory and error, published against uvmerge.

    python3 -m venv plot-venv && plot-venv/bin/pip install matplotlib    # apart from the project's
    plot-venv/bin/python benchmarks/plot.py [--result FILE] [--image FILE]

Writes benchmarks/results/restore.png, 1600 pixels wide, readable at 800.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).resolve().parent / "results"
LABELS = {"published": "published\nprocedure", "exact": "uvmerge\nexact", "fast": "uvmerge\nfast"}
COLOURS = ("#999999", "#0072B2", "#E69F00")  # Okabe and Ito: apart for every kind of colour vision


def times(ratio: float) -> str:
    """The published procedure's figure as a multiple of one, in words."""
    return f"{ratio:.2g}× less" if ratio >= 1 else f"{1 / ratio:.2g}× more"


def bars(axes: Any, heights: Sequence[float], notes: Sequence[str], title: str) -> None:
    """One panel: a bar for each contender, its figure on top."""
    drawn = axes.bar(list(LABELS.values()), heights, color=COLOURS, width=0.65)
    axes.bar_label(drawn, labels=notes, padding=3)
    axes.set_title(title, pad=12)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(axis="x", length=0)


def draw(result: dict[str, Any], image: Path) -> None:
    """The three panels."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    pyplot.rcParams.update({"font.size": 12, "axes.titlesize": 13})
    figure, (time, memory, error) = pyplot.subplots(1, 3, figsize=(13, 4.8), layout="constrained")
    found = [result["summary"][name] for name in LABELS]

    walls = [figures["wall_s"] for figures in found]
    notes = [f"{wall:.3g} s" for wall in walls]
    for at, figures in enumerate(found[1:], start=1):
        notes[at] += "\n" + times(figures["published_over_it"]["wall"])
    bars(time, walls, notes, "Wall time (s)")
    time.set_ylim(0, 1.2 * max(walls))

    peaks = [figures["peak_beyond_imports_bytes"] / 1e6 for figures in found]
    notes = [f"{peak:,.0f} MB" for peak in peaks]
    for at, figures in enumerate(found[1:], start=1):
        notes[at] += "\n" + times(figures["published_over_it"]["peak_beyond_imports"])
    bars(memory, peaks, notes, "Peak memory beyond imports (MB)")
    memory.set_ylim(0, 1.2 * max(peaks))

    rows = result["error_relative_to_the_edit"]
    worst = [max(row["error"][name] for row in rows) for name in LABELS]
    bars(error, worst, [f"{value:.1e}" for value in worst], "Error, relative to the edit")
    error.set_yscale("log")
    error.set_ylim(min(worst) / 30, 30 * max(worst))

    pair = result["pair"]
    versions = result["versions"]
    figure.supxlabel(
        f"restore --top {result['top']:g}: {pair['shapes']} shapes, {pair['layers']} layers,"
        f" {pair['bytes_each'] / 1e9:.2g} GB a side; {result['device']}, {result['machine']},"
        f" torch {versions['torch']}, {result['date']}",
        fontsize=11,
    )
    image.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(image, dpi=1600 / 13)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--result", type=Path, default=RESULTS / "restore.json")
    parser.add_argument("--image", type=Path, default=RESULTS / "restore.png")
    options = parser.parse_args()
    draw(json.loads(options.result.read_text(encoding="utf-8")), options.image)
    print(options.image)


if __name__ == "__main__":
    main()
