"""The search stage as text: the claims, and what was chosen on each pair. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .comparison_page import claim_table, signed
from .kinds import KINDS

_HEAD = "| pair | on the other half | its setting | chosen on the other pairs |\n|---|---|---|---|"


def section(summary: Mapping[str, Any]) -> str:
    """The section of the stage, in Markdown, without its heading."""
    parts = [claim_table(summary["claims"])]
    for regime in dict.fromkeys(row["regime"] for row in summary["rows"]):
        own = [row for row in summary["rows"] if row["regime"] == regime]
        carried = {r["seed"]: r["margin"] for r in summary["carried"] if r["regime"] == regime}
        lines = [f"**{regime}**: {KINDS[regime].told}.", "", _HEAD]
        lines += [_line(row, carried.get(row["seed"])) for row in own]
        beating = sum(row["beats"] for row in own)
        lines += ["", f"By its own interval the search calls it more than noise on {beating} of"
                  f" {len(own)} pairs."]  # fmt: skip
        parts.append("\n".join(lines))
    return "\n\n".join([*parts, _METHOD])


def _line(row: Mapping[str, Any], carried: float | None) -> str:
    settings = ", ".join(f"{name} {value}" for name, value in row["settings"].items())
    other = "" if carried is None else signed(carried)
    return f"| {row['seed']} | {signed(row['margin'])} | {settings or 'interpolation'} | {other} |"


_METHOD = (
    "Each number is the accuracy out of domain above the line of interpolation at equal accuracy in"
    " domain, on hands on which neither the setting nor the place on the line was chosen. Where no setting"
    " lay above the line on the half that was searched on, interpolation was chosen, at 0."
)
