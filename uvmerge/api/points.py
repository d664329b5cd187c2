"""What the checkpoints of a search scored, as files that a kill cannot leave in part.

points/NAME.HALF.json    the scores of one checkpoint on one half, item by item where they are known
points/items.HALF.json   the items themselves, which are the same for every checkpoint
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputRefused
from ..output import manifest
from ..output.tree import Tree
from ..tasks.scores import Items, Score
from .evaluator import EvaluationFailed

ITEMS = "items"


class Points:
    """The scores in a folder.

    Args:
        folder: is made if it is not there.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(exist_ok=True)
        self._items: dict[str, dict[str, Items | None]] = {}
        self._read: dict[tuple[str, str], dict[str, Score]] = {}

    def get(self, name: str, half: str) -> dict[str, Score] | None:
        """The scores of a checkpoint by goal; None where it was not asked yet."""
        if (name, half) not in self._read:
            data = self._load(f"{name}.{half}")
            if data is None:
                return None
            self._read[name, half] = self._scores(name, half, data)
        return self._read[name, half]

    def weights(self, name: str, half: str) -> dict[str, str]:
        """xxh3-128 of each weight file of a checkpoint that was asked."""
        data = self._load(f"{name}.{half}") or {}
        return dict(data.get("weights", {}))

    def add(self, name: str, half: str, scores: Mapping[str, Score], checkpoint: Path) -> None:
        """Keep the scores of a checkpoint.

        Raises:
            EvaluationFailed: its items are not those of the checkpoints before.
        """
        known = self._known(half)
        if known is None:
            data = {goal: _of_items(score.items) for goal, score in scores.items()}
            self._save(f"{ITEMS}.{half}", data)
            known = self._items[half] = {goal: score.items for goal, score in scores.items()}
        for goal, score in scores.items():
            if _of_items(score.items) != _of_items(known[goal]):
                count = [0 if one is None else len(one.keys) for one in (known[goal], score.items)]
                what = f"{goal} is of other items than before ({count[0]:,} and now {count[1]:,})"
                do = "Ask every checkpoint the same items."
                raise EvaluationFailed("evaluation", what, do)
        content = manifest.read(checkpoint) or {"files": {}}
        files = content["files"].items()
        data = {
            "scores": {goal: _of_score(score) for goal, score in scores.items()},
            "weights": {n: one["xxh3_128"] for n, one in files if n.endswith(".safetensors")},
        }
        self._save(f"{name}.{half}", data)
        self._read[name, half] = dict(scores)

    def _known(self, half: str) -> dict[str, Items | None] | None:
        if half not in self._items:
            data = self._load(f"{ITEMS}.{half}")
            if data is None:
                return None
            self._items[half] = {goal: _as_items(found) for goal, found in data.items()}
        return self._items[half]

    def _scores(self, name: str, half: str, data: Mapping[str, Any]) -> dict[str, Score]:
        try:
            known = self._known(half) or {}
            return {g: _as_score(d, known.get(g)) for g, d in data["scores"].items()}
        except (KeyError, TypeError, ValueError, AttributeError):
            raise self._broken(f"{name}.{half}") from None

    def _load(self, name: str) -> dict[str, Any] | None:
        with Tree.at(self.folder) as folder:
            if folder.status(f"{name}.json") is None:
                return None
            try:
                data = json.loads(folder.read(f"{name}.json"))
            except ValueError:
                data = None
        if not isinstance(data, dict):
            raise self._broken(name)
        return data

    def _save(self, name: str, data: Mapping[str, Any]) -> None:
        text = json.dumps(data, separators=(",", ":"), allow_nan=False)
        manifest.write_whole(self.folder / f"{name}.json", f"{text}\n".encode())

    def _broken(self, name: str) -> InputRefused:
        do = "Name another OUTDIR, or delete this one."
        return InputRefused(self.folder / f"{name}.json", "is not as a search has written it", do)


def _of_items(items: Items | None) -> Any:
    if items is None:
        return None
    clusters = None if items.clusters is None else list(items.clusters)
    return {"keys": [key.hex() for key in items.keys], "clusters": clusters}


def _as_items(data: Any) -> Items | None:
    return data and Items([bytes.fromhex(key) for key in data["keys"]], data["clusters"])


def _of_score(score: Score) -> dict[str, Any]:
    data: dict[str, Any] = {"value": score.value, "count": score.count, "scale": score.scale}
    if score.items is not None:
        data["numerators"] = [int(v) if v == int(v) else v for v in score.numerators.tolist()]
        if score.denominators is not None:
            data["denominators"] = score.denominators.tolist()
    return data


def _as_score(data: Mapping[str, Any], items: Items | None) -> Score:
    below = data.get("denominators")
    return Score(
        float(data["value"]), int(data["count"]), items=items if "numerators" in data else None,
        numerators=np.array(data.get("numerators", []), dtype=np.float64),
        denominators=None if below is None else np.array(below, dtype=np.float64),
        scale=data["scale"],
    )  # fmt: skip
