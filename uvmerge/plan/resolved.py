"""Options as they are resolved for tensors, in words: of one tensor, and of a group in all layers. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ..operations.varying import in_a_line

MOST = 8  # different values that are told of a group


def resolved_text(several: Iterable[Sequence[Mapping[str, Any]]]) -> str:
    """`weight 0.5/0.3, density 1..0.5`: the options of a group of tensors.

    Values that differ within the group are told one after the other, in the order of the layers.

    Args:
        several: of each tensor, the options of each step.
    """
    values: dict[str, dict[str, None]] = {}
    for steps in several:
        for options in steps:
            for name, value in options.items():
                values.setdefault(name, {})[in_a_line(value, per_model=True)] = None
    told = (f"{name.replace('_', '-')} {_listed(list(texts))}" for name, texts in values.items())
    return ", ".join(told)


def _listed(texts: list[str]) -> str:
    if len(texts) <= MOST:
        return " → ".join(texts)
    return f"{' → '.join(texts[: MOST - 2])} → … → {texts[-1]}"
