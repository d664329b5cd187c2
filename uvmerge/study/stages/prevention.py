"""Prevention: is less forgotten when training holds the leading directions (arXiv 2605.10973)?

The ways to fine-tune are compared with interpolation after plain fine-tuning, which costs nothing, at
the same loss in domain and at the same accuracy in domain.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from ...demo import sums
from .. import comparison, comparison_page
from ..edits import LINE, Edit, edited_scores, on_line, point
from ..lab import Pair, in_domain
from ..sizes import Sizes
from ..stage import Measured, Stage
from ..training import Way, trained

SFT = Way("sft", "SFT")
STOPS = {
    "stop-loss": "SFT, stopped at its least loss in domain",
    "stop-99": "SFT, stopped at 99 % of its best accuracy in domain",
}
_EVERY = 5  # steps between two looks at the loss in domain, for early stopping
_LOOK_HANDS = 250
_LOOK_SEED = 2024


_SIDES = {"two": "two-sided", "left": "left", "right": "right"}


def ways(quick: bool = False) -> list[Way]:
    """The ways to fine-tune besides plain SFT.

    RPSFT has, with the top 20 %, two sides at three λ and one side at two, and two sides at λ = 1 with
    the top 50 %; in a quick study, every side at λ = 1 with the top 20 %.
    """
    grid = [(1.0, 0.2)] if quick else [(0.1, 0.2), (1.0, 0.2), (10.0, 0.2), (1.0, 0.5)]
    rates = (0.5, 0.25) if quick else (0.5, 0.25, 0.1)
    found = [Way(f"rate-{rate}", f"SFT, rate × {rate}", rate=rate) for rate in rates]
    for strength, top in grid:
        found += [
            Way(
                f"rpsft-{side}-{top}-{strength}",
                f"RPSFT, {said}, top {100 * top:g} %, λ = {strength:g}",
                penalty="rpsft", strength=strength, top=top, side=side,
            )
            for side, said in _SIDES.items()
            if side == "two" or (top == 0.2 and strength >= 1)
        ]  # fmt: skip
    return found + _baselines()


def _baselines() -> list[Way]:
    return [
        Way("l2-1.0", "L2 to the start, same matrices, λ = 1", penalty="l2", strength=1.0),
        Way(
            "l2-all-0.1", "L2 to the start, all parameters, λ = 0.1", penalty="l2-all", strength=0.1,
        ),
        Way("kl-1.0", "KL to the base, 1", loss="kl", strength=1.0),
        Way("dft", "DFT", loss="dft"),
        Way("iw", "IW-SFT", loss="iw"),
        Way("osf-0.2", "OSF, top 20 % frozen", top=0.2, osf=True),
    ]  # fmt: skip


def edits(quick: bool = False) -> list[Edit]:
    """The edits of the SFT checkpoint besides the line."""
    found = [
        Edit("restore-0.2", "restore", {"top": 0.2}),
        Edit("restore-0.5", "restore", {"top": 0.5}),
        Edit("project-two-0.2", "project", {"top": 0.2}),
        Edit("project-two-0.5", "project", {"top": 0.5}),
        Edit("project-two-0.7", "project", {"top": 0.7}),
        Edit("project-left-0.5", "project", {"top": 0.5, "side": "left"}),
        Edit("reset-layers-0.25", "reset_layers", {"frac": 0.25}),
        Edit("reset-layers-0.5", "reset_layers", {"frac": 0.5}),
    ]
    return found[:4] + found[-2:-1] if quick else found


def measure(pair: Pair) -> None:
    """Train and test everything on one pair, each training run and each test once."""
    quick = pair.sizes.quick
    pair.once(point(LINE[0]), lambda: pair.scores(pair.base))
    pair.once(SFT.name, lambda: {**pair.scores(sft(pair)), **pair.notes("sft")["training"]})
    for name in STOPS:
        pair.once(name, partial(_stop, pair, name))
    for scale in LINE:
        pair.once(point(scale), partial(on_line, pair, sft(pair), scale))
    for edit in edits(quick):
        pair.once(edit.name, partial(edited_scores, pair, sft(pair), edit))
    for way in ways(quick):
        pair.once(way.name, partial(_scored, pair, way))


def _scored(pair: Pair, way: Way) -> dict[str, float]:
    model, found = trained(pair, way)
    return {**pair.scores(model), **found}


def sft(pair: Pair) -> Path:
    """The checkpoint after plain SFT in the sizes of the study."""
    return pair.checkpoint(SFT.name, lambda: _plainly_trained(pair))


def _stop(pair: Pair, name: str) -> dict[str, float]:
    """The scores at an early stop of SFT."""
    sft(pair)
    found: dict[str, float] = pair.notes(SFT.name)[name]
    return found


def _plainly_trained(pair: Pair) -> tuple[Any, dict[str, Any]]:
    """A model after SFT; and notes of its training, with the scores at the early stops.

    A stop is chosen on hands of the half that nothing else is measured on.
    """
    looks = sums.deal(_LOOK_HANDS, _LOOK_SEED, "search")
    seen: list[tuple[float, float]] = []
    states: list[dict[str, Any]] = []

    def look(step: int, model: Any) -> None:
        if step and step % _EVERY == 0:
            seen.append(in_domain(model, pair.tokenizer, looks))
            states.append({name: value.clone() for name, value in model.state_dict().items()})

    model, found = trained(pair, SFT, look)
    final = {name: value.clone() for name, value in model.state_dict().items()}
    notes: dict[str, Any] = {"training": found}
    for name, place in first_stops(seen).items():
        model.load_state_dict(states[place])
        notes[name] = {**pair.scores(model), "step": _EVERY * (place + 1)}
    model.load_state_dict(final)
    return model, notes


def first_stops(seen: Sequence[tuple[float, float]]) -> dict[str, int]:
    """The places of the early stops among the looks at (loss, accuracy) in domain."""
    least = min(range(len(seen)), key=lambda place: seen[place][0])
    goal = 0.99 * max(accuracy for _, accuracy in seen)
    first = next(place for place, (_, accuracy) in enumerate(seen) if accuracy >= goal)
    return dict(zip(STOPS, (least, first), strict=True))


def summarise(measured: Sequence[Measured]) -> dict[str, Any]:
    """Rows against the line for each regime, and the claims."""
    rows, labels = [], _labels()
    for regime in dict.fromkeys(each.regime for each in measured):
        of_regime = [each for each in measured if each.regime == regime]
        rows += comparison.rows(regime, of_regime, labels, [point(scale) for scale in LINE])
    return {"rows": rows, "claims": comparison.claims(rows)}


def _labels() -> dict[str, tuple[str, str]]:
    """Kind and label of every row, by the key in the journal."""
    found = {point(scale): ("line", f"interpolate --scale {scale}") for scale in LINE}
    found |= {SFT.name: ("training", SFT.label)}
    found |= {way.name: ("training", way.label) for way in ways()}
    found |= {name: ("training", label) for name, label in STOPS.items()}
    return found | {edit.name: ("edit", edit.label) for edit in edits()}


def draw(summary: Mapping[str, Any]) -> Any:
    """The figure of the stage."""
    from ..figures import against_line

    return against_line(summary)


def sized(sizes: Sizes) -> str:
    """The length of each training run."""
    return (
        f"Each of {len(ways(sizes.quick)) + 1} training runs: {sizes.steps} steps of {sizes.batch} hands at"
        f" a peak rate of {sizes.rate:g}; early stops are chosen on {_LOOK_HANDS} other hands."
    )


STAGE = Stage(
    name="prevention",
    order=40,
    title="Prevention",
    regimes=("part", "unseen"),
    measure=measure,
    summarise=summarise,
    section=comparison_page.section,
    draw=draw,
    rows=comparison.flat,
    sized=sized,
)
