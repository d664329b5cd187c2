"""What a search costs beside the evaluations, whether it finds what is not there, and what it finds.

    python benchmarks/search.py FOLDER [--hidden 512] [--layers 2] [--trials 20]
    python benchmarks/search.py FOLDER --null [--seeds 20] [--trials 40]
    python benchmarks/search.py FOLDER --pairs [--seeds 5] [--trials 60] [--regime part]

The first measures CPU seconds for each trial of a search that evaluates nothing, on a pair of noise,
against `uvmerge.run` on the same recipes: with the same kept factors, and
alone. It also counts decompositions.

`--null` searches where nothing can be found, with answers drawn at random, for every seed anew: `coins`
are answers that are right half of the time, whatever the checkpoint; `on the line` are answers that are
right as often as those of an interpolation, at a scale drawn for every setting, so that the settings form
a front which is as good as the line and no better. Answers are alike for the orders of a hand. A search
fails where it says that something beats interpolation.

`--pairs` trains demo pairs with seeds 0, 1, … and searches on each of them as `uvmerge search --demo`
does. A pair takes a minute or two to train, and 60 trials a few more.

Writes benchmarks/results/search.json, search_null.json or search_pairs.json, and for the last
search_pairs.png too.
"""

from __future__ import annotations

import argparse
import json
import math
import shutil
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from measure import RESULTS, about, table, write_result
from synthetic import write_pair

import uvmerge
from uvmerge.recipe.recipe import Recipe
from uvmerge.tasks.scores import Items, score_of_items

SPACE = {
    "uvmerge": 1,
    "steps": [{"project": {"top": {"from": 0.05, "to": 0.8}, "side": {"any": ["two", "left"]}}}],
}
GOALS = ("id:max", "ood:max")
HANDS, ORDERS = 200, 5  # of the null search


@contextmanager
def decompositions() -> Iterator[list[int]]:
    """The sizes of the eigenproblems solved inside the block."""
    sizes: list[int] = []
    real = torch.linalg.eigh

    def counted(A: torch.Tensor) -> Any:
        sizes.append(len(A))
        return real(A)

    with mock.patch.object(torch.linalg, "eigh", counted):
        yield sizes


def digest(checkpoint: Path) -> int:
    """A number that the weights of a checkpoint decide."""
    files = json.loads((checkpoint / "uvmerge.json").read_text())["files"]
    joined = "".join(
        one["xxh3_128"] for name, one in sorted(files.items()) if "safetensors" in name
    )
    return int(joined[:15], 16)


def nothing(checkpoint: Path) -> dict[str, float]:
    """An evaluation that takes no time."""
    generator = np.random.default_rng(digest(checkpoint))
    return {"id": generator.random(), "ood": generator.random()}


