"""The rounds of a search: the line, the trials, the front, and what is written of it."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import Interrupted, RunFailed
from ..output import manifest
from ..output.places import local_folders
from ..output.tree import Tree
from ..recipe.file import as_text
from ..recipe.recipe import Recipe
from ..recipe.step import RecipeStep
from ..tasks import margins
from ..tasks.goals import Goal, front
from ..tasks.scores import Score
from ..tasks.searched import Searched, Tried
from .evaluator import REPORT, SEARCH, EvaluationFailed, Evaluator
from .points import Points
from .trials import FAILED_IN_A_ROW, Trial, Trials

if TYPE_CHECKING:
    from .searching import Search

FRONT = "front"  # the folder of the recipes, and the name of the JSON file
SCALES = tuple(round(0.1 * i, 1) for i in range(11))  # of the line
FOLDERS = ("points", "evaluations", "checkpoints", "factors", FRONT)


class Rounds:
    """The rounds of one search, in the order in which they are called."""

    def __init__(
        self, of: Search, evaluator: Evaluator, goals: tuple[Goal, ...], points: Points,
        trials: Trials,
    ) -> None:  # fmt: skip
        self.of, self.evaluator, self.goals = of, evaluator, goals
        self.points, self.trials = points, trials
        self.say = of.progress.say
        self.notes: list[str] = []

    def result(self) -> Searched:
        """Do what is left to do, and write and return what was found."""
        self.trials.recover(lambda number: self._values(f"trial-{number}"))
        self._remove_losers()
        line = {f"interpolate-{scale:g}": self._interpolation(scale) for scale in SCALES}
        halves = (SEARCH, REPORT) if self.evaluator.has_halves else (SEARCH,)
        for name, recipe in line.items():
            self._ask(name, recipe, halves)
            self._remove_losers()
        self._try_settings()
        names = self._front(list(line))
        for trial in self._complete():
            if (name := _name(trial)) in names:
                self._ask(name, self.of.space.recipe(trial.values), halves)
        found = self._found(line, names, halves[-1])
        self._write(found, line)
        return found

    def _try_settings(self) -> None:
        failures = 0
        most = self.of.settings.trials
        while (count := len(self.trials.finished())) < most:
            trial = self.trials.ask()
            if trial is None:
                self.notes.append(
                    f"the space has no more settings than the {count} that were tried"
                )
                return
            name = _name(trial)
            try:
                self._ask(name, self.of.space.recipe(trial.values), (SEARCH,))
            except EvaluationFailed as error:
                failures += 1
                first, *_ = str(error).splitlines()
                self.trials.fail(trial.number, first)
                self.say(f"{name} failed: {error}")
                if failures == FAILED_IN_A_ROW:
                    do = f"{error.do} The same command tries them again.".strip()
                    raise RunFailed(
                        "search", f"{failures} trials in a row failed: {first}", do
                    ) from error
            else:
                failures = 0
                values = self._values(name)
                assert values is not None
                self.trials.tell(trial.number, values)
                self.say(f"{count + 1} of {most}: {name}: {self._told(values)}")
            self._remove_losers()

    def _ask(self, name: str, recipe: Recipe, halves: Sequence[str]) -> None:
        """Make a checkpoint and have it evaluated on the halves that it was not asked yet."""
        for half in halves:
            if self.points.get(name, half) is not None:
                continue
            if self.of.control.stop.is_set():
                raise Interrupted("search", self.of.control.signal_number)
            folder = self.of.make(name, recipe)
            place = self.of.out / "evaluations" / f"{name}-{half}"
            shutil.rmtree(place, ignore_errors=True)
            scores = self.evaluator.scores(folder, half, place)
            self.points.add(name, half, scores, folder)

    def _interpolation(self, scale: float) -> Recipe:
        step = RecipeStep.parse("interpolate", {"scale": scale})
        template = self.of.space.template
        return Recipe((step,), {}, template.dtype, template.layer_map)

    def _complete(self) -> list[Trial]:
        return [trial for trial in self.trials.finished() if trial.error is None]

    def _values(self, name: str, half: str = SEARCH) -> list[float] | None:
        """The values of a checkpoint, a number for every goal."""
        scores = self.points.get(name, half)
        if scores is None:
            return None
        return [float(scores[goal.name].value or 0.0) for goal in self.goals]

    def _front(self, line: Sequence[str]) -> list[str]:
        names = [*line, *map(_name, self._complete())]
        known = {name: values for name in names if (values := self._values(name)) is not None}
        return front(known, self.goals)

    def _remove_losers(self) -> None:
        """Remove every checkpoint that is none of a trial on the front."""
        kept = self._front([f"interpolate-{scale:g}" for scale in SCALES])
        kept = [name for name in kept if name.startswith("trial-")]
        with Tree.at(self.of.out / "checkpoints") as folder:
            for name in folder.names():
                if name not in kept:
                    folder.remove(name)

    def _found(self, line: Mapping[str, Recipe], names: Sequence[str], half: str) -> Searched:
        along = {name: self._scores(name, half) for name in line}
        complete = self._complete()
        judged = {
            name: self._scores(name, half) for trial in complete if (name := _name(trial)) in names
        }
        among = None if self.evaluator.has_halves else len(complete)
        placed = margins.place(along, judged, self.goals, among)
        rows = [Tried(name, {"interpolate.scale": scale}) for name, scale in zip(line, SCALES)]
        tried = [
            Tried(_name(t), self.of.space.settings(t.values), error=t.error)
            for t in self.trials.finished()
        ]
        known = [
            [replace(
                row, placed=placed.get(row.name), weights=self.points.weights(row.name, SEARCH),
                chosen_by=dict(zip((g.name for g in self.goals), self._values(row.name) or [])),
            ) for row in group]
            for group in (rows, tried)
        ]  # fmt: skip
        return Searched(
            self.goals, self.evaluator.has_halves, tuple(known[0]), tuple(known[1]), tuple(names),
            _counts(next(iter(along.values()))), tuple(self.notes),
        )  # fmt: skip

    def _scores(self, name: str, half: str) -> dict[str, Score]:
        scores = self.points.get(name, half)
        assert scores is not None
        return scores

    def _write(self, found: Searched, line: Mapping[str, Recipe]) -> None:
        """Write `front.json` and the recipes of the front, and remove those of an earlier front."""
        from ..report.search import as_data

        by_name = {_name(t): self.of.space.recipe(t.values) for t in self._complete()} | dict(line)
        texts = {
            f"{name}.yaml": as_text(self._runnable(by_name[name], name).as_data())
            for name in found.front
        }
        with Tree.at(self.of.out / FRONT) as folder:
            for name, text in texts.items():
                folder.write_whole(name, text.encode())
            for name in set(folder.names()) - texts.keys():
                folder.remove(name)
        data = as_data(found)
        for row in (*data["line"], *data["front"]):
            if row["on_front"]:
                row["recipe"] = f"{FRONT}/{row['name']}.yaml"
        manifest.write_whole(self.of.out / f"{FRONT}.json", manifest.to_bytes(data))

    def _runnable(self, recipe: Recipe, name: str) -> Recipe:
        """The recipe with the checkpoints that it is for."""
        local = {
            role: str(Path(reference).expanduser().resolve())
            if local_folders([reference]) else str(reference)
            for role, reference in self.of.references.items()
        }  # fmt: skip
        return replace(recipe, references=local, name=name)

    def _told(self, values: Sequence[float]) -> str:
        return ", ".join(f"{goal.name} {value:.4g}" for goal, value in zip(self.goals, values))


def _name(trial: Trial) -> str:
    return f"trial-{trial.number}"


def _counts(scores: Mapping[str, Score]) -> dict[str, tuple[int, int]]:
    """Items and independent clusters of each goal; empty where items are not known."""
    found = {}
    for name, score in scores.items():
        if score.items is not None:
            clusters = score.items.clusters
            count = len(score.items.keys)
            found[name] = (count, count if clusters is None else len(set(clusters)))
    return found
