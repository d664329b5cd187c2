"""Reinforcement: does RL in domain win back what SFT forgot (arXiv 2509.12235, 2508.16546)?

RL starts from checkpoints of one fine-tuning that were trained too shortly, long enough and too long, and
from repaired versions of them. Its reward is the exact verifier's in domain.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from ...demo import sums
from .. import course, moved
from ..comparison_page import claim_table
from ..edits import Edit
from ..lab import Pair, load
from ..reinforce import GROUP, RATE, reinforced
from ..sizes import Sizes
from ..stage import Measured, Stage
from ..verdicts import claim, summary

STARTS = {"short": "too short", "right": "long enough", "long": "too long"}
REPAIR = Edit("project-two-0.5", "project", {"top": 0.5})
_REPAIRED = "-repaired"


def starts(pair: Pair) -> dict[str, int]:
    """The steps of the checkpoints that RL starts from; in a quick study without the middle one."""
    found = course.points_of(course.choosing(pair))
    return {name: found[name] for name in STARTS if name != "right" or not pair.sizes.quick}


def looks(sizes: Sizes) -> list[int]:
    """The steps of RL after which a model is asked, ascending; the last one ends it."""
    most = sizes.steps // 2 if sizes.quick else 2 * sizes.steps
    shares = (0, 0.5, 1) if sizes.quick else (0, 0.1, 0.25, 0.5, 1)
    return sorted({round(share * most) for share in shares})


def measure(pair: Pair) -> None:
    """Train from every start once, and measure where the weights went."""
    found = starts(pair)
    pair.once("starts", lambda: {**found, "best": course.points_of(course.choosing(pair))["best"]})
    pair.once("sft", lambda: {str(step): each for step, each in course.scored(pair).items()})
    for name, step in found.items():
        begun = course.checkpoints(pair)[step]
        for start, folder in ((name, begun), (name + _REPAIRED, _repaired(pair, name, begun))):
            pair.once(start, partial(_path, pair, start, folder))
        pair.once(f"turn-{name}", partial(_turn, pair, begun, pair.folder / f"rl-{name}"))
        pair.once(f"reverse-{name}", partial(_reversed, pair, begun, pair.folder / f"rl-{name}"))


def _repaired(pair: Pair, name: str, begun: Path) -> Path:
    """A repaired start."""
    import uvmerge

    out = pair.folder / f"start-{name}{_REPAIRED}"
    if not out.is_dir():
        getattr(uvmerge, REPAIR.operation)(
            pair.base, begun, out, device="cpu", quiet=True, **REPAIR.options
        )
    return out


def _path(pair: Pair, start: str, folder: Path) -> dict[str, Any]:
    """What was seen along RL from a start: scores at each look, and mean rewards before them."""
    name = f"rl-{start}"
    pair.checkpoint(name, lambda: _trained(pair, folder))
    return pair.notes(name)


def _trained(pair: Pair, folder: Path) -> tuple[Any, dict[str, Any]]:
    asked = looks(pair.sizes)
    scores: dict[str, Any] = {}

    def look(step: int, model: Any) -> None:
        if step in asked:
            scores[str(step)] = pair.scores(model)

    model = load(folder)
    rewards = reinforced(pair, model, asked[-1], look)
    for step in asked[1:]:
        last = rewards[max(0, step - course.LAST) : step]
        scores[str(step)]["reward"] = sum(last) / len(last)
    return model, scores


def _turn(pair: Pair, begun: Path, ended: Path) -> dict[str, float]:
    """The mean angles of the start and of the RL model with the best checkpoint out of domain."""
    best = course.checkpoints(pair)[course.points_of(course.choosing(pair))["best"]]
    before, after = moved.moved(best, [begun, ended])
    own = moved.moved(begun, [ended])[0]
    return {
        "before": before["angle"], "after": after["angle"], "between": own["angle"],
        "relative": own["relative"], "values": own["values"],
    }  # fmt: skip


def _reversed(pair: Pair, begun: Path, ended: Path) -> dict[str, float]:
    """The scores of the RL model with the leading directions of the SFT checkpoint that it began at."""
    import uvmerge

    out = pair.folder / "reversed"
    shutil.rmtree(out, ignore_errors=True)
    uvmerge.restore(begun, ended, out, top=moved.TOP, device="cpu", quiet=True)
    found = pair.scores(out)
    shutil.rmtree(out)
    return found


def summarise(measured: Sequence[Measured]) -> dict[str, Any]:
    """A row for each start and look, and the claims."""
    rows, claims = [], []
    for regime in dict.fromkeys(each.regime for each in measured):
        pairs = [each.values for each in measured if each.regime == regime]
        for start in (s + tail for s in STARTS for tail in ("", _REPAIRED)):
            if all(start in values for values in pairs):
                rows += _rows(regime, start, [values[start] for values in pairs])
        claims += _claims(regime, pairs)
    return {"rows": rows, "claims": claims}


def _rows(regime: str, start: str, paths: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    found = []
    for look in paths[0]:
        scores = [path[look] for path in paths]
        keys = [key for key in (*course.SCORES, "reward") if key in scores[0]]
        row: dict[str, Any] = {"regime": regime, "start": start, "step": int(look)}
        found.append({**row, **{key: summary([each[key] for each in scores]) for key in keys}})
    return found


def _claims(regime: str, pairs: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    found: dict[str, list[float]] = {}
    for values in pairs:
        said: dict[str, float] = {}
        for start in (name for name in STARTS if name in values):
            said |= _claims_of_start(values, start)
        early, late = (_ends(values["short"])[1], _ends(values["long"])[1])
        said[
            "RL from SFT that was too short ends with more out of domain than from SFT too long."
        ] = early["out_of_domain"] - late["out_of_domain"]
        for words, value in said.items():
            found.setdefault(words, []).append(value)
    return [claim(words, regime, values) for words, values in found.items()]


def _claims_of_start(values: Mapping[str, Any], start: str) -> dict[str, float]:
    """What is claimed of RL from a start, and the difference on one pair."""
    (begun, ended), out = _ends(values[start]), "out_of_domain"
    repaired, turn = _ends(values[start + _REPAIRED])[1], values[f"turn-{start}"]
    others = [*values[start].values(), *values["sft"].values()]
    back, where = values[f"reverse-{start}"], f"SFT {STARTS[start]}"
    return {
        f"RL from {where} gains in domain.": ended["in_domain"] - begun["in_domain"],
        f"RL from {where} wins back accuracy out of domain.": ended[out] - begun[out],
        f"RL from {where}, repaired, ends with more out of domain than any SFT checkpoint, and than"
        " RL without the repair, at no less in domain.":
            repaired[out] - best_at(others, repaired["in_domain"]),
        f"RL from {where} turns leading vectors back towards the best checkpoint (radians).":
            turn["before"] - turn["after"],
        f"Directions of {where} put into the RL model make it worse out of domain.":
            ended[out] - back[out],
        f"Directions of {where} put into the RL model make it worse in domain.":
            ended["in_domain"] - back["in_domain"],
    }  # fmt: skip


def best_at(others: Sequence[Mapping[str, float]], level: float) -> float:
    """The most out of domain that others have at no less than a level in domain.

    Where none reaches the level, that of the best of them in domain.
    """
    reached = [each for each in others if each["in_domain"] >= level]
    if not reached:
        return max(others, key=lambda each: each["in_domain"])["out_of_domain"]
    return max(each["out_of_domain"] for each in reached)


def _ends(path: Mapping[str, Any]) -> tuple[dict[str, float], dict[str, float]]:
    """The scores before and after RL."""
    looks_in_order = sorted(path, key=int)
    return path[looks_in_order[0]], path[looks_in_order[-1]]


def section(found: Mapping[str, Any]) -> str:
    """The section of the page."""
    told = (
        "RL is REINFORCE with the mean of a group as baseline; the reward is the exact verifier's in"
        " domain. (TRL's `GRPOTrainer` runs on these models too, at 15 times the CPU time of a step.)"
        f" Repaired means `{REPAIR.label}`, made of the start with the base. A negative claim"
        " of no effect is not among these: where the interval holds 0, nothing can be told."
    )
    regimes = dict.fromkeys(row["regime"] for row in found["rows"])
    tables = [_regime(regime, found["rows"]) for regime in regimes]
    return "\n\n".join([told, claim_table(found["claims"]), *tables])


def _regime(regime: str, rows: Sequence[Mapping[str, Any]]) -> str:
    lines = [
        f"**{regime}**: {sums.REGIMES[regime]}. Means over pairs.", "",
        "| RL from SFT | steps of RL | reward | in domain | out of domain |", "|---|---|---|---|---|",
    ]  # fmt: skip
    for row in (row for row in rows if row["regime"] == regime):
        reward = f"{row['reward']['mean']:.3f}" if "reward" in row else ""
        cells = [f"{row[key]['mean']:.3f}" for key in ("in_domain", "out_of_domain")]
        lines.append(
            f"| {start_label(row['start'])} | {row['step']} | {reward} | {' | '.join(cells)} |"
        )
    return "\n".join(lines)


def start_label(start: str) -> str:
    """`too long, repaired` of `long-repaired`."""
    name, repaired, _ = start.partition(_REPAIRED)
    return STARTS[name] + (", repaired" if repaired else "")


def draw(found: Mapping[str, Any]) -> Any:
    """The figure of the stage."""
    from ..curves import paths

    return paths(found, start_label)


def flat_rows(found: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The rows with numbers and texts alone, for a CSV file."""
    flat = []
    for row in found["rows"]:
        one: dict[str, Any] = {key: row[key] for key in ("regime", "start", "step")}
        for key in (*course.SCORES, "reward"):
            said = row.get(key) or {}
            low, high = said.get("interval_95") or (None, None)
            one |= {key: said.get("mean"), f"{key}_low": low, f"{key}_high": high}
        flat.append({**one, "pairs": row["loss"]["pairs"]})
    return flat


def sized(sizes: Sizes) -> str:
    """The length of RL, and how many answers it draws."""
    return (
        f"RL of {looks(sizes)[-1]} steps of {sizes.batch} hands with {GROUP} answers to each, at a peak"
        f" rate of {RATE * sizes.rate:g}, from checkpoints of the trajectory and their repaired versions."
    )


STAGE = Stage(
    name="reinforcement",
    order=30,
    title="Reinforcement",
    regimes=("part", "unseen"),
    measure=measure,
    summarise=summarise,
    section=section,
    draw=draw,
    rows=flat_rows,
    sized=sized,
)
