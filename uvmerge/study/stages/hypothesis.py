"""One hypothesis, confirmed or refuted on seeds that nothing was explored on.

Written down on 2026-11-26, before any of these pairs was trained:

    Where the base knows the new rule in part, `project`, two-sided at 50 %, has more accuracy out of
    domain than interpolation at equal accuracy in domain.

It was found on seven pairs of seeds 0 to 6 (+9.2 ± 3.8 points), some of which had been explored to find
it. It is tested on new seeds of the same task, on a second task of another kind, and on models with four
times the parameters (`kinds`). The verdict follows from the 95 % t-interval over pairs, each with a base
of its own: *seen here* if the whole of it lies above 0, *not seen* if below, else *cannot tell*. The other
edits are beside it to be compared with, and are no part of the hypothesis.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from ...errors import counted
from .. import comparison, hypothesis_page
from ..controls import Control, control_scores
from ..edits import LINE, Edit, edited_scores, on_line, point
from ..lab import Pair
from ..one_pair import margin
from ..sizes import Sizes
from ..stage import Measured, Stage
from ..verdicts import claim

SAID = (
    "Where the base knows the new rule in part, `project`, two-sided at 50 %, has more out of domain"
    " than interpolation at equal accuracy in domain."
)
WRITTEN = "2026-11-26"
TESTED = Edit("project-two-0.5", "project", {"top": 0.5})
BESIDE = (
    Edit("project-two-0.7", "project", {"top": 0.7}),
    Edit("project-left-0.5", "project", {"top": 0.5, "side": "left"}),
    Edit("restore-0.5", "restore", {"top": 0.5}),
    Edit("reset-layers-0.25", "reset_layers", {"frac": 0.25}),
)
CONTROL = Control("project", "random", 0.5)


def measure(pair: Pair) -> None:
    """Make and test the line, the edits and the control of one pair, each once."""
    tuned = pair.finetuned
    ask = partial(_answers, pair)
    for scale in LINE:
        pair.once(point(scale), partial(on_line, pair, tuned, scale, ask))
    for edit in (TESTED,) if pair.sizes.quick else (TESTED, *BESIDE):
        pair.once(edit.name, partial(edited_scores, pair, tuned, edit, ask))
    pair.once(CONTROL.name, partial(control_scores, pair, tuned, CONTROL, ask))


def _answers(pair: Pair, model: Any) -> dict[str, Any]:
    """The scores of a model, and which hands it answered right under which rules."""
    found = pair.answered(model, pair.hands())
    return {**found.scores(), "right": found.digits()}


def summarise(measured: Sequence[Measured]) -> dict[str, Any]:
    """Rows against the line for each kind of pairs, the claims, and the interval of each pair."""
    found: list[dict[str, Any]] = []
    line = [point(scale) for scale in LINE]
    labels = {point(scale): ("line", f"interpolate --scale {scale}") for scale in LINE}
    labels |= {edit.name: ("edit", edit.label) for edit in (TESTED, *BESIDE)}
    labels[CONTROL.name] = ("control", CONTROL.label)
    for regime in dict.fromkeys(each.regime for each in measured):
        pairs = [each for each in measured if each.regime == regime]
        found += comparison.rows(regime, pairs, labels, line)
    return {
        "hypothesis": SAID,
        "written": WRITTEN,
        "rows": found,
        "claims": claims(found),
        "pairs_alone": [margin(each, line, TESTED.name) for each in measured],
    }


def claims(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The hypothesis for each kind of pairs, and whether the edit does more than its control."""
    values = {
        (row["regime"], row["name"]): row["at_equal_accuracy"]["values"]
        for row in rows
        if row["name"] in (TESTED.name, CONTROL.name)
    }
    found = []
    for regime in dict.fromkeys(row["regime"] for row in rows):
        tested, control = values[regime, TESTED.name], values[regime, CONTROL.name]
        more = [a - b for a, b in zip(tested, control, strict=True)]
        found += [
            claim(SAID, regime, tested),
            claim(
                "It lies higher above the line than the same with random directions.", regime, more
            ),
        ]
    return found


def draw(found: Mapping[str, Any]) -> Any:
    """The figure of the stage."""
    from ..figures import against_line

    return against_line(found)


def sized(sizes: Sizes) -> str:
    """How many edits are made, and of what."""
    made = 1 if sizes.quick else 1 + len(BESIDE)
    return (
        f"Of the fine-tuned checkpoint of each pair: {len(LINE)} points of the line,"
        f" {counted(made, 'edit')}, and one control."
    )


STAGE = Stage(
    name="hypothesis",
    order=25,
    title="The hypothesis",
    regimes=("new", "second", "larger"),
    measure=measure,
    summarise=summarise,
    section=hypothesis_page.section,
    draw=draw,
    rows=comparison.flat,
    sized=sized,
)
