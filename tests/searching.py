"""What the tests of a search share: a pair, spaces, and evaluations that depend on a checkpoint alone."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path
from typing import Any

import numpy as np

SPACE = """uvmerge: 1
steps:
  - project: {top: {from: 0.1, to: 0.9}, side: {any: [two, left, right]}}
  - interpolate: {scale: {from: 0.1, to: 1.2}, layers: "0"}
"""
GOALS = ["id:max", "ood:max"]

# A command that answers as SCRIPT says, in the place of numbers made of the checkpoint's hash.
EVALUATION = """import json, os, pathlib, subprocess, sys, time
folder, half = pathlib.Path(sys.argv[1]), sys.argv[2]
digest = json.loads((folder / "uvmerge.json").read_text())["files"]["model.safetensors"]["xxh3_128"]
is_trial = folder.name.startswith("trial-")
number = int(folder.name.rpartition("-")[2]) if is_trial else -1
answer = {"id": int(digest[:6], 16) / 2**24, "ood": int(digest[6:12], 16) / 2**24}
SCRIPT
print(json.dumps(answer))
"""


def command(folder: Path, script: str = "", *more: str) -> str:
    """A command for `--eval` that runs `script` before it prints its numbers."""
    file = folder / "evaluation.py"
    file.write_text(EVALUATION.replace("SCRIPT", script))
    return shlex.join([sys.executable, "-I", "-S", str(file), "{}", *(more or ("{split}",))])


def digest_of(checkpoint: Path) -> str:
    """The hash of a checkpoint's weights."""
    files = json.loads((checkpoint / "uvmerge.json").read_text())["files"]
    return str(files["model.safetensors"]["xxh3_128"])


class Coins:
    """An evaluation whose answers are drawn at random, the same for the same weights.

    Attributes:
        asked: the name of each checkpoint and the half, in order.
    """

    def __init__(self, seed: int = 0, items: int = 60) -> None:
        self.seed, self.items = seed, items
        self.asked: list[tuple[str, str]] = []
        self.identity = ["coins", seed, items]

    def __call__(self, checkpoint: Path, half: str) -> dict[str, Any]:
        self.asked.append((checkpoint.name, half))
        words = [int(digest_of(checkpoint)[:15], 16), self.seed, half == "search"]
        generator = np.random.default_rng(words)
        return {
            name: generator.integers(0, 2, self.items).astype(np.float64) for name in ("id", "ood")
        }
