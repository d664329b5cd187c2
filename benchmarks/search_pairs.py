"""What a search and fixed settings of `project` find on pairs of the demo that differ in their seed.

`python benchmarks/search.py FOLDER --pairs` calls `pairs`. It may be stopped, and goes on when it is
called again: pairs that are trained and trials that are finished are kept in FOLDER.
"""

from __future__ import annotations

import math
import shutil
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from measure import about, table, write_result

import uvmerge
from uvmerge.api.evaluator import REPORT as HALF
from uvmerge.api.points import Points
from uvmerge.api.rounds import SCALES
from uvmerge.demo.search import METRICS, evaluation, search_demo
from uvmerge.demo.train import main as train
from uvmerge.report.colours import LINES
from uvmerge.report.plots import WIDTH, empty_figure, png
from uvmerge.tasks.goals import parse_goals
from uvmerge.tasks.margins import Estimate, place
from uvmerge.tasks.scores import Score

GOALS = parse_goals(METRICS)
IN, OUT = (goal.name for goal in GOALS)
TOPS, SIDES = (0.2, 0.5, 0.7), ("two", "left")
NAMES = [f"interpolate-{scale:g}" for scale in SCALES]  # of the line
FIGURE = Path(__file__).parent.parent / "docs" / "search.png"

Data = dict[str, Any]


def pairs(folder: Path, regime: str, seeds: int, trials: int, hands: int) -> None:
    """Train pairs with seeds 0, 1, …, search on each, and judge the fixed settings on each."""
    rows = []
    for seed in range(seeds):
        own = folder / f"{regime}-{seed}"
        base, finetuned = own / "base", own / "finetuned"
        if not (finetuned / "model.safetensors").exists():
            train([str(own), "--regime", regime, "--seed", str(seed)])
        found = search_demo(
            own / "searched",
            base=base,
            finetuned=finetuned,
            trials=trials,
            hands=hands,
            quiet=False,
        )
        print(f"seed {seed}\n{found}", flush=True)
        data = found.as_data()
        for row in (*data["line"], *data["front"]):
            del row["weights_xxh3_128"]  # on another machine they are others
        kept = ("line", "front", "items", "tried", "beats_interpolation", "sentence")
        rows.append(
            {"seed": seed, "search": {key: data[key] for key in kept}, "chosen": chosen(data)}
            | {"fixed": fixed(base, finetuned, own, hands)}
        )
    result = about("uvmerge", "torch", "transformers", "optuna") | {
        "regime": regime, "trials": trials, "hands": hands, "summary": summary(rows),
        "pairs": rows,
    }  # fmt: skip
    write_result("search_pairs", result)
    FIGURE.write_bytes(png(lambda: draw(rows)))
    print(table([(name, *each.values()) for name, each in result["summary"].items()]))


def fixed(base: Path, finetuned: Path, own: Path, hands: int) -> dict[str, Data]:
    """Settings of `project` that were not chosen on this pair, on the items that the search reports on."""
    known = Points(own / "searched" / "points")
    line = {name: scores for name in NAMES if (scores := known.get(name, HALF)) is not None}
    ask, points = evaluation(hands), {}
    for side in SIDES:
        for top in TOPS:
            made = own / "fixed"
            uvmerge.project(base, finetuned, made, top=top, side=side, quiet=True)
            points[f"{side} {top}"] = ask(made, HALF)
            shutil.rmtree(made)
    placed = place(line, points, GOALS)
    return {
        name: {
            "reported": {g.name: estimate(v) for g, v in zip(GOALS, placed[name].values)},
            "over_line_at_equal": {g.name: estimate(v) for g, v in zip(GOALS, placed[name].over_line)},
        }
        for name in points
    }  # fmt: skip


def estimate(found: Estimate) -> Data:
    """An estimate as in `front.json`."""
    return {"value": found.value, "interval_95": list(found.interval or ()) or None}


def chosen(found: Data) -> str | None:
    """The point of the front whose margin is largest on the items of the search.

    It is chosen without a look at the items that it is reported on, so its reported margin has no bias.
    """

    def by_search(row: Data) -> dict[str, Score]:
        return {name: Score(value, 0) for name, value in row["chosen_by"].items()}

    line, points = (
        {row["name"]: by_search(row) for row in found[part]} for part in ("line", "front")
    )
    placed = place(line, points, GOALS)
    return max(points, key=lambda name: placed[name].over_line[0].value, default=None)


def margin_of(row: Data) -> float:
    """What a point has out of domain above the line at equal accuracy in domain."""
    return float(row["over_line_at_equal"][IN]["value"])


