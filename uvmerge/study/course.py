"""One long fine-tuning of a pair with a checkpoint at each of several points, for all stages."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from .lab import Pair, load
from .sizes import Sizes

LENGTH = 3  # of the fine-tuning, in those of the prevention stage; in a quick study 1
SCORES = ("loss", "in_domain", "out_of_domain")
POINTS = (0.01, 0.02, 0.04, 0.08, 0.16, 0.25, 1 / 3, 0.5, 2 / 3, 1.0)  # shares of the fine-tuning
OWNER = "trajectory"  # the stage in whose name all of this is in the journal
LAST = 10  # steps over which the training loss is averaged


def steps(sizes: Sizes) -> list[int]:
    """The steps after which there is a checkpoint, ascending; in a quick study every other one."""
    shares, length = (POINTS[1::2], sizes.steps) if sizes.quick else (POINTS, LENGTH * sizes.steps)
    return sorted({max(1, round(share * length)) for share in shares})


def checkpoints(pair: Pair) -> dict[int, Path]:
    """The checkpoint after each of `steps`; all of them are of one training run."""
    last = steps(pair.sizes)[-1]
    pair.checkpoint(_name(last), lambda: _trained(pair))
    return {step: pair.folder / _name(step) for step in steps(pair.sizes)}


def training_losses(pair: Pair) -> dict[int, float]:
    """The mean loss of the steps before each checkpoint, by step."""
    checkpoints(pair)
    noted: Mapping[str, float] = pair.notes(_name(steps(pair.sizes)[-1]))["training_loss"]
    return {int(step): value for step, value in noted.items()}


def _name(step: int) -> str:
    return f"course-{step}"


def _trained(pair: Pair) -> tuple[Any, dict[str, Any]]:
    """The model at the end; and notes. The checkpoints before the end are written on the way."""
    import torch

    from ..demo.train import fit

    seen: list[float] = []
    *before, last = steps(pair.sizes)

    def loss(logits: Any, answers: Any, questions: Any) -> Any:
        error = torch.nn.functional.cross_entropy(logits, answers)
        seen.append(error.item())
        return error

    def keep(step: int, model: Any) -> None:
        if step in before:
            pair.checkpoint(_name(step), lambda: (copy.deepcopy(model), {}))

    model = load(pair.base)
    course = replace(pair.course(1.0), steps=last)
    fit(model, pair.tokenizer, course, loss=loss, on_step=keep)
    means = {
        step: sum(part := seen[max(0, step - LAST) : step]) / len(part)
        for step in steps(pair.sizes)
    }
    return model, {"training_loss": means}


def choosing(pair: Pair) -> dict[int, dict[str, float]]:
    """By step, the scores of the checkpoints on hands that nothing is reported on."""
    return {
        step: pair.journal.once(
            OWNER, f"choosing-{step}", partial(pair.scores, folder, split="search")
        )
        for step, folder in checkpoints(pair).items()
    }


def scored(pair: Pair) -> dict[int, dict[str, float]]:
    """By step, the scores of the base (0) and of the checkpoints on the hands that are reported on."""
    folders = {0: pair.base, **checkpoints(pair)}
    return {
        step: pair.journal.once(OWNER, f"scores-{step}", partial(pair.scores, folder))
        for step, folder in folders.items()
    }


def points_of(seen: Mapping[int, Mapping[str, float]]) -> dict[str, int]:
    """The steps that stages speak of.

    Args:
        seen: by step, as `choosing` returns them.

    Returns:
        `best`, of the most out of domain; `short`, the first that is half of the way in domain from
        the least to the most; `right`, the first with 99 % of the most; and `long`, the last.
    """
    order = sorted(seen)
    inside = {step: seen[step]["in_domain"] for step in order}
    most, least = max(inside.values()), min(inside.values())
    return {
        "best": max(order, key=lambda step: seen[step]["out_of_domain"]),
        "short": next(step for step in order if inside[step] >= (most + least) / 2),
        "right": next(step for step in order if inside[step] >= 0.99 * most),
        "long": order[-1],
    }