def cost(settings: argparse.Namespace) -> None:
    """CPU seconds for each trial, and what `run` takes for the same recipes."""
    folder = settings.folder / f"{settings.hidden}x{settings.layers}"
    pair = folder / "base", folder / "finetuned"
    if not pair[0].exists():
        hidden = settings.hidden
        write_pair(folder, settings.layers, hidden, hidden * 11 // 4, vocabulary=1000)
    out = settings.folder / "searched"
    shutil.rmtree(out, ignore_errors=True)
    few, many = 3, 3 + settings.trials

    def search(trials: int) -> float:
        start = time.process_time()
        uvmerge.search(
            SPACE, *pair, out, evaluate=nothing, metrics=GOALS, trials=trials, workers=1, force=True
        )
        return time.process_time() - start

    with decompositions() as first:
        search(few)
    with decompositions() as later:
        spent = search(many)
    found = uvmerge.search(
        SPACE, *pair, out, evaluate=nothing, metrics=GOALS, trials=many, force=True
    )
    recipes = [
        Recipe.from_data({"uvmerge": 1, "steps": [{"project": {
            "top": t.settings["project.top"], "side": t.settings["project.side"]}}]})
        for t in found.trials[few:]
    ]  # fmt: skip
    again, factors = settings.folder / "again", out / "factors"

    def run(recipe: Recipe, **more: Any) -> float:
        start = time.process_time()
        uvmerge.run(
            recipe,
            again,
            base=pair[0],
            finetuned=pair[1],
            quiet=True,
            workers=1,
            force=True,
            **more,
        )
        spent = time.process_time() - start
        shutil.rmtree(again)
        return spent

    kept = [run(recipe, factors=factors) for recipe in recipes]
    alone = [run(recipe) for recipe in recipes[:5]]
    matrices = len(list(factors.iterdir()))
    result = about("uvmerge", "torch", "optuna") | {
        "hidden": settings.hidden, "layers": settings.layers, "trials": settings.trials,
        "cpu_s_per_trial": round(spent / settings.trials, 3),
        "cpu_s_per_run_with_factors": round(statistics.mean(kept), 3),
        "cpu_s_per_run_alone": round(statistics.mean(alone), 3),
        "ratio_to_run_with_factors": round(spent / sum(kept), 3),
        "ratio_to_run_alone": round(spent / settings.trials / statistics.mean(alone), 3),
        "matrices": matrices,
        "decompositions_of_line_and_first_trials": len(first),
        "decompositions_of_later_trials": len(later),
    }  # fmt: skip
    write_result("search", result)
    print(table([(key, value) for key, value in result.items() if not isinstance(value, dict)]))


class Null:
    """Answers that no setting can better.

    Args:
        on_line: whether settings lie on the line, at scales drawn for each, or all are alike.
    """

    def __init__(self, seed: int, on_line: bool) -> None:
        self.seed, self.on_line = seed, on_line
        self.identity = ["null", seed, on_line]

    def __call__(self, checkpoint: Path, half: str) -> dict[str, Any]:
        words = [digest(checkpoint), self.seed]
        scale = np.random.default_rng(words).random()
        steps = json.loads((checkpoint / "uvmerge.json").read_text())["recipe"]["steps"]
        if checkpoint.name.startswith("interpolate"):
            scale = steps[0]["interpolate"].get("scale", 0.5)
        shares = (0.6 + 0.4 * scale, 0.95 - 0.4 * scale) if self.on_line else (0.5, 0.5)
        generator = np.random.default_rng([*words, half == "search"])
        items = Items(
            [str(i).encode() for i in range(HANDS * ORDERS)],
            [str(i // ORDERS) for i in range(HANDS * ORDERS)],
        )
        right = [np.repeat(generator.random(HANDS) < share, ORDERS) for share in shares]
        return {n: score_of_items(items, r.astype(float)) for n, r in zip(("id", "ood"), right)}


def null(settings: argparse.Namespace) -> None:
    """How often a search finds something where there is nothing."""
    pair = settings.folder / "null" / "base", settings.folder / "null" / "finetuned"
    if not pair[0].exists():
        write_pair(settings.folder / "null", hidden=128, mlp=128, layers=1, vocabulary=64)
    result: dict[str, Any] = about("uvmerge", "optuna") | {
        "seeds": settings.seeds, "trials": settings.trials, "hands": HANDS, "orders": ORDERS,
    }  # fmt: skip
    for kind, on_line in (("coins", False), ("on the line", True)):
        margins, beaten, sizes = [], 0, []
        for seed in range(settings.seeds):
            out = settings.folder / "searched-null"
            shutil.rmtree(out, ignore_errors=True)
            found = uvmerge.search(
                SPACE, *pair, out, evaluate=Null(seed, on_line), metrics=GOALS, seed=seed,
                trials=settings.trials, force=True, workers=1,
            )  # fmt: skip
            beaten += bool(found.beating)
            sizes.append(len(found.found))
            margins += [t.placed.over_line[0].value for t in found.found[:1] if t.placed]
            print(f"{kind}, seed {seed}: {found.sentence}", flush=True)
        result[kind] = {
            "nothing_beats_interpolation": settings.seeds - beaten,
            "mean_points_judged": round(statistics.mean(sizes), 1),
            "mean_largest_margin": round(statistics.mean(margins), 4) if margins else None,
        }
    write_result("search_null", result)
    print(json.dumps(result, indent=2))


def pairs(settings: argparse.Namespace) -> None:
    """Search on pairs of the demo that were trained with seeds."""
    from uvmerge.demo.search import search_demo
    from uvmerge.demo.train import main as train

    rows = []
    for seed in range(settings.seeds):
        folder = settings.folder / f"{settings.regime}-{seed}"
        if not (folder / "finetuned" / "model.safetensors").exists():
            train([str(folder), "--regime", settings.regime, "--seed", str(seed)])
        found = search_demo(
            folder / "searched", base=folder / "base", finetuned=folder / "finetuned",
            trials=settings.trials, quiet=False,
        )  # fmt: skip
        print(f"seed {seed}\n{found}", flush=True)
        data = found.as_data()
        rows.append({"seed": seed, "line": data["line"], "front": data["front"],
                     "beats_interpolation": data["beats_interpolation"],
                     "sentence": data["sentence"]})  # fmt: skip
    best = [
        max((m for f in r["front"] if (m := margin(f)) is not None), default=None) for r in rows
    ]
    known = [value for value in best if value is not None]
    result = about("uvmerge", "torch", "transformers", "optuna") | {
        "regime": settings.regime, "trials": settings.trials, "pairs": rows,
        "pairs_where_interpolation_is_beaten": sum(bool(r["beats_interpolation"]) for r in rows),
        "largest_margin_of_each": best,
        "chosen_on_search_items": [chosen(row) for row in rows],
    }  # fmt: skip
    picked = [value for value in result["chosen_on_search_items"] if value is not None]
    result["largest_margin"] = spread(known)
    result["margin_of_the_one_chosen"] = spread(picked)
    write_result("search_pairs", result)
    draw(rows)
    lines = [("seed", "largest margin", "of the one chosen", "beats interpolation")]
    for row, most, one in zip(rows, best, result["chosen_on_search_items"]):
        lines.append((row["seed"], most, one, ", ".join(row["beats_interpolation"]) or "none"))
    print(table(lines))
    print(
        f"mean and 95 % t-interval: {result['largest_margin']}, {result['margin_of_the_one_chosen']}"
    )


def margin(row: dict[str, Any]) -> float | None:
    """The reported margin out of domain at equal accuracy in domain."""
    found = row["over_line_at_equal"].get("in_domain")
    return None if found is None else round(found["value"], 4)


def chosen(row: dict[str, Any]) -> float | None:
    """The reported margin of the point whose margin is largest on the items of the search.

    It is chosen without a look at the items that it is reported on, so its mean has no bias.
    """
    from uvmerge.tasks.goals import parse_goals
    from uvmerge.tasks.margins import place
    from uvmerge.tasks.scores import Score

    def scores(each: dict[str, Any]) -> dict[str, Score]:
        return {name: Score(value, 0) for name, value in each["chosen_by"].items()}

    line = {each["name"]: scores(each) for each in row["line"]}
    points = {each["name"]: scores(each) for each in row["front"]}
    if not points:
        return None
    placed = place(line, points, parse_goals(["in_domain:max", "out_of_domain:max"]))
    first = max(points, key=lambda name: placed[name].over_line[0].value)
    return margin(next(each for each in row["front"] if each["name"] == first))


def spread(values: list[float]) -> dict[str, Any]:
    """Mean, standard deviation, and half of a 95 % t-interval of the mean."""
    from scipy import stats

    if len(values) < 2:
        return {"pairs": len(values), "mean": values[0] if values else None}
    deviation = statistics.stdev(values)
    half = float(stats.t.ppf(0.975, len(values) - 1)) * deviation / math.sqrt(len(values))
    return {"pairs": len(values), "mean": round(statistics.mean(values), 4),
            "standard_deviation": round(deviation, 4), "half_of_interval_95": round(half, 4)}  # fmt: skip


def draw(rows: list[dict[str, Any]]) -> None:
    """In domain against out of domain of each pair, on the items that are reported on."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(3.2 * len(rows), 3.4), layout="constrained")
    for place, row in enumerate(rows, 1):
        axes = figure.add_subplot(1, len(rows), place)
        for part, style, label in (("line", "o-", "interpolation"), ("front", "x", "search")):
            reported = [each["reported"] for each in row[part]]
            x, y = ([r[k]["value"] for r in reported] for k in ("in_domain", "out_of_domain"))
            axes.plot(x, y, style, label=label, markersize=4)
        axes.set_title(f"seed {row['seed']}")
        axes.set_xlabel("in domain")
        axes.grid(alpha=0.3)
    figure.axes[0].set_ylabel("out of domain")
    figure.axes[0].legend()
    figure.savefig(RESULTS / "search_pairs.png", dpi=120)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--hidden", type=int, default=512)
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--trials", type=int)
    parser.add_argument("--seeds", type=int)
    parser.add_argument("--null", action="store_true")
    parser.add_argument("--pairs", action="store_true")
    parser.add_argument("--regime", default="part")
    settings = parser.parse_args()
    mode, trials, seeds = cost, 20, 1
    if settings.null:
        mode, trials, seeds = null, 40, 20
    elif settings.pairs:
        mode, trials, seeds = pairs, 60, 5
    settings.trials, settings.seeds = settings.trials or trials, settings.seeds or seeds
    settings.folder.mkdir(parents=True, exist_ok=True)
    mode(settings)


if __name__ == "__main__":
    main()
