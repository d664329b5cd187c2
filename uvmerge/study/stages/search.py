"""Search: does a setting that `uvmerge search` finds on one half of the hands hold on the other half, and
does any setting carry over from pair to pair?

The first settings of a search are drawn at random, and are the same on every pair. They are asked on both
halves, so that one chosen on all pairs but one can be judged on that one.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from .. import search_page
from ..carry import Halves, chosen, leave_one_out, margin
from ..lab import Pair
from ..sizes import Sizes
from ..stage import Measured, Stage
from ..verdicts import claim

if TYPE_CHECKING:
    from ...tasks.searched import Tried

SHARED = 10  # settings that are drawn before the search learns: the same on every pair
SEARCHED, LINE, TRIALS = "searched", "line", "trials"
_TRIALS, _TRIALS_QUICK = 40, 6
FOUND = (
    "The setting that a search chose on one half of the hands has more out of domain on the other half"
    " than interpolation at equal accuracy in domain."
)
CARRIED = (
    "The setting that is best on the other pairs has more out of domain on the pair left out than"
    " interpolation at equal accuracy in domain."
)


def measure(pair: Pair) -> None:
    """Search on one pair, and ask the settings that all pairs share on the other half too."""
    found = pair.once(SEARCHED, partial(_searched, pair))
    for trial in found[TRIALS]:
        if _is_shared(trial["name"]) and "report" not in trial:
            pair.once(trial["name"], partial(_reported, pair, trial["settings"]))


def _searched(pair: Pair) -> dict[str, Any]:
    """The line and the settings of a search, with their scores on the half that it searches on, and on
    the one that it reports on where it has asked it; and which settings beat the line.

    The search has a journal of its own, so that a kill costs one of its settings at most.
    """
    from ...demo.search import search_demo

    found = search_demo(
        pair.folder / "search", base=pair.base, finetuned=pair.finetuned, hands=pair.sizes.hands,
        trials=_TRIALS_QUICK if pair.sizes.quick else _TRIALS, device="cpu", quiet=True,
    )  # fmt: skip
    return {
        LINE: [_scores(each) for each in found.line],
        TRIALS: [_scores(each) for each in found.trials if each.error is None],
        "beating": list(found.beating),
    }


def _scores(tried: Tried) -> dict[str, Any]:
    """A checkpoint of a search: [in domain, out of domain] on each half that it was asked."""
    found: dict[str, Any] = {"name": tried.name, "settings": dict(tried.settings)}
    found["search"] = [tried.chosen_by[name] for name in ("in_domain", "out_of_domain")]
    if tried.placed is not None:
        found["report"] = [each.value for each in tried.placed.values]
    return found


def _reported(pair: Pair, settings: Mapping[str, Any]) -> list[float]:
    """Make the checkpoint of a setting, and ask it on the half to report on."""
    import uvmerge

    from ...demo.search import SPACE
    from ...recipe.space import Choice, Space

    space = Space.parse(SPACE)
    choices = {d.name for d in space.dimensions if isinstance(d, Choice)}
    values = {k: json.dumps(v) if k in choices else v for k, v in settings.items()}
    out = pair.folder / "edited"
    shutil.rmtree(out, ignore_errors=True)
    uvmerge.run(
        space.recipe(values), out, base=pair.base, finetuned=pair.finetuned,
        factors=pair.folder / "search" / "factors", device="cpu", quiet=True, overwrite=True,
    )  # fmt: skip
    found = pair.scores(out)
    shutil.rmtree(out)
    return [found["in_domain"], found["out_of_domain"]]


def summarise(measured: Sequence[Measured]) -> dict[str, Any]:
    """What the searches found, for each regime, and whether it holds on the other half and pairs."""
    rows: list[dict[str, Any]] = []
    carried: list[dict[str, Any]] = []
    claims = []
    for regime in dict.fromkeys(each.regime for each in measured):
        pairs = [each for each in measured if each.regime == regime]
        own = [_row(pair) for pair in pairs]
        moved = _carried(pairs)
        claims.append(claim(FOUND, regime, [row["margin"] for row in own]))
        if moved:
            claims.append(claim(CARRIED, regime, [row["margin"] for row in moved]))
        rows, carried = rows + own, carried + moved
    return {"rows": rows, "carried": carried, "claims": claims}


def _row(pair: Measured) -> dict[str, Any]:
    """What the search chose on one pair."""
    name, value = chosen(*_halves(pair))
    return {
        "regime": pair.regime, "seed": pair.seed, "setting": name, "margin": value,
        "settings": _settings(pair, name), "beats": name in pair.values[SEARCHED]["beating"],
        "tried": len(pair.values[SEARCHED][TRIALS]),
    }  # fmt: skip


def _carried(pairs: Sequence[Measured]) -> list[dict[str, Any]]:
    """For each pair, the shared setting that is best on the others, and its margin here."""
    if len(pairs) < 2:
        return []
    margins = []
    for pair in pairs:
        line, trials = _halves(pair)
        # The name of a shared setting says which draw it is; its values say that it is the same.
        own = {json.dumps(_settings(pair, n)): each for n, each in trials.items() if _is_shared(n)}
        margins.append({said: margin(line, each) for said, each in own.items()})
    return [
        {"regime": pair.regime, "seed": pair.seed, "settings": json.loads(said), "margin": value}
        for pair, (said, value) in zip(pairs, leave_one_out(margins), strict=True)
    ]


def _is_shared(name: str) -> bool:
    return int(name.removeprefix("trial-")) < SHARED


def _settings(pair: Measured, name: str) -> dict[str, Any]:
    """The settings of a trial; none where interpolation was chosen."""
    trials = pair.values[SEARCHED][TRIALS]
    return next((dict(each["settings"]) for each in trials if each["name"] == name), {})


def _halves(pair: Measured) -> tuple[list[Halves], dict[str, Halves]]:
    """The line and the settings on both halves; only settings that were asked both."""
    found = pair.values[SEARCHED]
    line = [(each["search"], each["report"]) for each in found[LINE]]
    trials = {}
    for each in found[TRIALS]:
        report = each.get("report") or pair.values.get(each["name"])
        if report is not None:
            trials[each["name"]] = (each["search"], report)
    return line, trials


def flat(found: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Flat rows of the summary for the CSV file."""
    return [
        {
            "regime": row["regime"], "seed": row["seed"], "chosen_on": on, "margin": row["margin"],
            "settings": json.dumps(row["settings"]),
        }
        for on, rows in (("the other half", found["rows"]), ("other pairs", found["carried"]))
        for row in rows
    ]  # fmt: skip


def draw(found: Mapping[str, Any]) -> Any:
    """The figure of the stage."""
    from ..figures import margins

    return margins(found)


def sized(sizes: Sizes) -> str:
    """How many settings are tried."""
    tried = _TRIALS_QUICK if sizes.quick else _TRIALS
    return (
        f"Of the fine-tuned checkpoint of each pair: {tried} settings, of which the first"
        f" {min(SHARED, tried)} are the same on every pair; {sizes.hands} hands on each half."
    )


STAGE = Stage(
    name="search",
    order=50,
    title="Search",
    regimes=("part", "unseen"),
    measure=measure,
    summarise=summarise,
    section=search_page.section,
    draw=draw,
    rows=flat,
    sized=sized,
)
