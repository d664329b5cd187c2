"""Trajectory: what happens along a long fine-tuning (arXiv 2509.12235, 2508.16546)?

Ten checkpoints of one run are asked and measured. Which of them is the peak, or has the least loss, is
chosen on the half of the held-out hands that nothing is reported on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from ...demo import sums
from .. import course, moved
from ..comparison_page import claim_table, difference
from ..lab import Pair, load
from ..ranks import correlation
from ..sizes import Sizes
from ..stage import Measured, Stage
from ..verdicts import claim, summary

_KL_HANDS = 200
BEHAVIOUR = {"kl": "KL(base ‖ model) in domain", "kl_out": "KL(base ‖ model) out of domain"}
_TABLE = {
    "in_domain": "in domain", "out_of_domain": "out of domain", "loss": "loss in domain",
    "training_loss": "training loss", "kl": "KL to the base", "values": "values",
    "angle": "angle", "inside": "in the block", "head": "head", "bulk": "bulk", "tail": "tail",
}  # fmt: skip


def measure(pair: Pair) -> None:
    """Train once, and test and measure every checkpoint once."""
    before = _base_answers(pair)
    for step, folder in course.checkpoints(pair).items():
        pair.once(f"kl-{step}", partial(_divergence, pair, folder, before))
    course.scored(pair)
    course.choosing(pair)
    pair.once("training_loss", lambda: {str(k): v for k, v in course.training_losses(pair).items()})
    pair.once("moved", lambda: moved.moved(pair.base, list(course.checkpoints(pair).values())))
    last = course.steps(pair.sizes)[-1]
    pair.once("control", lambda: moved.with_random_signs(pair, course.checkpoints(pair)[last]))


def _base_answers(pair: Pair) -> dict[str, Any]:
    base = load(pair.base)
    return {r: moved.log_probs(base, pair.tokenizer, r, _KL_HANDS) for r in sums.RULES}


def _divergence(pair: Pair, folder: Path, before: Mapping[str, Any]) -> dict[str, float]:
    return moved.kl_to(before, load(folder), pair.tokenizer, _KL_HANDS)


def summarise(measured: Sequence[Measured]) -> dict[str, Any]:
    """A row for each step of each regime, the claims, and which measure ranks pairs by what they lose."""
    rows, claims = [], []
    for regime in dict.fromkeys(each.regime for each in measured):
        runs = [_by_step(each.values) for each in measured if each.regime == regime]
        pairs = [each for each in measured if each.regime == regime]
        for step in runs[0]:
            points = [run[step] for run in runs]
            means = {key: summary([p[key] for p in points]) for key in points[0]}
            rows.append({"regime": regime, "step": step, **means})
        claims += _claims_of_scores(regime, pairs, runs) + _claims_of_weights(regime, pairs, runs)
    return {"rows": rows, "claims": claims, "correlations": _correlations(measured)}


def _by_step(values: Mapping[str, Any]) -> dict[int, dict[str, float]]:
    """All that was measured of one pair, by step; that of step 0 is its base's."""
    steps = sorted(int(step) for step in values["training_loss"])
    found = {0: {**_of(values["scores-0"]), "kl": 0.0, "kl_out": 0.0}}
    for step, weights in zip(steps, values["moved"], strict=True):
        training = {"training_loss": values["training_loss"][str(step)]}
        tested = _of(values[f"scores-{step}"])
        found[step] = {**tested, **values[f"kl-{step}"], **training, **weights}
    return found


def _of(scores: Mapping[str, Any]) -> dict[str, float]:
    return {key: scores[key] for key in course.SCORES}


def _claims_of_scores(
    regime: str, pairs: Sequence[Measured], runs: Sequence[dict[int, dict[str, float]]]
) -> list[dict[str, Any]]:
    found: dict[str, list[float]] = {}
    for pair, run in zip(pairs, runs, strict=True):
        out = {step: run[step]["out_of_domain"] for step in run}
        choosing = {step: pair.values[f"choosing-{step}"] for step in run if step}
        peak = course.points_of(choosing)["best"]
        last = max(run)
        tested = min(choosing, key=lambda step: choosing[step]["loss"])
        trained = min(choosing, key=lambda step: run[step]["training_loss"])
        for said, value in (
            ("Out of domain, accuracy first rises above that of the base.", out[peak] - out[0]),
            ("Out of domain, accuracy falls from its peak to the end of the fine-tuning.",
             out[peak] - out[last]),
            ("The peak lies in the first half of the fine-tuning (0.5 less its place).",
             0.5 - peak / last),
            ("The peak has more out of domain than the checkpoint of the least test loss.",
             out[peak] - out[tested]),
            ("The peak has more out of domain than the checkpoint of the least training loss.",
             out[peak] - out[trained]),
        ):  # fmt: skip
            found.setdefault(said, []).append(value)
    return [claim(said, regime, values) for said, values in found.items()]


