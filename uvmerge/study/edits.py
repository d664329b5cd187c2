"""Edits after the fact: what uvmerge's operations make of a fine-tuned checkpoint, and the line."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .lab import Pair

Ask = Callable[[Any], dict[str, Any]]
POINTS = 11
LINE = tuple(round(i / (POINTS - 1), 2) for i in range(POINTS))  # scales, from the base to SFT


def point(scale: float) -> str:
    """The key of a point of the line in a journal."""
    return f"interpolate-{scale}"


@dataclass(frozen=True)
class Edit:
    """One operation on (base, fine-tuned).

    Attributes:
        name: in the journal.
        operation: as the Python function is called.
        options: of the operation.
    """

    name: str
    operation: str
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def label(self) -> str:
        """As it is typed."""
        words = [self.operation.replace("_", "-")]
        for key, value in self.options.items():
            shown = "" if value is True else f" {value}"
            words.append(f"--{key.strip('_').replace('_', '-')}{shown}")
        return " ".join(words)


def edited_scores(
    pair: Pair, finetuned: Path, edit: Edit, ask: Ask | None = None
) -> dict[str, Any]:
    """Make an edited checkpoint, measure it and remove it.

    The decompositions of both checkpoints are kept beside them, for the other edits.

    Args:
        ask: measures a checkpoint; `Pair.scores` by default.
    """
    import uvmerge

    out = pair.folder / "edited"
    shutil.rmtree(out, ignore_errors=True)
    getattr(uvmerge, edit.operation)(
        pair.base, finetuned, out, factors=pair.folder / "factors", device="cpu", quiet=True, overwrite=True,
        **edit.options,
    )  # fmt: skip
    found = (ask or pair.scores)(out)
    shutil.rmtree(out)
    return found


def on_line(pair: Pair, finetuned: Path, scale: float, ask: Ask | None = None) -> dict[str, Any]:
    """A point of the interpolation line; its ends are the two checkpoints themselves."""
    if scale in (0, 1):
        return (ask or pair.scores)(finetuned if scale else pair.base)
    return edited_scores(pair, finetuned, Edit("", "interpolate", {"scale": scale}), ask)