def reported(row: Data) -> Data | None:
    """The chosen point of a pair, as it is reported."""
    return next((each for each in row["search"]["front"] if each["name"] == row["chosen"]), None)


def judged(row: Data) -> dict[str, Data]:
    """What is compared over pairs: the chosen point of the search, and every fixed setting."""
    one = reported(row)
    return ({} if one is None else {"search": one}) | row["fixed"]


def summary(rows: Sequence[Data]) -> dict[str, Data]:
    """Of each method the margins over pairs: mean, spread, and on how many pairs it wins or loses."""
    names = dict.fromkeys(name for row in rows for name in judged(row))
    return {name: spread([each[name] for row in rows if name in (each := judged(row))])
            for name in names}  # fmt: skip


def spread(found: Sequence[Data]) -> Data:
    """Mean and standard deviation of margins, the mean's 95 % t-interval, and wins and losses."""
    from scipy import stats

    values = [margin_of(each) for each in found]
    ends = [each["over_line_at_equal"][IN]["interval_95"] for each in found]
    deviation = statistics.stdev(values) if len(values) > 1 else math.nan
    half = float(stats.t.ppf(0.975, len(values) - 1)) * deviation / math.sqrt(len(values))
    told = {"mean": statistics.mean(values), "deviation": deviation, "half_of_interval_95": half}
    return {
        "pairs": len(values),
        **{name: None if math.isnan(value) else round(value, 4) for name, value in told.items()},
        "above_the_line": sum(low > 0 for low, _ in ends),
        "below_the_line": sum(high < 0 for _, high in ends),
    }


# --- the figure --------------------------------------------------------------------------------


def draw(rows: Sequence[Data]) -> Any:
    """A panel for each pair, in domain against out of domain, and one of the margins of all pairs."""
    across = 3
    down = -(-(len(rows) + 1) // across)
    figure = empty_figure(WIDTH, 2.3 * down)
    for place_, row in enumerate(rows, 1):
        axes = figure.add_subplot(down, across, place_)
        draw_pair(axes, row)
        if place_ == 1:
            axes.legend(loc="lower left")
    draw_margins(figure.add_subplot(down, across, len(rows) + 1), rows)
    return figure


def draw_pair(axes: Any, row: Data) -> None:
    """The line, the front of the search with intervals, and the fixed two-sided settings."""
    line = [each["reported"] for each in row["search"]["line"]]
    axes.plot(*([each[name]["value"] for each in line] for name in (IN, OUT)), ".-", color=LINES[0],
              label="interpolation")  # fmt: skip
    front = [each["reported"] for each in row["search"]["front"]]
    cross(axes, front, color=LINES[1], label="front of the search", alpha=0.8)
    two = [row["fixed"][f"two {top}"]["reported"] for top in TOPS]
    cross(axes, two, color=LINES[2], label="project 20, 50, 70 %", marker="s", markersize=3)
    axes.set_title(f"seed {row['seed']}")
    axes.set_xlabel("in domain")
    axes.set_ylabel("out of domain")
    axes.grid(color="#e3e3e3", linewidth=0.5)


def cross(axes: Any, points: Sequence[Mapping[str, Data]], **style: Any) -> None:
    """Points with the intervals of both accuracies."""
    at = [[each[name]["value"] for each in points] for name in (IN, OUT)]
    ends = [[each[name]["interval_95"] for each in points] for name in (IN, OUT)]
    arms = [
        [[v - low for v, (low, _) in zip(own, both)], [high - v for v, (_, high) in zip(own, both)]]
        for own, both in zip(at, ends)
    ]
    style = {"marker": ".", "linestyle": "", "elinewidth": 0.5} | style
    axes.errorbar(*at, xerr=arms[0], yerr=arms[1], **style)


def draw_margins(axes: Any, rows: Sequence[Data]) -> None:
    """The margin of each method on each pair, and the mean with its interval."""
    found = summary(rows)
    names = [name for name in found if not name.startswith("left")]
    for at, name in enumerate(names):
        values = [100 * margin_of(each[name]) for row in rows if name in (each := judged(row))]
        colour = LINES[1] if name == "search" else LINES[2]
        axes.plot([at] * len(values), values, "o", color=colour, markersize=3, alpha=0.6)
        mean, half = (found[name][key] for key in ("mean", "half_of_interval_95"))
        axes.errorbar([at + 0.2], [100 * mean], yerr=[100 * (half or 0)], fmt="_", color="black")
    axes.axhline(0, color=LINES[0])
    axes.set_xticks(range(len(names)), [name.replace("two ", "project\n") for name in names])
    axes.set_title("points over the line")
    axes.grid(axis="y", color="#e3e3e3", linewidth=0.5)
