"""Several adapters as one fine-tuned checkpoint: `0.5*lora-a+lora-b`, each with its scale. Pure.

They are merged one after the other, each into what the one before has made, as PEFT's
`merge_and_unload` does with several. A folder whose own name has such characters wins.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection
from pathlib import Path
from typing import NamedTuple

from ..errors import InputRefused, UsageError
from ..text import brief
from .adapter import Adapter
from .adapter_config import MERGE_FIRST
from .adapter_targets import Merge

_TERM = re.compile(r"(?:(-?(?:\d+(?:\.\d*)?|\.\d+)(?:e-?\d+)?)\*)?([^*+]+)")


class Term(NamedTuple):
    """One adapter of a sum, and what its change is multiplied by."""

    scale: float
    reference: str


def terms_of(reference: str | Path) -> tuple[Term, ...]:
    """The adapters that a reference sums; empty where it names one checkpoint, without a scale."""
    text = str(reference)
    if not set("*+") & set(text) or os.path.exists(os.path.expanduser(text)):
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
    return "+".join(
        each if scale == 1 else f"{scale!r}*{each}"
        for each, scale in zip(references, scales, strict=True)
    )


def refuse_no_sum(
    adapter: Adapter, merges: list[Merge], taken: Collection[str], scale: float
) -> None:
    """Refuse an adapter that replaces tensors, or normalises them, where changes are to be added.

    Args:
        merges: what the adapter does.
        taken: names of the tensors that the adapters before it change.
    """
    for merge in merges:
        kind = {"saved": "replaces", "rows": "replaces rows of"}.get(merge.change.kind)
        shared = next((name for name in merge.tensors if name in taken), None)
        if kind and scale != 1:
            what = f"{kind} {merge.tensors[0]}, which no scale but 1 can do"
            raise InputRefused(adapter.label, what, "Leave its scale out.")
        if shared is None:
            continue
        if kind:
            what = f"{kind} {shared}, which another adapter changes"
            raise InputRefused(adapter.label, what, "Merge one of them alone.")
        if adapter.settings.use_dora:
            what = f"is a DoRA adapter, whose change of {shared} depends on the adapters before it"
            raise InputRefused(adapter.label, what, MERGE_FIRST)
