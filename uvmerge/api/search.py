"""`uvmerge search`: many settings of a repair, judged against interpolation on the same items.

    found = uvmerge.search("space.yaml", base, finetuned, "outdir",
                           evaluate="python eval.py {} --half {split}",
                           metrics=["id:max", "ood:max"], trials=60)

The flow: line of interpolations → trials, each a checkpoint that is evaluated → front → the front on
the items that were kept apart → margins over the line → what follows.

    OUTDIR/search.json       what is searched, and how; the same call goes on
    OUTDIR/journal.log       settings and how their trials ended (Optuna)
    OUTDIR/points/           scores, item by item where they are known
    OUTDIR/evaluations/      what each evaluation wrote
    OUTDIR/factors/          decompositions, each made once
    OUTDIR/checkpoints/      those of the front; others are removed as soon as they have lost
    OUTDIR/front/NAME.yaml   a recipe for each point of the front
    OUTDIR/front.json        the front, its margins, and what follows from them
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ..errors import UsageError, counted
from ..output.places import Reference
from ..recipe.space import Space
from ..tasks.goals import parse_goals
from ..tasks.searched import Searched
from ..text import two_lines
from .evaluator import CommandEvaluator, FunctionEvaluator, Returned
from .results import as_frame
from .search_settings import SearchSettings
from .searching import Search
from .settings import shows, split_all
from .trials import import_optuna


class SearchResult(Searched):
    """`Searched`, with methods that show it."""

    def as_data(self) -> dict[str, Any]:
        """JSON-able data, as in `front.json`."""
        from ..report.search import as_data

        return as_data(self)

    def to_frame(self) -> Any:
        """A pandas DataFrame with a row for each checkpoint of the line and each trial."""
        from ..report.search import rows

        return as_frame(rows(self))

    def __repr__(self) -> str:
        count = f"{counted(len(self.trials), 'setting')}, {len(self.found)} on the front"
        return two_lines("SearchResult", count, self.sentence)

    def __str__(self) -> str:
        from ..report.search import as_text

        return as_text(self)


@shows(SearchSettings)
def search(
    space: Space | Reference | Mapping[str, Any],
    base: Reference,
    finetuned: Reference,
    out: Reference,
    *,
    evaluate: str | Callable[..., Returned],
    metrics: str | Sequence[str],
    **settings: Any,
) -> SearchResult:
    """Search settings of a repair, and tell whether any beats interpolation.

    The same call goes on where it was stopped, whatever stopped it; with more `trials` it adds to what
    was tried.

    Args:
        space: a file, or its content as a dict: a recipe in which values are ranges
            (`{from: 0, to: 1}`) or choices (`{any: [left, right]}`).
        base, finetuned: the pair.
        out: the folder for everything that the search keeps.
        evaluate: a command, in whose words `{}` is the checkpoint, `{out}` a fresh folder and `{split}`
            the half of the items; or a function that is given the checkpoint's folder, and the half if
            it takes two arguments, and returns by metric a number or one number for each item.
        metrics: `NAME:max` or `NAME:min`, with `:FLOOR` for the worst value that is acceptable; the
            first is the one in domain, the second the one out of domain.
        settings: see docs/search.md; and `quiet`, `progress`, `control` of `Watch`.

    Raises:
        RecipeError: the space cannot be read, or nothing in it is free.
        InputRefused: OUTDIR holds another search.
        RunFailed: an interpolation cannot be evaluated, or three trials in a row have failed.
        UsageError: a metric or the command makes no sense, or optuna is not installed.
    """
    import_optuna()
    chosen, watch = split_all(SearchSettings, settings)
    goals = parse_goals([metrics] if isinstance(metrics, str) else metrics)
    running = Search(_as_space(space), {"base": base, "finetuned": finetuned}, out, chosen, watch)
    if isinstance(evaluate, str):
        given = CommandEvaluator.parse(evaluate, goals, chosen.trial_timeout, running.control)
        found = running.run(given, goals)
    else:
        if chosen.trial_timeout is not None:
            what = "is for a command, since a function cannot be ended"
            raise UsageError("trial_timeout", what, "Leave it out.")
        found = running.run(FunctionEvaluator(evaluate, goals), goals)
    return SearchResult(**vars(found))


def _as_space(space: Space | Reference | Mapping[str, Any]) -> Space:
    if isinstance(space, Space):
        return space
    return Space.from_data(space) if isinstance(space, Mapping) else Space.load(space)
