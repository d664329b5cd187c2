"""The embedded demo: a tiny base and fine-tuned Llama, the task they learnt, and its table.

The pair is a base model that knows two rules of a card game and a fine-tuned one that was trained
on with the first rule alone and forgot the second. :mod:`uvmerge.demo.cards` is the task,
:mod:`uvmerge.demo.train` the script that trained the pair and :mod:`uvmerge.demo.run` the run
that repairs it in several ways and measures each.
"""

from __future__ import annotations

from pathlib import Path

__all__ = ["pair"]


def pair() -> tuple[Path, Path]:
    """Return the folders of the embedded base and fine-tuned checkpoints, in this order."""
    data = Path(__file__).resolve().parent / "data"
    return data / "base", data / "finetuned"
