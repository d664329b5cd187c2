"""The embedded demo: pairs of a tiny base and fine-tuned Llama, the task that they learnt, and a table.

A base model knows several rules of a card game. The fine-tuned model was trained further on one
rule alone and forgot the others. `sums` is the task, `train` the script that trained the pairs,
`evaluator` asks a checkpoint, `run` repairs a pair in several ways and measures every result, and
`table` shows the results.
"""

from __future__ import annotations

from pathlib import Path

__all__ = ["PAIRS", "pair"]

PAIRS = ("part", "unseen")
"""The regimes, as `sums.REGIMES` tells them, of which a pair is embedded."""


def pair(regime: str = "part") -> tuple[Path, Path]:
    """The folders of an embedded base and fine-tuned checkpoint, in this order.

    Raises:
        ValueError: no pair of this regime is embedded.
    """
    if regime not in PAIRS:
        raise ValueError(f"no pair of regime {regime!r} is embedded; there are {', '.join(PAIRS)}")
    data = Path(__file__).resolve().parent / "data" / regime
    return data / "base", data / "finetuned"