def _claims_of_weights(
    regime: str, pairs: Sequence[Measured], runs: Sequence[dict[int, dict[str, float]]]
) -> list[dict[str, Any]]:
    """Claims on the weights at the end, against the same change with random signs."""
    found: dict[str, list[float]] = {}
    for pair, run in zip(pairs, runs, strict=True):
        end, control = run[max(run)], pair.values["control"]
        head, tail = (end[key] - end["bulk"] for key in ("head", "tail"))
        heads, tails = (control[key] - control["bulk"] for key in ("head", "tail"))
        for said, value in (
            ("Leading vectors turn more than by a random change of the same size (radians).",
             end["angle"] - control["angle"]),
            ("Leading values change less than by a random change of the same size (relative).",
             control["values"] - end["values"]),
            ("The leading block holds more of the change than chance gives (share).",
             end["inside"] - end["inside_chance"]),
            ("Of the change in the leading block, less goes into values than chance gives (share).",
             end["diagonal_chance"] - end["diagonal"]),
            ("The head of the spectrum turns more than the bulk (radians).", head),
            ("The tail of the spectrum turns more than the bulk (radians).", tail),
            ("The head turns more against the bulk than by a random change (radians).", head - heads),
            ("The tail turns more against the bulk than by a random change (radians).", tail - tails),
        ):  # fmt: skip
            found.setdefault(said, []).append(value)
    return [claim(said, regime, values) for said, values in found.items()]


def _correlations(measured: Sequence[Measured]) -> list[dict[str, Any]]:
    """How each measure at the end ranks all pairs by what they have forgotten."""
    runs = [_by_step(each.values) for each in measured]
    forgotten = [run[0]["out_of_domain"] - run[max(run)]["out_of_domain"] for run in runs]
    return [
        correlation(label, "all", [run[max(run)][key] for run in runs], forgotten)
        for key, label in {**BEHAVIOUR, **moved.MEASURES}.items()
    ]


def section(found: Mapping[str, Any]) -> str:
    """The section of the page."""
    regimes = dict.fromkeys(row["regime"] for row in found["rows"])
    return "\n\n".join([
        claim_table(found["claims"]),
        _predictors(found["correlations"]),
        *(_regime(regime, found["rows"]) for regime in regimes),
    ])  # fmt: skip


def _predictors(found: Sequence[Mapping[str, Any]]) -> str:
    lines = [
        "Which measure at the end of the fine-tuning ranks the pairs by what they have forgotten"
        f" out of domain (Spearman's ρ over {found[0]['pairs']} pairs of all regimes, which differ in"
        " how much there was to learn)?",
        "",
        "| measure | ρ (95 %) | verdict |",
        "|---|---|---|",
    ]
    lines += [f"| {one['claim']} | {difference(one)} | **{one['verdict']}** |" for one in found]
    return "\n".join(lines)


def _regime(regime: str, rows: Sequence[Mapping[str, Any]]) -> str:
    own = [row for row in rows if row["regime"] == regime]
    lines = [
        f"**{regime}**: {sums.REGIMES[regime]}. Means over pairs; 0 steps are the base.", "",
        f"| steps | {' | '.join(_TABLE.values())} |", "|---" * (len(_TABLE) + 1) + "|",
    ]  # fmt: skip
    for row in own:
        cells = [f"{row[key]['mean']:.3f}" if key in row else "" for key in _TABLE]
        lines.append(f"| {row['step']} | {' | '.join(cells)} |")
    return "\n".join(lines)


def draw(found: Mapping[str, Any]) -> Any:
    """The figure of the stage."""
    from ..curves import trajectory

    return trajectory(found)


def rows(found: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The rows with numbers and texts alone, for a CSV file."""
    keys = list(found["rows"][-1])[2:]
    flat = []
    for row in found["rows"]:
        one: dict[str, Any] = {key: row[key] for key in ("regime", "step")}
        for key in keys:
            said = row.get(key) or {}
            low, high = said.get("interval_95") or (None, None)
            one |= {key: said.get("mean"), f"{key}_low": low, f"{key}_high": high}
        flat.append({**one, "pairs": row["loss"]["pairs"]})
    return flat


def sized(sizes: Sizes) -> str:
    """The length of the fine-tuning, and what is asked of its checkpoints."""
    *before, last = course.steps(sizes)
    return (
        f"One fine-tuning of {last} steps of {sizes.batch} hands at a peak rate of {sizes.rate:g}, with"
        f" {len(before) + 1} checkpoints; KL over {_KL_HANDS} hands under each rule."
    )


STAGE = Stage(
    name="trajectory",
    order=10,
    title="Trajectory",
    regimes=tuple(sums.REGIMES),
    measure=measure,
    summarise=summarise,
    section=section,
    draw=draw,
    rows=rows,
    sized=sized,
)
