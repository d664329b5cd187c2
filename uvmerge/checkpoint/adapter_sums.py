"""Several adapters as one fine-tuned checkpoint: `0.5*lora-a+lora-b`, each with its scale. Pure.

They are merged one after the other, each into what the one before has made, as PEFT's
`merge_and_unload` does with several. A folder whose own name has such characters wins.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import NamedTuple

from ..errors import UsageError
from ..text import brief

_TERM = re.compile(r"(?:(-?(?:\d+(?:\.\d*)?|\.\d+)(?:e-?\d+)?)\*)?([^*+]+)")


class Term(NamedTuple):
    """One adapter of a sum, and what its change is multiplied by."""

    scale: float
    reference: str


def terms_of(reference: str | Path) -> tuple[Term, ...]:
    """The adapters that a reference sums; empty where it names one checkpoint, without a scale.

    A sum has a `*` somewhere: `a+b` is the model `a` with the adapter `b`.
    """
    text = str(reference)
    if "*" not in text or os.path.exists(os.path.expanduser(text)):
        return ()
    matches = [_TERM.fullmatch(part) for part in text.split("+")]
    found = [Term(float(match[1] or 1), match[2]) for match in matches if match is not None]
    return tuple(found) if len(found) == len(matches) else ()


def sum_of(references: list[str], scales: list[float]) -> str:
    """The reference that names a sum; of one adapter with scale 1, its own."""
    for each in references:
        if set("*+") & set(each):
            what = f"'{brief(each)}' holds * or +, which stand between adapters"
            raise UsageError("merge-lora", what, "Rename the folder.")
    if scales == [1.0] and len(references) == 1:
        return references[0]
    terms = [
        each if scale == 1 else f"{scale!r}*{each}"
        for each, scale in zip(references, scales, strict=True)
    ]
    return "+".join(terms if set(scales) != {1.0} else [f"1*{terms[0]}", *terms[1:]])
