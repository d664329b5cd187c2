"""The hypothesis stage as text: what was written down, the verdicts, each pair alone, the tables. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from . import comparison_page
from .comparison_page import difference
from .kinds import KINDS


def section(summary: Mapping[str, Any]) -> str:
    """The section of the stage, in Markdown, without its heading."""
    said = f"Written down on {summary['written']}, before any of these pairs was trained:"
    alone = [f"*Each pair alone*, {words}" for words in _alone(summary["pairs_alone"])]
    return "\n\n".join(
        [said, f"> {summary['hypothesis']}", comparison_page.section(summary), *alone, _TRAINED]
    )


def _alone(found: Sequence[Mapping[str, Any]]) -> list[str]:
    """For each kind of pairs, the margins of its pairs with their intervals."""
    lines = []
    for regime in dict.fromkeys(one["regime"] for one in found):
        first = KINDS[regime].first_seed
        rows = [
            f"seed {first + one['seed']} {difference({**one, 'mean': one['value']})}"
            for one in found
            if one["regime"] == regime
        ]
        lines.append(
            f"{regime}, above the line at equal accuracy in domain, with the interval over resampled"
            f" unordered hands: {'; '.join(rows)}."
        )
    return lines


_TRAINED = (
    "The pairs are trained as those of the demo are (`uvmerge/demo/train.py`); those of the second task for"
    " fewer steps and at a higher rate, which was chosen by accuracies before any edit was made."
)
