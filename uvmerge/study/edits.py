"""Edits after the fact: what uvmerge's operations make of a fine-tuned checkpoint, and the line."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .lab import Pair

POINTS = 11
LINE = tuple(round(i / (POINTS - 1), 2) for i in range(POINTS))  # scales, from the base to SFT


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
        typed = " ".join(f"--{key} {value}" for key, value in self.options.items())
        return f"{self.operation.replace('_', '-')} {typed}"


def edited_scores(pair: Pair, finetuned: Path, edit: Edit) -> dict[str, float]:
    """Make an edited checkpoint, measure it and remove it.

    The decompositions of both checkpoints are kept beside them, for the other edits.
    """
    import uvmerge

    out = pair.folder / "edited"
    shutil.rmtree(out, ignore_errors=True)
    getattr(uvmerge, edit.operation)(
        pair.base, finetuned, out, factors=pair.folder / "factors", quiet=True, overwrite=True,
        **edit.options,
    )  # fmt: skip
    found = pair.scores(out)
    shutil.rmtree(out)
    return found


def on_line(pair: Pair, finetuned: Path, scale: float) -> dict[str, float]:
    """A point of the interpolation line; its ends are the two checkpoints themselves."""
    if scale in (0, 1):
        return pair.scores(finetuned if scale else pair.base)
    return edited_scores(pair, finetuned, Edit("", "interpolate", {"scale": scale}))
