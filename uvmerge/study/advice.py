"""What follows from the study for `diff`, for the order of the recipes and for the README. Pure.

An edit is advised where its interval over pairs lies above interpolation, at equal accuracy in domain,
for some kind of pairs, and below it for none, in whichever stage it was measured.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ..errors import counted
from ..recipe.bundled import bundled
from ..recipe.recipe import Recipe
from .comparison_page import difference
from .edits import Edit
from .kinds import KINDS
from .verdicts import BETTER, WORSE

LEVEL = "at_equal_accuracy"
_LINE = "interpolate"
_EDITING = ("repair", "hypothesis", "prevention")


def advice(found: Mapping[str, Any]) -> dict[str, Any]:
    """The data of `recipe/advice.json`.

    Args:
        found: the results of the study.
    """
    stages = [found["stages"][name] for name in _EDITING if name in found["stages"]]
    rows = [row for stage in stages for row in stage["rows"] if row["kind"] == "edit"]
    pairs = {(pair["regime"], pair["seed"]) for stage in stages for pair in stage["pairs"]}
    better = [each for each in map(_better, _by_label(rows).values()) if each is not None]
    better.sort(key=lambda each: -each["mean"])
    labels = [each["label"] for each in better]
    return {"pairs": len(pairs), "better": better, "recipes": _recipes(labels)}


def _by_label(rows: Iterable[Mapping[str, Any]]) -> dict[str, list[Mapping[str, Any]]]:
    alike: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        alike.setdefault(row["label"], []).append(row)
    return alike


def _better(rows: list[Mapping[str, Any]]) -> dict[str, Any] | None:
    """An edit that is advised, from its rows of all stages and kinds of pairs; None if it is not."""
    above = [row for row in rows if row[LEVEL]["verdict"] == BETTER]
    if not above or any(row[LEVEL]["verdict"] == WORSE for row in rows):
        return None
    operation, *options = shlex.split(above[0]["label"])
    seen = [
        f"{row['regime']} {difference(row[LEVEL])} over {counted(row[LEVEL]['pairs'], 'pair')}"
        for row in above
    ]
    mean = sum(row[LEVEL]["mean"] for row in above) / len(above)
    return {
        "label": above[0]["label"], "operation": operation, "options": options,
        "seen": "; ".join(seen), "mean": mean,
    }  # fmt: skip


def _recipes(labels: list[str]) -> list[str]:
    """The bundled recipes of one advised edit, in its order; then those of interpolation."""
    found: dict[str, list[str]] = {}
    for name, path in bundled().items():
        label = _label(path)
        found.setdefault(_LINE if label.startswith(_LINE) else label, []).append(name)
    return [name for label in (*labels, _LINE) for name in found.get(label, [])]


def _label(path: Path) -> str:
    """A recipe of one step as it is typed; nothing for one of several."""
    steps = Recipe.load(path).as_data()["steps"]
    if len(steps) != 1:
        return ""
    ((operation, options),) = steps[0].items()
    return Edit("", operation, options).label


def sentence(given: Mapping[str, Any]) -> str:
    """What the study says of edits, for the README.

    Args:
        given: as `advice` returns it.
    """
    about = f"On the {counted(given['pairs'], 'small pair')} of the [study](docs/study.md)"
    against = "interpolation between the same two checkpoints, at equal accuracy in domain"
    if not given["better"]:
        return (
            f"**{about} no edit beats {against}**: of none the whole interval over pairs lies above it for"
            " one kind of pairs, and for no other one below it. So try interpolation first."
        )
    said = "; ".join(f"`{each['label']}` ({each['seen']})" for each in given["better"])
    kinds = {seen.split()[0] for each in given["better"] for seen in each["seen"].split("; ")}
    told = "; ".join(f"*{name}*: {kind.told}" for name, kind in KINDS.items() if name in kinds)
    return f"**{about} more is left out of domain than by {against}, with** {said}. {told}."
