"""What a search costs beside the evaluations, whether it finds what is not there, and what it finds.

    python benchmarks/search.py FOLDER [--hidden 512] [--layers 2] [--trials 20]
    python benchmarks/search.py FOLDER --null [--seeds 20] [--trials 40]
    python benchmarks/search.py FOLDER --pairs [--seeds 5] [--trials 20] [--hands 500] [--regime part]

The first measures CPU seconds for each trial of a search that evaluates nothing, on a pair of noise,
against `uvmerge.run` on the same recipes: with the same kept factors, and
alone. It also counts decompositions.

`--null` searches where nothing can be found, with answers drawn at random, for every seed anew: `coins`
are answers that are right half of the time, whatever the checkpoint; `on the line` are answers that are
right as often as those of an interpolation, at a scale drawn for every setting, so that the settings form
a front which is as good as the line and no better. Answers are alike for the orders of a hand. A search
fails where it says that something beats interpolation.

`--pairs` trains demo pairs with seeds 0, 1, …, searches on each of them as `uvmerge search --demo`
does, and judges `project` at fixed settings on each. A pair takes two minutes of CPU to train, and 20
trials with 500 hands on each half take one.

Writes benchmarks/results/search.json, search_null.json or search_pairs.json, and for the last
docs/search.png too.
"""

from __future__ import annotations

import argparse
import json
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
from measure import about, table, write_result
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
    import search_pairs

    search_pairs.pairs(
        settings.folder, settings.regime, settings.seeds, settings.trials, settings.hands
    )


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
    parser.add_argument("--hands", type=int, default=500)
    parser.add_argument("--regime", default="part")
    settings = parser.parse_args()
    mode, trials, seeds = cost, 20, 1
    if settings.null:
        mode, trials, seeds = null, 40, 20
    elif settings.pairs:
        mode, trials, seeds = pairs, 20, 5
    settings.trials, settings.seeds = settings.trials or trials, settings.seeds or seeds
    settings.folder.mkdir(parents=True, exist_ok=True)
    mode(settings)


if __name__ == "__main__":
    main()
