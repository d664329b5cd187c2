"""The embedded demo: a tiny base and fine-tuned Llama, the task that they learnt, and its table.

The base model knows two rules of a card game. The fine-tuned model was trained further on the first
rule alone and forgot the second. `sums` is the task, `train` the script that trained the pair,
`run` repairs the pair in several ways and measures every result, and `table` shows the results.
"""

from __future__ import annotations

from pathlib import Path

__all__ = ["pair"]


def pair() -> tuple[Path, Path]:
    """The folders of the embedded base and fine-tuned checkpoints, in this order."""
    data = Path(__file__).resolve().parent / "data"
    return data / "base", data / "finetuned"
